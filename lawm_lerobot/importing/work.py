"""One unit of work: a window of a clip in, encoded episodes out. Runs in worker processes; plain data in and out."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from lawm_lerobot.importing.decoding import (
    PictureMaker,
    ReadState,
    UnreadableVideoError,
    decode_image,
    error_text,
    image_files,
    read_claims,
    read_image,
    timed_frames,
)
from lawm_lerobot.importing.encoding import EpisodeEncoder
from lawm_lerobot.importing.segments import Clip

RESULT_FILE = "result.json"
STILL_STRETCH_S = 1.0  # a still stretch shorter than this is a pause within an action and stays
MOTION_SPAN_S = 0.5  # motion is judged against the picture this long ago, so that slow motion counts


@dataclass
class WriteSettings:
    """What a worker must know to write episodes; the same for every clip of an import."""

    fps: int
    height: int
    width: int
    fit: str
    min_frames: int
    max_frames: int
    min_motion: float
    vcodec: str
    pix_fmt: str
    codec_options: dict[str, str]


@dataclass
class Task:
    """A window of a clip: frames first_frame .. last_frame (exclusive, None: to the end) on the clip's own grid."""

    number: int
    clip: Clip
    origin: str  # the video's time zero as a fraction
    first_frame: int = 0
    last_frame: int | None = None
    promised_s: float | None = None  # how long the container says the video is
    planned_s: float = 0.0


@dataclass
class Episode:
    """One encoded episode of a task; times in seconds on the source video's clock."""

    file: str
    frames: int
    start_s: float
    end_s: float
    bytes: int
    statistics: dict[str, list]


@dataclass
class TaskResult:
    """What came of a task: its episodes, what was dropped on purpose, and what was wrong."""

    episodes: list[Episode] = field(default_factory=list)
    reason: str = ""  # why there is no episode, or why a part is missing
    detail: str = ""
    short_frames: int = 0  # output frames in pieces under the shortest allowed episode
    still_frames: int = 0  # output frames removed for lack of motion
    source_frames: int = 0  # frames decoded

    def to_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "episodes": [episode.__dict__ for episode in self.episodes]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TaskResult:
        episodes = [Episode(**episode) for episode in data["episodes"]]
        return cls(**{**data, "episodes": episodes})


def probe_clip(clip: Clip) -> dict[str, Any]:
    """Length and time zero of what a clip points to.

    Raises:
        UnreadableVideoError: with the reason to list.
    """
    if clip.kind == "video":
        claims = read_claims(clip.path)
        return {
            "origin": str(claims.origin),
            "duration_s": claims.duration_s,
            "frame_rate": claims.frame_rate,
        }
    if clip.kind == "images":
        try:
            count = len(image_files(clip.path))
        except OSError as error:
            raise UnreadableVideoError("cannot be read", error_text(error)) from error
        if not count:
            raise UnreadableVideoError("no frames", "no im_<number>.jpg in the folder")
        return {"origin": "0", "duration_s": count / clip.frame_rate, "frame_rate": clip.frame_rate}
    raise ValueError(f"clips of kind {clip.kind} are not probed")


# ── frames on the dataset's grid ──────────────────────────────────────────────


def shown_pictures(
    clip: Clip, start_s: float, end_s: float | None, origin: Fraction, maker: PictureMaker, state: ReadState
) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
    """(time, function that makes the picture) of every source frame; pictures that are not needed are never made."""
    if clip.kind == "video":
        for time, frame, aspect in timed_frames(clip.path, start_s, end_s, origin, state):
            yield time, partial(maker.from_frame, frame, aspect)
        return
    images = _stored_images(clip)
    for index, load in enumerate(images):
        time = index / clip.frame_rate
        if end_s is not None and time >= end_s:
            return
        state.frames += 1
        state.end_s = (index + 1) / clip.frame_rate
        yield time, partial(_load_and_fit, maker, load)


def _load_and_fit(maker: PictureMaker, load: Callable[[], np.ndarray]) -> np.ndarray:
    return maker.from_image(load())


def _stored_images(clip: Clip) -> Iterable[Callable[[], np.ndarray]]:
    if clip.kind == "images":
        return [partial(read_image, path) for path in image_files(clip.path)]
    return _parquet_images(clip)


def _parquet_images(clip: Clip) -> Iterator[Callable[[], np.ndarray]]:
    import pyarrow.parquet as pq

    column, first, last = clip.extra["column"], clip.extra["from_row"], clip.extra["to_row"]
    row = 0
    for batch in pq.ParquetFile(clip.path).iter_batches(batch_size=64, columns=[column]):
        for value in batch.column(0):
            if first <= row < last:
                data = np.frombuffer(value["bytes"].as_py() or b"", dtype=np.uint8)
                yield partial(decode_image, data, f"row {row}")
            row += 1
        if row >= last:
            return


