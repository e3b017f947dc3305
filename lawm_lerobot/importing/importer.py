"""The whole import: list, read headers, plan, encode in workers, assemble, rename.

On disk. Everything is written below `<root>.partial`: `settings.json` (what the import was started with), `probes.jsonl`
(headers read so far), `tasks/` (finished tasks, each one folder that appeared by a rename) and `dataset/` (the result
being put together). The last step renames `dataset/` to `<root>`. A kill at any moment leaves either no `<root>` or a
complete one, and the same command goes on from the finished tasks.
"""

from __future__ import annotations

import collections
import contextlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import draccus
import numpy as np
from tqdm import tqdm

from lawm_lerobot.importing.encoding import EncoderOptions
from lawm_lerobot.importing.plan import (
    SourcePlan,
    content_hash,
    file_state,
    list_sources,
    make_tasks,
    planned_total,
)
from lawm_lerobot.importing.pooling import PooledLabels
from lawm_lerobot.importing.segments import Clip, ImportSettingsError, LeftOut, readable
from lawm_lerobot.importing.sources import VideoSource
from lawm_lerobot.importing.work import Task, TaskResult, WriteSettings, read_result, task_folder
from lawm_lerobot.importing.workers import Answer, Job, WorkerPool
from lawm_lerobot.labels.configuration import LABELS_PATH

SUMMARY_NAME = "import_summary.json"
FORMAT_VERSION = 1  # of the partial folder; a change makes older ones unusable
SAMPLED_TASKS = 12  # of a dry run
# A later window of a video that breaks off is the same fault as the first one's.
BROKEN_OFF = "imported in part: the video breaks off"


@dataclass
class ShardOptions:
    """A part of an import, for several machines: every count-th piece, starting at index."""

    index: int = 0
    count: int = 1


