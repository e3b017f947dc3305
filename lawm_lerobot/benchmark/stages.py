"""The commands behind each cell, shared between cells wherever they are the same."""

import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lawm_lerobot.benchmark.arms import SUPERVISED, TRUE_ACTIONS, Arm
from lawm_lerobot.benchmark.cells import Cell, CellRun, cells_of
from lawm_lerobot.benchmark.commands import OUT, Command
from lawm_lerobot.benchmark.configuration import BenchmarkConfig, Variant
from lawm_lerobot.envs.configuration_metaworld import parse_cameras

# Episode k of a recording starts from seed + k. Ranges that never meet, also after the recorder's retries, which
# add millions; within the last two every benchmark seed has a thousand to itself.
CORPUS_SEED = 0
HELD_OUT_SEED = 100_000
EVALUATION_SEED = 200_000
DEMONSTRATION_SEED = 300_000
SEED_STEP = 1000

FPS = 80  # Meta-World's
PLAIN_SCENE = {"variation": 0.0, "camera_zoom": 1.0}  # the environment's defaults
UNTRAINED_STEPS = 25  # of a pretraining that learns nothing: batches for the statistics of its latents


def cell_runs(cfg: BenchmarkConfig) -> list[CellRun]:
    return [_CellCommands(cfg, cell).run() for cell in cells_of(cfg)]


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
        return self.cfg.arm(self.cell.arm)

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
            self.look(finetuned) if self.cfg.evaluation.look else None,
        )

    def scene(self) -> dict[str, Any]:
        """What recordings and evaluations have in common beside the size and the cameras, by the names of both."""
        scene = {"variation": self.cfg.variation, "camera_zoom": self.cfg.camera_zoom}
        return {name: value for name, value in scene.items() if value != PLAIN_SCENE[name]}

    def record(
        self, title: str, parts: list[dict[str, Any]], *, with_actions: bool, with_state: bool = True
    ) -> Command:
        """The command that records ``parts``, each of them the fields of an `ExpertRecording`, as one dataset."""
        pictures = {"size": self.cfg.size, "cameras": parse_cameras(self.cfg.camera), **self.scene()}
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
            "episodes_per_task": math.ceil(self.cell.videos / len(tasks)),
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
        title = f"{'labelled-' if with_actions else ''}corpus-{shown}-v{self.cell.videos}"
        with_state = with_actions or self.cfg.corpus.with_state
        return self.record(title, [part], with_actions=with_actions, with_state=with_state)

    def demonstration_part(self, episodes: int, seed: int) -> dict[str, Any]:
        noise = self.cfg.demonstration_noise
        return {
            "tasks": [self.cell.setting.task],
            "episodes_per_task": episodes,
            "seed": seed,
            "noise": noise,
        }

    def record_demonstrations(self, *, with_corpus: bool = False) -> Command:
        count, task = self.cell.setting.demonstrations, self.cell.setting.task
        parts = [self.demonstration_part(count, DEMONSTRATION_SEED + SEED_STEP * self.cell.seed)]
        title = f"demonstrations-{task}-n{count}-s{self.cell.seed}"
        if with_corpus:
            parts.append(self.corpus_part())
            title += f"-and-corpus-v{self.cell.videos}"
        return self.record(title, parts, with_actions=True)

    def train_arguments(
        self, flags: list[str], dataset: Command, steps: int, save_freq: int, batch_size: int
    ) -> tuple[str, ...]:
        return (
            *flags,
            *_dataset_flags(dataset, "dataset"),
            f"--output_dir={OUT}",
            f"--policy.device={self.cfg.device}",
            "--policy.push_to_hub=false",
            f"--batch_size={batch_size}",
            f"--steps={steps}",
            f"--save_freq={save_freq}",
            f"--log_freq={max(steps // 20, 1)}",
            f"--seed={self.cell.seed}",
            *self.cfg.training,
        )

    def pretrain(self, demonstrations: Command) -> Command:
        policy, steps = self.cfg.policy, self.cfg.pretraining_steps if self.arm.trained else UNTRAINED_STEPS
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
        batch_size = self.cfg.pretraining_batch_size or self.cfg.batch_size
        arguments = self.train_arguments(flags, corpus, steps, save_freq=steps, batch_size=batch_size)
        if not self.arm.trained:
            arguments += ("--policy.pretraining_lr=0", "--policy.policy_pretraining_lr=0")
            # Where the policy's own rates are not in use, the optimizer's is.
            arguments += ("--optimizer.lr=0",) if "--use_policy_training_preset=false" in arguments else ()
        return Command(
            "pretrain",
            f"{title}-s{self.cell.seed}",
            "lerobot-train",
            arguments,
            inputs,
            steps * self.cfg.costs.pretraining_step,
        )

    def from_scratch(self) -> list[str]:
        policy = self.cfg.policy
        flags = [f"--policy.type={policy.type}", *policy.flags, "--policy.stage=finetune"]
        return flags + [*policy.finetuning, *self.variant.finetuning]

    def pretrain_supervised(self) -> Command:
        corpus, steps = self.record_corpus(with_actions=True), self.cfg.pretraining_equivalent
        return Command(
            "pretrain",
            f"{self.arm.pretraining_name}-{corpus.title}-s{self.cell.seed}",
            "lerobot-train",
            self.train_arguments(self.from_scratch(), corpus, steps, steps, self.cfg.batch_size),
            (corpus,),
            steps * self.cfg.costs.finetuning_step,
        )

    def finetune(self, dataset: Command, pretrained: Command | None) -> Command:
        inputs: tuple[Command, ...] = (dataset,)
        flags, start = self.from_scratch(), "scratch"
        seconds = self.cfg.costs.finetuning_step
        if pretrained is not None:
            inputs += (pretrained,)
            if self.arm.transferred:
                flags = [f"--policy.path={pretrained.checkpoint}", "--policy.stage=finetune"]
                flags += [*self.cfg.policy.finetuning, *self.variant.finetuning]
                start = str(self.arm.pretraining_name)
        if self.arm.cotraining:
            assert pretrained is not None, "co-training takes its latents from a pretraining"
            corpus = self.record_corpus(with_actions=False)
            inputs += (corpus,)
            flags += self.cotraining_flags(corpus, pretrained)
            start += f"-with-latents-of-{self.arm.pretraining_name}-v{self.cell.videos}"
            seconds = self.cfg.costs.cotraining_step
        steps = self.cfg.prolonged_steps if self.arm.prolonged else self.cfg.finetuning_steps
        save_freq = max(self.cfg.finetuning_steps // self.cfg.evaluation.curve_points, 1)
        return Command(
            "finetune",
            f"{start}-on-{dataset.title}-{steps}-steps",
            "lerobot-train",
            self.train_arguments(flags, dataset, steps, save_freq, self.cfg.batch_size),
            inputs,
            steps * seconds,
        )

    def cotraining_flags(self, corpus: Command, pretrained: Command) -> list[str]:
        flags = [*_dataset_flags(corpus, "policy.video"), f"--policy.video.seed={self.cell.seed}"]
        if not self.arm.transferred:
            flags.append(f"--policy.video.checkpoint={pretrained.checkpoint}")
        return flags + self.cfg.policy.cotraining

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
                *(f"--env.{name}={value}" for name, value in self.scene().items()),
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

    def record_held_out(self) -> Command:
        count, task = self.cfg.evaluation.held_out_demonstrations, self.cell.setting.task
        part = self.demonstration_part(count, HELD_OUT_SEED)
        return self.record(f"held-out-{task}", [part], with_actions=True)

    def imitation(self, finetuned: Command) -> Command:
        held_out = self.record_held_out()
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
            3.0 * self.cfg.evaluation.held_out_demonstrations,
        )

    def look(self, finetuned: Command) -> Command:
        held_out = self.record_held_out()
        return Command(
            "look",
            finetuned.title,
            "lawm-inspect",
            (
                f"--policy.path={finetuned.checkpoint}",
                f"--policy.device={self.cfg.device}",
                *_dataset_flags(held_out, "dataset"),
                f"--output_dir={OUT}",
            ),
            (held_out, finetuned),
            self.cfg.costs.look,
        )
