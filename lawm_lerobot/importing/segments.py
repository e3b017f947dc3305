"""The units that video sources yield: segments of footage, and things left out with the reason."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lawm_lerobot.importing.footage import Footage


@dataclass(frozen=True)
class Segment:
    """A stretch of footage with one caption. It becomes one episode, or several when it is long.

    Args:
        footage: Footage that it is a stretch of.
        relative_path: Path that the provenance shows.
        caption: Task of its episodes.
        caption_source: Origin of the caption, for the provenance.
        start_s: Beginning in seconds on the footage's clock.
        end_s: End on the same clock; None for the end of the footage.
        license_note: Licence as the provenance and the card state it.
        extra: Whatever the source needs to find the labels of this segment.
    """

    footage: Footage
    relative_path: str
    caption: str = ""
    caption_source: str = "none"
    start_s: float = 0.0
    end_s: float | None = None
    license_note: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LeftOut:
    """Something of a source that is not imported; `reason` is a few words by which the summary counts."""

    source: str
    path: str
    reason: str
    detail: str = ""


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