@dataclass
class ImportConfig:
    """Flags of `lawm-import-videos`.

    Args:
        repo_id: Name of the dataset, user/name.
        root: Its folder; must not exist. By default LeRobot's home and `repo_id`.
        source: One source, `--source.type=folder --source.path=...`.
        sources: Several, as a list in a YAML file given by `--config_path`.
        fps: Frame rate of the result; every video is resampled to it by its timestamps.
        size: Pixels, `128` for a square or `96x128` for height x width.
        fit: `crop` fills the picture, `pad` shows all of it on black.
        camera: Image feature of the result.
        max_episode_s: Longer clips are cut into episodes of this length.
        min_episode_s: Shorter clips, and shorter rests of long ones, are left out.
        min_motion: Remove stretches of at least 1 s in which the picture changes by less than this (mean absolute
            difference over half a second, 0 to 1; 0.01 is a good start). 0 keeps everything.
        encoder: How the written video is compressed.
        workers: Processes; by default one per core. 0 works in this process and does not survive a crashing decoder.
        seed: Order in which a source with a cap or a weight is drawn from.
        dry_run: Report episodes, hours and size; write nothing.
        shard: Import one part of several.
        merge: Put the `shard.count` parts together, by LeRobot's own aggregation.
        push_to_hub: Upload the result, with a card. Without a source, upload the dataset that `root` holds already.
        private: Make the Hub repository private.
        license: Licence identifier of the card; the card lists the sources' notes either way.
        summary_path: Also write the summary to this file.
    """

    repo_id: str = ""
    root: Path | None = None
    source: VideoSource | None = None
    sources: list[VideoSource] = field(default_factory=list)
    fps: int = 10
    size: str = "128"
    fit: str = "crop"
    camera: str = "observation.images.main"
    max_episode_s: float = 30.0
    min_episode_s: float = 1.0
    min_motion: float = 0.0
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    workers: int | None = None
    seed: int = 0
    dry_run: bool = False
    shard: ShardOptions = field(default_factory=ShardOptions)
    merge: bool = False
    push_to_hub: bool = False
    private: bool | None = None
    license: str | None = None
    summary_path: Path | None = None

    def all_sources(self) -> list[VideoSource]:
        """`source` and `sources` together."""
        return ([self.source] if self.source is not None else []) + list(self.sources)

    def height_width(self) -> tuple[int, int]:
        """`size` as numbers."""
        match = re.fullmatch(r"(\d+)(?:x(\d+))?", str(self.size).strip())
        height, width = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not (16 <= height <= 4096 and 16 <= width <= 4096) or height % 2 or width % 2:
            raise ImportSettingsError(
                f"--size={self.size} must be even numbers from 16 to 4096, as 128 or as 96x128 (height x width)."
            )
        return height, width

    def check(self) -> None:
        """Refuse what cannot work before anything is read.

        Raises:
            ImportSettingsError: names the flag to change.
        """
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", self.repo_id):
            raise ImportSettingsError(f"--repo_id={self.repo_id or '(missing)'} must look like user/name.")
        if self.fps < 1:
            raise ImportSettingsError(f"--fps={self.fps} must be at least 1.")
        self.height_width()
        if self.fit not in ("crop", "pad"):
            raise ImportSettingsError(f"--fit={self.fit} must be crop or pad.")
        if not re.fullmatch(r"observation\.images\.\w+", self.camera):
            raise ImportSettingsError(f"--camera={self.camera} must look like observation.images.name.")
        if not 0 <= self.min_motion < 1:
            raise ImportSettingsError(f"--min_motion={self.min_motion} must be from 0 to 1.")
        if self.min_episode_s < 0 or self.max_episode_s * self.fps < 2:
            raise ImportSettingsError(
                f"--max_episode_s={self.max_episode_s} must hold at least two frames and --min_episode_s="
                f"{self.min_episode_s} must not be negative."
            )
        if self.min_episode_s > self.max_episode_s:
            raise ImportSettingsError(
                f"--min_episode_s={self.min_episode_s} is above --max_episode_s={self.max_episode_s}."
            )
        if not 0 <= self.shard.index < self.shard.count:
            raise ImportSettingsError(
                f"--shard.index={self.shard.index} must be from 0 to {self.shard.count - 1} (--shard.count)."
            )
        if self.workers is not None and self.workers < 0:
            raise ImportSettingsError(f"--workers={self.workers} must not be negative.")
        if self.push_to_hub and self.shard.count > 1 and not self.merge:
            raise ImportSettingsError(
                "--push_to_hub=true of one part would be overwritten by the next: push with --merge=true."
            )
        if not self.merge and not self.push_to_hub and not self.all_sources():
            raise ImportSettingsError(
                "No source: set --source.type and --source.path, or a list `sources:` in --config_path."
            )

    def write_settings(self) -> WriteSettings:
        """What the workers need."""
        height, width = self.height_width()
        return WriteSettings(
            fps=self.fps,
            height=height,
            width=width,
            fit=self.fit,
            min_frames=max(2, math.ceil(self.min_episode_s * self.fps - 1e-6)),
            max_frames=max(2, round(self.max_episode_s * self.fps)),
            min_motion=self.min_motion,
            vcodec=self.encoder.vcodec,
            pix_fmt=self.encoder.pix_fmt,
            codec_options=codec_options(self.encoder),
        )


def lerobot_encoder(options: EncoderOptions) -> Any:
    """LeRobot's encoder configuration for these options.

    Raises:
        ImportSettingsError: LeRobot refuses them.
    """
    from lerobot.configs import RGBEncoderConfig

    extra: dict[str, Any] = {}
    if options.vcodec == "h264":
        # No B-frames: a clip's frames are then stored in the order they are shown. No scene cuts: each group is `g` long.
        extra = {"bf": 0, "sc_threshold": 0}
    try:
        return RGBEncoderConfig(**asdict(options), extra_options=extra)
    except ValueError as error:
        raise ImportSettingsError(f"--encoder does not work: {error}") from error


