"""Summaries of what an import took and left out, for the screen and as `import_summary.json`."""

from __future__ import annotations

import collections
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lawm_lerobot.files import read_json, write_text
from lawm_lerobot.importing.config import ImportConfig, ShardOptions
from lawm_lerobot.importing.plan import SourcePlan, planned_total
from lawm_lerobot.importing.reasons import Reason, in_part
from lawm_lerobot.importing.segments import LeftOut
from lawm_lerobot.importing.tasks import Task, TaskResult, WriteSettings

SUMMARY_NAME = "import_summary.json"
SHOWN = 30  # lines on the screen about what was left out
# In a later window of a video these say that the video breaks off, which is the fault that the first window shows.
ENDED = (Reason.STARTS_TOO_LATE, Reason.NO_FRAMES, Reason.CANNOT_BE_DECODED)


class _Report:
    """The common part of a summary and of an estimate."""

    verb = "Imported"
    episodes: int
    frames: int
    hours: float
    sources: list[Any]
    left_out: list[LeftOut]

    def left_out_by_reason(self) -> dict[str, int]:
        """Numbers of things left out for each reason."""
        return dict(sorted(collections.Counter(item.reason for item in self.left_out).items()))

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, as the JSON file has it."""
        record = asdict(self)  # type: ignore[call-overload]
        left_out = record.pop("left_out")
        return {**record, "left_out_by_reason": self.left_out_by_reason(), "left_out": left_out}

    def write(self, *files: Path | None) -> None:
        """Write the JSON file, in each place that is not None."""
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"
        for file in files:
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                write_text(file, text)

    def headline(self) -> str:
        """The first line on the screen."""
        return f"{self.verb} {self.episodes} episodes, {self.frames} frames, {self.hours:.3f} h"

    def print(self) -> None:
        """Print the counts, then what was left out and why."""
        print(self.headline())
        for source in self.sources:
            print(
                f"  {source.name}: {source.episodes} episodes, {source.hours:.3f} h, {source.left_out} left out"
            )
        for reason, count in self.left_out_by_reason().items():
            print(f"  {count} x {reason}")
        for item in self.left_out[:SHOWN]:
            detail = f" ({item.detail})" if item.detail else ""
            print(f"    {item.path!r}: {item.reason}{detail}")
        if len(self.left_out) > SHOWN:
            print(f"    and {len(self.left_out) - SHOWN} more in {SUMMARY_NAME}")


@dataclass
class SourceSummary:
    """Summary of what an import took from one source.

    Args:
        name: Title of the source.
        left_out: Number of things that were left out.
        seconds_under_min_episode_s: Length of the pieces that were too short for an episode.
        seconds_without_motion: Length of the stretches that were removed for lack of motion.
        license_notes: Licence notes of the videos that episodes were taken from.
    """

    name: str
    type: str
    episodes: int = 0
    frames: int = 0
    hours: float = 0.0
    left_out: int = 0
    seconds_under_min_episode_s: float = 0.0
    seconds_without_motion: float = 0.0
    license_notes: list[str] = field(default_factory=list)

    def add(self, other: SourceSummary) -> None:
        """Add another part's summary of the same source, except for `left_out`: parts share some of these."""
        for name in ("episodes", "frames", "hours", "seconds_under_min_episode_s", "seconds_without_motion"):
            setattr(self, name, round(getattr(self, name) + getattr(other, name), 6))
        self.license_notes = sorted({*self.license_notes, *other.license_notes})


@dataclass
class ImportSummary(_Report):
    """Summary of an import; the same for a resumed import as for an unbroken one."""

    repo_id: str
    fps: int
    height: int
    width: int
    shard: ShardOptions
    episodes: int
    frames: int
    hours: float
    sources: list[SourceSummary]
    left_out: list[LeftOut]

    @classmethod
    def of(cls, config: ImportConfig, settings: WriteSettings, plans: list[SourcePlan]) -> ImportSummary:
        """Summarise plans whose tasks are done."""
        sources: list[SourceSummary] = []
        left_out: list[LeftOut] = []
        for plan in plans:
            taken, results = plan.taken(), plan.used_results()
            frames = sum(episode.frames for _, episode in taken)
            faults = plan.left_out + _faults(plan.title, results)
            left_out += faults
            short = sum(result.short_frames for _, result in results)
            still = sum(result.still_frames for _, result in results)
            sources.append(
                SourceSummary(
                    name=plan.title,
                    type=plan.source.type,
                    episodes=len(taken),
                    frames=frames,
                    hours=_hours(frames, settings, 6),
                    left_out=len(faults),
                    seconds_under_min_episode_s=round(short / settings.fps, 3),
                    seconds_without_motion=round(still / settings.fps, 3),
                    license_notes=sorted({task.segment.license_note for task, _ in taken}),
                )
            )
        frames = sum(source.frames for source in sources)
        return cls(
            repo_id=config.repo_id,
            fps=settings.fps,
            height=settings.encoder.height,
            width=settings.encoder.width,
            shard=config.shard,
            episodes=sum(source.episodes for source in sources),
            frames=frames,
            hours=_hours(frames, settings, 6),
            sources=sources,
            left_out=left_out,
        )

    @classmethod
    def read(cls, file: Path) -> ImportSummary | None:
        """Read the JSON file; None if there is none."""
        record = read_json(file)
        if record is None:
            return None
        record.pop("left_out_by_reason")
        record["shard"] = ShardOptions(**record["shard"])
        record["sources"] = [SourceSummary(**source) for source in record["sources"]]
        record["left_out"] = [LeftOut(**item) for item in record["left_out"]]
        return cls(**record)

    @classmethod
    def merge(cls, parts: list[ImportSummary]) -> ImportSummary:
        """Summarise all parts of an import as one."""
        sources: dict[str, SourceSummary] = {}
        for part in parts:
            for source in part.sources:
                sources.setdefault(source.name, SourceSummary(source.name, source.type)).add(source)
        # Every part lists what could not even be opened; once is enough.
        left_out = list(dict.fromkeys(item for part in parts for item in part.left_out))
        for source in sources.values():
            source.left_out = sum(item.source == source.name for item in left_out)
        return replace(
            parts[0],
            shard=ShardOptions(),
            episodes=sum(part.episodes for part in parts),
            frames=sum(part.frames for part in parts),
            hours=round(sum(part.hours for part in parts), 6),
            sources=list(sources.values()),
            left_out=left_out,
        )


