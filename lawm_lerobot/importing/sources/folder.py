"""A folder of videos, at any depth."""

from __future__ import annotations

import errno
import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lawm_lerobot.importing.footage.containers import sniff_container
from lawm_lerobot.importing.reasons import Reason, UnreadableVideoError
from lawm_lerobot.importing.segments import ImportSettingsError, LeftOut, Segment, inside
from lawm_lerobot.importing.sources.base import (
    VIDEO_EXTENSIONS,
    VideoSource,
    decode_text,
    read_table,
    seconds,
)

PROXY_EXTENSIONS = (".lrv", ".lrf")
# Photographs and sound in the containers of video.
OTHER_EXTENSIONS = (
    ".heic",
    ".heif",
    ".avif",
    ".cr3",
    ".m4a",
    ".m4b",
    ".mka",
    ".oga",
    ".ogg",
    ".opus",
    ".wma",
)
CAPTION_FILES = ("captions.csv", "captions.jsonl")
PATH_COLUMNS = ("path", "file", "video")
CAPTION_COLUMNS = ("caption", "text", "task")
START_COLUMNS = ("start", "start_s", "start_time")
END_COLUMNS = ("end", "end_s", "end_time")
COLUMNS = (*PATH_COLUMNS, *CAPTION_COLUMNS, *START_COLUMNS, *END_COLUMNS)


type _Rows = list[tuple[str, float | None, float | None]]  # caption, start and end in seconds