def codec_options(options: EncoderOptions) -> dict[str, str]:
    """FFmpeg options as strings. One thread each: the workers share the cores already."""
    return lerobot_encoder(options).get_codec_options(encoder_threads=1, as_strings=True)


@dataclass
class Outcome:
    """What an import did, for the caller of `run_import`."""

    summary: dict[str, Any]
    root: Path | None  # None for a dry run and for an empty shard

    @property
    def episodes(self) -> int:
        return int(self.summary["episodes"])


# ── the run ───────────────────────────────────────────────────────────────────


def run_import(config: ImportConfig) -> Outcome:
    """Import videos as `config` says.

    Raises:
        ImportSettingsError: a flag cannot work, the target exists, or nothing could be imported.
    """
    config.check()
    root = dataset_root(config)
    if config.merge:
        return merge_shards(config, root)
    if not config.all_sources():
        return _push_again(config, root)
    if config.shard.count > 1:
        root = shard_root(root, config.shard.index, config.shard.count)
    settings = config.write_settings()
    if config.dry_run:
        return _dry_run(config, settings, root)
    partial = root.with_name(root.name + ".partial")
    started_with = _settings_record(config)
    if root.exists():
        if partial.is_dir() and _read_json(partial / "settings.json") == started_with:
            # Killed after the last rename: the dataset is whole, only the clearing up was missing.
            shutil.rmtree(partial)
            return Outcome(_read_json(root / SUMMARY_NAME) or {}, root)
        raise ImportSettingsError(f"--root={root} exists already: choose another, or delete it first.")
    partial.mkdir(parents=True, exist_ok=True)
    with _only_one(partial):
        _check_same_settings(partial, started_with)
        summary = _import_into(config, settings, partial)
        if not summary["episodes"]:
            shutil.rmtree(partial)
            place = root.with_name(f"{root.name}.{SUMMARY_NAME}")
            _write_summary(summary, place, config.summary_path)
            print_summary(summary)
            if config.shard.count > 1:
                return Outcome(summary, None)  # this machine's part may well be empty
            raise ImportSettingsError(
                f"Nothing could be imported; no dataset was written. The reasons are above and in {place}."
            )
        _write_summary(summary, partial / "dataset" / SUMMARY_NAME, config.summary_path)
        os.rename(partial / "dataset", root)
        shutil.rmtree(partial)
    print_summary(summary)
    print(f"Wrote {root}")
    if config.push_to_hub:
        _push(config, root)
    return Outcome(summary, root)


def dataset_root(config: ImportConfig) -> Path:
    """`root`, or its default below LeRobot's home."""
    if config.root is not None:
        return Path(os.path.expanduser(config.root)).absolute()
    from lerobot.utils.constants import HF_LEROBOT_HOME

    return HF_LEROBOT_HOME / config.repo_id


def _import_into(config: ImportConfig, settings: WriteSettings, partial: Path) -> dict[str, Any]:
    plans = list_sources(config.all_sources(), config.seed)
    labels = _pooled_labels(plans)
    tasks_folder = partial / "tasks"
    tasks_folder.mkdir(exist_ok=True)
    workers = os.cpu_count() or 1 if config.workers is None else config.workers
    with (
        WorkerPool(workers, settings, tasks_folder) as pool,
        tqdm(total=0, unit="file", dynamic_ncols=True, desc="Reading headers") as bar,
    ):
        probes = _probe(plans, pool, bar, partial / "probes.jsonl")
        make_tasks(plans, probes, settings, (config.shard.index, config.shard.count))
        _check_same_content(partial, content_hash(plans, probes))
        _encode(plans, pool, bar, settings, tasks_folder)
        summary = summarise(config, settings, plans)
        if summary["episodes"]:
            bar.set_description("Writing the dataset", refresh=False)
            bar.unit = "episode"
            bar.reset(total=summary["episodes"])
            _assemble(config, settings, partial, plans, labels, bar, summary)
    return summary


