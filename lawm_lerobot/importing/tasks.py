"""Tasks for worker processes: a window of a segment in, encoded episodes out.

A finished task is one folder with its videos and `result.json`, which appears by a rename.
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from lawm_lerobot.importing.encoding import EncoderSettings, EpisodeEncoder
from lawm_lerobot.importing.fitting import PictureMaker
from lawm_lerobot.importing.footage import Probe, Reading
from lawm_lerobot.importing.reasons import Reason, UnreadableVideoError
from lawm_lerobot.importing.resampling import on_grid, without_still_stretches
from lawm_lerobot.importing.segments import Segment

RESULT_FILE = "result.json"
REPORT_EVERY_S = 5.0  # of source video


@dataclass(frozen=True)
class WriteSettings:
    """Settings with which workers write episodes, the same for every segment of an import; lengths in frames.

    `device` is the hardware that decodes, None for the processor.
    """

    encoder: EncoderSettings
    fit: str
    min_frames: int
    max_frames: int
    min_motion: float = 0.0
    device: str | None = None

    @property
    def fps(self) -> int:
        return self.encoder.fps


@dataclass
class Task:
    """A window of a segment, in frames on the segment's own grid.

    Args:
        number: Place in the order of all tasks, over all sources and shards.
        segment: Segment that the window is cut from.
        probe: Claims of the footage.
        first_frame: First frame of the window.
        last_frame: Frame after its last one; None for the end of the segment.
        planned_s: Length of the window if the container is right.
    """

    number: int
    segment: Segment
    probe: Probe
    first_frame: int = 0
    last_frame: int | None = None
    planned_s: float = 0.0

    def start_s(self, fps: int) -> float:
        """Beginning of the window on the footage's clock."""
        return self.segment.start_s + self.first_frame / fps

    def end_s(self, fps: int) -> float | None:
        """End of the window on the footage's clock; None for the end of the footage."""
        return self.segment.end_s if self.last_frame is None else self.segment.start_s + self.last_frame / fps

    def times(self, fps: int) -> Iterator[float]:
        """Yield the times of the dataset's frames, without end if the window runs to that of the footage."""
        endless = self.last_frame is None
        frames = count(self.first_frame) if endless else range(self.first_frame, self.last_frame or 0)
        return (self.segment.start_s + frame / fps for frame in frames)


@dataclass
class EncodedEpisode:
    """One encoded episode of a task, from `start_s` to `end_s` on the footage's clock, with its `PictureStatistics`."""

    file: str
    frames: int
    start_s: float
    end_s: float
    statistics: dict[str, list]


@dataclass
class TaskResult:
    """Outcome of a task.

    Args:
        reason: Reason why there is no episode or, if there are some, why a part is missing.
        short_frames: Number of the dataset's frames in pieces that are too short for an episode.
        still_frames: Number of the dataset's frames that were removed for lack of motion.
        jumps: Places where the footage's clock jumps and an episode ends.
    """

    episodes: list[EncodedEpisode] = field(default_factory=list)
    reason: Reason | None = None
    detail: str = ""
    short_frames: int = 0
    still_frames: int = 0
    jumps: list[str] = field(default_factory=list)

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


def encode_task(
    task: Task, settings: WriteSettings, folder: Path, progress: Callable[[float], None]
) -> TaskResult:
    """Decode, resample and encode a task's episodes as folder/<number>.mp4.

    `progress` is called now and then with the source seconds done since the last call.
    """
    fps = settings.fps
    reading = _reading(task, settings, task.start_s(fps), task.end_s(fps))
    writer = _EpisodeWriter(folder, settings)
    result = TaskResult(writer.episodes)
    reported = reading.start_s
    shown = task.segment.footage.frames(reading, _picture_maker(settings))
    grid = on_grid(shown, task.times(fps), reading)
    moving = without_still_stretches(grid, fps, settings.min_motion) if settings.min_motion > 0 else grid
    try:
        for sample in moving:
            if sample is None:
                writer.cut()
                continue
            time, image = sample
            writer.add(time, image)
            if time - reported > REPORT_EVERY_S:
                progress(time - reported)
                reported = time
    except UnreadableVideoError as error:
        result.reason, result.detail = error.reason, error.detail
    writer.cut()  # What came before a fault is good.
    result.short_frames, result.jumps = writer.short_frames, reading.jumps
    written = sum(episode.frames for episode in result.episodes)
    result.still_frames = max(0, reading.sampled - written - result.short_frames)
    if result.reason is None:
        explain = _explain_part if result.episodes else _explain_nothing
        result.reason, result.detail = explain(task, settings, reading, result)
    return result


