"""The unit every video source speaks in: a clip, or a thing that was left out and why."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Clip:
    """A stretch of one video with one caption. It becomes one episode, or several when it is long.

    `kind` says how `path` is read: "video" (a video file), "images" (a folder of numbered pictures at `frame_rate`) or
    "parquet" (pictures in a LeRobotDataset's data file; `extra` has the column and rows).
    """

    path: str  # absolute
    relative_path: str  # what the provenance shows
    caption: str = ""
    caption_source: str = "none"
    start_s: float = 0.0
    end_s: float | None = None  # None: to the end
    license_note: str = ""
    kind: str = "video"
    frame_rate: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class LeftOut:
    """Something of a source that is not imported, with a reason of a few words."""

    source: str
    path: str
    reason: str
    detail: str = ""

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


class ImportSettingsError(ValueError):
    """A setting that cannot work, in one sentence that names the flag to change."""


def readable(path: str) -> str:
    """A path as valid text: bytes that are no UTF-8 are written as \\xNN (parquet and JSON hold text only)."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def inside(root: Path, name: str) -> Path | None:
    """`name` resolved below `root`, or None when it would leave it (absolute, ../, or through a link)."""
    if "\0" in name:
        return None
    try:
        resolved = (root / name).resolve()
        return resolved if resolved.is_relative_to(root.resolve()) else None
    except (OSError, RuntimeError):  # a loop of links
        return None