def _assemble(
    config: ImportConfig,
    settings: WriteSettings,
    partial: Path,
    plans: list[SourcePlan],
    pooled: PooledLabels,
    bar: tqdm,
    summary: dict[str, Any],
) -> None:
    # Imported late: the workers are busy by then, and `--help` and mistakes in flags do not wait for torch.
    from lawm_lerobot.importing.assembly import DatasetAssembler, EncodedEpisode
    from lawm_lerobot.importing.publishing import write_card

    target = partial / "dataset"
    shutil.rmtree(target, ignore_errors=True)
    with DatasetAssembler(
        config.repo_id,
        target,
        settings.fps,
        config.camera,
        settings.height,
        settings.width,
        pooled.features,
        lerobot_encoder(config.encoder),
    ) as assembler:
        chosen = [(number, *taken) for number, plan in enumerate(plans) for taken in plan.taken()]
        for number, task, episode in chosen:
            plan, clip = plans[number], task.clip
            times = episode.start_s + np.arange(episode.frames) / settings.fps
            labels = plan.source.labels(clip, times) if pooled.features else {}
            assembler.add(
                EncodedEpisode(
                    video=task_folder(partial / "tasks", task.number) / episode.file,
                    frames=episode.frames,
                    caption=clip.caption,
                    statistics=episode.statistics,
                    labels=pooled.fill(number, labels, episode.frames),
                    provenance={
                        "source": plan.title,
                        "source_path": clip.relative_path,
                        "start_s": episode.start_s,
                        "end_s": episode.end_s,
                        "caption": clip.caption,
                        "caption_source": clip.caption_source,
                        "license_note": clip.license_note,
                    },
                )
            )
            bar.update(1)
        assembler.finish()
    pooled.write(target)
    write_card(target, summary, config.license)


def _pooled_labels(plans: list[SourcePlan]) -> PooledLabels:
    return PooledLabels.of([plan.title for plan in plans], [plan.source.label_features() for plan in plans])


# ── steps ─────────────────────────────────────────────────────────────────────


def _probe(
    plans: list[SourcePlan], pool: WorkerPool, bar: tqdm, cache: Path | None
) -> dict[tuple[str, str], dict[str, Any]]:
    """Read every video's header once; what cannot be read is left out of the plans with its reason."""
    known = _read_probes(cache)
    wanted: dict[tuple[str, str], Clip] = {}
    for plan in plans:
        for clip in plan.clips:
            if clip.kind == "parquet":  # rows of one file, nothing to read
                continue
            wanted.setdefault((clip.kind, clip.path), clip)
    states = {key: file_state(clip) for key, clip in wanted.items()}
    probes = {key: known[key] for key in wanted if key in known and known[key]["state"] == states[key]}
    todo = iter([key for key in wanted if key not in probes])
    bar.reset(total=len(wanted))
    bar.update(len(probes))

    def next_job() -> Job | None:
        key = next(todo, None)
        return None if key is None else Job("probe", key, wanted[key])

    with open(cache, "a", encoding="utf-8") if cache is not None else contextlib.nullcontext() as file:
        for answer in pool.run(next_job):
            record = dict(answer.value or {"reason": answer.reason, "detail": answer.detail})
            record["state"] = states[answer.key]
            probes[answer.key] = record
            if file is not None:
                file.write(json.dumps([answer.key, record]) + "\n")
                file.flush()
            bar.update(1)
    for plan in plans:
        good: list[Clip] = []
        reported: set[tuple[str, str]] = set()
        for clip in plan.clips:
            key = (clip.kind, clip.path)
            if clip.kind == "parquet":
                probes[key] = {"origin": "0", "duration_s": None}
            probe = probes[key]
            if "reason" not in probe:
                good.append(clip)
            elif key not in reported:  # once per file, however many clips are cut from it
                reported.add(key)
                plan.left_out.append(
                    LeftOut(plan.title, clip.relative_path, probe["reason"], probe["detail"])
                )
        plan.clips = good
    return probes