class _EpisodeWriter:
    """Pictures -> episodes of the allowed lengths, one video each."""

    def __init__(self, folder: Path, settings: WriteSettings):
        self.folder, self.settings = folder, settings
        self.episodes: list[EncodedEpisode] = []
        self.short_frames = 0
        self._encoder: EpisodeEncoder | None = None
        self._path = folder
        self._first_s = self._last_s = 0.0

    def add(self, time: float, image: np.ndarray) -> None:
        """Append a picture to the episode, which is a new one if the last is as long as it may be."""
        if self._encoder is not None and self._encoder.frames >= self.settings.max_frames:
            self.cut()
        if self._encoder is None:
            self._path = self.folder / f"{len(self.episodes):05d}.mp4"
            self._encoder = EpisodeEncoder(self._path, self.settings.encoder)
            self._first_s = time
        self._encoder.add(image)
        self._last_s = time

    def cut(self) -> None:
        """Finish the episode, if one is begun; one that is too short is only counted."""
        encoder, self._encoder = self._encoder, None
        if encoder is None:
            return
        encoder.close()
        if encoder.frames < self.settings.min_frames:
            self.short_frames += encoder.frames
            self._path.unlink()
            return
        end_s, statistics = self._last_s + 1 / self.settings.fps, encoder.statistics.summary()
        self.episodes.append(
            EncodedEpisode(self._path.name, encoder.frames, self._first_s, end_s, statistics)
        )


def _reading(task: Task, settings: WriteSettings, start_s: float, end_s: float | None) -> Reading:
    origin, track = Fraction(task.probe.origin), task.probe.track
    return Reading(start_s, end_s, origin, track, fps=settings.fps, device=settings.device)


def _picture_maker(settings: WriteSettings) -> PictureMaker:
    return PictureMaker(settings.encoder.height, settings.encoder.width, settings.fit)


def _explain_nothing(
    task: Task, settings: WriteSettings, reading: Reading, result: TaskResult
) -> tuple[Reason | None, str]:
    """Reason and detail of a task that gave no episode; no reason if there was nothing to give."""
    nothing_left = not reading.errors and reading.shown_to_s <= reading.start_s
    if task.first_frame > 0 and nothing_left and not task.segment.footage.ends_early(task.probe):
        return None, ""  # a window after the end of a video whose container says that it is longer
    if not reading.frames:
        if reading.errors:
            return Reason.CANNOT_BE_DECODED, reading.errors[0]
        return Reason.NO_FRAMES, ""
    if reading.frames == 1 and task.segment.start_s == 0 and reading.end_s is None:
        return Reason.ONE_FRAME, ""
    if reading.jumps and not reading.sampled:
        return None, ""  # a window within the jump
    if reading.shown_to_s <= reading.start_s:
        ends = f"starts at {reading.start_s:.2f} s, the video ends at {reading.shown_to_s:.2f} s"
        return Reason.STARTS_TOO_LATE, ends
    if result.short_frames:
        return Reason.TOO_SHORT, f"{result.short_frames / settings.fps:.2f} s"
    if result.still_frames:
        return Reason.NO_MOTION, ""
    return Reason.TOO_SHORT, "less than one frame of the dataset"


def _explain_part(
    task: Task, settings: WriteSettings, reading: Reading, result: TaskResult
) -> tuple[Reason | None, str]:
    """Reason and detail of a task that gave less than there should have been; no reason if it gave all."""
    promised_s = task.probe.claimed_s
    footage = task.segment.footage
    if promised_s is not None and footage.is_stream:
        wanted_end = promised_s if reading.end_s is None else min(reading.end_s, promised_s)
        missing = wanted_end - reading.shown_to_s
        if missing > max(1.0, 0.05 * promised_s) and footage.ends_early(task.probe):
            detail = f"decodes to {reading.shown_to_s:.2f} s of {promised_s:.2f} s"
            return Reason.BREAKS_OFF, detail + (f" ({reading.errors[0]})" if reading.errors else "")
    if reading.errors:
        return Reason.DAMAGED, f"{len(reading.errors)} x {reading.errors[0]}"
    return None, ""


def commit_task(
    task: Task, settings: WriteSettings, tasks_folder: Path, progress: Callable[[float], None]
) -> TaskResult:
    """Do a task and make its result appear at once: a folder is filled under another name and then renamed.

    A kill at any moment leaves either the whole result or a temporary folder that nothing reads.
    """
    final = task_folder(tasks_folder, task.number)
    done = read_result(final)
    if done is not None:
        return done
    temporary = final.with_name(f"{final.name}.tmp-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        result = encode_task(task, settings, temporary, progress)
        (temporary / RESULT_FILE).write_text(json.dumps(asdict(result)), encoding="utf-8")
        os.rename(temporary, final)
    except OSError:
        # A worker that outlived a killed import may have finished the same task first; its result is the same.
        done = read_result(final)
        if done is None:
            raise
        result = done
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return result


def encode_sample(task: Task, settings: WriteSettings, seconds: float) -> tuple[int, int]:
    """Encode the first `seconds` of a task in memory; returns the numbers of bytes and of frames."""
    frames = max(2, math.ceil(seconds * settings.fps))
    start = task.start_s(settings.fps)
    end = start + frames / settings.fps
    if task.segment.end_s is not None:
        end = min(end, task.segment.end_s)
    reading = _reading(task, settings, start, end)
    buffer = io.BytesIO()
    encoder = EpisodeEncoder(buffer, settings.encoder)
    shown = task.segment.footage.frames(reading, _picture_maker(settings))
    grid = (start + k / settings.fps for k in range(frames))
    for sample in on_grid(shown, grid, reading):
        if sample is not None:
            encoder.add(sample[1])
    encoder.close()
    return buffer.getbuffer().nbytes, encoder.frames


def quiet_libraries() -> None:
    """Silence FFmpeg, which reports every damaged packet on stderr (the summary says it once), and stop threads."""
    av.logging.set_level(av.logging.PANIC)
    cv2.setNumThreads(1)
