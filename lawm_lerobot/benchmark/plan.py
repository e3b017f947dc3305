"""What a benchmark compares: the YAML file, the arms it can name, and the cells it spans.

A cell is one arm, corpus regime, task, number of demonstrations and seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from lawm_lerobot.envs.configuration_metaworld import (
    check_size,
    check_variation,
    parse_cameras,
    task_names,
)
from lawm_lerobot.method.latent_action import POLICY, SOURCES

SCRATCH = "none"  # the arm that all others are measured against
SUPERVISED = "supervised"
INVERSE_MODEL = "inverse_model"
READOUT = "readout"
TRUE_ACTIONS = "true_actions"


class BenchmarkError(ValueError):
    """A setting that cannot work; the message is for the user."""


@dataclass(frozen=True)
class Arm:
    """What a policy gets beside the demonstrations.

    Attributes:
        pretraining: where finetuning starts: None from scratch, `SUPERVISED`, or a source of latent actions.
        readout: the demonstrations' actions shape the latents during pretraining.
        corpus_actions: who gives the corpus actions, so that finetuning uses it besides the demonstrations: None
            leaves it out; `READOUT`, `INVERSE_MODEL` or `TRUE_ACTIONS`.
        prolonged: finetuning goes on for as long as pretraining would have taken.
    """

    meaning: str
    pretraining: str | None = None
    readout: bool = False
    corpus_actions: str | None = None
    prolonged: bool = False


def _known_arms() -> dict[str, Arm]:
    arms = {
        SCRATCH: Arm("from scratch on the demonstrations"),
        "none_equal_compute": Arm(
            "from scratch, finetuned for as long as pretraining would have taken", prolonged=True
        ),
        SUPERVISED: Arm("pretrained on the corpus with its true actions", pretraining=SUPERVISED),
        "supervised_all": Arm(
            "from scratch on the demonstrations and the corpus with its true actions",
            corpus_actions=TRUE_ACTIONS,
        ),
        "inverse_model_decoded": Arm(
            "from scratch on the demonstrations and the corpus with actions from an inverse model that was "
            "trained on the demonstrations alone",
            corpus_actions=INVERSE_MODEL,
        ),
    }
    for source in SOURCES:
        for readout, decoded in product((False, True), repeat=2):
            if decoded and source == POLICY:
                continue  # There is no inverse dynamics to read latents from video.
            meaning = f"LAWM pretraining, latents of source={source}"
            meaning += ", shaped by a read-out to the demonstrations' actions" if readout else ""
            meaning += (
                "; finetuned on the demonstrations and the corpus with decoded actions" if decoded else ""
            )
            name = source + ("+readout" if readout else "") + ("+decoded" if decoded else "")
            arms[name] = Arm(
                meaning, pretraining=source, readout=readout, corpus_actions=READOUT if decoded else None
            )
    return arms


ARMS = _known_arms()

REGIMES = {
    "same_task": "the corpus shows the evaluated task",
    "other_tasks": "the corpus shows corpus.tasks and the other evaluated tasks, without the evaluated one",
    "held_out_task": "the corpus shows corpus.tasks without any of the evaluated ones",
}


@dataclass
class Variant:
    """An arm with flags of its own, under a name of its own."""

    arm: str
    pretraining: list[str] = field(default_factory=list)
    labelling: list[str] = field(default_factory=list)
    finetuning: list[str] = field(default_factory=list)


@dataclass
class PolicyFlags:
    """Flags of `lerobot-train` for the policy, as one would type them.

    Args:
        type: A ``lawm_*`` policy type.
        flags: Of both stages; what a finetuning checkpoint remembers.
        pretraining: Of pretraining only.
        finetuning: Of finetuning only, from scratch too.
        labelling: Of `lawm-label-actions`.
    """

    type: str = "lawm_act"
    flags: list[str] = field(default_factory=list)
    pretraining: list[str] = field(default_factory=list)
    finetuning: list[str] = field(default_factory=list)
    labelling: list[str] = field(default_factory=list)


@dataclass
class CorpusConfig:
    """The unlabelled videos: scripted experts, recorded without actions.

    Args:
        episodes: In all, split evenly over the tasks of the corpus.
        tasks: For the regimes that show other tasks.
        noise: On the expert's executed motion, as in examples/make_metaworld_dataset.py.
        with_state: Also record the arm's state.
        camera_shift, distractors, body: How the corpus looks different from the demonstrations and the evaluation.
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
    """`lerobot-eval`, and the error on demonstrations that nothing was trained on."""

    episodes: int = 50
    batch_size: int = 10
    episode_length: int = 120
    held_out_demonstrations: int = 5
    curve_points: int = 5


