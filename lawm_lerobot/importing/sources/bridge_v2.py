"""BridgeData V2, the raw release (60,096 robot trajectories; Walke et al., CoRL 2023)."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from lawm_lerobot.importing.footage import NumberedPictures
from lawm_lerobot.importing.segments import ImportSettingsError, LeftOut, Segment
from lawm_lerobot.importing.sources.base import VideoSource


@VideoSource.register_subclass("bridge_v2")
@dataclass
class BridgeV2Source(VideoSource):
    """One segment per trajectory and camera: `.../traj_group*/traj*/images<camera>/im_<n>.jpg`, caption from `lang.txt`.

    A trajectory is a folder with pictures, whatever the folders above it are called.

    The pickles beside the pictures (obs_dict.pkl, policy_out.pkl, agent_data.pkl) are never opened: loading a pickle
    runs whatever code it holds.

    Args:
        cameras: Numbers of the images<n> folders to import; 0 is the camera over the shoulder.
        frame_rate: Number of pictures per second; the dataset was recorded at 5.
    """

    cameras: list[int] = field(default_factory=lambda: [0])
    frame_rate: float = 5.0

    DEFAULT_LICENSE_NOTE: ClassVar[str] = "BridgeData V2: CC BY 4.0"

    def segments(self) -> Iterator[Segment | LeftOut]:
        root = self.folder()
        if not 0 < self.frame_rate < math.inf:
            raise ImportSettingsError(f"--source.frame_rate={self.frame_rate} must be a positive number.")
        found = False
        for folder, names, _ in os.walk(root, followlinks=False):
            names.sort(key=lambda name: (len(name), name))  # traj2 before traj10
            trajectory = Path(folder)
            pictures_below = [name for name in names if re.fullmatch(r"images\d+", name)]
            empty = re.fullmatch(r"traj\d+", trajectory.name) and all("images" in name for name in names)
            if not pictures_below and not empty:
                continue
            names[:] = []  # nothing below a trajectory is another one
            found = True
            caption, source = self._caption(trajectory)
            for camera in self.cameras:
                images = trajectory / f"images{int(camera)}"
                if not images.is_dir():
                    yield self.left_out(images.relative_to(root), "no such camera")
                    continue
                pictures = NumberedPictures(str(images), self.frame_rate)
                yield self.segment(pictures, caption=caption, caption_source=source)
        if not found:
            raise ImportSettingsError(f"No traj_group*/traj* folder below --source.path={root}.")

    def _caption(self, trajectory: Path) -> tuple[str, str]:
        """The first line of lang.txt that is a sentence; its other lines are 'confidence: ...' and more wordings."""
        try:
            lines = (trajectory / "lang.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return self.default_caption, "none"
        sentences = [line.strip() for line in lines if line.strip() and "confidence" not in line]
        return (sentences[0], "lang.txt") if sentences else (self.default_caption, "none")
