"""The whole import, step by step."""

from __future__ import annotations

import collections
import contextlib
import os
import shutil
import sys
from collections.abc import Hashable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lawm_lerobot.importing.config import ImportConfig
from lawm_lerobot.importing.footage import Footage, Probe
from lawm_lerobot.importing.footage.hardware import works
from lawm_lerobot.importing.partial import PartialFolder, ProbeLog
from lawm_lerobot.importing.plan import (
    SourcePlan,
    apply_weights,
    content_fingerprint,
    file_state,
    list_sources,
    make_tasks,
    planned_total,
)
from lawm_lerobot.importing.pooling import PooledLabels
from lawm_lerobot.importing.segments import ImportSettingsError
from lawm_lerobot.importing.shards import empty_summary, merge_shards, shard_root
from lawm_lerobot.importing.summary import SUMMARY_NAME, ImportEstimate, ImportSummary
from lawm_lerobot.importing.tasks import TaskResult, read_result, task_folder
from lawm_lerobot.importing.workers import Job, WorkerPool

SAMPLED_TASKS = 12  # of a dry run


def run_import(config: ImportConfig) -> ImportSummary | ImportEstimate:
    """Import videos as `config` says, or raise an `ImportSettingsError` with a sentence for the user."""
    config.check()
    if config.merge:
        return merge_shards(config)
    if not config.all_sources():
        from lawm_lerobot.importing.publishing import push_again

        return push_again(config)
    run = ImportRun(config)
    return run.estimate() if config.dry_run else run.carry_out()


