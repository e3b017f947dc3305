"""The configuration of a benchmark: the YAML file of ``lawm-benchmark``, and the arms and regimes it can name."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from operator import attrgetter
from pathlib import Path

from lawm_lerobot.envs.configuration_metaworld import check_size, check_variation, parse_cameras, task_names
from lawm_lerobot.method.latent_action import POLICY, SOURCES

SCRATCH = "none"  # the arm that the curves of all others are measured against
SUPERVISED = "supervised"
TRUE_ACTIONS = "true_actions"
DECODED_ACTIONS = "decoded_actions"


class BenchmarkError(ValueError):
    """A setting that cannot work; the message is for the user."""


@dataclass(frozen=True)
class Arm:
    """The use that a policy makes of the corpus, besides the demonstrations that every arm has.

    Args:
        pretraining: The weights that finetuning starts from: None for random ones, `SUPERVISED` for those trained on
            the corpus with its true actions, or the source of the latent actions in LAWM pretraining.
        readout: A read-out to the demonstrations' actions shapes the latents during pretraining.
        corpus_actions: The actions with which the corpus joins the demonstrations: `TRUE_ACTIONS`, or `DECODED_ACTIONS`
            by the pretrained latents or an inverse model of the demonstrations alone. None leaves the corpus out.
        prolonged: Finetuning goes on for as long as pretraining would have taken.
    """

    pretraining: str | None = None
    readout: bool = False
    corpus_actions: str | None = None
    prolonged: bool = False

    @property
    def pretraining_name(self) -> str | None:
        return f"{self.pretraining}+readout" if self.readout else self.pretraining


def _known_arms() -> dict[str, Arm]:
    arms = {
        SCRATCH: Arm(),
        "none_equal_compute": Arm(prolonged=True),
        SUPERVISED: Arm(pretraining=SUPERVISED),
        "supervised_all": Arm(corpus_actions=TRUE_ACTIONS),
        "inverse_model_decoded": Arm(corpus_actions=DECODED_ACTIONS),
    }
    for source in SOURCES:
        for readout, decoded in product((False, True), repeat=2):
            if decoded and source == POLICY:
                continue  # There is no inverse dynamics to read latents from video.
            arm = Arm(source, readout, DECODED_ACTIONS if decoded else None)
            arms[f"{arm.pretraining_name}{'+decoded' if decoded else ''}"] = arm
    return arms


ARMS = _known_arms()
REGIMES = ("same_task", "other_tasks", "held_out_task")


@dataclass
class Variant:
    """An arm with flags of its own, under a name of its own.

    Args:
        arm: The name of the arm, one of `ARMS`.
        pretraining: Further flags of its pretraining.
        labelling: Further flags of its `lawm-label-actions`.
        finetuning: Further flags of its finetuning.
    """

    arm: str
    pretraining: list[str] = field(default_factory=list)
    labelling: list[str] = field(default_factory=list)
    finetuning: list[str] = field(default_factory=list)


@dataclass
class PolicyFlags:
    """Flags of `lerobot-train` for the policy, as one would type them.

    Args:
        type: A ``lawm_*`` policy type.
        flags: Flags of both stages; a finetuning checkpoint remembers their values.
        pretraining: Flags of pretraining only.
        finetuning: Flags of finetuning only, also of finetuning from scratch.
        labelling: Flags of `lawm-label-actions`.
    """

    type: str = "lawm_act"
    flags: list[str] = field(default_factory=list)
    pretraining: list[str] = field(default_factory=list)
    finetuning: list[str] = field(default_factory=list)
    labelling: list[str] = field(default_factory=list)


@dataclass
class RecordedCorpusConfig:
    """The unlabelled videos: scripted experts, recorded without actions.

    Args:
        episodes: Number of episodes in all, split evenly over the tasks of the corpus.
        tasks: Meta-World tasks for the regimes that show other tasks than the evaluated one.
        noise: Standard deviation of the noise on the expert's motion, as in examples/make_metaworld_dataset.py.
        with_state: Also record the arm's state.
        camera_shift: Angle in degrees by which the corpus's camera is turned around the workspace.
        distractors: Number of things without a part in the task on the corpus's table.
        body: The look of the arm in the corpus.
    """

    episodes: int = 100
    tasks: list[str] = field(default_factory=list)
    noise: float = 0.2
    with_state: bool = True
    camera_shift: float = 0.0
    distractors: int = 0
    body: str = "sawyer"


@dataclass
class EvaluationConfig:
    """`lerobot-eval`, and the error on demonstrations that nothing was trained on.

    Args:
        episodes: Number of evaluation episodes of every policy.
        batch_size: Number of evaluation episodes that run side by side.
        episode_length: Number of steps after which an evaluation episode has failed.
        held_out_demonstrations: Number of demonstrations that the imitation error is measured on.
        curve_points: Number of checkpoints of a finetuning at which the imitation error is measured.
    """

    episodes: int = 50
    batch_size: int = 10
    episode_length: int = 120
    held_out_demonstrations: int = 5
    curve_points: int = 5


@dataclass
class Costs:
    """Seconds on the machine at hand, for the estimate of ``--dry_run`` only.

    Args:
        pretraining_step: Duration of a pretraining step.
        finetuning_step: Duration of a finetuning step.
        recorded_episode: Duration of recording an episode.
        evaluated_episode: Duration of an evaluation episode.
        labelling: Duration of a `lawm-label-actions`.
    """

    pretraining_step: float = 0.3
    finetuning_step: float = 0.17
    recorded_episode: float = 1.0
    evaluated_episode: float = 1.3
    labelling: float = 60.0


@dataclass
class BenchmarkConfig:
    """Flags and YAML keys of ``lawm-benchmark``.

    Args:
        output_dir: Folder of everything the benchmark writes. The same command goes on where it was stopped.
        arms: Names of `ARMS` or of ``variants``.
        tasks: Meta-World tasks that are demonstrated and evaluated.
        demonstrations: Numbers of labelled episodes; each number is a cell of its own, and its episodes are the first
            of every larger number's.
        seeds: Each seed draws demonstrations, evaluation episodes, initial weights and batches.
        regimes: Names of `REGIMES`: relations between the tasks of the corpus and the evaluated task.
        compare_with: Arms that every other one is compared with.
        variants: Arms with flags of their own, by name.
        policy: Flags of the policy.
        corpus: The unlabelled videos.
        evaluation: The measurements of every finetuned policy.
        costs: Durations for the estimate of ``dry_run``.
        size: Height and width of the images in pixels.
        camera: Cameras of Meta-World, comma-separated.
        pretraining_steps: Number of training steps of LAWM pretraining.
        finetuning_steps: Number of training steps of finetuning.
        cost_ratio: Duration of a pretraining step over that of a finetuning step, for the arms with equal compute.
        batch_size: Batch size of every `lerobot-train`.
        training: Further flags of every `lerobot-train`.
        device: PyTorch device of every command.
        workers: Number of commands that run at the same time.
        threads: Number of threads of each command. Only the same number gives the same results again.
        dry_run: Print what would run, and how long it may take.
    """

    output_dir: Path
    arms: list[str]
    tasks: list[str]
    demonstrations: list[int] = field(default_factory=lambda: [10])
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    regimes: list[str] = field(default_factory=lambda: ["same_task"])
    compare_with: list[str] = field(default_factory=lambda: [SCRATCH])
    variants: dict[str, Variant] = field(default_factory=dict)
    policy: PolicyFlags = field(default_factory=PolicyFlags)
    corpus: RecordedCorpusConfig = field(default_factory=RecordedCorpusConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    costs: Costs = field(default_factory=Costs)
    size: int = 64
    camera: str = "corner2"
    pretraining_steps: int = 1000
    finetuning_steps: int = 1000
    cost_ratio: float = 1.8
    batch_size: int = 8
    training: list[str] = field(default_factory=list)
    device: str = "cpu"
    workers: int = 2
    threads: int = 1
    dry_run: bool = False

    def check(self) -> None:
        """Refuse what cannot work before anything runs.

        Raises:
            BenchmarkError: In one sentence that lists what is known, or names the flag to change.
        """
        self._check_names()
        try:
            check_size(self.size, flag="--size")
            cameras = parse_cameras(self.camera, flag="--camera")
            check_variation(
                self.corpus.camera_shift, self.corpus.distractors, self.corpus.body, cameras, "--corpus."
            )
        except ValueError as error:
            raise BenchmarkError(str(error)) from error
        self._check_values()
        for regime, task in product(self.regimes, self.tasks):
            if not self.corpus_tasks(regime, task):
                raise BenchmarkError(
                    f"the corpus of regime {regime} for {task} would show no task: add some to --corpus.tasks."
                )

    def _check_names(self) -> None:
        known = [*ARMS, *self.variants]
        arms = [*self.arms, *self.compare_with, *(variant.arm for variant in self.variants.values())]
        for what, flag, names, valid in (
            ("arm", "arms", arms, known),
            ("regime", "regimes", self.regimes, REGIMES),
            ("Meta-World task", "tasks", self.tasks, task_names()),
            ("Meta-World task", "corpus.tasks", self.corpus.tasks, task_names()),
        ):
            for name in names:
                if name not in valid:
                    raise BenchmarkError(
                        f"unknown {what} {name!r}: set --{flag} to some of {', '.join(valid)}."
                    )
        for name in self.compare_with:
            if name not in self.arms:
                raise BenchmarkError(
                    f"compare_with names {name!r}, which is not among the arms: add it to --arms."
                )

    def _check_values(self) -> None:
        for flag in ("arms", "tasks", "demonstrations", "seeds", "regimes"):
            values = getattr(self, flag)
            if not values or len(set(values)) < len(values):
                raise BenchmarkError(f"{flag} is {values}, expected different values: change --{flag}.")
        counts = (
            *("pretraining_steps", "finetuning_steps", "batch_size", "workers", "threads", "corpus.episodes"),
            *("evaluation.episodes", "evaluation.batch_size", "evaluation.held_out_demonstrations"),
            "evaluation.curve_points",
        )
        at_least_one = {"demonstrations": min(self.demonstrations)}
        at_least_one |= {flag: attrgetter(flag)(self) for flag in counts}
        for flag, value in at_least_one.items():
            if value < 1:
                raise BenchmarkError(f"{flag} is {value}, expected at least 1: change --{flag}.")
        if not all(0 <= seed < 100 for seed in self.seeds):
            # So that no two recordings share an episode, see the seeds in cells.py.
            raise BenchmarkError(f"seeds is {self.seeds}, expected numbers from 0 to 99: change --seeds.")

    def corpus_tasks(self, regime: str, task: str) -> list[str]:
        """The tasks that the corpus of a regime shows."""
        if regime == "same_task":
            return [task]
        excluded = [task] if regime == "other_tasks" else self.tasks
        shown = [*self.corpus.tasks, *(self.tasks if regime == "other_tasks" else [])]
        return [name for name in dict.fromkeys(shown) if name not in excluded]

    def corpus_episodes_per_task(self, tasks: Sequence[str]) -> int:
        return math.ceil(self.corpus.episodes / len(tasks))

    @property
    def equal_compute_steps(self) -> int:
        """Finetuning steps that take as long as pretraining."""
        return round(self.pretraining_steps * self.cost_ratio)

    def variant(self, name: str) -> Variant:
        """The arm of that name with its own flags, of which a plain arm has none."""
        return self.variants.get(name) or Variant(name)