def on_grid(
    shown: Iterable[tuple[float, Callable[[], np.ndarray]]],
    times: Iterator[float],
    end_s: float | None,
    state: ReadState,
) -> Iterator[tuple[float, np.ndarray]]:
    """The picture shown at each of `times`: the last one whose time is <= t, up to the container's rounding."""
    held: Callable[[], np.ndarray] | None = None
    made: np.ndarray | None = None
    wanted = next(times, None)
    for time, picture in shown:
        while wanted is not None and held is not None and wanted < time - state.slack_s:
            made = held() if made is None else made
            yield wanted, made
            wanted = next(times, None)
        if wanted is None:
            return
        held, made = picture, None
    stop = state.end_s if end_s is None else min(end_s, state.end_s)
    while wanted is not None and held is not None and wanted < stop - state.slack_s:
        made = held() if made is None else made
        yield wanted, made
        wanted = next(times, None)


def without_still_stretches(
    pictures: Iterable[tuple[float, np.ndarray]], fps: int, min_motion: float
) -> Iterator[tuple[float, np.ndarray] | None]:
    """Leave out stretches of at least a second without motion; None marks the cut.

    Motion is the mean absolute difference of 32x32 grey pictures half a second apart, 0 to 1. Only the still pictures
    of the last second are held back, so memory stays bounded.
    """
    span, patience = max(1, round(MOTION_SPAN_S * fps)), max(1, round(STILL_STRETCH_S * fps))
    history: deque[np.ndarray] = deque(maxlen=span)
    waiting: deque[tuple[float, np.ndarray]] = deque()
    removing = False
    for time, image in pictures:
        grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
        small = grey.astype(np.float32) / 255.0
        moving = bool(history) and float(np.abs(small - history[0]).mean()) >= min_motion
        history.append(small)
        if moving:
            if removing:
                yield None
            else:
                yield from waiting
            removing = False
            waiting.clear()
            yield time, image
        elif removing:
            continue
        else:
            waiting.append((time, image))
            if len(waiting) >= patience:
                removing = True
                waiting.clear()
    if not removing:
        yield from waiting


# ── one task ──────────────────────────────────────────────────────────────────


def run_task(
    task: Task, settings: WriteSettings, folder: Path, progress: Callable[[float], None]
) -> TaskResult:
    """Decode, resample and encode a task's episodes as folder/<number>.mp4.

    `progress` is called now and then with the source seconds done since the last call.
    """
    clip, fps = task.clip, settings.fps
    maker = PictureMaker(settings.height, settings.width, settings.fit)
    state = ReadState()
    result = TaskResult()
    grid_start = clip.start_s + task.first_frame / fps
    count = None if task.last_frame is None else task.last_frame - task.first_frame
    end_s = clip.end_s if count is None else clip.start_s + (task.last_frame or 0) / fps

    def times() -> Iterator[float]:
        frame = task.first_frame
        while task.last_frame is None or frame < task.last_frame:
            yield clip.start_s + frame / fps
            frame += 1

    encoder: EpisodeEncoder | None = None
    path, first_time, last_time, reported = Path(), 0.0, 0.0, grid_start

    def finish() -> None:
        nonlocal encoder
        if encoder is None:
            return
        encoder.close()
        if encoder.frames < settings.min_frames:
            result.short_frames += encoder.frames
            path.unlink()
        else:
            result.episodes.append(
                Episode(
                    file=path.name,
                    frames=encoder.frames,
                    start_s=first_time,
                    end_s=last_time + 1 / fps,
                    bytes=path.stat().st_size,
                    statistics=encoder.statistics.summary(),
                )
            )
        encoder = None

    try:
        shown = shown_pictures(clip, grid_start, end_s, Fraction(task.origin), maker, state)
        grid = on_grid(shown, times(), end_s, state)
        pictures: Iterable[tuple[float, np.ndarray] | None] = grid
        if settings.min_motion > 0:
            pictures = without_still_stretches(_counted(grid, result), fps, settings.min_motion)
        for item in pictures:
            if item is None or (encoder is not None and encoder.frames >= settings.max_frames):
                finish()
            if item is None:
                continue
            time, image = item
            if encoder is None:
                path = folder / f"{len(result.episodes):05d}.mp4"
                first_time = time
                encoder = EpisodeEncoder(
                    path,
                    fps,
                    settings.height,
                    settings.width,
                    settings.vcodec,
                    settings.pix_fmt,
                    settings.codec_options,
                )
            encoder.add(image)
            last_time = time
            if time - reported > 5.0:
                progress(time - reported)
                reported = time
        finish()
    except UnreadableVideoError as error:
        result.reason, result.detail = error.reason, error.detail
        if encoder is not None:  # what came before the fault is good
            finish()
        if result.episodes:
            result.reason = f"imported in part: {error.reason}"
    result.source_frames = state.frames
    kept = sum(episode.frames for episode in result.episodes)
    if settings.min_motion > 0:
        result.still_frames = max(0, result.still_frames - kept - result.short_frames)
    _explain(task, settings, state, result, grid_start, end_s)
    return result


