"""The cells of a benchmark, and the commands behind each, shared between cells wherever they are the same.

A cell is one arm, corpus regime, task, number of demonstrations and seed.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

from lawm_lerobot.benchmark.commands import OUT, Command
from lawm_lerobot.benchmark.configuration import ARMS, SUPERVISED, TRUE_ACTIONS, Arm, BenchmarkConfig, Variant
from lawm_lerobot.envs.configuration_metaworld import parse_cameras

# Episode k of a recording starts from seed + k. Ranges that never meet, also after the recorder's retries, which
# add millions; within the last two every benchmark seed has a thousand to itself.
CORPUS_SEED = 0
HELD_OUT_SEED = 100_000
EVALUATION_SEED = 200_000
DEMONSTRATION_SEED = 300_000
SEED_STEP = 1000

FPS = 80  # Meta-World's


@dataclass(frozen=True)
class Setting:
    """The corpus, the evaluated task and the number of demonstrations with which arms are compared."""

    regime: str
    task: str
    demonstrations: int

    def __str__(self) -> str:
        return f"{self.task}, {self.demonstrations} demonstrations, {self.regime}"


@dataclass(frozen=True)
class Cell:
    """One trained and evaluated policy: an arm under conditions that it shares with others, with one seed."""

    setting: Setting
    arm: str
    seed: int

    def __str__(self) -> str:
        return f"{self.arm}, {self.setting}, seed {self.seed}"


def settings_of(cfg: BenchmarkConfig) -> list[Setting]:
    return [Setting(*values) for values in product(cfg.regimes, cfg.tasks, cfg.demonstrations)]


def cells_of(cfg: BenchmarkConfig) -> list[Cell]:
    """All cells; seed by seed, so that an interrupted benchmark has compared all arms."""
    return [Cell(setting, arm, seed) for seed, setting, arm in product(cfg.seeds, settings_of(cfg), cfg.arms)]


@dataclass(frozen=True)
class CellRun:
    """A cell and the commands that its result is read from; no ``pretraining`` in arms without that of LAWM."""

    cell: Cell
    pretraining: Command | None
    finetuning: Command
    evaluation: Command
    imitation: Command

    @property
    def key(self) -> str:
        """A name that changes with anything the cell's result depends on."""
        return f"{self.evaluation.name}/{self.imitation.name}"

    def commands(self) -> list[Command]:
        """All commands that the cell needs, inputs first."""
        needed = [*self.evaluation.with_inputs(), *self.imitation.with_inputs()]
        return list({command.name: command for command in needed}.values())


def cell_runs(cfg: BenchmarkConfig) -> list[CellRun]:
    return [_CellCommands(cfg, cell).run() for cell in cells_of(cfg)]


def unique_commands(runs: Sequence[CellRun]) -> list[Command]:
    """The commands of some cells, each once, inputs first."""
    return list({command.name: command for run in runs for command in run.commands()}.values())


def _dataset_flags(command: Command, prefix: str) -> list[str]:
    """Flags that name the dataset which a recording or labelling command wrote."""
    return [f"--{prefix}.repo_id=benchmark/{command.kind}", f"--{prefix}.root={command.out}"]


