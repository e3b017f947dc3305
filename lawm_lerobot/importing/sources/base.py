"""The contract of a video source: a dataclass with flags and one generator, nothing else."""

from __future__ import annotations

import abc
import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import draccus
import numpy as np

from lawm_lerobot.importing.footage import Footage, VideoFile
from lawm_lerobot.importing.segments import ImportSettingsError, LeftOut, Segment, readable

# Files of these names are video, and listed if they cannot be read; others are if their first bytes say so.
VIDEO_EXTENSIONS = (
    *(
        ".mp4",
        ".mov",
        ".mkv",
        ".avi",
        ".webm",
        ".m4v",
        ".mts",
        ".m2ts",
        ".ts",
        ".3gp",
        ".3g2",
        ".wmv",
        ".asf",
    ),
    *(".flv", ".mpg", ".mpeg", ".vob", ".gif", ".ogv", ".mxf", ".insv", ".qt"),
)


@dataclass
class VideoSource(draccus.ChoiceRegistry, abc.ABC):
    """A place with videos. To add one: subclass, register, and yield segments.

        @VideoSource.register_subclass("my_videos")
        @dataclass
        class MyVideos(VideoSource):
            def segments(self):
                for video in sorted(self.folder().glob("*.mp4")):
                    yield self.segment(video, caption="a hand moves things", caption_source="constant")

    Args:
        path: Folder of the source on this machine.
        name: Name in the provenance and the summary; by default the type and the folder.
        weight: Share of the hours in a mixture, relative to the other weighted sources. Sources with a
            weight are cut down, never repeated, until their hours stand in the ratio of their weights.
        max_episodes: Largest number of episodes to import from this source.
        max_hours: Largest number of hours to import from this source.
        license_note: Note on the licence of this source's videos, for the provenance and the card.
        default_caption: Caption of videos that have none.
    """

    path: Path | None = None
    name: str | None = None
    weight: float | None = None
    max_episodes: int | None = None
    max_hours: float | None = None
    license_note: str | None = None
    default_caption: str = ""

    DEFAULT_LICENSE_NOTE: ClassVar[str] = "not stated; ask whoever made the videos"

    @property
    def type(self) -> str:
        """The registered name, as in --source.type."""
        return str(self.get_choice_name(self.__class__))

    @abc.abstractmethod
    def segments(self) -> Iterator[Segment | LeftOut]:
        """Yield every segment of the source, in an order that is the same on every run and machine."""

    def labels(self, segment: Segment, times: np.ndarray) -> dict[str, np.ndarray]:
        """Labels (e.g. actions) at `times` (N,) seconds on the footage's clock, for sources that declare features."""
        return {}

    def label_features(self) -> dict[str, dict]:
        """LeRobot features of `labels`, empty for almost every source."""
        return {}

    def title(self) -> str:
        """The source's name."""
        if self.name:
            return self.name
        place = self.path.name if self.path is not None else ""
        return f"{self.type}:{place}" if place else self.type

    def folder(self) -> Path:
        """The source's folder, resolved."""
        if self.path is None:
            raise ImportSettingsError(
                f"A source of type {self.type} needs a folder: set --source.path (or `path:` in the list of sources)."
            )
        path = Path(os.path.expanduser(self.path))
        if not path.is_dir():
            raise ImportSettingsError(f"--source.path={path} is not a folder.")
        return path.resolve()

    def segment(self, footage: Path | Footage, **fields: Any) -> Segment:
        """A segment of a video file, or of other footage, below the source's folder, with the source's licence note."""
        if isinstance(footage, Path):
            footage = VideoFile(str(footage))
        path = Path(footage.path)
        try:
            relative = path.relative_to(self.folder())
        except ValueError:
            relative = Path(path.name)
        fields.setdefault("caption", self.default_caption)
        return Segment(
            footage=footage,
            relative_path=readable(str(relative)),
            license_note=self.license_note or self.DEFAULT_LICENSE_NOTE,
            **fields,
        )

    def left_out(self, path: str | Path, reason: str, detail: str = "") -> LeftOut:
        """Something of this source that is not imported."""
        return LeftOut(self.title(), readable(str(path)), reason, detail)


def decode_text(data: bytes) -> str:
    """Text in UTF-8 or UTF-16, with or without a byte order mark; a UnicodeDecodeError for anything else."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    if b"\0" in data[:200]:  # of every two bytes of Latin letters one is zero
        return data.decode("utf-16-be" if data[:1] == b"\0" else "utf-16-le")
    return data.decode("utf-8-sig")


def read_table(path: Path) -> list[dict[str, Any]]:
    """Rows of a CSV (with a header) or of a JSONL file, as dictionaries.

    Names of columns are trimmed and in lower case. Columns of a CSV are separated by what its header has most of: commas,
    semicolons or tabs. Values beyond the header's columns come under the name None.
    """
    try:
        text = decode_text(path.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise ImportSettingsError(
            f"The caption file {path} cannot be read as UTF-8 or UTF-16 text: {error}; save it as UTF-8."
        ) from error
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        rows = []
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ImportSettingsError(f"Line {number} of {path} is not JSON: {error}.") from error
            if not isinstance(row, dict):
                raise ImportSettingsError(f"Line {number} of {path} is not a JSON object.")
            rows.append(_plain_names(row))
        return rows
    header = text.split("\n", 1)[0]
    separator = max(",;\t", key=header.count)
    table = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    return [_plain_names(row) for row in table]


def _plain_names(row: dict[Any, Any]) -> dict[Any, Any]:
    plain = {name.strip().casefold() if isinstance(name, str) else name: value for name, value in row.items()}
    if not plain.get(""):
        plain.pop("", None)  # a separator at the end of the header
    return plain


def read_json(path: Path) -> Any:
    """A JSON file of a source."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ImportSettingsError(f"{path} cannot be read as JSON: {error}") from error


def find_file(folder: Path, names: list[str], flag: str) -> Path:
    """The first of `names` that exists below `folder`; if none does, the error names the flag to set."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise ImportSettingsError(f"None of {', '.join(names)} is in {folder}: set {flag}.")


def first_file(places: Iterable[Path]) -> Path | None:
    """The first of these paths that is a file."""
    return next((place for place in places if place.is_file()), None)


def seconds(value: Any) -> float | None:
    """'12.5', 12.5, '00:01:02.5', '1:02,5' or '' -> seconds or None; a ValueError for anything else."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return float(value)
    parts = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:[.,]\d*)?|[.,]\d+)", str(value).strip())
    if parts is None:
        raise ValueError(f"{value!r} is not a time in seconds or as HH:MM:SS.s")
    hours, minutes, rest = parts.groups()
    total = float(rest.replace(",", "."))
    if (minutes and total >= 60) or (hours and int(minutes) >= 60):
        raise ValueError(f"{value!r} has more than 59 minutes or seconds")
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + total
