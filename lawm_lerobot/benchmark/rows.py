"""The rows of the report: an arm in one setting, over its seeds."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from lawm_lerobot.benchmark.arms import SCRATCH
from lawm_lerobot.benchmark.cells import CellRun, Setting, settings_of, videos_of
from lawm_lerobot.benchmark.configuration import BenchmarkConfig
from lawm_lerobot.benchmark.results import CellResult, ImitationCurve, Looking
from lawm_lerobot.statistics.draws import DrawDifference, difference_over_draws
from lawm_lerobot.statistics.intervals import SuccessRate, points

LOOKS = "looks"  # the verdict of lawm-inspect on a policy that does


@dataclass
class Row:
    """An arm in one setting with one number of videos; all by seed.

    Args:
        setting: The setting.
        arm: The name of the arm.
        videos: The number of unlabelled episodes, 0 in arms that use none.
        successes: Outcomes of the evaluation episodes.
        curves: Imitation errors over finetuning.
        looking: How much the policies look, where that was measured.
    """

    setting: Setting
    arm: str
    videos: int = 0
    successes: dict[int, list[bool]] = field(default_factory=dict)
    curves: dict[int, ImitationCurve] = field(default_factory=dict)
    looking: dict[int, Looking] = field(default_factory=dict)

    @property
    def rate(self) -> SuccessRate:
        return self.rate_of(list(self.successes))

    def rate_of(self, seeds: Sequence[int]) -> SuccessRate:
        """The success over the episodes of some seeds."""
        outcomes = [outcome for seed in seeds for outcome in self.successes[seed]]
        return SuccessRate(sum(outcomes), len(outcomes))

    def difference(self, other: "Row") -> DrawDifference | None:
        """The difference in success over the seeds that both have; None if they share none."""
        seeds = [seed for seed in self.successes if seed in other.successes]
        if not seeds:
            return None
        return difference_over_draws(*([row.successes[seed] for seed in seeds] for row in (self, other)))

    @property
    def final_error(self) -> float | None:
        """The mean imitation error after finetuning; None without a policy."""
        return float(np.mean([curve.errors[-1] for curve in self.curves.values()])) if self.curves else None

    def steps_to_reach(self, other: "Row") -> list[int | None]:
        """For each seed that both have: the first measured step with an error as low as the other's last."""
        reached = []
        for seed, theirs in other.curves.items():
            if (ours := self.curves.get(seed)) is not None:
                pairs = zip(ours.steps, ours.errors, strict=True)
                reached.append(next((step for step, error in pairs if error <= theirs.errors[-1]), None))
        return reached

    @property
    def looks(self) -> bool | None:
        """True if most of the policies look; None where that was not measured."""
        verdicts = [looking.verdict == LOOKS for looking in self.looking.values()]
        return sum(verdicts) > len(verdicts) / 2 if verdicts else None

    def described_looking(self) -> str:
        """Say how many look, and the mean use of the pictures, and of the state where there is one."""
        if not self.looking:
            return "not measured"
        found = list(self.looking.values())
        looking = sum(one.verdict == LOOKS for one in found)
        text = f"{looking} of {len(found)}: pictures {np.mean([one.pictures for one in found]):.2f}"
        states = [one.state for one in found if one.state is not None]
        return text + (f", state {np.mean(states):.2f}" if states else "")


def rows_of(cfg: BenchmarkConfig, runs: Sequence[CellRun], results: dict[str, CellResult]) -> list[Row]:
    """Rows of the arms that have a finished seed, in the order of the configuration."""
    rows = {}
    for setting, arm, videos in product(settings_of(cfg), cfg.arms, cfg.videos):
        used = videos_of(cfg, arm, videos)
        rows[setting, arm, used] = Row(setting, arm, used)
    for run in runs:
        if (result := results.get(run.key)) is not None:
            row = rows[run.cell.setting, run.cell.arm, run.cell.videos]
            row.successes[run.cell.seed] = result.successes
            if result.imitation_error is not None:
                row.curves[run.cell.seed] = result.imitation_error
            if result.looking is not None:
                row.looking[run.cell.seed] = result.looking
    return [row for row in rows.values() if row.successes]


def arms_table(cfg: BenchmarkConfig, rows: Sequence[Row]) -> str:
    """Markdown: a row per arm, setting and number of videos."""
    by_name = {(row.setting, row.arm, row.videos): row for row in rows}
    header = ["task", "regime", "demonstrations", "arm", "videos", "success (Wilson 95%)"]
    header += [f"minus `{name}` (95% over seeds)" for name in cfg.compare_with]
    header += [
        "held-out imitation error",
        f"steps to `{SCRATCH}`'s final error",
        "policies that look",
        "seeds",
    ]
    lines = [line(header), line(["---"] * len(header))]
    for row in rows:
        setting = row.setting
        cells = [setting.task, setting.regime, str(setting.demonstrations), f"`{row.arm}`"]
        cells += [str(row.videos), str(row.rate)]
        for name in cfg.compare_with:
            other = by_name.get((setting, name, videos_of(cfg, name, row.videos)))
            found = row.difference(other) if other is not None and other is not row else None
            cells.append("" if found is None else difference_text(found))
        scratch = by_name.get((setting, SCRATCH, 0))
        error = row.final_error
        cells.append("" if error is None else f"{error:.4f}")
        cells.append("" if scratch is None or error is None else _steps(row.steps_to_reach(scratch)))
        cells += [row.described_looking(), f"{len(row.successes)} of {len(cfg.seeds)}"]
        lines.append(line(cells))
    return "\n".join(lines) + "\n"


def line(cells: Sequence[str]) -> str:
    """A line of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def difference_text(found: DrawDifference) -> str:
    """A difference in percentage points, with its interval if there is more than one draw."""
    if found.draws == 1:
        return f"{100 * found.mean:+.0f} points, one draw"
    return points(found.mean, found.interval)


def _steps(reached: Sequence[int | None]) -> str:
    steps = [step for step in reached if step is not None]
    if not steps:
        return "not reached"
    missing = len(reached) - len(steps)
    return f"{np.mean(steps):.0f}" + (f" ({missing} of {len(reached)} seeds never)" if missing else "")