def _read_probes(cache: Path | None) -> dict[tuple[str, str], dict[str, Any]]:
    known: dict[tuple[str, str], dict[str, Any]] = {}
    if cache is None or not cache.is_file():
        return known
    for line in cache.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):  # the last line of a killed run may be cut
            key, record = json.loads(line)
            known[(key[0], key[1])] = record
    return known


def _encode(
    plans: list[SourcePlan], pool: WorkerPool, bar: tqdm, settings: WriteSettings, tasks_folder: Path
) -> None:
    """Have every task done that is not done yet, stopping a source as soon as its cap is reached."""
    by_number = {task.number: (plan, task) for plan in plans for task in plan.tasks}
    bar.set_description("Importing", refresh=False)
    bar.unit, bar.unit_scale = "s of video", True
    bar.reset(total=round(sum(planned_total(plan, settings)[1] for plan in plans) / settings.fps))
    reported: collections.Counter[int] = collections.Counter()

    def advance(number: int, seconds: float) -> None:
        if bar.total is not None and bar.n + seconds > bar.total:
            bar.total = bar.n + seconds  # containers without a length are not in the estimate
        bar.update(round(seconds, 1))
        reported[number] += seconds  # type: ignore[assignment]

    def finish(number: int, result: TaskResult) -> None:
        plan, task = by_number[number]
        plan.results[number] = result
        advance(number, max(0.0, task.planned_s - reported[number]))

    def undone() -> Iterator[Task]:
        for plan in plans:
            for task in plan.tasks:
                if plan.is_full():
                    break
                done = read_result(task_folder(tasks_folder, task.number))
                if done is not None:
                    finish(task.number, done)
                else:
                    yield task

    tasks = undone()

    def next_job() -> Job | None:
        task = next(tasks, None)
        return None if task is None else Job("import", task.number, task)

    for answer in pool.run(next_job):
        if answer.progress is not None:
            advance(answer.key, answer.progress)
            continue
        result = answer.value
        if result is None:
            result = TaskResult(reason=answer.reason, detail=answer.detail)
        finish(answer.key, result)
    if bar.total:
        bar.n = bar.total
        bar.refresh()


def _dry_run(config: ImportConfig, settings: WriteSettings, root: Path) -> Outcome:
    """Say what would be written. Sizes come from encoding the start of a few clips in memory."""
    plans = list_sources(config.all_sources(), config.seed)
    _pooled_labels(plans)
    workers = os.cpu_count() or 1 if config.workers is None else config.workers
    with (
        WorkerPool(workers, settings, None) as pool,
        tqdm(total=0, unit="file", dynamic_ncols=True, desc="Reading headers") as bar,
    ):
        probes = _probe(plans, pool, bar, None)
        make_tasks(plans, probes, settings, (config.shard.index, config.shard.count))
        answers = _sample(plans, pool)
    size = sum(answer.value[0] for answer in answers if answer.value)
    frames = sum(answer.value[1] for answer in answers if answer.value)
    per_frame = size / frames if frames else 0.0
    sources, total_episodes, total_frames, unknown = [], 0, 0, 0
    for plan in plans:
        episodes, count = planned_total(plan, settings)
        total_episodes, total_frames = total_episodes + episodes, total_frames + count
        unknown += sum(task.promised_s is None and task.clip.end_s is None for task in plan.tasks)
        sources.append(
            {
                "name": plan.title,
                "episodes": episodes,
                "hours": round(count / settings.fps / 3600, 4),
                "left_out": len(plan.left_out),
            }
        )
    left_out = [item for plan in plans for item in plan.left_out]
    summary = {
        "dry_run": True,
        "repo_id": config.repo_id,
        "root": str(root),
        "episodes": total_episodes,
        "frames": total_frames,
        "hours": round(total_frames / settings.fps / 3600, 4),
        "estimated_megabytes": round(per_frame * total_frames / 1e6, 2),
        "clips_of_unknown_length": unknown,
        "sources": sources,
        "left_out_by_reason": _by_reason(left_out),
        "left_out": [item.to_dict() for item in left_out],
    }
    if config.summary_path is not None:
        _write_summary(summary, None, config.summary_path)
    print_summary(summary)
    return Outcome(summary, None)


