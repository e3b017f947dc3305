"""Something-Something v2 (220,847 short clips of people handling things; Goyal et al., ICCV 2017)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from lawm_lerobot.importing.reasons import Reason
from lawm_lerobot.importing.segments import ImportSettingsError, LeftOut, Segment
from lawm_lerobot.importing.sources.base import (
    VIDEO_EXTENSIONS,
    VideoSource,
    find_file,
    first_file,
    read_json,
)

VIDEO_FOLDERS = ("20bn-something-something-v2", "videos", ".")
SPLITS = ("train", "validation", "test")


@VideoSource.register_subclass("something_something_v2")
@dataclass
class SomethingSomethingV2Source(VideoSource):
    """<id>.webm, or <id>.mp4 and so on, and, per split, a JSON list of {id, label, template, placeholders}; the test split has only ids.

    `path` holds `20bn-something-something-v2/<id>.webm` and either `labels/<split>.json` or
    `something-something-v2-<split>.json`, as the dataset is handed out.

    Args:
        splits: Splits to import, out of train, validation and test.
        caption: Kind of caption: `label` ("holding potato next to vicks vaporub bottle") or `template` ("Holding something next to
            something").
    """

    splits: list[str] = field(default_factory=lambda: ["train"])
    caption: str = "label"

    DEFAULT_LICENSE_NOTE: ClassVar[str] = (
        "Something-Something v2: Qualcomm's research licence; videos may not be passed on"
    )

    def segments(self) -> Iterator[Segment | LeftOut]:
        root = self.folder()
        if self.caption not in ("label", "template"):
            raise ImportSettingsError(f"--source.caption={self.caption} must be label or template.")
        videos = next((root / name for name in VIDEO_FOLDERS[:-1] if (root / name).is_dir()), root)
        for split in self.splits:
            if split not in SPLITS:
                raise ImportSettingsError(f"--source.splits has {split!r}; it may have {', '.join(SPLITS)}.")
            labels = find_file(
                root,
                [f"labels/{split}.json", f"something-something-v2-{split}.json", f"{split}.json"],
                "--source.path",
            )
            for entry in read_json(labels):
                yield self._segment(videos, split, entry)

    def _segment(self, videos: Path, split: str, entry: dict) -> Segment | LeftOut:
        number = str(entry.get("id", ""))
        if not re.fullmatch("[0-9]+", number):  # the id becomes a file name
            return self.left_out(number, Reason.NOT_AN_ID, f"in the labels of {split}")
        path = first_file(videos / f"{number}{extension}" for extension in (".webm", *VIDEO_EXTENSIONS))
        if path is None:
            return self.left_out(f"{number}.webm", "named in the labels but not there", split)
        template = str(entry.get("template", "")).replace("[", "").replace("]", "")
        text = str(entry.get("label", "")) if self.caption == "label" else template
        if not text:
            return self.segment(path, caption_source="none")
        return self.segment(path, caption=text, caption_source=f"{self.caption} ({split})")
