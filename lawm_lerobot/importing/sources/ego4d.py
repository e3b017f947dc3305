"""Ego4D (3,670 hours of egocentric daily life; Grauman et al., CVPR 2022)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lawm_lerobot.importing.reasons import Reason
from lawm_lerobot.importing.segments import ImportSettingsError, LeftOut, Segment
from lawm_lerobot.importing.sources.base import (
    VIDEO_EXTENSIONS,
    VideoSource,
    find_file,
    first_file,
    read_json,
    seconds,
)

VERSIONS = ("", "v2/", "v1/", "v2_1/")
VIDEO_FOLDERS = ("full_scale", "video_540ss", "clips")


@VideoSource.register_subclass("ego4d")
@dataclass
class Ego4DSource(VideoSource):
    """The videos of the manifest (ego4d.json), cut around the narrations of annotations/narration.json.

    A narration is one moment and one sentence. Its segment reaches to the middle between it and its neighbours, and at most
    `clip_s / 2` to either side. `path` is the download tool's output directory (`v2/full_scale/<video_uid>.mp4`,
    `v2/annotations/narration.json`, `ego4d.json`) or one version's folder in it.

    Args:
        clip_s: Length of the longest segment around a narration, in seconds.
        narrations: Cut around narrations; False imports whole videos, captioned with their scenarios.
        narration_pass: Annotator whose sentences are taken: narration_pass_1 or narration_pass_2.
    """

    clip_s: float = 8.0
    narrations: bool = True
    narration_pass: str = "narration_pass_1"

    DEFAULT_LICENSE_NOTE: ClassVar[str] = "Ego4D licence agreement; videos may not be passed on"

    def segments(self) -> Iterator[Segment | LeftOut]:
        root = self.folder()
        if not 0 < self.clip_s < math.inf:
            raise ImportSettingsError(f"--source.clip_s={self.clip_s} must be a positive number of seconds.")
        manifests = [f"{version}ego4d.json" for version in VERSIONS]
        manifest = read_json(find_file(root, manifests, "--source.path"))
        narrated: dict[str, Any] = {}
        if self.narrations:
            places = [version + place for version in VERSIONS for place in ("annotations/", "")]
            names = [f"{place}narration.json" for place in places]
            narrated = read_json(find_file(root, names, "--source.narrations=false or --source.path"))
            narrated = narrated.get("videos", narrated)  # the second release nests them
        for video in sorted(manifest.get("videos", []), key=lambda entry: str(entry.get("video_uid"))):
            yield from self._video(root, video, narrated)

    def _video(self, root: Path, video: dict, narrated: dict[str, Any]) -> Iterator[Segment | LeftOut]:
        uid = str(video.get("video_uid", ""))
        if not re.fullmatch(r"[A-Za-z0-9-]+", uid):  # the id becomes a file name
            yield self.left_out(uid, Reason.NOT_AN_ID, "in ego4d.json")
            return
        places = [root / version / folder for version in VERSIONS for folder in VIDEO_FOLDERS]
        path = first_file(place / f"{uid}{extension}" for place in places for extension in VIDEO_EXTENSIONS)
        if path is None:
            yield self.left_out(f"{uid}.mp4", "named in the manifest but not there")
            return
        if not self.narrations:
            scenarios = ", ".join(str(scenario) for scenario in video.get("scenarios") or [])
            yield self.segment(path, caption=scenarios or self.default_caption, caption_source="scenarios")
            return
        entries = (narrated.get(uid) or {}).get(self.narration_pass) or {}
        moments: list[tuple[float, str]] = []
        for entry in entries.get("narrations", []):
            text, moment = str(entry.get("narration_text", "")), entry.get("timestamp_sec")
            try:
                at = seconds(moment)
                if at is None:
                    raise ValueError("no timestamp_sec")
            except ValueError as error:
                yield self.left_out(path.name, Reason.UNUSABLE_TIMES, f"{text!r}: {error}")
                continue
            moments.append((at, self._sentence(text)))
        moments.sort()
        if not moments:
            yield self.left_out(path.name, "no narration", self.narration_pass)
            return
        for index, (moment, sentence) in enumerate(moments):
            before = moments[index - 1][0] if index else 0.0
            after = moments[index + 1][0] if index + 1 < len(moments) else float("inf")
            start = max((before + moment) / 2 if index else 0.0, moment - self.clip_s / 2)
            end = min((moment + after) / 2, moment + self.clip_s / 2)
            if end > start:
                caption, source = sentence or self.default_caption, self.narration_pass
                yield self.segment(path, caption=caption, caption_source=source, start_s=start, end_s=end)

    @staticmethod
    def _sentence(text: str) -> str:
        """'#C C picks up a cup #unsure' -> 'C picks up a cup': tags out, the camera wearer stays 'C'."""
        return " ".join(re.sub(r"#\s*[Uu]nsure|#\w+", " ", text).split())
