"""Tasks for worker processes and the results they give: plain data, as travels between processes and lies on the disk.

A finished task is one folder with its videos and `result.json`, which appears by a rename.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from lawm_lerobot.importing.encoding import EncoderSettings
from lawm_lerobot.importing.reasons import Reason
from lawm_lerobot.importing.segments import Segment

RESULT_FILE = "result.json"


@dataclass(frozen=True)
class WriteSettings:
    """Settings with which workers write episodes, the same for every segment of an import.

    Args:
        encoder: Form of the written videos.
        fit: `crop` or `pad`, as in `ImportConfig`.
        min_frames: Length of the shortest episode.
        max_frames: Length of the longest episode.
        min_motion: Motion below which a stretch is removed; 0 keeps everything.
    """

    encoder: EncoderSettings
    fit: str
    min_frames: int
    max_frames: int
    min_motion: float = 0.0

    @property
    def fps(self) -> int:
        return self.encoder.fps


@dataclass
class Task:
    """A window of a segment, in frames on the segment's own grid.

    Args:
        number: Place in the order of all tasks, over all sources and shards.
        segment: Segment that the window is cut from.
        origin: The footage's time zero as a fraction.
        first_frame: First frame of the window.
        last_frame: Frame after its last one; None for the end of the segment.
        promised_s: Length of the footage as its container says.
        planned_s: Length of the window if the container is right.
    """

    number: int
    segment: Segment
    origin: str
    first_frame: int = 0
    last_frame: int | None = None
    promised_s: float | None = None
    planned_s: float = 0.0

    def start_s(self, fps: int) -> float:
        """Beginning of the window on the footage's clock."""
        return self.segment.start_s + self.first_frame / fps

    def end_s(self, fps: int) -> float | None:
        """End of the window on the footage's clock; None for the end of the footage."""
        return self.segment.end_s if self.last_frame is None else self.segment.start_s + self.last_frame / fps

    def times(self, fps: int) -> Iterator[float]:
        """Yield the times of the dataset's frames, without end if the window runs to that of the footage."""
        frames = (
            count(self.first_frame) if self.last_frame is None else range(self.first_frame, self.last_frame)
        )
        return (self.segment.start_s + frame / fps for frame in frames)


@dataclass
class EncodedEpisode:
    """One encoded episode of a task.

    Args:
        file: Name of its video in the task's folder.
        frames: Number of its frames.
        start_s: Beginning in seconds on the footage's clock.
        end_s: End on the same clock.
        statistics: Statistics of its pictures, as `PictureStatistics.summary` gives them.
    """

    file: str
    frames: int
    start_s: float
    end_s: float
    statistics: dict[str, list]


@dataclass
class TaskResult:
    """Outcome of a task.

    Args:
        episodes: Episodes in order.
        reason: Reason why there is no episode or, if there are some, why a part is missing.
        detail: A few words more about the reason.
        short_frames: Number of the dataset's frames in pieces that are too short for an episode.
        still_frames: Number of the dataset's frames that were removed for lack of motion.
    """

    episodes: list[EncodedEpisode] = field(default_factory=list)
    reason: Reason | None = None
    detail: str = ""
    short_frames: int = 0
    still_frames: int = 0

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> TaskResult:
        """Read what `asdict` gives."""
        reason = None if record["reason"] is None else Reason(record["reason"])
        episodes = [EncodedEpisode(**episode) for episode in record["episodes"]]
        return cls(**{**record, "episodes": episodes, "reason": reason})


def task_folder(tasks_folder: Path, number: int) -> Path:
    """Folders of a thousand: file systems are slow with hundreds of thousands of entries in one."""
    return tasks_folder / f"{number // 1000:05d}" / f"{number:08d}"


def read_result(folder: Path) -> TaskResult | None:
    """Read the committed result of a task; None if there is none."""
    try:
        return TaskResult.from_dict(json.loads((folder / RESULT_FILE).read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
