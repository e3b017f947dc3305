"""Results of finished cells (JSON lines), and what they say together: one table and one picture."""

import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lawm_lerobot.benchmark.plan import (
    SCRATCH,
    BenchmarkConfig,
    BenchmarkError,
    Setting,
    settings_of,
)
from lawm_lerobot.benchmark.runner import is_done, log_of, seconds_of
from lawm_lerobot.benchmark.stages import CellPlan
from lawm_lerobot.statistics.intervals import (
    SuccessRate,
    difference_interval,
    judge,
    paired_bootstrap,
    points,
)

# Figures of the latents and of the policy that lerobot-train logs in pretraining.
HEALTH = (
    "mse_over_copy",
    "shuffle_ratio",
    "latent_std",
    "latent_rank",
    "policy_std",
    "imitation_loss",
    "readout_r2",
)

Record = dict[str, Any]


# --- one line per cell --------------------------------------------------------------------------------------------


def read_cell(output_dir: Path, plan: CellPlan) -> Record:
    """The figures of a cell whose stages are done."""
    info = json.loads((output_dir / plan.evaluation.out / "eval_info.json").read_text())
    curve = json.loads((output_dir / plan.imitation.out / "imitation.json").read_text())
    health = None if plan.pretraining is None else latent_health(log_of(output_dir, plan.pretraining))
    return {
        "key": plan.key,
        **asdict(plan.cell.setting),
        "arm": plan.cell.arm,
        "seed": plan.cell.seed,
        "successes": [bool(success) for success in info["per_task"][0]["metrics"]["successes"]],
        "imitation_error": curve,
        "latent_health": health,
        "seconds": {stage.name: seconds_of(output_dir, stage) for stage in plan.stages()},
    }


def latent_health(log: str) -> dict[str, float]:
    """The latents' figures in the last line of a pretraining log that has them."""
    lines = [line for line in log.splitlines() if " step:" in line]
    figures = dict(re.findall(r"(\w+):(\S+)", lines[-1])) if lines else {}
    return {name: float(figures[name]) for name in HEALTH if name in figures}


def read_results(file: Path) -> dict[str, Record]:
    """Cells by key. A last line that was cut off is dropped from the file, with a word on it.

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
    records = {}
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            record = json.loads(line)
            records[record["key"]] = record
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise BenchmarkError(f"line {number} of {file} is not a cell's result: remove it.") from error
    return records


def append_result(file: Path, record: Record) -> None:
    with file.open("a") as stream:
        stream.write(json.dumps(record) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def collect(output_dir: Path, plans: Sequence[CellPlan], records: dict[str, Record]) -> int:
    """Append the cells that have finished since; returns how many."""
    new = [
        plan
        for plan in plans
        if plan.key not in records and all(is_done(output_dir, s) for s in (plan.evaluation, plan.imitation))
    ]
    for plan in new:
        records[plan.key] = read_cell(output_dir, plan)
        append_result(output_dir / "results.jsonl", records[plan.key])
    return len(new)


# --- one row per arm and setting ----------------------------------------------------------------------------------


@dataclass
class Row:
    """An arm in one setting, over its seeds.

    Attributes:
        successes: Outcomes of the evaluation episodes by seed.
        curves: Imitation error (steps, errors) by seed.
    """

    setting: Setting
    arm: str
    successes: dict[int, list[bool]]
    curves: dict[int, tuple[list[int], list[float]]]

    @property
    def rate(self) -> SuccessRate:
        outcomes = [outcome for seed in self.successes.values() for outcome in seed]
        return SuccessRate(sum(outcomes), len(outcomes))

    def difference(self, other: "Row") -> tuple[float, tuple[float, float]] | None:
        """In success, with its interval, over the seeds that both have; None if they share none."""
        seeds = [seed for seed in self.successes if seed in other.successes]
        if not seeds:
            return None
        ours, theirs = (np.array([row.successes[seed] for seed in seeds], float) for row in (self, other))
        difference = float((ours - theirs).mean())
        if (
            np.ptp(ours - theirs) == 0
        ):  # Resampled, that would have no spread whatever the number of episodes.
            return difference, difference_interval(self.rate, other.rate)
        return difference, paired_bootstrap(ours, theirs)

    @property
    def final_error(self) -> float:
        return float(np.mean([errors[-1] for _, errors in self.curves.values()]))

    def steps_to_reach(self, other: "Row") -> list[int | None]:
        """For each seed that both have: the first measured step with an error as low as the other's last."""
        return [
            next((step for step, error in zip(*self.curves[seed], strict=True) if error <= errors[-1]), None)
            for seed, (_, errors) in other.curves.items()
            if seed in self.curves
        ]


def rows_of(cfg: BenchmarkConfig, plans: Sequence[CellPlan], records: dict[str, Record]) -> list[Row]:
    """Rows of the arms that have a finished seed, in the order of the configuration."""
    rows = [Row(setting, arm, {}, {}) for setting in settings_of(cfg) for arm in cfg.arms]
    by_place = {(row.setting, row.arm): row for row in rows}
    for plan in plans:
        if (record := records.get(plan.key)) is not None:
            row = by_place[plan.cell.setting, plan.cell.arm]
            curve = record["imitation_error"]
            row.successes[plan.cell.seed] = record["successes"]
            row.curves[plan.cell.seed] = curve["steps"], curve["errors"]
    return [row for row in rows if row.successes]


def table(cfg: BenchmarkConfig, rows: Sequence[Row]) -> str:
    """Markdown: a row per arm and setting, then what the differences show in words."""
    by_place = {(row.setting, row.arm): row for row in rows}
    header = ["task", "regime", "demonstrations", "arm", "success (Wilson 95%)"]
    header += [f"minus `{name}` (paired bootstrap 95%)" for name in cfg.compare_with]
    header += ["held-out imitation error", f"steps to `{SCRATCH}`'s final error", "seeds"]
    lines, verdicts = [_line(header), _line(["---"] * len(header))], []
    for row in rows:
        setting = row.setting
        cells = [setting.task, setting.regime, str(setting.demonstrations), f"`{row.arm}`", str(row.rate)]
        for name in cfg.compare_with:
            other = by_place.get((setting, name))
            found = row.difference(other) if other is not None and other is not row else None
            cells.append("" if found is None else points(*found))
            if found is not None:
                verdicts.append(f"- {setting}: {judge(*found, f'`{row.arm}`', f'`{name}`')}")
        scratch = by_place.get((setting, SCRATCH))
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


# --- the picture --------------------------------------------------------------------------------------------------


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
            steps = sorted(set.intersection(*(set(steps) for steps, _ in row.curves.values())))
            errors = [
                np.mean([errors[at.index(step)] for at, errors in row.curves.values()]) for step in steps
            ]
            right.plot(
                steps, errors, color=colours[row.arm], linestyle=dashes[row.arm], marker=".", label=row.arm
            )
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