@dataclass
class SourceEstimate:
    """Estimate of what a source gives."""

    name: str
    episodes: int
    hours: float
    left_out: int


@dataclass(kw_only=True)
class ImportEstimate(_Report):
    """Estimate of what an import gives if all footage is as long as it says and nothing stands still.

    Args:
        dry_run: Mark of an estimate in the JSON file.
        estimated_megabytes: Size of the videos, going by a sample.
        clips_of_unknown_length: Number of videos that do not say how long they are; none of them is counted.
    """

    verb = "Would import"
    dry_run: bool = True
    repo_id: str
    root: str
    episodes: int
    frames: int
    hours: float
    estimated_megabytes: float
    clips_of_unknown_length: int
    sources: list[SourceEstimate]
    left_out: list[LeftOut]

    @classmethod
    def of(
        cls,
        config: ImportConfig,
        settings: WriteSettings,
        plans: list[SourcePlan],
        root: Path,
        bytes_per_frame: float,
    ) -> ImportEstimate:
        """Estimate what plans with tasks, none of which is done, would give."""
        totals = [planned_total(plan, settings) for plan in plans]
        frames = sum(total.frames for total in totals)
        tasks = [task for plan in plans for task in plan.tasks]
        return cls(
            repo_id=config.repo_id,
            root=str(root),
            episodes=sum(total.episodes for total in totals),
            frames=frames,
            hours=_hours(frames, settings, 4),
            estimated_megabytes=round(bytes_per_frame * frames / 1e6, 2),
            clips_of_unknown_length=sum(
                t.probe.duration_s is None and t.segment.end_s is None for t in tasks
            ),
            sources=[
                SourceEstimate(
                    plan.title, total.episodes, _hours(total.frames, settings, 4), len(plan.left_out)
                )
                for plan, total in zip(plans, totals, strict=True)
            ],
            left_out=[item for plan in plans for item in plan.left_out],
        )

    def headline(self) -> str:
        text = f"{super().headline()}, about {self.estimated_megabytes} MB"
        if self.clips_of_unknown_length:
            text += f"; not counting {self.clips_of_unknown_length} clips that do not say how long they are"
        return text


def _hours(frames: int, settings: WriteSettings, digits: int) -> float:
    return round(frames / settings.fps / 3600, digits)


def _faults(title: str, results: list[tuple[Task, TaskResult]]) -> list[LeftOut]:
    """Everything that tasks could not import, each fault of a segment once."""
    faults: dict[tuple[str, str], LeftOut] = {}
    for task, result in results:
        segment, name = task.segment, task.segment.relative_path
        if segment.start_s > 0 or segment.end_s is not None:
            end = f"{segment.end_s:.2f}" if segment.end_s is not None else "end"
            name = f"{name} [{segment.start_s:.2f}-{end} s]"
        if result.jumps:
            jumps = LeftOut(title, name, Reason.CLOCK_JUMPS, "; ".join(result.jumps[:5]))
            faults.setdefault((name, Reason.CLOCK_JUMPS), jumps)
        if result.reason is None:
            continue
        reason = in_part(result.reason) if result.episodes else str(result.reason)
        if task.first_frame > 0 and not result.episodes:
            if result.reason is Reason.TOO_SHORT:
                continue  # the rest of a long video; counted in seconds_under_min_episode_s
            if result.reason in ENDED:
                reason = in_part(Reason.BREAKS_OFF)
        faults.setdefault((name, reason), LeftOut(title, name, reason, result.detail))
    return list(faults.values())
