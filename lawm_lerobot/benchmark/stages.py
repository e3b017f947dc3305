"""The commands behind a cell, shared between cells wherever they are the same.

Every stage is a command that a user could type, run in the benchmark's output directory. Its name ends in a hash of
the command and of the versions it runs with; since the command holds the names of its inputs, a stage whose inputs
change gets another name, and a stage of the same name never runs twice.
"""

import hashlib
import json
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lawm_lerobot.benchmark.plan import (
    ARMS,
    INVERSE_MODEL,
    SUPERVISED,
    TRUE_ACTIONS,
    BenchmarkConfig,
    Cell,
    Variant,
    cells_of,
)
from lawm_lerobot.envs.configuration_metaworld import parse_cameras

# Where the commands are: module and function. The last two have no command of their own.
PROGRAMS = {
    "lerobot-train": "lerobot.scripts.lerobot_train:main",
    "lerobot-eval": "lerobot.scripts.lerobot_eval:main",
    "lawm-label-actions": "lawm_lerobot.scripts.lawm_label_actions:main",
    "record": "lawm_lerobot.benchmark.record:main",
    "imitation-error": "lawm_lerobot.benchmark.imitation:main",
}

# Episode k of a recording starts from seed + k. Ranges that never meet, also after the recorder's retries, which
# add millions; within the last two every benchmark seed has a thousand to itself.
CORPUS_SEED = 0
HELD_OUT_SEED = 100_000
EVALUATION_SEED = 200_000
DEMONSTRATION_SEED = 300_000
SEED_STEP = 1000

OUT = "{out}"  # in a command: where it writes
FPS = 80  # Meta-World's


@cache
def _versions() -> tuple[str, str]:
    return version("lerobot"), version("lerobot_policy_lawm")


@dataclass(frozen=True, eq=False)
class Stage:
    """One command, its inputs and its place.

    Attributes:
        kind: record, pretrain, label, finetune, evaluate or imitation.
        label: What a person reads; a function of the command.
        arguments: With `OUT` where the command writes.
        seconds: Estimated duration.
    """

    kind: str
    label: str
    program: str
    arguments: tuple[str, ...]
    inputs: tuple["Stage", ...] = ()
    seconds: float = field(default=0.0)

    @cached_property
    def name(self) -> str:
        content = [self.program, self.arguments, *_versions()]
        return f"{self.kind}-{self.label}-{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:10]}"

    @property
    def directory(self) -> Path:
        """Relative to the benchmark's output directory."""
        return Path("stages") / self.name

    @property
    def out(self) -> Path:
        return self.directory / "out"

    @property
    def checkpoint(self) -> Path:
        """Of a training stage."""
        return self.out / "checkpoints" / "last" / "pretrained_model"

    def command(self) -> list[str]:
        return [argument.replace(OUT, str(self.out)) for argument in self.arguments]


@dataclass(frozen=True)
class CellPlan:
    """A cell and the stages that its result is read from."""

    cell: Cell
    pretraining: Stage | None
    finetuning: Stage
    evaluation: Stage
    imitation: Stage

    @property
    def key(self) -> str:
        """Changes with anything that the cell's figures depend on."""
        return f"{self.evaluation.name}/{self.imitation.name}"

    def stages(self) -> list[Stage]:
        """All stages that the cell needs, inputs first."""
        ordered: dict[str, Stage] = {}

        def visit(stage: Stage) -> None:
            for source in stage.inputs:
                visit(source)
            ordered.setdefault(stage.name, stage)

        visit(self.evaluation)
        visit(self.imitation)
        return list(ordered.values())


def plan_cells(cfg: BenchmarkConfig) -> list[CellPlan]:
    return [_plan_cell(cfg, cell) for cell in cells_of(cfg)]


def unique_stages(plans: list[CellPlan]) -> list[Stage]:
    """The stages of some cells, each once, inputs first."""
    return list({stage.name: stage for plan in plans for stage in plan.stages()}.values())


def _plan_cell(cfg: BenchmarkConfig, cell: Cell) -> CellPlan:
    variant = cfg.variant(cell.arm)
    arm = ARMS[variant.arm]
    demonstrations = _record_demonstrations(cfg, cell)

    pretrained: Stage | None = None
    if arm.pretraining == SUPERVISED:
        pretrained = _pretrain_supervised(cfg, cell, variant)
    elif arm.pretraining is not None:
        labels = demonstrations if arm.readout else None
        pretrained = _pretrain(cfg, cell, variant, arm.pretraining, labels)

    if arm.corpus_actions is None:
        dataset = demonstrations
    elif arm.corpus_actions == TRUE_ACTIONS:
        dataset = _record_demonstrations(cfg, cell, with_corpus=True)
    else:
        dataset = _label(cfg, cell, variant, demonstrations, pretrained)

    steps = cfg.finetuning_steps + (cfg.equal_compute_steps if arm.prolonged else 0)
    finetuned = _finetune(cfg, cell, variant, dataset, pretrained, steps)
    return CellPlan(
        cell,
        pretrained if arm.pretraining != SUPERVISED else None,
        finetuned,
        _evaluate(cfg, cell, finetuned),
        _imitation(cfg, cell, finetuned),
    )