def _sample(plans: list[SourcePlan], pool: WorkerPool) -> list[Answer]:
    tasks = [task for plan in plans for task in plan.tasks]
    step = max(1, len(tasks) // SAMPLED_TASKS)
    todo = iter(tasks[::step][:SAMPLED_TASKS])

    def next_job() -> Job | None:
        task = next(todo, None)
        return None if task is None else Job("sample", task.number, task)

    return list(pool.run(next_job))


# ── summary ───────────────────────────────────────────────────────────────────


def summarise(config: ImportConfig, settings: WriteSettings, plans: list[SourcePlan]) -> dict[str, Any]:
    """What was imported and what was left out, as plain data; the same for a resumed import as for an unbroken one."""
    sources = []
    left_out: list[LeftOut] = []
    for plan in plans:
        taken = plan.taken()
        frames = sum(episode.frames for _, episode in taken)
        results = [
            (task, plan.results[task.number]) for task in plan.used_tasks() if task.number in plan.results
        ]
        mine = plan.left_out + _task_faults(plan.title, results)
        left_out += mine
        sources.append(
            {
                "name": plan.title,
                "type": plan.source.type,
                "episodes": len(taken),
                "frames": frames,
                "hours": round(frames / settings.fps / 3600, 6),
                "left_out": len(mine),
                "seconds_under_min_episode_s": round(
                    sum(r.short_frames for _, r in results) / settings.fps, 3
                ),
                "seconds_without_motion": round(sum(r.still_frames for _, r in results) / settings.fps, 3),
                "license_notes": sorted({task.clip.license_note for task, _ in taken}),
            }
        )
    frames = sum(int(str(source["frames"])) for source in sources)
    return {
        "repo_id": config.repo_id,
        "fps": settings.fps,
        "height": settings.height,
        "width": settings.width,
        "shard": asdict(config.shard),
        "episodes": sum(int(str(source["episodes"])) for source in sources),
        "frames": frames,
        "hours": round(frames / settings.fps / 3600, 6),
        "sources": sources,
        "left_out_by_reason": _by_reason(left_out),
        "left_out": [item.to_dict() for item in left_out],
    }


def _task_faults(title: str, results: list[tuple[Task, TaskResult]]) -> list[LeftOut]:
    faults = []
    seen: set[tuple[str, str]] = set()
    for task, result in results:
        if not result.reason:
            continue
        reason, name = result.reason, task.clip.relative_path
        if task.first_frame > 0 and not result.episodes:
            if reason == "shorter than --min_episode_s":
                continue  # the rest of a long video; counted in seconds_under_min_episode_s
            if reason in ("starts after the end of the video", "no frames", "cannot be decoded"):
                reason = BROKEN_OFF
        if task.clip.start_s > 0 or task.clip.end_s is not None:
            end = f"{task.clip.end_s:.2f}" if task.clip.end_s is not None else "end"
            name = f"{name} [{task.clip.start_s:.2f}-{end} s]"
        if (name, reason) not in seen:
            seen.add((name, reason))
            faults.append(LeftOut(title, name, reason, result.detail))
    return faults


def _by_reason(left_out: list[LeftOut]) -> dict[str, int]:
    return dict(sorted(collections.Counter(item.reason for item in left_out).items()))


def print_summary(summary: dict[str, Any], shown: int = 30) -> None:
    """The summary for the screen: counts, then what was left out and why."""
    verb = "Would import" if summary.get("dry_run") else "Imported"
    print(
        f"{verb} {summary['episodes']} episodes, {summary['frames']} frames, {summary['hours']:.3f} h", end=""
    )
    if summary.get("dry_run"):
        print(f", about {summary['estimated_megabytes']} MB", end="")
        if summary["clips_of_unknown_length"]:
            print(
                f"; not counting {summary['clips_of_unknown_length']} clips that do not say how long they are",
                end="",
            )
    print()
    for source in summary["sources"]:
        print(
            f"  {source['name']}: {source['episodes']} episodes, {source['hours']:.3f} h, {source['left_out']} left out"
        )
    for reason, count in summary["left_out_by_reason"].items():
        print(f"  {count} x {reason}")
    for item in summary["left_out"][:shown]:
        detail = f" ({item['detail']})" if item["detail"] else ""
        print(f"    {item['path']!r}: {item['reason']}{detail}")
    if len(summary["left_out"]) > shown:
        print(f"    and {len(summary['left_out']) - shown} more in {SUMMARY_NAME}")


def _write_summary(summary: dict[str, Any], path: Path | None, second: Path | None) -> None:
    text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
    for target in (path, second):
        if target is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")


# ── the partial folder ────────────────────────────────────────────────────────


def _settings_record(config: ImportConfig) -> dict[str, Any]:
    """Everything that shapes the result, as JSON; a resumed import must agree on all of it."""
    record = draccus.encode(config)
    for name in ("workers", "dry_run", "merge", "push_to_hub", "private", "summary_path", "root", "license"):
        record.pop(name, None)
    record["source"] = None
    record["sources"] = [draccus.encode(source, VideoSource) for source in config.all_sources()]
    record["format"] = FORMAT_VERSION
    return json.loads(json.dumps(record, default=str))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None


def _write_json(path: Path, value: Any) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=1), encoding="utf-8")
    os.replace(temporary, path)


