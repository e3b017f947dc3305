"""The configuration of a benchmark: the YAML file of ``lawm-benchmark``, which is its protocol."""

import math
from dataclasses import dataclass, field
from itertools import chain, product
from operator import attrgetter
from pathlib import Path

from lawm_lerobot.benchmark.arms import ARMS, REGIMES, SCRATCH, Arm
from lawm_lerobot.benchmark.simulators import OPTIONAL, SIMULATORS, Simulator


class BenchmarkError(ValueError):
    """A setting that cannot work; the message is for the user."""


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
        cotraining: Flags of finetuning in the arms that keep the corpus in the batch, such as ``--policy.video.weight``.
        labelling: Flags of `lawm-label-actions`.
    """

    type: str = "lawm_act"
    flags: list[str] = field(default_factory=list)
    pretraining: list[str] = field(default_factory=list)
    finetuning: list[str] = field(default_factory=list)
    cotraining: list[str] = field(default_factory=list)
    labelling: list[str] = field(default_factory=list)


@dataclass
class RecordedCorpusConfig:
    """The unlabelled videos: scripted experts, recorded without actions. How many is ``videos`` of the benchmark.

    Args:
        tasks: Tasks for the regimes that show other tasks than the evaluated one.
        noise: Standard deviation of the noise on the expert's motion, as in the simulator's recorder in examples/.
        with_state: Also record the arm's state.
        camera_shift: Angle in degrees by which the corpus's camera is turned around the workspace (Meta-World).
        distractors: Number of things without a part in the task on the corpus's table (Meta-World).
        body: The look of the arm in the corpus (Meta-World).
    """

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
        look: Measure by `lawm-inspect`, on the held-out demonstrations, how much every policy looks at its pictures.
    """

    episodes: int = 50
    batch_size: int = 10
    episode_length: int = 120
    held_out_demonstrations: int = 5
    curve_points: int = 5
    look: bool = False


@dataclass
class Costs:
    """Seconds on the machine at hand, for the estimate of ``--dry_run`` only.

    Args:
        pretraining_step: Duration of a pretraining step.
        finetuning_step: Duration of a finetuning step.
        cotraining_step: Duration of a finetuning step with the corpus in the batch.
        recorded_episode: Duration of recording an episode.
        evaluated_episode: Duration of an evaluation episode.
        labelling: Duration of a `lawm-label-actions`.
        look: Duration of a `lawm-inspect`.
    """

    pretraining_step: float = 0.3
    finetuning_step: float = 0.17
    cotraining_step: float = 0.3
    recorded_episode: float = 1.0
    evaluated_episode: float = 1.3
    labelling: float = 60.0
    look: float = 20.0


@dataclass
class ExpectedResults:
    """Guesses, written down before the run, from which its power is computed.

    Args:
        success: The success rate of both arms of a comparison.
        spread: The standard deviation, over draws, of the true difference between two trained policies: how much
            one draw of demonstrations and weights differs from another, beside the luck of evaluation episodes.
    """

    success: float = 0.5
    spread: float = 0.1