# --- recording ----------------------------------------------------------------------------------------------------


def _record(
    cfg: BenchmarkConfig,
    label: str,
    parts: list[dict[str, Any]],
    *,
    with_actions: bool,
    with_state: bool = True,
) -> Stage:
    spec = {
        "repo_id": "benchmark/record",
        "fps": FPS,
        "with_actions": with_actions,
        "with_state": with_state,
        "parts": [part | {"size": cfg.size, "cameras": parse_cameras(cfg.camera)} for part in parts],
    }
    episodes = sum(part["episodes_per_task"] * len(part["tasks"]) for part in parts)
    seconds = episodes * cfg.costs.recorded_episode
    return Stage("record", label, "record", (json.dumps(spec), OUT), seconds=seconds)


def _corpus_part(cfg: BenchmarkConfig, cell: Cell) -> dict[str, Any]:
    tasks = cfg.corpus_tasks(cell.setting.regime, cell.setting.task)
    return {
        "tasks": tasks,
        "episodes_per_task": cfg.corpus_episodes_per_task(tasks),
        "seed": CORPUS_SEED,
        "noise": cfg.corpus.noise,
        "camera_shift": cfg.corpus.camera_shift,
        "distractors": cfg.corpus.distractors,
        "body": cfg.corpus.body,
    }


def _record_corpus(cfg: BenchmarkConfig, cell: Cell, *, with_actions: bool) -> Stage:
    """The same episodes with or without actions: an arm that may not use actions has none at hand."""
    part = _corpus_part(cfg, cell)
    shown = part["tasks"][0] if len(part["tasks"]) == 1 else f"{len(part['tasks'])}-tasks"
    label = f"{'labelled-' if with_actions else ''}corpus-{shown}"
    with_state = with_actions or cfg.corpus.with_state
    return _record(cfg, label, [part], with_actions=with_actions, with_state=with_state)


def _record_demonstrations(cfg: BenchmarkConfig, cell: Cell, *, with_corpus: bool = False) -> Stage:
    n, task = cell.setting.demonstrations, cell.setting.task
    seed = DEMONSTRATION_SEED + SEED_STEP * cell.seed
    parts: list[dict[str, Any]] = [{"tasks": [task], "episodes_per_task": n, "seed": seed}]
    label = f"demonstrations-{task}-n{n}-s{cell.seed}"
    if with_corpus:
        parts.append(_corpus_part(cfg, cell))
        label += "-and-corpus"
    return _record(cfg, label, parts, with_actions=True)


# --- training -----------------------------------------------------------------------------------------------------


def _dataset(stage: Stage, prefix: str) -> list[str]:
    """Flags that name the dataset which a recording or labelling stage wrote."""
    return [f"--{prefix}.repo_id=benchmark/{stage.kind}", f"--{prefix}.root={stage.out}"]


def _train(
    cfg: BenchmarkConfig, cell: Cell, flags: list[str], dataset: Stage, steps: int, save_freq: int
) -> tuple:
    return (
        *flags,
        *_dataset(dataset, "dataset"),
        f"--output_dir={OUT}",
        f"--policy.device={cfg.device}",
        "--policy.push_to_hub=false",
        f"--batch_size={cfg.batch_size}",
        f"--steps={steps}",
        f"--save_freq={save_freq}",
        f"--log_freq={max(steps // 20, 1)}",
        f"--seed={cell.seed}",
        *cfg.training,
    )


def _pretrain(cfg: BenchmarkConfig, cell: Cell, variant: Variant, source: str, labels: Stage | None) -> Stage:
    corpus = _record_corpus(cfg, cell, with_actions=False)
    flags = [f"--policy.type={cfg.policy.type}", *cfg.policy.flags, "--policy.stage=pretrain"]
    flags += [f"--policy.latent_action.source={source}", *cfg.policy.pretraining, *variant.pretraining]
    label = f"{source}-{corpus.label}"
    if labels is not None:
        flags += _dataset(labels, "policy.labels")
        label = f"{source}+readout-{corpus.label}-n{cell.setting.demonstrations}"
    steps = cfg.pretraining_steps
    return Stage(
        "pretrain",
        f"{label}-s{cell.seed}",
        "lerobot-train",
        _train(cfg, cell, flags, corpus, steps, save_freq=steps),
        (corpus,) if labels is None else (corpus, labels),
        steps * cfg.costs.pretraining_step,
    )


