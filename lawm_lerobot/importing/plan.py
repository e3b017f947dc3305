"""From sources to an ordered list of tasks: what is taken, in which pieces, and up to which cap."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from lawm_lerobot.importing.config import ShardOptions
from lawm_lerobot.importing.footage import Probe
from lawm_lerobot.importing.segments import ImportSettingsError, LeftOut, Segment
from lawm_lerobot.importing.sources.base import VideoSource
from lawm_lerobot.importing.tasks import EncodedEpisode, Task, TaskResult, WriteSettings

# A long video is handed out in windows of about this length, so that several workers share it and a resumed import
# does not start it again.
WINDOW_S = 300.0


@dataclass
class Quota:
    """Episodes and frames taken of a source so far, against its caps."""

    max_episodes: int | None
    max_frames: int | None
    episodes: int = 0
    frames: int = 0

    def take(self, frames: int) -> bool:
        """Count an episode of so many frames; False, and nothing is counted, if it would go over a cap."""
        if self.max_episodes is not None and self.episodes >= self.max_episodes:
            return False
        if self.max_frames is not None and self.frames + frames > self.max_frames:
            return False
        self.episodes += 1
        self.frames += frames
        return True

    def is_used_up(self) -> bool:
        """True if no episode of any length could be taken."""
        return self.max_episodes is not None and self.episodes >= self.max_episodes


@dataclass
class SourcePlan:
    """Plan of what an import takes from one source.

    Args:
        source: The source.
        title: Its name in the provenance and the summary.
        segments: Its segments in their final order.
        left_out: Things of the source that are left out so far.
        tasks: Tasks cut from the segments, for this shard.
        max_episodes: Cap on the number of episodes; None for no cap.
        own_max_frames: Cap on the number of frames by `max_hours`; None for no cap.
        max_frames: Cap on the number of frames by `max_hours` and `weight`; None for no cap.
        results: Results of the tasks that are done, by the task's number.
    """

    source: VideoSource
    title: str
    segments: list[Segment] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    max_episodes: int | None = None
    own_max_frames: int | None = None
    max_frames: int | None = None
    results: dict[int, TaskResult] = field(default_factory=dict)

    def quota(self) -> Quota:
        """The caps, with nothing taken yet."""
        return Quota(self.max_episodes, self.max_frames)

    def leave_out_unreadable(self, probes: dict[str, Probe]) -> None:
        """Leave out the segments of footage that cannot be read: once per file, however many segments it has.

        Parts of a file that are passed over are listed as well.
        """
        reported: set[str] = set()
        for segment in self.segments:
            path = segment.footage.path
            probe = probes[path]
            if path in reported:
                continue
            reported.add(path)
            faults = probe.notes if probe.reason is None else [[probe.reason, probe.detail]]
            for reason, detail in faults:
                self.left_out.append(LeftOut(self.title, segment.relative_path, reason, detail))
        self.segments = [segment for segment in self.segments if probes[segment.footage.path].reason is None]

    def needed_tasks(self) -> Iterator[Task]:
        """Yield the tasks in order, until the results so far, without a gap, reach a cap: later ones are not needed then.

        The results come in while this is being iterated over.
        """
        quota, counted, full = self.quota(), 0, False
        for task in self.tasks:
            while not full and counted < len(self.tasks) and self.tasks[counted].number in self.results:
                episodes = self.results[self.tasks[counted].number].episodes
                full = not all(quota.take(episode.frames) for episode in episodes)
                counted += 1
            if full or quota.is_used_up():
                return
            yield task

    def taken(self) -> list[tuple[Task, EncodedEpisode]]:
        """The episodes that go into the dataset, in order."""
        quota = self.quota()
        chosen: list[tuple[Task, EncodedEpisode]] = []
        for task, result in self._done():
            for episode in result.episodes:
                if not quota.take(episode.frames):
                    return chosen
                chosen.append((task, episode))
        return chosen

    def used_results(self) -> list[tuple[Task, TaskResult]]:
        """Tasks and their results up to the one where a cap was reached."""
        done, chosen = self._done(), self.taken()
        available = sum(len(result.episodes) for _, result in done)
        if chosen and (len(chosen) < available or len(chosen) == self.max_episodes):
            last = chosen[-1][0].number
            done = [(task, result) for task, result in done if task.number <= last]
        return done

    def _done(self) -> list[tuple[Task, TaskResult]]:
        return [(task, self.results[task.number]) for task in self.tasks if task.number in self.results]


def list_sources(sources: list[VideoSource], seed: int) -> list[SourcePlan]:
    """Ask every source for its segments. Sources that are cut down are shuffled first, by a fixed seed: the beginning of
    a list is rarely a fair sample of it.
    """
    plans: list[SourcePlan] = []
    for number, source in enumerate(sources):
        _check_caps(source)
        title = source.title()
        if any(plan.title == title for plan in plans):
            raise ImportSettingsError(
                f"Two sources are called {title!r}: give each its own `name:` in the list of sources."
            )
        plan = SourcePlan(source, title, max_episodes=source.max_episodes)
        for item in source.segments():
            if isinstance(item, Segment):
                plan.segments.append(item)
            else:
                plan.left_out.append(item)
        if any(cap is not None for cap in (source.max_episodes, source.max_hours, source.weight)):
            random.Random(f"{seed}/{number}").shuffle(plan.segments)
        plans.append(plan)
    return plans


def _check_caps(source: VideoSource) -> None:
    for flag in ("weight", "max_episodes", "max_hours"):
        value = getattr(source, flag)
        if value is not None and not 0 < value < math.inf:
            raise ImportSettingsError(
                f"--source.{flag}={value} must be a positive number, or left out for all there is."
            )


def make_tasks(
    plans: list[SourcePlan], probes: dict[str, Probe], settings: WriteSettings, shard: ShardOptions
) -> None:
    """Cut the segments of each plan into tasks. Of `shard.count` tasks, one is this machine's; so are caps divided."""
    index, count = shard.index, shard.count
    number = 0
    for plan in plans:
        plan.tasks = []
        for segment in plan.segments:
            probe = probes[segment.footage.path]
            for first, last, planned_s in _windows(segment, probe, settings):
                if number % count == index:
                    plan.tasks.append(Task(number, segment, probe, first, last, planned_s))
                number += 1
        if plan.max_episodes is not None:
            plan.max_episodes = plan.max_episodes // count + (index < plan.max_episodes % count)
        hours = plan.source.max_hours
        if hours is not None:
            plan.own_max_frames = math.floor(hours * 3600 * settings.fps / count)
    apply_weights(plans, settings)