class ImportRun:
    """One import: `probe`, `plan`, `encode`, `assemble` and `publish`, in this order."""

    def __init__(self, config: ImportConfig):
        self.config = config
        self.root = config.dataset_root()
        if config.shard.count > 1:
            self.root = shard_root(self.root, config.shard.index, config.shard.count)
        self.settings = config.write_settings()
        if self.settings.device is not None and not works(self.settings.device):
            self.settings = replace(self.settings, device=None)
            print(
                f"warning: --hwaccel={config.hwaccel} does not work on this machine; the processor decodes.",
                file=sys.stderr,
            )
        self.plans: list[SourcePlan] = []
        self.probes: dict[str, Probe] = {}

    def carry_out(self) -> ImportSummary:
        """Write the dataset, or go on with one that was begun."""
        partial = PartialFolder(self.root, self.config)
        if self.root.exists():
            done = ImportSummary.read(self.root / SUMMARY_NAME) if partial.is_left_over() else None
            if done is None:
                raise ImportSettingsError(
                    f"--root={self.root} exists already: choose another, or delete it first."
                )
            partial.remove()
            return done
        with partial.held():
            with self._started(partial.tasks):
                self.probe(partial.probes)
                self.plan()
                partial.check_content(content_fingerprint(self.plans, self.probes))
                self.encode(partial.tasks)
                summary = ImportSummary.of(self.config, self.settings, self.plans)
                if summary.episodes:
                    self.assemble(partial, summary)
            if summary.episodes:
                partial.finish()
            else:
                partial.remove()
        self.publish(summary)
        return summary

    def estimate(self) -> ImportEstimate:
        """Estimate what would be written. Sizes come from encoding the start of a few tasks in memory."""
        with self._started(None):
            self.probe(ProbeLog(None))
            self.plan()
            bytes_per_frame = self._bytes_per_frame()
        estimate = ImportEstimate.of(self.config, self.settings, self.plans, self.root, bytes_per_frame)
        estimate.write(self.config.summary_path)
        estimate.print()
        return estimate

    @contextlib.contextmanager
    def _started(self, tasks_folder: Path | None) -> Iterator[None]:
        """List the sources, then hold the workers and the progress bar."""
        self.plans = list_sources(self.config.all_sources(), self.config.seed)
        self.labels = PooledLabels.of(
            [plan.title for plan in self.plans], [plan.source.label_features() for plan in self.plans]
        )
        workers = os.cpu_count() or 1 if self.config.workers is None else self.config.workers
        with WorkerPool(workers, self.settings, tasks_folder) as self.pool, Progress() as self.progress:
            yield

    def probe(self, log: ProbeLog) -> None:
        """Read every header once; what cannot be read is left out of the plans with its reason."""
        footage: dict[str, Footage] = {}
        for plan in self.plans:
            for segment in plan.segments:
                footage.setdefault(segment.footage.path, segment.footage)
        states = {path: file_state(path) for path in footage}
        known = log.read()
        self.probes = {
            path: known[path] for path in footage if path in known and known[path].state == states[path]
        }
        todo = [Job("probe", path, each) for path, each in footage.items() if path not in self.probes]
        self.progress.begin("Reading headers", "file", total=len(footage))
        self.progress.advance(len(self.probes))
        for answer in self.pool.run(iter(todo)):
            probe = answer.value or Probe(reason=answer.reason, detail=answer.detail)
            self.probes[answer.key] = replace(probe, state=states[answer.key])
            log.add(answer.key, self.probes[answer.key])
            self.progress.advance()
        for plan in self.plans:
            plan.leave_out_unreadable(self.probes)

    def plan(self) -> None:
        """Cut into tasks what can be read, and turn caps and weights into numbers of episodes and frames."""
        make_tasks(self.plans, self.probes, self.settings, self.config.shard)

    def encode(self, tasks_folder: Path) -> None:
        """Have every task done that is not done yet, stopping a source as soon as its cap is reached."""
        owners = {task.number: (plan, task) for plan in self.plans for task in plan.tasks}
        planned = sum(planned_total(plan, self.settings).frames for plan in self.plans)
        self.progress.begin("Importing", "s of video", total=round(planned / self.settings.fps), scaled=True)

        def finish(number: int, result: TaskResult) -> None:
            plan, task = owners[number]
            plan.results[number] = result
            self.progress.complete(number, task.planned_s)

        def todo() -> Iterator[Job]:
            for plan in self.plans:
                for task in plan.needed_tasks():
                    if task.number in plan.results:
                        continue
                    done = read_result(task_folder(tasks_folder, task.number))
                    if done is not None:
                        finish(task.number, done)
                    else:
                        yield Job("encode", task.number, task)

        before = -1
        while before < (before := sum(len(plan.results) for plan in self.plans)):
            # What has been decoded is of a known length now, which changes what the weights come to.
            apply_weights(self.plans, self.settings)
            for answer in self.pool.run(todo()):
                if answer.progress is not None:
                    self.progress.advance(answer.progress, answer.key)
                else:
                    finish(answer.key, answer.value or TaskResult(reason=answer.reason, detail=answer.detail))
        self.progress.fill()

    def assemble(self, partial: PartialFolder, summary: ImportSummary) -> None:
        """Put the chosen episodes together as a dataset with its card and summary."""
        # Imported late: the workers are busy by then, and `--help` and mistakes in flags do not wait for torch.
        from lawm_lerobot.importing.assembly import DatasetAssembler
        from lawm_lerobot.importing.publishing import write_card

        self.progress.begin("Writing the dataset", "episode", total=summary.episodes)
        shutil.rmtree(partial.dataset, ignore_errors=True)
        with DatasetAssembler(self.config, partial.dataset, self.labels.features) as assembler:
            for number, plan in enumerate(self.plans):
                for task, episode in plan.taken():
                    segment = task.segment
                    times = episode.start_s + np.arange(episode.frames) / self.settings.fps
                    labels = plan.source.labels(segment, times) if self.labels.features else {}
                    assembler.add(
                        task_folder(partial.tasks, task.number) / episode.file,
                        episode,
                        labels=self.labels.fill(number, labels, episode.frames),
                        provenance={
                            "source": plan.title,
                            "source_path": segment.relative_path,
                            "start_s": episode.start_s,
                            "end_s": episode.end_s,
                            "caption": segment.caption,
                            "caption_source": segment.caption_source,
                            "license_note": segment.license_note,
                        },
                    )
                    self.progress.advance()
            assembler.finish()
        self.labels.write(partial.dataset)
        write_card(partial.dataset, summary, self.config.license)
        summary.write(partial.dataset / SUMMARY_NAME, self.config.summary_path)

    def publish(self, summary: ImportSummary) -> None:
        """Say what was imported, and push it if asked to. One part of several may well be empty."""
        if not summary.episodes:
            summary.write(empty_summary(self.root), self.config.summary_path)
        summary.print()
        if summary.episodes:
            print(f"Wrote {self.root}")
            if self.config.push_to_hub:
                from lawm_lerobot.importing.publishing import push

                push(self.config.repo_id, self.root, self.config.private)
        elif self.config.shard.count == 1:
            raise ImportSettingsError(
                "Nothing could be imported; no dataset was written. The reasons are above and in "
                f"{empty_summary(self.root)}."
            )

    def _bytes_per_frame(self) -> float:
        tasks = [task for plan in self.plans for task in plan.tasks]
        chosen = tasks[:: max(1, len(tasks) // SAMPLED_TASKS)][:SAMPLED_TASKS]
        jobs = (Job("sample", task.number, task) for task in chosen)
        samples = [answer.value for answer in self.pool.run(jobs) if answer.value]
        frames = sum(count for _, count in samples)
        return sum(size for size, _ in samples) / frames if frames else 0.0


class Progress:
    """A progress bar that begins anew with each step. Use as a context manager."""

    def __init__(self) -> None:
        self._bar = tqdm(total=0, unit="file", dynamic_ncols=True, desc="Reading headers")
        self._counted: collections.defaultdict[Hashable, float] = collections.defaultdict(float)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def begin(self, step: str, unit: str, total: int, scaled: bool = False) -> None:
        """Begin a step of `total` units; large numbers are shortened if `scaled`."""
        self._bar.set_description(step, refresh=False)
        self._bar.unit, self._bar.unit_scale = unit, scaled
        self._bar.reset(total=total)
        self._counted.clear()

    def advance(self, amount: float = 1, of: Hashable = None) -> None:
        """Go on by so much, and by so much of one piece of the work if `of` names it."""
        if self._bar.n + amount > self._bar.total:
            self._bar.total = self._bar.n + amount  # what does not say how long it is, is not in the estimate
        self._bar.update(round(amount, 1))
        self._counted[of] += amount

    def complete(self, of: Hashable, amount: float) -> None:
        """Go on by what has not been counted yet of a piece of this size."""
        self.advance(max(0.0, amount - self._counted[of]), of)

    def fill(self) -> None:
        """Show the step as done."""
        if self._bar.total:
            self._bar.n = self._bar.total
            self._bar.refresh()
