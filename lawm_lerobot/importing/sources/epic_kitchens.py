"""EPIC-KITCHENS-100 (100 hours of egocentric kitchen video; Damen et al., IJCV 2022)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from lawm_lerobot.importing.reasons import Reason
from lawm_lerobot.importing.segments import LeftOut, Segment
from lawm_lerobot.importing.sources.base import (
    VIDEO_EXTENSIONS,
    VideoSource,
    find_file,
    first_file,
    read_table,
    seconds,
)


@VideoSource.register_subclass("epic_kitchens")
@dataclass
class EpicKitchensSource(VideoSource):
    """One segment per annotated action: start_timestamp to stop_timestamp with its narration.

    `path` holds `<participant>/videos/<video_id>.MP4` (or `EPIC-KITCHENS/...` above it) and the annotation CSVs
    (`EPIC_100_train.csv`, `EPIC_100_validation.csv`) there, in `annotations/` or `epic-kitchens-100-annotations/`.

    Args:
        splits: Annotation files to read: train, validation.
    """

    splits: list[str] = field(default_factory=lambda: ["train"])

    DEFAULT_LICENSE_NOTE: ClassVar[str] = "EPIC-KITCHENS-100: CC BY-NC 4.0"

    def segments(self) -> Iterator[Segment | LeftOut]:
        root = self.folder()
        for split in self.splits:
            name = f"EPIC_100_{split}.csv"
            released = "epic-kitchens-100-annotations"
            places = ("", "annotations/", f"{released}/", f"{released}-master/")
            annotations = find_file(root, [place + name for place in places], "--source.path")
            for row in read_table(annotations):
                yield self._segment(row, name)

    def _segment(self, row: dict, annotations: str) -> Segment | LeftOut:
        root = self.folder()
        video = str(row.get("video_id", ""))
        participant = str(row.get("participant_id") or video.split("_")[0])
        entry = str(row.get("narration_id") or video)
        # Both become parts of a path.
        if not re.fullmatch(r"[A-Za-z0-9]+_[0-9]+", video) or not re.fullmatch(r"[A-Za-z0-9]+", participant):
            return self.left_out(entry, Reason.NOT_AN_ID, f"in {annotations}")
        places = [
            f"{above}{participant}/{folder}{video}{extension}"
            for above in ("", "EPIC-KITCHENS/")
            for folder in ("videos/", "")
            for extension in (".MP4", *VIDEO_EXTENSIONS)
        ]
        path = first_file(root / place for place in places)
        if path is None:
            return self.left_out(places[0], "named in the annotations but not there", entry)
        try:
            start, end = seconds(row.get("start_timestamp")), seconds(row.get("stop_timestamp"))
            if start is None or end is None or end <= start:
                raise ValueError(f"{row.get('start_timestamp')} to {row.get('stop_timestamp')}")
        except ValueError as error:
            return self.left_out(entry, Reason.UNUSABLE_TIMES, str(error))
        return self.segment(
            path,
            caption=str(row.get("narration") or self.default_caption),
            caption_source=f"narration ({annotations})",
            start_s=start,
            end_s=end,
        )