def _windows(segment: Segment, probe: Probe, settings: WriteSettings) -> list[tuple[int, int | None, float]]:
    """(first frame, last frame or None for the end, planned seconds) of each window, on episode boundaries."""
    length = segment.footage.length(probe)
    end = segment.end_s if length is None else min(length, segment.end_s or float("inf"))
    if end is None:
        return [(0, None, 0.0)]
    total_s = max(0.0, end - segment.start_s)
    total = math.ceil(total_s * settings.fps - 1e-6)
    window = settings.max_frames * max(1, round(WINDOW_S * settings.fps / settings.max_frames))
    if not segment.footage.is_stream or probe.one_piece or total <= window:
        return [(0, None, total_s)]
    firsts = list(range(0, total, window))
    windows: list[tuple[int, int | None, float]] = []
    for first in firsts[:-1]:
        windows.append((first, first + window, window / settings.fps))
    # The last window runs to the end, so an understated duration loses nothing.
    windows.append((firsts[-1], None, total_s - firsts[-1] / settings.fps))
    return windows


def apply_weights(plans: list[SourcePlan], settings: WriteSettings) -> None:
    """Turn weights into caps: the longest mixture in which weighted sources stand in their ratio, none repeated.

    Tasks that are done count with what they gave, others with what their containers claim; so this is to be called again
    when there are new results.
    """
    weighted = [
        (plan, plan.source.weight, _available_frames(plan, settings))
        for plan in plans
        if plan.source.weight is not None
    ]
    for plan in plans:
        plan.max_frames = plan.own_max_frames
    # An empty source should not empty the others.
    unit = min((frames / weight for _, weight, frames in weighted if frames), default=0.0)
    for plan, weight, frames in weighted:
        if not frames or math.isinf(unit):
            continue
        cap = math.floor(unit * weight + 0.5)
        plan.max_frames = cap if plan.max_frames is None else min(cap, plan.max_frames)


def _available_frames(plan: SourcePlan, settings: WriteSettings) -> float:
    """Frames that a source has within its own caps; infinite while a video that does not say how long it is is left."""
    quota = Quota(plan.max_episodes, plan.own_max_frames)
    for task in plan.tasks:
        result = plan.results.get(task.number)
        if (
            result is None
            and not task.planned_s
            and task.segment.end_s is None
            and task.probe.duration_s is None
        ):
            return math.inf
        lengths = [e.frames for e in result.episodes] if result else _planned_episodes(task, settings)
        if not all(quota.take(frames) for frames in lengths):
            break
    return quota.frames


def planned_total(plan: SourcePlan, settings: WriteSettings) -> Quota:
    """Episodes and frames that a source should give, caps included, if all its footage is as long as it says."""
    quota = plan.quota()
    for task in plan.tasks:
        for frames in _planned_episodes(task, settings):
            if not quota.take(frames):
                return quota
    return quota


def _planned_episodes(task: Task, settings: WriteSettings) -> Iterator[int]:
    """Yield the lengths of the episodes that a task should give if nothing in it stands still."""
    frames = math.ceil(task.planned_s * settings.fps - 1e-6)
    if task.last_frame is not None:
        frames = task.last_frame - task.first_frame
    whole, rest = divmod(max(0, frames), settings.max_frames)
    yield from [settings.max_frames] * whole
    if rest >= settings.min_frames:
        yield rest


def file_state(path: str) -> list[int]:
    """Size and time of change of a file or folder; a changed one is not the one that was imported."""
    try:
        status = os.stat(path)
    except OSError:
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def content_fingerprint(plans: list[SourcePlan], probes: dict[str, Probe]) -> str:
    """A fingerprint of every task of the plans, in order."""
    digest = hashlib.sha256()
    for plan in plans:
        for task in plan.tasks:
            record = [plan.title, asdict(task.segment), asdict(probes[task.segment.footage.path])]
            window = [task.number, task.first_frame, task.last_frame]
            digest.update(json.dumps([record, window], sort_keys=True).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()
