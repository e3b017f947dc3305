"""The picture of a dataset: where things move, when, how far within a latent action, and how far after the state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lawm_lerobot.inspection.dataset.demonstrations import Demonstrations
from lawm_lerobot.inspection.dataset.motion import DEFAULT_S, TIMES_S, Motion, runs
from lawm_lerobot.inspection.dataset.verdict import SPANNED, Verdict

#: Cameras and episodes that are shown.
CAMERAS, ROWS = 4, 16
#: Share of the frames at which a pixel moves that the strongest heat stands for at least.
LEAST_HEAT = 0.02


def draw_dataset(
    motions: Mapping[str, Motion],
    demonstrations: Demonstrations | None,
    verdict: Verdict,
    fps: float,
    file: Path,
) -> Path:
    """Draw up to `CAMERAS` cameras and the course of some episodes above, and below it what a latent action spans."""
    from matplotlib import pyplot as plt

    shown = dict(list(motions.items())[:CAMERAS])
    steps = {} if demonstrations is None else demonstrations.steps
    figure = plt.figure(figsize=(11, 7.5), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.2, 1])[:, 0]
    left, right = above.subfigures(1, 2, squeeze=False, width_ratios=[len(shown), 1.4])[0]
    _draw_cameras(left, shown)
    _draw_course(right.subplots(), next(iter(motions.values())), fps)
    spans, *rest = below.subplots(1, 2 if steps else 1, squeeze=False)[0]
    _draw_spans(spans, motions, verdict)
    for axis in rest:
        for camera, step in steps.items():
            axis.plot([k / fps for k in step.curve], list(step.curve.values()), label=_short(camera))
        axis.axvline(0, color="black", linewidth=1)
        axis.set(xlabel="seconds", ylabel="correlation")
        axis.set_title("Do pictures change as the state does, so much later?", fontsize=10)
        axis.legend(fontsize=8)
    figure.suptitle(f"Verdict: {verdict.verdict.replace('_', ' ')}")
    figure.savefig(file, dpi=100)
    plt.close(figure)
    return file


def _draw_cameras(figure: Any, motions: Mapping[str, Motion]) -> None:
    axes = figure.subplots(1, len(motions), squeeze=False)[0]
    highest = max(LEAST_HEAT, *(float(motion.where.max()) for motion in motions.values()))
    for axis, (camera, motion) in zip(axes, motions.items(), strict=True):
        picture = motion.picture
        axis.imshow(picture.squeeze(), cmap="gray", extent=(0, 1, 1, 0))
        strength = np.clip(motion.where / highest, 0, 1)
        drawn = axis.imshow(
            motion.where, cmap="plasma", vmin=0, vmax=highest, alpha=0.85 * strength, extent=(0, 1, 1, 0)
        )
        axis.set(xticks=[], yticks=[], aspect=picture.shape[0] / picture.shape[1], title=_short(camera))
    bar = figure.colorbar(drawn, ax=axes, shrink=0.8, pad=0.01)
    bar.solids.set_alpha(1)
    bar.set_label(f"share of the frames at which\na pixel moves within {DEFAULT_S} s", fontsize=8)


def _draw_course(axis: Any, motion: Motion, fps: float) -> None:
    """Draw what moves over time: a row for each of some stretches, white where nothing does, with cuts and repeats marked."""
    from matplotlib.lines import Line2D

    everything = runs(motion, np.ones(len(motion.frame), bool))
    chosen = [everything[i] for i in np.unique(np.linspace(0, len(everything) - 1, ROWS).round().astype(int))]
    longest = max(run.stop - run.start for run in chosen)
    rows = np.full((len(chosen), longest), np.nan)
    for row, run in enumerate(chosen):
        rows[row, : run.stop - run.start] = motion.moved[DEFAULT_S][run]
        for flags, colour, mark in ((motion.cut, "red", "|"), (motion.repeated, "tab:blue", ".")):
            at = np.flatnonzero(flags[run])
            axis.plot(
                (at + 0.5) / fps,
                np.full(len(at), row),
                mark,
                color=colour,
                markersize=9 if mark == "|" else 1,
            )
    axis.imshow(
        rows,
        cmap="Greys",
        aspect="auto",
        vmin=0,
        interpolation="nearest",
        extent=(0, longest / fps, len(chosen) - 0.5, -0.5),
    )
    axis.set_facecolor("lightyellow")  # Where there is nothing to compare with.
    axis.set_yticks(range(len(chosen)), [str(motion.episode[run.start]) for run in chosen], fontsize=7)
    axis.set(xlabel="seconds (yellow: too near the end to tell)", ylabel="episode")
    axis.set_title("When it moves: dark", loc="left", fontsize=10)
    marks = [
        Line2D([], [], color="red", marker="|", linestyle="", label="cut"),
        Line2D([], [], color="tab:blue", marker=".", linestyle="", label="frame repeated"),
    ]
    place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": 2, "frameon": False}
    axis.legend(handles=marks, fontsize=8, **place)


def _draw_spans(axis: Any, motions: Mapping[str, Motion], verdict: Verdict) -> None:
    for camera, motion in motions.items():
        shares = [
            float(np.nanmean(values)) if np.isfinite(values := motion.moved[s]).any() else np.nan
            for s in TIMES_S
        ]
        axis.plot([0, *TIMES_S], [0, *shares], marker="o", label=_short(camera))
        axis.axhline(SPANNED * shares[-1], color="grey", linestyle=":", linewidth=1)
    axis.axvline(verdict.stride.seconds, color="black", linestyle="--", linewidth=1)
    axis.set(
        xlabel="seconds (dashed: advised)",
        ylabel="share of moving pixels",
    )
    axis.set_title(f"What moves so much later (dotted: {SPANNED:.0%} of that after a second)", fontsize=10)
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=8)


def _short(camera: str) -> str:
    return camera.rpartition(".")[2]