def _check_same_settings(partial: Path, settings: dict[str, Any]) -> None:
    before = _read_json(partial / "settings.json")
    if before is None:
        _write_json(partial / "settings.json", settings)
        return
    if before == settings:
        print(f"Going on with the unfinished import in {partial}")
        return
    changed = sorted(key for key in {*before, *settings} if before.get(key) != settings.get(key))
    raise ImportSettingsError(
        f"{partial} holds an unfinished import with other settings ({', '.join('--' + key for key in changed)} changed): "
        "run it with the same ones to finish it, or delete that folder to start anew."
    )


def _check_same_content(partial: Path, content: str) -> None:
    before = _read_json(partial / "content.json")
    if before is None:
        _write_json(partial / "content.json", content)
    elif before != content:
        raise ImportSettingsError(
            f"The videos or captions changed since the unfinished import in {partial} began: delete that folder to start "
            "anew."
        )


@contextlib.contextmanager
def _only_one(partial: Path) -> Iterator[IO[str]]:
    """Hold a lock that the system frees even when this process is killed."""
    with open(partial / "lock", "w", encoding="utf-8") as file:
        try:
            import fcntl
        except ImportError:  # Windows has no flock; there, two imports into one folder are not caught
            yield file
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ImportSettingsError(
                f"Another import is writing to {partial}: wait for it, or choose another --root."
            ) from error
        yield file


# ── several machines ──────────────────────────────────────────────────────────


def shard_root(root: Path, index: int, count: int) -> Path:
    """Where a part of an import goes until it is merged."""
    return root.with_name(root.name + ".shards") / f"shard-{index:05d}-of-{count:05d}"


