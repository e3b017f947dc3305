"""The pictures of a benchmark: success over demonstrations, and every arm with its imitation error."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.stats import sem, t

from lawm_lerobot.benchmark.arms import SCRATCH, SUPERVISED_ALL
from lawm_lerobot.benchmark.cells import videos_of
from lawm_lerobot.benchmark.configuration import BenchmarkConfig
from lawm_lerobot.benchmark.rows import Row


@dataclass
class Line:
    """A line of the curve: success over demonstrations.

    Args:
        label: Its words in the legend.
        dotted: True for the line that shows what true actions would give.
        demonstrations: Numbers of demonstrations, ascending.
        means: Mean success over draws at each of them.
        lows: Lower ends of Student's 95% interval over draws; the mean where there is one draw.
        highs: Upper ends.
    """

    label: str
    dotted: bool
    demonstrations: list[int] = field(default_factory=list)
    means: list[float] = field(default_factory=list)
    lows: list[float] = field(default_factory=list)
    highs: list[float] = field(default_factory=list)

    def add(self, demonstrations: int, rates: Sequence[float]) -> None:
        """Add a point from the success rates of its draws."""
        mean = float(np.mean(rates))
        half = float(t.ppf(0.975, len(rates) - 1) * sem(rates)) if len(rates) > 1 else 0.0
        self.demonstrations.append(demonstrations)
        self.means.append(mean)
        self.lows.append(max(mean - half, 0.0))
        self.highs.append(min(mean + half, 1.0))


def curve_arms(cfg: BenchmarkConfig) -> list[tuple[str, str, int]]:
    """Label, arm and number of videos of each line of the curve, least video first.

    With video it is the arm that the first primary comparison expects to be better; without, the arm that it is
    compared with if that uses no video, so that both have trained for as long.
    """
    reference = cfg.primary[0][1] if cfg.primary else SCRATCH
    without = SCRATCH if cfg.arm(reference).uses_corpus else reference
    lines = [(f"0 videos ({without})", without, 0)] if without in cfg.arms else []
    with_video = [arm for arm in (cfg.primary[0] if cfg.primary else cfg.arms) if cfg.arm(arm).uses_corpus]
    with_video = [arm for arm in with_video if arm != SUPERVISED_ALL]
    if with_video:
        lines += [
            (f"{videos} videos ({with_video[0]})", with_video[0], videos) for videos in sorted(cfg.videos)
        ]
    if SUPERVISED_ALL in cfg.arms:
        most = max(cfg.videos)
        lines.append((f"{most} videos with their true actions", SUPERVISED_ALL, most))
    return lines


def curve_lines(cfg: BenchmarkConfig, rows: Sequence[Row], regime: str) -> list[Line]:
    """The lines of the curve, over the tasks and seeds that are finished."""
    lines = []
    for label, arm, videos in curve_arms(cfg):
        shown = Line(label, dotted=arm == SUPERVISED_ALL)
        for count in sorted(cfg.demonstrations):
            rates = [
                float(np.mean(outcomes))
                for row in rows
                if row.arm == arm and row.videos == videos_of(cfg, arm, videos)
                if row.setting.regime == regime and row.setting.demonstrations == count
                for outcomes in row.successes.values()
            ]
            if rates:
                shown.add(count, rates)
        if shown.demonstrations:
            lines.append(shown)
    return lines


def plot_curve(cfg: BenchmarkConfig, rows: Sequence[Row], file: Path) -> None:
    """Success over demonstrations, a line for each number of videos, a panel for each regime."""
    # Not pyplot: this may run where there is no display, and beside code that uses pyplot.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * len(cfg.regimes), 4.4), layout="constrained")
    panels = figure.subplots(1, len(cfg.regimes), squeeze=False)[0]
    counts = sorted(cfg.demonstrations)
    for panel, regime in zip(panels, cfg.regimes, strict=True):
        for i, shown in enumerate(curve_lines(cfg, rows, regime)):
            colour = "0.35" if shown.dotted else f"C{i}"
            style = {
                "color": colour,
                "linestyle": ":" if shown.dotted else "-",
                "marker": "o",
                "linewidth": 2.2,
            }
            # Evenly spaced numbers of demonstrations, and lines that do not hide each other's ends.
            x = np.array([counts.index(count) for count in shown.demonstrations]) + 0.04 * (i - 1)
            panel.plot(x, shown.means, **style, label=shown.label)
            panel.errorbar(x, shown.means, _errors(shown), color=colour, fmt="none", capsize=4, alpha=0.8)
            panel.fill_between(x, shown.lows, shown.highs, color=colour, alpha=0.12, linewidth=0)
        panel.set_xticks(range(len(counts)), [str(count) for count in counts])
        panel.set(xlim=(-0.4, len(counts) - 0.6), ylim=(0, 1.02), xlabel="demonstrations", ylabel="success")
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        panel.set_title(f"{', '.join(cfg.tasks)}\nmean and 95% over draws, {regime}", fontsize="medium")
        panel.grid(axis="y", alpha=0.3)
        panel.legend(loc="best", fontsize="small")
    FigureCanvasAgg(figure).print_png(file)


def _errors(shown: Line) -> np.ndarray:
    """(2,N) distances of the interval's ends from the means."""
    means = np.array(shown.means)
    return np.abs(np.array([means - shown.lows, np.array(shown.highs) - means]))


def plot_arms(cfg: BenchmarkConfig, rows: Sequence[Row], file: Path) -> None:
    """Success with its interval beside the imitation error over finetuning, a line of panels per setting."""
    # Not pyplot: this may run where there is no display, and beside code that uses pyplot.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    settings = list(dict.fromkeys(row.setting for row in rows))
    colours = {arm: f"C{i % 10}" for i, arm in enumerate(cfg.arms)}
    dashes = {arm: ["-", "--", ":"][i // 10 % 3] for i, arm in enumerate(cfg.arms)}
    several = len(cfg.videos) > 1
    height = 1.2 + 0.28 * len(cfg.arms) * len(cfg.videos)
    figure = Figure(figsize=(12, height * len(settings)), layout="constrained")
    panels = figure.subplots(len(settings), 2, squeeze=False)
    for (left, right), setting in zip(panels, settings, strict=True):
        shown = [row for row in rows if row.setting == setting]
        names = [f"{row.arm}, {row.videos} videos" if several and row.videos else row.arm for row in shown]
        for y, (name, row) in enumerate(zip(names, shown, strict=True)):
            rate, (low, high) = row.rate.rate, row.rate.interval()
            left.plot([low, high], [y, y], color=colours[row.arm], linestyle="-")
            left.plot(rate, y, "o", color=colours[row.arm])
            if not row.curves:  # no policy
                continue
            steps = sorted(set.intersection(*(set(curve.steps) for curve in row.curves.values())))
            by_seed = [dict(zip(curve.steps, curve.errors, strict=True)) for curve in row.curves.values()]
            errors = [np.mean([curve[step] for curve in by_seed]) for step in steps]
            style = {"color": colours[row.arm], "linestyle": dashes[row.arm], "marker": "."}
            right.plot(steps, errors, **style, label=name)
        left.set_yticks(range(len(shown)), names)
        left.invert_yaxis()
        left.set(xlim=(-0.02, 1.02), xlabel="success, Wilson 95%")
        left.set_title(str(setting), loc="right")  # away from the other panel's
        left.grid(axis="x", alpha=0.3)
        right.set(xlabel="finetuning steps")
        right.set_title("held-out imitation error (action units), mean over seeds", loc="left")
        right.grid(alpha=0.3)
        right.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    FigureCanvasAgg(figure).print_png(file)
