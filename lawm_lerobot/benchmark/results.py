"""Results of finished cells (JSON lines), and their summary: one table and one picture."""

import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np

from lawm_lerobot.benchmark.cells import CellRun, Setting, settings_of
from lawm_lerobot.benchmark.configuration import SCRATCH, BenchmarkConfig, BenchmarkError
from lawm_lerobot.benchmark.runner import duration_of, is_done, log_of
from lawm_lerobot.statistics.intervals import (
    SuccessRate,
    difference_interval,
    judge,
    paired_bootstrap,
    points,
)

# Metrics of the latents and of the policy that lerobot-train logs in pretraining.
LOGGED_HEALTH = (
    "mse_over_copy",
    "shuffle_ratio",
    "latent_std",
    "latent_rank",
    "policy_std",
    "imitation_loss",
    "readout_r2",
)


@dataclass(frozen=True)
class ImitationCurve:
    """The error on the held-out demonstrations, in action units, after each of some training steps of a finetuning."""

    steps: list[int]
    errors: list[float]


@dataclass(frozen=True)
class CellResult:
    """The result of a cell: a line of ``results.jsonl``, whose keys are these fields.

    Args:
        key: Name of the cell, see `CellRun.key`.
        regime, task, demonstrations, arm, seed: The cell.
        successes: Outcomes of the evaluation episodes.
        imitation_error: The imitation error over finetuning.
        latent_health: The last logged metrics of the latents; None in arms without latents.
        seconds: Durations of the commands by name.
    """

    key: str
    regime: str
    task: str
    demonstrations: int
    arm: str
    seed: int
    successes: list[bool]
    imitation_error: ImitationCurve
    latent_health: dict[str, float] | None
    seconds: dict[str, float]

    @classmethod
    def from_line(cls, line: str) -> "CellResult":
        values = json.loads(line)
        return cls(**values | {"imitation_error": ImitationCurve(**values["imitation_error"])})


def read_cell(output_dir: Path, run: CellRun) -> CellResult:
    """The result of a cell whose commands are done."""
    info = json.loads((output_dir / run.evaluation.out / "eval_info.json").read_text())
    curve = json.loads((output_dir / run.imitation.out / "imitation.json").read_text())
    return CellResult(
        key=run.key,
        **asdict(run.cell.setting),
        arm=run.cell.arm,
        seed=run.cell.seed,
        successes=[bool(success) for success in info["per_task"][0]["metrics"]["successes"]],
        imitation_error=ImitationCurve(**curve),
        latent_health=None if run.pretraining is None else logged_health(log_of(output_dir, run.pretraining)),
        seconds={command.name: duration_of(output_dir, command) for command in run.commands()},
    )


def logged_health(log: str) -> dict[str, float]:
    """Metrics of the latents in the last line of a pretraining log that has them.

    The log is all there is: lerobot-train writes these numbers nowhere else but to Weights & Biases.
    """
    lines = [line for line in log.splitlines() if " step:" in line]
    metrics = dict(re.findall(r"(\w+):(\S+)", lines[-1])) if lines else {}
    return {name: float(metrics[name]) for name in LOGGED_HEALTH if name in metrics}


def read_results(file: Path) -> dict[str, CellResult]:
    """Cells by key. A last line that was cut off is dropped from the file, and stderr says so.

    Raises:
        BenchmarkError: If another line is not one that `append_result` wrote.
    """
    if not file.exists():
        return {}
    whole, _, torn = file.read_text().rpartition("\n")
    if torn:
        print(f"{file.name}: its last line was cut off; that cell is done again", file=sys.stderr)
        with file.open("r+b") as stream:
            stream.truncate(len((whole + "\n").encode()) if whole else 0)
    results = {}
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            result = CellResult.from_line(line)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise BenchmarkError(f"line {number} of {file} is not a cell's result: remove it.") from error
        results[result.key] = result
    return results