@dataclass(frozen=True)
class _CellCommands:
    """The commands of one cell, built from the configuration."""

    cfg: BenchmarkConfig
    cell: Cell

    @cached_property
    def variant(self) -> Variant:
        return self.cfg.variant(self.cell.arm)

    @cached_property
    def arm(self) -> Arm:
        return ARMS[self.variant.arm]

    def run(self) -> CellRun:
        demonstrations = self.record_demonstrations()
        pretrained: Command | None = None
        if self.arm.pretraining == SUPERVISED:
            pretrained = self.pretrain_supervised()
        elif self.arm.pretraining is not None:
            pretrained = self.pretrain(demonstrations)

        if self.arm.corpus_actions is None:
            dataset = demonstrations
        elif self.arm.corpus_actions == TRUE_ACTIONS:
            dataset = self.record_demonstrations(with_corpus=True)
        else:
            dataset = self.label(demonstrations, pretrained)

        finetuned = self.finetune(dataset, pretrained)
        return CellRun(
            self.cell,
            pretrained if self.arm.pretraining != SUPERVISED else None,
            finetuned,
            self.evaluate(finetuned),
            self.imitation(finetuned),
        )

    def record(
        self, title: str, parts: list[dict[str, Any]], *, with_actions: bool, with_state: bool = True
    ) -> Command:
        """The command that records ``parts``, each of them the fields of an `ExpertRecording`, as one dataset."""
        pictures = {"size": self.cfg.size, "cameras": parse_cameras(self.cfg.camera)}
        spec = {
            "repo_id": "benchmark/record",
            "fps": FPS,
            "with_actions": with_actions,
            "with_state": with_state,
            "parts": [part | pictures for part in parts],
        }
        episodes = sum(part["episodes_per_task"] * len(part["tasks"]) for part in parts)
        seconds = episodes * self.cfg.costs.recorded_episode
        return Command("record", title, "record", (json.dumps(spec), OUT), seconds=seconds)

    def corpus_part(self) -> dict[str, Any]:
        corpus = self.cfg.corpus
        tasks = self.cfg.corpus_tasks(self.cell.setting.regime, self.cell.setting.task)
        return {
            "tasks": tasks,
            "episodes_per_task": self.cfg.corpus_episodes_per_task(tasks),
            "seed": CORPUS_SEED,
            "noise": corpus.noise,
            "camera_shift": corpus.camera_shift,
            "distractors": corpus.distractors,
            "body": corpus.body,
        }

    def record_corpus(self, *, with_actions: bool) -> Command:
        """The same episodes with or without actions: an arm that may not use actions has none at hand."""
        part = self.corpus_part()
        shown = part["tasks"][0] if len(part["tasks"]) == 1 else f"{len(part['tasks'])}-tasks"
        title = f"{'labelled-' if with_actions else ''}corpus-{shown}"
        with_state = with_actions or self.cfg.corpus.with_state
        return self.record(title, [part], with_actions=with_actions, with_state=with_state)

    def record_demonstrations(self, *, with_corpus: bool = False) -> Command:
        count, task = self.cell.setting.demonstrations, self.cell.setting.task
        seed = DEMONSTRATION_SEED + SEED_STEP * self.cell.seed
        parts: list[dict[str, Any]] = [{"tasks": [task], "episodes_per_task": count, "seed": seed}]
        title = f"demonstrations-{task}-n{count}-s{self.cell.seed}"
        if with_corpus:
            parts.append(self.corpus_part())
            title += "-and-corpus"
        return self.record(title, parts, with_actions=True)

    def train_arguments(
        self, flags: list[str], dataset: Command, steps: int, save_freq: int
    ) -> tuple[str, ...]:
        return (
            *flags,
            *_dataset_flags(dataset, "dataset"),
            f"--output_dir={OUT}",
            f"--policy.device={self.cfg.device}",
            "--policy.push_to_hub=false",
            f"--batch_size={self.cfg.batch_size}",
            f"--steps={steps}",
            f"--save_freq={save_freq}",
            f"--log_freq={max(steps // 20, 1)}",
            f"--seed={self.cell.seed}",
            *self.cfg.training,
        )

    def pretrain(self, demonstrations: Command) -> Command:
        policy, steps = self.cfg.policy, self.cfg.pretraining_steps
        corpus = self.record_corpus(with_actions=False)
        inputs: tuple[Command, ...] = (corpus,)
        flags = [f"--policy.type={policy.type}", *policy.flags, "--policy.stage=pretrain"]
        flags += [f"--policy.latent_action.source={self.arm.pretraining}"]
        flags += [*policy.pretraining, *self.variant.pretraining]
        title = f"{self.arm.pretraining_name}-{corpus.title}"
        if self.arm.readout:
            inputs += (demonstrations,)
            flags += _dataset_flags(demonstrations, "policy.labels")
            title += f"-n{self.cell.setting.demonstrations}"
        return Command(
            "pretrain",
            f"{title}-s{self.cell.seed}",
            "lerobot-train",
            self.train_arguments(flags, corpus, steps, save_freq=steps),
            inputs,
            steps * self.cfg.costs.pretraining_step,
        )

    def from_scratch(self) -> list[str]:
        policy = self.cfg.policy
        flags = [f"--policy.type={policy.type}", *policy.flags, "--policy.stage=finetune"]
        return flags + [*policy.finetuning, *self.variant.finetuning]

    def pretrain_supervised(self) -> Command:
        corpus, steps = self.record_corpus(with_actions=True), self.cfg.equal_compute_steps
        return Command(
            "pretrain",
            f"{self.arm.pretraining_name}-{corpus.title}-s{self.cell.seed}",
            "lerobot-train",
            self.train_arguments(self.from_scratch(), corpus, steps, save_freq=steps),
            (corpus,),
            steps * self.cfg.costs.finetuning_step,
        )

    def finetune(self, dataset: Command, pretrained: Command | None) -> Command:
        inputs: tuple[Command, ...] = (dataset,)
        flags = self.from_scratch()
        if pretrained is not None:
            inputs += (pretrained,)
            flags = [f"--policy.path={pretrained.checkpoint}", "--policy.stage=finetune"]
            flags += [*self.cfg.policy.finetuning, *self.variant.finetuning]
        steps = self.cfg.finetuning_steps + (self.cfg.equal_compute_steps if self.arm.prolonged else 0)
        save_freq = max(self.cfg.finetuning_steps // self.cfg.evaluation.curve_points, 1)
        return Command(
            "finetune",
            f"{self.arm.pretraining_name or 'scratch'}-on-{dataset.title}-{steps}-steps",
            "lerobot-train",
            self.train_arguments(flags, dataset, steps, save_freq),
            inputs,
            steps * self.cfg.costs.finetuning_step,
        )

    def label(self, demonstrations: Command, pretrained: Command | None) -> Command:
        """The command that decodes the corpus's actions: from the latents, or with an inverse model of its own."""
        corpus = self.record_corpus(with_actions=False)
        inputs: tuple[Command, ...] = (corpus, demonstrations)
        decoder, path = "inverse_model", []
        if pretrained is not None:
            inputs += (pretrained,)
            decoder, path = "readout", [f"--policy.path={pretrained.checkpoint}"]
        return Command(
            "label",
            f"{self.arm.pretraining_name or 'inverse_model'}-with-{demonstrations.title}",
            "lawm-label-actions",
            (
                *path,
                *_dataset_flags(corpus, "dataset"),
                *_dataset_flags(demonstrations, "labels"),
                "--output_repo_id=benchmark/label",
                f"--output_root={OUT}",
                f"--decoder={decoder}",
                "--merge=true",
                "--demonstration_share=0.5",
                f"--seed={self.cell.seed}",
                f"--device={self.cfg.device}",
                *self.cfg.policy.labelling,
                *self.variant.labelling,
            ),
            inputs,
            self.cfg.costs.labelling,
        )

    def evaluate(self, finetuned: Command) -> Command:
        evaluation = self.cfg.evaluation
        return Command(
            "evaluate",
            finetuned.title,
            "lerobot-eval",
            (
                f"--policy.path={finetuned.checkpoint}",
                f"--policy.device={self.cfg.device}",
                "--env.type=lawm_metaworld",
                f"--env.task={self.cell.setting.task}",
                f"--env.size={self.cfg.size}",
                f"--env.camera={self.cfg.camera}",
                f"--env.episode_length={evaluation.episode_length}",
                f"--eval.n_episodes={evaluation.episodes}",
                f"--eval.batch_size={min(evaluation.batch_size, evaluation.episodes)}",
                "--eval.use_async_envs=false",
                # Other object positions for every seed, the same for all arms: seeds are then independent draws.
                f"--seed={EVALUATION_SEED + SEED_STEP * self.cell.seed}",
                f"--output_dir={OUT}",
            ),
            (finetuned,),
            evaluation.episodes * self.cfg.costs.evaluated_episode,
        )

    def imitation(self, finetuned: Command) -> Command:
        count, task = self.cfg.evaluation.held_out_demonstrations, self.cell.setting.task
        part = {"tasks": [task], "episodes_per_task": count, "seed": HELD_OUT_SEED}
        held_out = self.record(f"held-out-{task}", [part], with_actions=True)
        return Command(
            "imitation",
            finetuned.title,
            "imitation-error",
            (
                f"--checkpoints={finetuned.out / 'checkpoints'}",
                "--repo_id=benchmark/record",
                f"--root={held_out.out}",
                f"--device={self.cfg.device}",
                f"--output={OUT}/imitation.json",
            ),
            (held_out, finetuned),
            3.0 * count,
        )
