"""The cells of a benchmark: an arm, corpus regime, task, numbers of demonstrations and videos, and a seed each."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from lawm_lerobot.benchmark.commands import Command
from lawm_lerobot.benchmark.configuration import BenchmarkConfig


@dataclass(frozen=True)
class Setting:
    """The corpus regime, the evaluated task and the number of demonstrations with which arms are compared."""

    regime: str
    task: str
    demonstrations: int

    def __str__(self) -> str:
        return f"{self.task}, {self.demonstrations} demonstrations, {self.regime}"


@dataclass(frozen=True)
class Cell:
    """One trained and evaluated policy: an arm under conditions that it shares with others, with one seed.

    Args:
        setting: What it shares with the other arms.
        arm: The name of the arm.
        videos: The number of unlabelled episodes; 0 in arms that use none.
        seed: The draw of demonstrations, evaluation episodes, initial weights and batches.
    """

    setting: Setting
    arm: str
    videos: int
    seed: int

    def __str__(self) -> str:
        return f"{self.arm}, {self.setting}, {self.videos} videos, seed {self.seed}"


@dataclass(frozen=True)
class CellRun:
    """A cell and the commands that its result is read from.

    Args:
        cell: The cell.
        pretraining: LAWM pretraining; None in arms without it.
        finetuning: The training of the policy; None in the arm that has none.
        evaluation: Its success in the simulator.
        imitation: Its error on held-out demonstrations; None without a policy.
        look: How much it looks at its pictures; None if that is not measured.
    """

    cell: Cell
    pretraining: Command | None
    finetuning: Command | None
    evaluation: Command
    imitation: Command | None
    look: Command | None

    @property
    def measurements(self) -> list[Command]:
        return [command for command in (self.evaluation, self.imitation, self.look) if command is not None]

    @property
    def key(self) -> str:
        """A name that changes with anything the cell's result depends on."""
        return "/".join(command.name for command in self.measurements)

    def commands(self) -> list[Command]:
        """All commands that the cell needs, inputs first."""
        needed = [command for measured in self.measurements for command in measured.with_inputs()]
        return list({command.name: command for command in needed}.values())


def settings_of(cfg: BenchmarkConfig) -> list[Setting]:
    return [Setting(*values) for values in product(cfg.regimes, cfg.tasks, cfg.demonstrations)]


def videos_of(cfg: BenchmarkConfig, arm: str, videos: int) -> int:
    """The number of videos in an arm's cell, where the arms that use any have ``videos``."""
    return videos if cfg.arm(arm).uses_corpus else 0


def cells_of(cfg: BenchmarkConfig) -> list[Cell]:
    """All cells, in the order in which they run.

    The primary comparisons' come first, and among them seed by seed, so that an interrupted benchmark has compared
    its arms.
    """
    settings = list(product(cfg.regimes, cfg.demonstrations, cfg.videos))
    compared = [arm for arm in cfg.arms if arm not in cfg.controls]
    rounds = [(settings[0], compared), (settings[0], cfg.controls)]
    rounds += [(setting, compared) for setting in settings[1:]]
    cells = [
        Cell(Setting(regime, task, demonstrations), arm, videos_of(cfg, arm, videos), seed)
        for (regime, demonstrations, videos), arms in rounds
        for seed, task, arm in product(cfg.seeds, cfg.tasks, arms)
    ]
    return list(dict.fromkeys(cells))


def unique_commands(runs: Sequence[CellRun]) -> list[Command]:
    """The commands of some cells, each once, inputs first."""
    return list({command.name: command for run in runs for command in run.commands()}.values())