@dataclass
class BenchmarkConfig:
    """Flags and YAML keys of ``lawm-benchmark``.

    Args:
        output_dir: Folder of everything the benchmark writes. The same command goes on where it was stopped.
        arms: Names of `ARMS` or of ``variants``.
        tasks: Tasks that are demonstrated and evaluated.
        simulator: The simulator that the tasks are of, a name of `SIMULATORS`.
        demonstrations: Numbers of labelled episodes; each number is a cell of its own, and its episodes are the first
            of every larger number's.
        videos: Numbers of unlabelled episodes, each split evenly over the tasks of the corpus; the episodes of a number
            are the first of every larger number's. Arms without video have one cell for all numbers.
        seeds: Each seed draws demonstrations, evaluation episodes, initial weights and batches.
        regimes: Names of `REGIMES`: relations between the tasks of the corpus and the evaluated task.
        primary: Pairs of arms, the first of which is expected to be better. They are compared at the first of
            ``regimes``, ``demonstrations`` and ``videos``, each at its own 95%.
        controls: Arms that run after the others, and at the first of ``regimes``, ``demonstrations`` and ``videos`` alone.
        compare_with: Arms that every other one is compared with too, and corrected for the number of comparisons.
        relevant_difference: The smallest difference in success that matters; a comparison that cannot find it is
            underpowered.
        expected: Guesses for the power before the run.
        variants: Arms with flags of their own, by name.
        policy: Flags of the policy.
        corpus: The unlabelled videos.
        evaluation: The measurements of every finetuned policy.
        costs: Durations for the estimate of ``dry_run``.
        size: Height and width of the images in pixels.
        camera: Cameras of the simulator, comma-separated; empty for its usual ones.
        camera_zoom: ``camera_zoom`` of the environment, in demonstrations, corpus and evaluation alike (Meta-World).
        variation: Share, from 0 to 1, of what differs between episodes, in demonstrations, corpus and evaluation alike:
            ``variation`` of Meta-World, ``spread`` of LIBERO.
        demonstration_noise: Standard deviation of the noise on the expert's motion in the demonstrations, as in
            the simulator's recorder in examples/. The recorded actions are the expert's, without it.
        pretraining_steps: Number of training steps of LAWM pretraining.
        finetuning_steps: Number of training steps of finetuning.
        cost_ratio: Duration of a pretraining step over that of a finetuning step, for the arms with equal compute.
        cotraining_cost_ratio: Duration of a finetuning step with the corpus in the batch over that of one without, for
            the arm with equal compute.
        batch_size: Batch size of every `lerobot-train`.
        pretraining_batch_size: Batch size of pretraining; None takes ``batch_size``.
        training: Further flags of every `lerobot-train`.
        device: PyTorch device of every command.
        workers: Number of commands that run at the same time.
        threads: Number of threads of each command. Only the same number gives the same results again.
        dry_run: Print what would run, how long it may take, and what it can find.
        gate: Run the arms `none` and `supervised_all` alone and write which tasks have room for a comparison.
        gate_file: The ``gate.json`` of an earlier ``gate``; the report says which tasks passed it.
    """

    output_dir: Path
    arms: list[str]
    tasks: list[str]
    simulator: str = "metaworld"
    demonstrations: list[int] = field(default_factory=lambda: [10])
    videos: list[int] = field(default_factory=lambda: [100])
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    regimes: list[str] = field(default_factory=lambda: ["same_task"])
    primary: list[list[str]] = field(default_factory=list)
    controls: list[str] = field(default_factory=list)
    compare_with: list[str] = field(default_factory=lambda: [SCRATCH])
    relevant_difference: float = 0.15
    expected: ExpectedResults = field(default_factory=ExpectedResults)
    variants: dict[str, Variant] = field(default_factory=dict)
    policy: PolicyFlags = field(default_factory=PolicyFlags)
    corpus: RecordedCorpusConfig = field(default_factory=RecordedCorpusConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    costs: Costs = field(default_factory=Costs)
    size: int = 64
    camera: str = ""
    camera_zoom: float = 1.0
    variation: float = 0.0
    demonstration_noise: float = 0.0
    pretraining_steps: int = 1000
    finetuning_steps: int = 1000
    cost_ratio: float = 1.8
    cotraining_cost_ratio: float = 1.0
    batch_size: int = 8
    pretraining_batch_size: int | None = None
    training: list[str] = field(default_factory=list)
    device: str = "cpu"
    workers: int = 2
    threads: int = 1
    dry_run: bool = False
    gate: bool = False
    gate_file: Path | None = None

    def __post_init__(self) -> None:
        if not self.camera and self.simulator in SIMULATORS:
            self.camera = self.simulated.cameras

    @property
    def simulated(self) -> Simulator:
        return SIMULATORS[self.simulator]

    def check(self) -> None:
        """Refuse what cannot work before anything runs.

        Raises:
            BenchmarkError: In one sentence that lists what is known, or names the flag to change.
        """
        # Imported late: it brings LeRobot, which --help does not wait for.
        from lawm_lerobot.envs.configuration import check_size

        self._check_names()
        for flag, value in OPTIONAL.items():
            if flag not in self.simulated.options and attrgetter(flag)(self) != value:
                raise BenchmarkError(f"{self.simulated.title} has no {flag}: drop --{flag}.")
        try:
            check_size(self.size, flag="--size")
            self.simulated.check(self)
        except ValueError as error:
            raise BenchmarkError(str(error)) from error
        self._check_values()
        for regime, task in product(self.regimes, self.tasks):
            if not self.corpus_tasks(regime, task):
                raise BenchmarkError(
                    f"the corpus of regime {regime} for {task} would show no task: add some to --corpus.tasks."
                )

    def _check_names(self) -> None:
        if self.simulator not in SIMULATORS:
            raise BenchmarkError(
                f"unknown simulator {self.simulator!r}: set --simulator to one of {', '.join(SIMULATORS)}."
            )
        task, task_names = f"{self.simulated.title} task", self.simulated.task_names()
        known = [*ARMS, *self.variants]
        arms = [*self.arms, *self.compare_with]
        for what, flag, names, valid in (
            ("arm", "arms", arms, known),
            ("arm", "variants.<name>.arm", [variant.arm for variant in self.variants.values()], ARMS),
            ("regime", "regimes", self.regimes, REGIMES),
            (task, "tasks", self.tasks, task_names),
            (task, "corpus.tasks", self.corpus.tasks, task_names),
        ):
            for name in names:
                if name not in valid:
                    raise BenchmarkError(
                        f"unknown {what} {name!r}: set --{flag} to some of {', '.join(valid)}."
                    )
        if any(len(pair) != 2 or pair[0] == pair[1] for pair in self.primary):
            raise BenchmarkError(
                f"primary is {self.primary}, expected pairs of different arms: change --primary."
            )
        compared = {
            "compare_with": self.compare_with,
            "controls": self.controls,
            "primary": list(chain(*self.primary)),
        }
        for flag, arms in compared.items():
            for name in arms:
                if name not in self.arms:
                    raise BenchmarkError(
                        f"{flag} names {name!r}, which is not among the arms: add it to --arms."
                    )

    def _check_values(self) -> None:
        for flag in ("arms", "tasks", "demonstrations", "videos", "seeds", "regimes"):
            values = getattr(self, flag)
            if not values or len(set(values)) < len(values):
                raise BenchmarkError(f"{flag} is {values}, expected different values: change --{flag}.")
        counts = (
            *("pretraining_steps", "finetuning_steps", "batch_size", "workers", "threads"),
            *("evaluation.episodes", "evaluation.batch_size", "evaluation.held_out_demonstrations"),
            "evaluation.curve_points",
        )
        at_least_one = {"demonstrations": min(self.demonstrations), "videos": min(self.videos)}
        if self.pretraining_batch_size is not None:
            at_least_one["pretraining_batch_size"] = self.pretraining_batch_size
        at_least_one |= {flag: attrgetter(flag)(self) for flag in counts}
        for flag, value in at_least_one.items():
            if value < 1:
                raise BenchmarkError(f"{flag} is {value}, expected at least 1: change --{flag}.")
        for flag, lowest, highest in (
            ("relevant_difference", 0.0, 1.0),
            ("expected.success", 0.0, 1.0),
            ("expected.spread", 0.0, 1.0),
            ("demonstration_noise", 0.0, math.inf),
            ("corpus.noise", 0.0, math.inf),
            ("cost_ratio", 0.0, math.inf),
            ("cotraining_cost_ratio", 1.0, math.inf),
        ):
            value = attrgetter(flag)(self)
            if not lowest <= value <= highest:
                expected = f"from {lowest:g} to {highest:g}" if highest < math.inf else f"at least {lowest:g}"
                raise BenchmarkError(f"{flag} is {value}, expected {expected}: change --{flag}.")
        # So that no two recordings share an episode, see the seeds in stages.py.
        if not all(0 <= seed < 100 for seed in self.seeds):
            raise BenchmarkError(f"seeds is {self.seeds}, expected numbers from 0 to 99: change --seeds.")

    def corpus_tasks(self, regime: str, task: str) -> list[str]:
        """The tasks that the corpus of a regime shows."""
        if regime == "same_task":
            return [task]
        excluded = [task] if regime == "other_tasks" else self.tasks
        shown = [*self.corpus.tasks, *(self.tasks if regime == "other_tasks" else [])]
        return [name for name in dict.fromkeys(shown) if name not in excluded]

    @property
    def pretraining_equivalent(self) -> int:
        """Finetuning steps that take as long as pretraining."""
        return round(self.pretraining_steps * self.cost_ratio)

    @property
    def prolonged_steps(self) -> int:
        """Finetuning steps that take as long as pretraining and then finetuning with the corpus in the batch."""
        return self.pretraining_equivalent + round(self.finetuning_steps * self.cotraining_cost_ratio)

    def variant(self, name: str) -> Variant:
        """The arm of that name with its own flags, of which a plain arm has none."""
        return self.variants.get(name) or Variant(name)

    def arm(self, name: str) -> Arm:
        """The use that the arm or variant of that name makes of the corpus."""
        return ARMS[self.variant(name).arm]
