"""The commands behind each cell, shared between cells wherever they are the same."""

from lawm_lerobot.benchmark.arms import SUPERVISED, TRUE_ACTIONS
from lawm_lerobot.benchmark.cells import CellRun, cells_of
from lawm_lerobot.benchmark.commands import OUT, Command
from lawm_lerobot.benchmark.configuration import BenchmarkConfig
from lawm_lerobot.benchmark.recordings import EVALUATION_SEED, SEED_STEP, CellRecordings, dataset_flags

UNTRAINED_STEPS = 25  # of a pretraining that learns nothing: batches for the statistics of its latents


def cell_runs(cfg: BenchmarkConfig) -> list[CellRun]:
    return [_CellCommands(cfg, cell).run() for cell in cells_of(cfg)]


class _CellCommands(CellRecordings):
    """The commands of one cell, built from the configuration."""

    def run(self) -> CellRun:
        demonstrations = self.record_demonstrations()
        if self.arm.replayed:
            return CellRun(self.cell, None, None, self.replay(demonstrations), None, None)
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

    def train_arguments(
        self, flags: list[str], dataset: Command, steps: int, save_freq: int, batch_size: int
    ) -> tuple[str, ...]:
        return (
            *flags,
            *dataset_flags(dataset, "dataset"),
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
        flags += [*self.simulator.pretraining, *policy.pretraining, *self.variant.pretraining]
        title = f"{self.arm.pretraining_name}-{corpus.title}"
        if self.arm.readout:
            inputs += (demonstrations,)
            flags += dataset_flags(demonstrations, "policy.labels")
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
        flags = [*dataset_flags(corpus, "policy.video"), f"--policy.video.seed={self.cell.seed}"]
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
                *dataset_flags(corpus, "dataset"),
                *dataset_flags(demonstrations, "labels"),
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

    def env_flags(self) -> list[str]:
        flags = [f"--env.type={self.simulator.env}", *self.simulator.flags(self.cfg, self.cell.setting.task)]
        flags += [] if self.arm.sees else ["--env.draw=false"]
        return [*flags, f"--env.episode_length={self.cfg.evaluation.episode_length}"]

    def evaluate(self, finetuned: Command) -> Command:
        evaluation = self.cfg.evaluation
        return Command(
            "evaluate",
            finetuned.title,
            "lerobot-eval",
            (
                f"--policy.path={finetuned.checkpoint}",
                f"--policy.device={self.cfg.device}",
                *self.env_flags(),
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

    def replay(self, demonstrations: Command) -> Command:
        """The command that acts out the demonstrations on the episodes of `evaluate`."""
        evaluation = self.cfg.evaluation
        return Command(
            "evaluate",
            f"replay-of-{demonstrations.title}",
            "blind-replay",
            (
                *dataset_flags(demonstrations, "dataset"),
                *self.env_flags(),
                "--env.draw=false",
                f"--episodes={evaluation.episodes}",
                f"--seed={EVALUATION_SEED + SEED_STEP * self.cell.seed}",
                f"--output={OUT}/eval_info.json",
            ),
            (demonstrations,),
            evaluation.episodes * self.cfg.costs.evaluated_episode,
        )

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
                *dataset_flags(held_out, "dataset"),
                f"--output_dir={OUT}",
            ),
            (held_out, finetuned),
            self.cfg.costs.look,
        )