def _from_scratch(cfg: BenchmarkConfig, variant: Variant) -> list[str]:
    flags = [f"--policy.type={cfg.policy.type}", *cfg.policy.flags, "--policy.stage=finetune"]
    return flags + [*cfg.policy.finetuning, *variant.finetuning]


def _pretrain_supervised(cfg: BenchmarkConfig, cell: Cell, variant: Variant) -> Stage:
    corpus = _record_corpus(cfg, cell, with_actions=True)
    steps = cfg.equal_compute_steps
    return Stage(
        "pretrain",
        f"supervised-{corpus.label}-s{cell.seed}",
        "lerobot-train",
        _train(cfg, cell, _from_scratch(cfg, variant), corpus, steps, save_freq=steps),
        (corpus,),
        steps * cfg.costs.finetuning_step,
    )


def _finetune(
    cfg: BenchmarkConfig, cell: Cell, variant: Variant, dataset: Stage, pretrained: Stage | None, steps: int
) -> Stage:
    inputs: tuple[Stage, ...] = (dataset,)
    flags, label = _from_scratch(cfg, variant), "scratch"
    if pretrained is not None:
        inputs += (pretrained,)
        flags = [f"--policy.path={pretrained.checkpoint}", "--policy.stage=finetune"]
        flags += [*cfg.policy.finetuning, *variant.finetuning]
        label = pretrained.label.split("-")[0]
    save_freq = max(cfg.finetuning_steps // cfg.evaluation.curve_points, 1)
    return Stage(
        "finetune",
        f"{label}-on-{dataset.label}-{steps}-steps",
        "lerobot-train",
        _train(cfg, cell, flags, dataset, steps, save_freq),
        inputs,
        steps * cfg.costs.finetuning_step,
    )


def _label(
    cfg: BenchmarkConfig, cell: Cell, variant: Variant, demonstrations: Stage, pretrained: Stage | None
) -> Stage:
    corpus = _record_corpus(cfg, cell, with_actions=False)
    inputs: tuple[Stage, ...] = (corpus, demonstrations)
    decoder, path = INVERSE_MODEL, []
    if pretrained is not None:
        inputs += (pretrained,)
        decoder, path = "readout", [f"--policy.path={pretrained.checkpoint}"]
    return Stage(
        "label",
        f"{pretrained.label.split('-')[0] if pretrained else INVERSE_MODEL}-with-{demonstrations.label}",
        "lawm-label-actions",
        (
            *path,
            *_dataset(corpus, "dataset"),
            *_dataset(demonstrations, "labels"),
            "--output_repo_id=benchmark/label",
            f"--output_root={OUT}",
            f"--decoder={decoder}",
            "--merge=true",
            f"--seed={cell.seed}",
            f"--device={cfg.device}",
            *cfg.policy.labelling,
            *variant.labelling,
        ),
        inputs,
        cfg.costs.labelling,
    )


# --- measuring ----------------------------------------------------------------------------------------------------


def _evaluate(cfg: BenchmarkConfig, cell: Cell, finetuned: Stage) -> Stage:
    evaluation = cfg.evaluation
    return Stage(
        "evaluate",
        finetuned.label,
        "lerobot-eval",
        (
            f"--policy.path={finetuned.checkpoint}",
            f"--policy.device={cfg.device}",
            "--env.type=lawm_metaworld",
            f"--env.task={cell.setting.task}",
            f"--env.size={cfg.size}",
            f"--env.camera={cfg.camera}",
            f"--env.episode_length={evaluation.episode_length}",
            f"--eval.n_episodes={evaluation.episodes}",
            f"--eval.batch_size={min(evaluation.batch_size, evaluation.episodes)}",
            "--eval.use_async_envs=false",
            # Other object positions for every seed, the same for all arms: seeds are then independent draws.
            f"--seed={EVALUATION_SEED + SEED_STEP * cell.seed}",
            f"--output_dir={OUT}",
        ),
        (finetuned,),
        evaluation.episodes * cfg.costs.evaluated_episode,
    )


def _imitation(cfg: BenchmarkConfig, cell: Cell, finetuned: Stage) -> Stage:
    count, task = cfg.evaluation.held_out_demonstrations, cell.setting.task
    part = {"tasks": [task], "episodes_per_task": count, "seed": HELD_OUT_SEED}
    held_out = _record(cfg, f"held-out-{task}", [part], with_actions=True)
    return Stage(
        "imitation",
        finetuned.label,
        "imitation-error",
        (
            f"--checkpoints={finetuned.out / 'checkpoints'}",
            "--repo_id=benchmark/record",
            f"--root={held_out.out}",
            f"--device={cfg.device}",
            f"--output={OUT}/imitation.json",
        ),
        (held_out, finetuned),
        3.0 * count,
    )
