"""The curves of a training: what was measured at some of its steps, kept over a resume, and drawn as one picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lawm_lerobot.files import read_json, write_json
from lawm_lerobot.policies.common.health import COLLAPSED_RANK, COLLAPSED_STD, DEAD_STD, IGNORED_RATIO
from lawm_lerobot.policies.common.uses import PREFIX, UNUSED

#: A checkpoint's file of what was measured up to it.
CURVES_FILE = "training_curves.json"
COLUMNS = 3
#: Where a metric's dashed line is, and what it says.
LIMITS = {
    "mse_over_copy": (1.0, "healthy below"),
    "shuffle_ratio": (IGNORED_RATIO, "ignored below"),
    "latent_std": (COLLAPSED_STD, "collapsed below"),
    "latent_rank": (COLLAPSED_RANK, "collapsed below"),
    "policy_std": (DEAD_STD, "dead below"),
}


class Curves:
    """Rows of metrics, each of one training step: ``{"step": 25, "latent_std": 0.98, ...}``."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics of a step, to four digits; None stands for what is not finite, which JSON does not know."""
        row = {key: float(f"{v:.4g}") if math.isfinite(v) else None for key, v in metrics.items()}
        self.rows.append({"step": step, **row})

    @property
    def metrics(self) -> list[str]:
        """The names of all metrics, in the order in which they first came up."""
        return [key for key in dict.fromkeys(key for row in self.rows for key in row) if key != "step"]

    def curve(self, metric: str) -> tuple[list[int], list[float]]:
        """The steps at which a metric was recorded, and its values; NaN for what was not finite."""
        points = [(row["step"], row[metric]) for row in self.rows if metric in row]
        return [step for step, _ in points], [math.nan if value is None else value for _, value in points]

    def save(self, checkpoint: Path) -> None:
        write_json(checkpoint / CURVES_FILE, self.rows, indent=None)

    def load(self, checkpoint: Path) -> None:
        """Go on with the rows of a checkpoint; with none if it has no such file."""
        self.rows = read_json(checkpoint / CURVES_FILE) or []

    def draw(self, file: Path) -> Path:
        """Draw a panel for every metric into a PNG, with a dashed line where it would be worrying."""
        from matplotlib.figure import (
            Figure,  # Without pyplot, which keeps figures and a backend for the process.
        )

        metrics = self.metrics
        lines = -(-len(metrics) // COLUMNS)
        figure = Figure(figsize=(4.2 * min(COLUMNS, len(metrics)), 2.4 * lines), layout="constrained")
        panels = figure.subplots(lines, min(COLUMNS, len(metrics)), squeeze=False)
        for axis, metric in zip(panels.flat, metrics, strict=False):
            steps, values = self.curve(metric)
            axis.plot(steps, values, linewidth=1, marker="." if len(steps) < 50 else "")
            limit = (UNUSED, "unused below") if metric.startswith(PREFIX) else LIMITS.get(metric)
            title = metric
            if limit is not None:
                axis.axhline(limit[0], color="black", linestyle="--", linewidth=1)
                title += f" ({limit[1]} {limit[0]:g})"
                axis.set_ylim(bottom=min(0, *axis.get_ylim()))
            axis.set_title(title, fontsize=9)
            axis.tick_params(labelsize=8)
        for axis in panels.flat[len(metrics) :]:
            axis.remove()
        for axis in panels.flat[max(0, len(metrics) - COLUMNS) : len(metrics)]:
            axis.set_xlabel("step", fontsize=8)
        figure.savefig(file, dpi=100, format="png")
        return file