def append_result(file: Path, result: CellResult) -> None:
    with file.open("a") as stream:
        stream.write(json.dumps(asdict(result)) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def append_new_results(output_dir: Path, runs: Sequence[CellRun], results: dict[str, CellResult]) -> int:
    """Add the cells that have finished since to ``results`` and to their file; returns how many."""
    new = [
        run
        for run in runs
        if run.key not in results
        and all(is_done(output_dir, command) for command in (run.evaluation, run.imitation))
    ]
    for run in new:
        results[run.key] = read_cell(output_dir, run)
        append_result(output_dir / "results.jsonl", results[run.key])
    return len(new)


@dataclass
class Row:
    """An arm in one setting: the outcomes of its evaluation episodes, and its imitation errors, by seed."""

    setting: Setting
    arm: str
    successes: dict[int, list[bool]]
    curves: dict[int, ImitationCurve]

    @property
    def rate(self) -> SuccessRate:
        outcomes = [outcome for seed in self.successes.values() for outcome in seed]
        return SuccessRate(sum(outcomes), len(outcomes))

    def difference(self, other: "Row") -> tuple[float, tuple[float, float]] | None:
        """Difference in success, with its interval, over the seeds that both have; None if they share none."""
        seeds = [seed for seed in self.successes if seed in other.successes]
        if not seeds:
            return None
        ours, theirs = (np.array([row.successes[seed] for seed in seeds], float) for row in (self, other))
        difference = float((ours - theirs).mean())
        if np.ptp(ours - theirs) == 0:
            # The bootstrap's interval would have no width, whatever the number of episodes.
            return difference, difference_interval(self.rate, other.rate)
        return difference, paired_bootstrap(ours, theirs)

    @property
    def final_error(self) -> float:
        return float(np.mean([curve.errors[-1] for curve in self.curves.values()]))

    def steps_to_reach(self, other: "Row") -> list[int | None]:
        """For each seed that both have: the first measured step with an error as low as the other's last."""
        reached = []
        for seed, theirs in other.curves.items():
            if (ours := self.curves.get(seed)) is not None:
                pairs = zip(ours.steps, ours.errors, strict=True)
                reached.append(next((step for step, error in pairs if error <= theirs.errors[-1]), None))
        return reached


def rows_of(cfg: BenchmarkConfig, runs: Sequence[CellRun], results: dict[str, CellResult]) -> list[Row]:
    """Rows of the arms that have a finished seed, in the order of the configuration."""
    rows = {(setting, arm): Row(setting, arm, {}, {}) for setting, arm in product(settings_of(cfg), cfg.arms)}
    for run in runs:
        if (result := results.get(run.key)) is not None:
            row = rows[run.cell.setting, run.cell.arm]
            row.successes[run.cell.seed] = result.successes
            row.curves[run.cell.seed] = result.imitation_error
    return [row for row in rows.values() if row.successes]


def results_table(cfg: BenchmarkConfig, rows: Sequence[Row]) -> str:
    """Markdown: a row per arm and setting, then sentences on the differences."""
    by_name = {(row.setting, row.arm): row for row in rows}
    header = ["task", "regime", "demonstrations", "arm", "success (Wilson 95%)"]
    header += [f"minus `{name}` (paired bootstrap 95%)" for name in cfg.compare_with]
    header += ["held-out imitation error", f"steps to `{SCRATCH}`'s final error", "seeds"]
    lines, verdicts = [_line(header), _line(["---"] * len(header))], []
    for row in rows:
        setting = row.setting
        cells = [setting.task, setting.regime, str(setting.demonstrations), f"`{row.arm}`", str(row.rate)]
        for name in cfg.compare_with:
            other = by_name.get((setting, name))
            found = row.difference(other) if other is not None and other is not row else None
            cells.append("" if found is None else points(*found))
            if found is not None:
                verdicts.append(f"- {setting}: {judge(*found, f'`{row.arm}`', f'`{name}`')}")
        scratch = by_name.get((setting, SCRATCH))
        cells.append(f"{row.final_error:.4f}")
        cells.append("" if scratch is None else _steps(row.steps_to_reach(scratch)))
        cells.append(f"{len(row.successes)} of {len(cfg.seeds)}")
        lines.append(_line(cells))
    return "\n".join([*lines, "", *verdicts]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _steps(reached: Sequence[int | None]) -> str:
    steps = [step for step in reached if step is not None]
    if not steps:
        return "not reached"
    missing = len(reached) - len(steps)
    return f"{np.mean(steps):.0f}" + (f" ({missing} of {len(reached)} seeds never)" if missing else "")


def plot(cfg: BenchmarkConfig, rows: Sequence[Row], file: Path) -> None:
    """Success with its interval beside the imitation error over finetuning, a line of panels per setting."""
    # Not pyplot: this may run where there is no display, and beside code that uses pyplot.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    settings = list(dict.fromkeys(row.setting for row in rows))
    colours = {arm: f"C{i % 10}" for i, arm in enumerate(cfg.arms)}
    dashes = {arm: ["-", "--", ":"][i // 10 % 3] for i, arm in enumerate(cfg.arms)}
    height = 1.2 + 0.28 * len(cfg.arms)
    figure = Figure(figsize=(12, height * len(settings)), layout="constrained")
    panels = figure.subplots(len(settings), 2, squeeze=False)
    for (left, right), setting in zip(panels, settings, strict=True):
        shown = [row for row in rows if row.setting == setting]
        for y, row in enumerate(shown):
            rate, (low, high) = row.rate.rate, row.rate.interval()
            left.plot([low, high], [y, y], color=colours[row.arm], linestyle="-")
            left.plot(rate, y, "o", color=colours[row.arm])
            steps = sorted(set.intersection(*(set(curve.steps) for curve in row.curves.values())))
            by_seed = [dict(zip(curve.steps, curve.errors, strict=True)) for curve in row.curves.values()]
            errors = [np.mean([curve[step] for curve in by_seed]) for step in steps]
            style = {"color": colours[row.arm], "linestyle": dashes[row.arm], "marker": "."}
            right.plot(steps, errors, **style, label=row.arm)
        left.set_yticks(range(len(shown)), [row.arm for row in shown])
        left.invert_yaxis()
        left.set(xlim=(-0.02, 1.02), xlabel="success, Wilson 95%")
        left.set_title(str(setting), loc="right")  # away from the other panel's
        left.grid(axis="x", alpha=0.3)
        right.set(xlabel="finetuning steps")
        right.set_title("held-out imitation error (action units), mean over seeds", loc="left")
        right.grid(alpha=0.3)
        right.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    FigureCanvasAgg(figure).print_png(file)
