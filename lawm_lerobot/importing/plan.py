"""From sources to an ordered list of tasks: what is taken, in which pieces, and up to which cap."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
from dataclasses import dataclass, field
from typing import Any

from lawm_lerobot.importing.segments import Clip, ImportSettingsError, LeftOut
from lawm_lerobot.importing.sources.base import VideoSource
from lawm_lerobot.importing.work import Episode, Task, TaskResult, WriteSettings

# A long video is handed out in windows of about this length, so that several workers share it and a resumed import
# does not start it again.
WINDOW_S = 300.0


@dataclass
class SourcePlan:
    """One source: its clips in their final order, its tasks, and its caps (None: none)."""

    source: VideoSource
    title: str
    clips: list[Clip]
    left_out: list[LeftOut]
    tasks: list[Task] = field(default_factory=list)
    max_episodes: int | None = None
    max_frames: int | None = None
    results: dict[int, TaskResult] = field(default_factory=dict)  # by task number

    # Running totals over the tasks before `_next`, all of which have results.
    _next: int = 0
    _episodes: int = 0
    _frames: int = 0
    _full: bool = False

    def is_full(self) -> bool:
        """Whether the results so far, in order and without a gap, reach the cap; later tasks are not needed then."""
        while not self._full and self._next < len(self.tasks):
            result = self.results.get(self.tasks[self._next].number)
            if result is None:
                break
            for episode in result.episodes:
                if not self._take(episode):
                    break
            self._next += 1
        if self.max_episodes is not None and self._episodes >= self.max_episodes:
            self._full = True
        return self._full

    def _take(self, episode: Episode) -> bool:
        over_count = self.max_episodes is not None and self._episodes + 1 > self.max_episodes
        over_length = self.max_frames is not None and self._frames + episode.frames > self.max_frames
        if over_count or over_length:
            self._full = True
            return False
        self._episodes += 1
        self._frames += episode.frames
        return True

    def taken(self) -> list[tuple[Task, Episode]]:
        """The episodes that go into the dataset, in order."""
        self._next, self._episodes, self._frames, self._full = 0, 0, 0, False
        chosen: list[tuple[Task, Episode]] = []
        for task in self.tasks:
            result = self.results.get(task.number)
            for episode in result.episodes if result is not None else []:
                if not self._take(episode):
                    return chosen
                chosen.append((task, episode))
        return chosen

    def used_tasks(self) -> list[Task]:
        """Tasks up to the one where the cap was reached."""
        chosen = self.taken()
        full = self._full or (self.max_episodes is not None and self._episodes >= self.max_episodes)
        if not full or not chosen:
            return self.tasks
        last = chosen[-1][0].number
        return [task for task in self.tasks if task.number <= last]


def list_sources(sources: list[VideoSource], seed: int) -> list[SourcePlan]:
    """Ask every source for its clips. Sources that are cut down are shuffled first, by a fixed seed: the beginning of a
    list is rarely a fair sample of it.

    Raises:
        ImportSettingsError: a source is set up wrongly, or two have the same name.
    """
    plans: list[SourcePlan] = []
    for number, source in enumerate(sources):
        _check_caps(source)
        title = source.title()
        if any(plan.title == title for plan in plans):
            raise ImportSettingsError(
                f"Two sources are called {title!r}: give each its own `name:` in the list of sources."
            )
        plan = SourcePlan(source, title, [], [], max_episodes=source.max_episodes)
        for item in source.clips():
            if isinstance(item, Clip):
                plan.clips.append(item)
            else:
                plan.left_out.append(item)
        if any(cap is not None for cap in (source.max_episodes, source.max_hours, source.weight)):
            random.Random(f"{seed}/{number}").shuffle(plan.clips)
        plans.append(plan)
    return plans


def _check_caps(source: VideoSource) -> None:
    for flag in ("weight", "max_episodes", "max_hours"):
        value = getattr(source, flag)
        if value is not None and not value > 0:
            raise ImportSettingsError(
                f"--source.{flag}={value} must be positive, or left out for all there is."
            )


def make_tasks(
    plans: list[SourcePlan],
    probes: dict[tuple[str, str], dict[str, Any]],
    settings: WriteSettings,
    shard: tuple[int, int],
) -> None:
    """Cut the clips of each plan into tasks; clips whose probe failed are left out by the caller already.

    `shard` is (index, count): every count-th task is this machine's, and caps are divided by the count.
    """
    index, count = shard
    number = 0
    for plan in plans:
        tasks = []
        for clip in plan.clips:
            probe = probes[(clip.kind, clip.path)]
            for first, last, planned_s in _windows(clip, probe["duration_s"], settings):
                if number % count == index:
                    tasks.append(
                        Task(number, clip, probe["origin"], first, last, probe["duration_s"], planned_s)
                    )
                number += 1
        plan.tasks = tasks
        if plan.max_episodes is not None:
            plan.max_episodes = plan.max_episodes // count + (index < plan.max_episodes % count)
        hours = plan.source.max_hours
        if hours is not None:
            plan.max_frames = math.floor(hours * 3600 * settings.fps / count)
    _apply_weights(plans, settings)


def _windows(
    clip: Clip, duration_s: float | None, settings: WriteSettings
) -> list[tuple[int, int | None, float]]:
    """(first frame, last frame or None for the end, planned seconds) of each window, on episode boundaries."""
    if clip.kind == "parquet":  # many clips share one file, so the length is the clip's own
        duration_s = (clip.extra["to_row"] - clip.extra["from_row"]) / clip.frame_rate
    end = clip.end_s if duration_s is None else min(duration_s, clip.end_s or float("inf"))
    if end is None:
        return [(0, None, 0.0)]
    total_s = max(0.0, end - clip.start_s)
    total = math.ceil(total_s * settings.fps - 1e-6)
    window = settings.max_frames * max(1, round(WINDOW_S * settings.fps / settings.max_frames))
    if clip.kind != "video" or total <= window:
        return [(0, None, total_s)]
    firsts = list(range(0, total, window))
    windows: list[tuple[int, int | None, float]] = []
    for first in firsts[:-1]:
        windows.append((first, first + window, window / settings.fps))
    # The last window runs to the end, so an understated duration loses nothing.
    windows.append((firsts[-1], None, total_s - firsts[-1] / settings.fps))
    return windows


def planned_episodes(task: Task, settings: WriteSettings) -> tuple[int, int]:
    """(episodes, frames) that a task should give if its video is as long as it says and nothing stands still."""
    frames = math.ceil(task.planned_s * settings.fps - 1e-6)
    if task.last_frame is not None:
        frames = task.last_frame - task.first_frame
    whole, rest = divmod(max(0, frames), settings.max_frames)
    if rest >= settings.min_frames:
        return whole + 1, frames
    return whole, whole * settings.max_frames


def _apply_weights(plans: list[SourcePlan], settings: WriteSettings) -> None:
    """Turn weights into caps: the longest mixture in which weighted sources stand in their ratio, none repeated."""
    weighted = [plan for plan in plans if plan.source.weight is not None]
    frames = {plan.title: planned_total(plan, settings)[1] for plan in weighted}
    weighted = [
        plan for plan in weighted if frames[plan.title]
    ]  # an empty source should not empty the others
    unit = min((frames[plan.title] / (plan.source.weight or 1.0) for plan in weighted), default=0.0)
    for plan in weighted:
        cap = math.floor(unit * (plan.source.weight or 1.0) + 0.5)
        plan.max_frames = cap if plan.max_frames is None else min(cap, plan.max_frames)


def planned_total(plan: SourcePlan, settings: WriteSettings) -> tuple[int, int]:
    """(episodes, frames) that a source should give, caps included."""
    episodes = frames = 0
    for task in plan.tasks:
        more_episodes, more_frames = planned_episodes(task, settings)
        for number in range(more_episodes):
            length = min(settings.max_frames, more_frames - number * settings.max_frames)
            over_count = plan.max_episodes is not None and episodes + 1 > plan.max_episodes
            over_length = plan.max_frames is not None and frames + length > plan.max_frames
            if over_count or over_length:
                return episodes, frames
            episodes += 1
            frames += length
    return episodes, frames


def file_state(clip: Clip) -> list[int]:
    """Size and time of change of what a clip points to; a changed file is not the one that was imported."""
    try:
        status = os.stat(clip.path)
    except OSError:
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def content_hash(plans: list[SourcePlan], probes: dict[tuple[str, str], dict[str, Any]]) -> str:
    """A fingerprint of every task of the plan, in order."""
    digest = hashlib.sha256()
    for plan in plans:
        for task in plan.tasks:
            record = [plan.title, task.clip.to_dict(), probes[(task.clip.kind, task.clip.path)]]
            window = [task.number, task.first_frame, task.last_frame]
            digest.update(json.dumps([record, window], sort_keys=True).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()