@dataclass
class Costs:
    """Seconds on the machine at hand, for the estimate of ``--dry_run`` only."""

    pretraining_step: float = 0.3
    finetuning_step: float = 0.17
    recorded_episode: float = 1.0
    evaluated_episode: float = 1.3
    labelling: float = 60.0


@dataclass
class BenchmarkConfig:
    """Flags and YAML keys of ``lawm-benchmark``.

    Args:
        output_dir: Everything the benchmark writes. The same command goes on where it was stopped.
        arms: Names of `ARMS` or of ``variants``.
        compare_with: Arms that every other one is compared with.
        tasks: Meta-World tasks that are demonstrated and evaluated.
        regimes: Of `REGIMES`.
        demonstrations: Labelled episodes; each number is a cell of its own, a prefix of the larger ones.
        seeds: Each draws demonstrations, evaluation episodes, initial weights and batches.
        cost_ratio: Duration of a pretraining step over that of a finetuning step, for the arms with equal compute.
        training: Further flags of every `lerobot-train`.
        workers: Stages that run at the same time.
        threads: Of each stage. Figures are only the same again with the same number.
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
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
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
        names = [*ARMS, *self.variants]
        for name in [*self.arms, *self.compare_with, *(v.arm for v in self.variants.values())]:
            if name not in names:
                raise BenchmarkError(f"unknown arm {name!r}: set --arms to some of {', '.join(names)}.")
        for name in self.compare_with:
            if name not in self.arms:
                raise BenchmarkError(
                    f"compare_with names {name!r}, which is not among the arms: add it to --arms."
                )
        for regime in self.regimes:
            if regime not in REGIMES:
                raise BenchmarkError(
                    f"unknown regime {regime!r}: set --regimes to some of {', '.join(REGIMES)}."
                )
        for flag, tasks in (("tasks", self.tasks), ("corpus.tasks", self.corpus.tasks)):
            for task in tasks:
                if task not in task_names():
                    raise BenchmarkError(
                        f"unknown Meta-World task {task!r}: set --{flag} to some of {', '.join(task_names())}."
                    )
        try:
            check_size(self.size, flag="--size")
            cameras = parse_cameras(self.camera, flag="--camera")
            check_variation(
                self.corpus.camera_shift, self.corpus.distractors, self.corpus.body, cameras, "--corpus."
            )
        except ValueError as error:
            raise BenchmarkError(str(error)) from error
        for flag, numbers in (
            ("arms", self.arms),
            ("tasks", self.tasks),
            ("demonstrations", self.demonstrations),
            ("seeds", self.seeds),
            ("regimes", self.regimes),
        ):
            if not numbers or len(set(numbers)) < len(numbers):
                raise BenchmarkError(f"{flag} is {numbers}, expected different values: change --{flag}.")
        at_least_one = {
            "demonstrations": min(self.demonstrations),
            "pretraining_steps": self.pretraining_steps,
            "finetuning_steps": self.finetuning_steps,
            "batch_size": self.batch_size,
            "workers": self.workers,
            "threads": self.threads,
            "corpus.episodes": self.corpus.episodes,
            "evaluation.episodes": self.evaluation.episodes,
            "evaluation.batch_size": self.evaluation.batch_size,
            "evaluation.held_out_demonstrations": self.evaluation.held_out_demonstrations,
            "evaluation.curve_points": self.evaluation.curve_points,
        }
        for name, value in at_least_one.items():
            if value < 1:
                raise BenchmarkError(f"{name} is {value}, expected at least 1: change --{name}.")
        if not all(0 <= seed < 100 for seed in self.seeds):
            # So that no two recordings share an episode, see stages.py.
            raise BenchmarkError(f"seeds is {self.seeds}, expected numbers from 0 to 99: change --seeds.")
        for regime, task in product(self.regimes, self.tasks):
            if not self.corpus_tasks(regime, task):
                raise BenchmarkError(
                    f"the corpus of regime {regime} for {task} would show no task: add some to --corpus.tasks."
                )

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


@dataclass(frozen=True)
class Setting:
    """Where arms are compared with one another."""

    regime: str
    task: str
    demonstrations: int

    def __str__(self) -> str:
        return f"{self.task}, {self.demonstrations} demonstrations, {self.regime}"


@dataclass(frozen=True)
class Cell:
    """One trained and evaluated policy."""

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