def _counted(
    pictures: Iterable[tuple[float, np.ndarray]], result: TaskResult
) -> Iterator[tuple[float, np.ndarray]]:
    for item in pictures:
        result.still_frames += 1  # of these, the written ones are taken off in the end
        yield item


def _explain(
    task: Task,
    settings: WriteSettings,
    state: ReadState,
    result: TaskResult,
    grid_start: float,
    end_s: float | None,
) -> None:
    """Put a reason on a task that gave nothing, or less than the container promised."""
    if result.reason:
        return
    errors = state.errors or []
    if not result.episodes:
        if not state.frames:
            result.reason = "cannot be decoded" if errors else "no frames"
            result.detail = errors[0] if errors else ""
        elif state.frames == 1 and task.clip.start_s == 0 and end_s is None:
            result.reason = "one frame only"
        elif state.end_s <= grid_start:
            result.reason = "starts after the end of the video"
            result.detail = f"starts at {grid_start:.2f} s, the video ends at {state.end_s:.2f} s"
        elif result.short_frames:
            result.reason = "shorter than --min_episode_s"
            result.detail = f"{result.short_frames / settings.fps:.2f} s"
        elif result.still_frames:
            result.reason = "no motion above --min_motion"
        else:
            result.reason = "shorter than --min_episode_s"
            result.detail = "less than one frame of the dataset"
        return
    wanted_end = end_s if end_s is not None else task.promised_s
    if wanted_end is not None and task.promised_s is not None:
        missing = min(wanted_end, task.promised_s) - state.end_s
        if missing > max(1.0, 0.05 * task.promised_s) and task.clip.kind == "video":
            result.reason = "imported in part: the video breaks off"
            result.detail = f"decodes to {state.end_s:.2f} s of {task.promised_s:.2f} s"
            if errors:
                result.detail += f" ({errors[0]})"
        elif len(errors) > 0 and missing > 0.5:
            result.reason = "imported in part: damaged"
            result.detail = errors[0]


def commit_task(
    task: Task, settings: WriteSettings, tasks_folder: Path, progress: Callable[[float], None]
) -> TaskResult:
    """Run a task and make its result appear at once: a folder is filled under another name and then renamed.

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
        result = run_task(task, settings, temporary, progress)
        (temporary / RESULT_FILE).write_text(json.dumps(result.to_dict()), encoding="utf-8")
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


def task_folder(tasks_folder: Path, number: int) -> Path:
    """Folders of a thousand: file systems are slow with hundreds of thousands of entries in one."""
    return tasks_folder / f"{number // 1000:05d}" / f"{number:08d}"


def read_result(folder: Path) -> TaskResult | None:
    """The committed result of a task, or None."""
    try:
        return TaskResult.from_dict(json.loads((folder / RESULT_FILE).read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None


def encoded_bytes(task: Task, settings: WriteSettings, seconds: float) -> tuple[int, int]:
    """(bytes, frames) of the first `seconds` of a task, encoded in memory: what a dry run estimates sizes from."""
    frames = max(2, math.ceil(seconds * settings.fps))
    maker = PictureMaker(settings.height, settings.width, settings.fit)
    state = ReadState()
    start = task.clip.start_s + task.first_frame / settings.fps
    end = start + frames / settings.fps
    if task.clip.end_s is not None:
        end = min(end, task.clip.end_s)
    buffer = io.BytesIO()
    encoder = EpisodeEncoder(
        buffer,
        settings.fps,
        settings.height,
        settings.width,
        settings.vcodec,
        settings.pix_fmt,
        settings.codec_options,
    )
    shown = shown_pictures(task.clip, start, end, Fraction(task.origin), maker, state)
    grid = (start + k / settings.fps for k in range(frames))
    for _, image in on_grid(shown, grid, end, state):
        encoder.add(image)
    encoder.close()
    return buffer.getbuffer().nbytes, encoder.frames


def quiet_libraries() -> None:
    """FFmpeg reports every damaged packet on stderr by default; the summary says it once."""
    av.logging.set_level(av.logging.PANIC)
    cv2.setNumThreads(1)