@VideoSource.register_subclass("folder")
@dataclass
class FolderSource(VideoSource):
    """Every video below `path`, by its name or its first bytes.

    A caption is taken from the first of these that has one: a caption file; `<video>.txt` beside the video; the name of
    the folder the video is in. A caption file is CSV or JSONL with `path` (relative to the folder), `caption` and,
    optionally, `start` and `end` in seconds; a video with several rows gives one segment per row, and only those. A row
    that cannot be used gives none.

    Args:
        captions: Caption file, relative to `path` or absolute; by default captions.csv or captions.jsonl if there.
        only_captioned: Leave out videos that the caption file does not name.
        folder_names: Use folder names as captions.
        follow_links: Also read links that lead out of the folder.
    """

    captions: Path | None = None
    only_captioned: bool = False
    folder_names: bool = True
    follow_links: bool = False

    def segments(self) -> Iterator[Segment | LeftOut]:
        root = self.folder()
        captions, problems, source = self._read_captions(root)
        yield from problems
        found: list[Path] = []
        for item in self._walk(root):
            if isinstance(item, LeftOut):
                yield item
            else:
                found.append(item)
        seen: set[Path] = set()
        for path in found:
            real = path.resolve()
            if real in seen:
                yield self.left_out(path.relative_to(root), "the same file under another name")
                continue
            seen.add(real)
            rows = captions.pop(_same_name(real), None)
            if rows is None:
                if self.only_captioned:
                    yield self.left_out(path.relative_to(root), "not in the caption file")
                    continue
                caption, caption_source = self._own_caption(root, path)
                yield self.segment(path, caption=caption, caption_source=caption_source)
                continue
            for caption, start, end in rows:
                own, own_source = (caption, source) if caption else self._own_caption(root, path)
                times = {"start_s": start or 0.0, "end_s": end}
                yield self.segment(path, caption=own, caption_source=own_source, **times)
        for missing in captions:
            yield self.left_out(
                os.path.relpath(missing, _same_name(root)), f"named in {source} but not there"
            )

    def _walk(self, root: Path) -> Iterator[Path | LeftOut]:
        """Files with a video's extension, sorted; links are followed once, and out of the folder only on request."""
        visited: set[Path] = set()
        stack = [root]
        while stack:
            folder = stack.pop()
            visited.add(folder.resolve())
            try:
                names = sorted(os.listdir(folder))
            except OSError as error:
                denied = isinstance(error, PermissionError)
                fault = Reason.NO_PERMISSION if denied else Reason.CANNOT_BE_READ
                yield self.left_out(folder.relative_to(root), fault)
                continue
            folders = []
            for name in names:
                path = folder / name
                is_video = path.suffix.lower() in VIDEO_EXTENSIONS or _looks_like_video(path)
                if path.is_symlink():
                    try:
                        real = path.resolve(strict=True)
                    except (OSError, RuntimeError) as error:
                        if is_video:
                            loop = (
                                isinstance(error, RuntimeError) or getattr(error, "errno", 0) == errno.ELOOP
                            )
                            reason = "a loop of links" if loop else "a link to nothing"
                            yield self.left_out(path.relative_to(root), reason)
                        continue
                    if not self.follow_links and not real.is_relative_to(root):
                        if is_video or real.is_dir():
                            yield self.left_out(
                                path.relative_to(root),
                                "a link out of the folder",
                                "--source.follow_links=true imports it",
                            )
                        continue
                    if real.is_dir() and (real in visited or root.is_relative_to(real)):
                        continue  # a loop, or a folder that has been read
                if path.is_dir():
                    folders.append(path)
                elif path.suffix.lower() in PROXY_EXTENSIONS:
                    yield self.left_out(path.relative_to(root), "a camera's small copy of another video")
                elif is_video:
                    yield path
            stack.extend(reversed(folders))

    def _own_caption(self, root: Path, path: Path) -> tuple[str, str]:
        names = [path.with_suffix(".txt"), path.with_name(path.name + ".txt")]
        forms = [unicodedata.normalize(form, name.name) for form in ("NFC", "NFD") for name in names]
        for beside in dict.fromkeys([*names, *map(path.with_name, forms)]):
            # A link could lead anywhere, and its text would end up in the dataset.
            if beside.is_file() and beside.resolve().is_relative_to(root):
                try:
                    data = beside.read_bytes()
                except OSError:
                    continue
                try:
                    text = decode_text(data)
                except UnicodeDecodeError:
                    text = data.decode("utf-8", errors="replace")
                text = " ".join(text[:2000].split())
                if text:
                    return text, "text file"
        if self.folder_names and path.parent != root:
            return " ".join(path.parent.name.replace("_", " ").replace("-", " ").split()), "folder name"
        return self.default_caption, "default" if self.default_caption else "none"

    def _caption_file(self, root: Path) -> Path | None:
        if self.captions is not None:
            path = self.captions if self.captions.is_absolute() else root / self.captions
            if not path.is_file():
                raise ImportSettingsError(f"--source.captions={self.captions} is not a file in {root}.")
            return path
        return next((root / name for name in CAPTION_FILES if (root / name).is_file()), None)

    def _read_captions(self, root: Path) -> tuple[dict[str, _Rows], list[LeftOut], str]:
        path = self._caption_file(root)
        if path is None:
            return {}, [], ""
        captions: dict[str, _Rows] = {}
        problems: list[LeftOut] = []
        for number, row in enumerate(read_table(path), 1):
            place = f"row {number} of {path.name}"
            unknown = [name for name in row if name is not None and name not in COLUMNS]
            if unknown:
                raise ImportSettingsError(
                    f"{path.name} has the columns {', '.join(map(repr, unknown))}, which mean nothing here; the known "
                    f"ones are {', '.join(COLUMNS)}. Rename or remove them, or choose another file (--source.captions)."
                )
            name = str(_first(row, PATH_COLUMNS)).strip()
            if not name:
                raise ImportSettingsError(
                    f"Row {number} of {path.name} has no path; the columns must be path, caption and optionally "
                    "start and end (--source.captions)."
                )
            real = inside(root, name)
            if real is not None and "\\" in name and not real.exists():
                real = inside(root, name.replace("\\", "/"))
            if real is None:
                problems.append(self.left_out(name, Reason.LEADS_OUT, place))
                continue
            rows = captions.setdefault(_same_name(real), [])
            try:
                if None in row:
                    raise ValueError(
                        "more values than columns; a caption with a separator in it needs quotes"
                    )
                start = seconds(_first(row, START_COLUMNS))
                end = seconds(_first(row, END_COLUMNS))
                if end is not None and end <= (start or 0.0):
                    raise ValueError(f"end {end} is not after start {start or 0.0}")
            except ValueError as error:
                problems.append(self.left_out(name, Reason.UNUSABLE_TIMES, f"{place}: {error}"))
                continue
            rows.append((" ".join(str(_first(row, CAPTION_COLUMNS)).split()), start, end))
        return captions, problems, path.name


def _looks_like_video(path: Path) -> bool:
    if path.suffix.lower() in OTHER_EXTENSIONS:
        return False
    try:
        return bool(sniff_container(str(path)))
    except UnreadableVideoError:
        return False


def _same_name(path: Path) -> str:
    """A path by which accented letters are the same whether a system stores them as one character or as two."""
    return unicodedata.normalize("NFC", str(path))


def _first(row: dict[str, Any], names: tuple[str, ...]) -> Any:
    """The first value among these columns that is not empty."""
    values = (row.get(name) for name in names)
    return next((value for value in values if value is not None and str(value).strip()), "")