def merge_shards(config: ImportConfig, root: Path) -> Outcome:
    """Put all parts together with LeRobot's `aggregate_datasets`; the parts stay.

    Raises:
        ImportSettingsError: a part is missing, all are empty, or the target exists.
    """
    from lerobot.datasets.aggregate import aggregate_datasets

    from lawm_lerobot.hub.provenance import merged_provenance, write_provenance
    from lawm_lerobot.importing.publishing import write_card

    if root.exists():
        raise ImportSettingsError(f"--root={root} exists already: choose another, or delete it first.")
    count = config.shard.count
    summaries, roots = [], []
    for index in range(count):
        part = shard_root(root, index, count)
        summary = _read_json(part / SUMMARY_NAME)
        empty = _read_json(part.with_name(f"{part.name}.{SUMMARY_NAME}"))
        if summary is not None:
            roots.append(part)
        elif empty is None:
            raise ImportSettingsError(
                f"Part {index} of {count} is not finished ({part} is missing): run it with --shard.index={index}, or set "
                "--shard.count to the number of parts there are."
            )
        summaries.append(summary or empty)
    if not roots:
        raise ImportSettingsError(f"All {count} parts of {root} are empty; there is nothing to merge.")
    target = root.with_name(root.name + ".merging")
    shutil.rmtree(target, ignore_errors=True)
    aggregate_datasets(
        repo_ids=[config.repo_id] * len(roots), aggr_repo_id=config.repo_id, roots=roots, aggr_root=target
    )
    write_provenance(list(merged_provenance(roots)), target)
    if (roots[0] / LABELS_PATH).is_file():
        shutil.copy(roots[0] / LABELS_PATH, target / LABELS_PATH)
    merged = _merged_summary(summaries)
    write_card(target, merged, config.license)
    _write_summary(merged, target / SUMMARY_NAME, config.summary_path)
    os.rename(target, root)
    print_summary(merged)
    print(f"Wrote {root}")
    if config.push_to_hub:
        _push(config, root)
    return Outcome(merged, root)


def _merged_summary(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    merged = dict(summaries[0])
    merged["shard"] = {"index": 0, "count": 1}
    sources: dict[str, dict[str, Any]] = {}
    left_out: dict[str, dict[str, str]] = {}
    for summary in summaries:
        for item in summary["left_out"]:  # every part lists what could not even be opened; once is enough
            left_out.setdefault(json.dumps(item, sort_keys=True), item)
        for source in summary["sources"]:
            total = sources.setdefault(
                source["name"], {**source, **dict.fromkeys(_SUMMED, 0), "license_notes": []}
            )
            for key in _SUMMED:
                total[key] = round(total[key] + source[key], 6)
            total["license_notes"] = sorted({*total["license_notes"], *source["license_notes"]})
    for total in sources.values():
        total["left_out"] = sum(item["source"] == total["name"] for item in left_out.values())
    merged["sources"] = list(sources.values())
    for key in ("episodes", "frames", "hours"):
        merged[key] = round(sum(summary[key] for summary in summaries), 6)
    merged["left_out"] = list(left_out.values())
    merged["left_out_by_reason"] = dict(
        sorted(collections.Counter(item["reason"] for item in left_out.values()).items())
    )
    return merged


_SUMMED = ("episodes", "frames", "hours", "seconds_under_min_episode_s", "seconds_without_motion")


def _push_again(config: ImportConfig, root: Path) -> Outcome:
    summary = _read_json(root / SUMMARY_NAME)
    if summary is None:
        raise ImportSettingsError(
            f"--root={root} holds no imported dataset to push, and there is no source to import one from: set "
            "--source.type and --source.path, or another --root."
        )
    if config.repo_id != summary["repo_id"]:
        from lawm_lerobot.importing.publishing import write_card

        summary["repo_id"] = config.repo_id
        write_card(root, summary, config.license)  # its commands name the repository
        _write_summary(summary, root / SUMMARY_NAME, config.summary_path)
    _push(config, root)
    return Outcome(summary, root)


def _push(config: ImportConfig, root: Path) -> None:
    from lawm_lerobot.hub.errors import HubError
    from lawm_lerobot.importing.publishing import push

    try:
        address = push(config.repo_id, root, config.private)
    except (HubError, ValueError) as error:
        raise ImportSettingsError(" ".join(str(error).split())) from error
    print(f"Pushed {readable(str(root))} to {address}")
