"""Plots of what was measured on a sample."""

from pathlib import Path
from typing import Any

import numpy as np

from lawm_lerobot.inspection.looking import Looking
from lawm_lerobot.inspection.metrics import OWN, PREDICTED, SHUFFLED_BATCH, SHUFFLED_EPISODE, ZEROED, Metrics
from lawm_lerobot.inspection.occlusion import Occlusions
from lawm_lerobot.inspection.sample import Sample
from lawm_lerobot.policies.common.uses import UNUSED

# Names of the sets of latents, as the report shows them.
DRIVES = {
    OWN: "own latents",
    SHUFFLED_BATCH: "latents shuffled over the batch",
    SHUFFLED_EPISODE: "latents shuffled within the episode",
    ZEROED: "latents zeroed",
    PREDICTED: "policy's plan",
}
# Tasks with a colour of their own in the map.
COLOURS = 9
# Change of the chunk by one patch that the darkest heat stands for at least: a blind policy's should look like nothing.
LEAST_HEAT = UNUSED / 2


def draw_explained_variance(metrics: Metrics, file: Path) -> Path:
    """Draw the explained variance over the horizon, one line per set of latents."""
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MaxNLocator

    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    lowest = -0.5
    for name, explained in metrics.explained_variance.items():
        values = [np.nan if v is None else v for v in explained.by_horizon]
        axis.plot(range(1, len(values) + 1), values, marker="o", label=DRIVES[name])
        lowest = min(lowest, *(v for v in values if np.isfinite(v)), lowest)
    axis.axhline(0, color="black", linewidth=1, linestyle="--", label="copy of x_0")
    # Wrong latents can be arbitrarily bad; below -1 it no longer matters how bad.
    axis.set_ylim(max(lowest, -1) - 0.05, 1.05)
    axis.set_xlabel("horizon k")
    axis.set_ylabel("explained variance on moving pixels")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(fontsize=8)
    return _save(figure, file)


def draw_latents(sample: Sample, metrics: Metrics, file: Path) -> Path:
    """Draw a map of the latents' first two principal components, and their standard deviation per dimension."""
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MaxNLocator

    flat, share = sample.latent_map(2)  # (N*H,2), (r)
    horizon = sample.inferred.shape[1]
    tasks = np.repeat(np.asarray(sample.tasks), horizon)
    common = list(metrics.tasks)
    if len(common) > COLOURS + 1:
        common = common[:COLOURS]

    figure, (axis, bars) = plt.subplots(
        1, 2, figsize=(10, 4.5), layout="constrained", gridspec_kw={"width_ratios": [2.2, 1]}
    )
    for index, task in enumerate(common):
        axis.scatter(*flat[tasks == task].T, s=6, alpha=0.5, color=f"C{index}", label=_short(task))
    rest = ~np.isin(tasks, common)
    if rest.any():
        others = len(metrics.tasks) - len(common)
        axis.scatter(
            *flat[rest].T, s=6, alpha=0.5, color="lightgrey", label=f"{others} other tasks", zorder=0
        )
    for name, label, part in zip("xy", ("first", "second"), [*share.tolist(), 0.0], strict=False):
        axis.set(**{f"{name}label": f"{label} principal component ({part:.0%})"})
    # A collapse should look like one, not be zoomed into.
    for set_limits, values in ((axis.set_xlim, flat[:, 0]), (axis.set_ylim, flat[:, 1])):
        set_limits(min(-1.0, 1.1 * values.min()), max(1.0, 1.1 * values.max()))
    axis.legend(fontsize=8, markerscale=3)

    deviations = np.nan_to_num(metrics.latents.std_per_dimension, posinf=0)
    bars.bar(range(len(deviations)), deviations)
    bars.axhline(metrics.thresholds["collapsed_std"], color="black", linestyle="--", linewidth=1)
    bars.set(
        xlabel="latent dimension", ylabel="standard deviation", ylim=(0, max(1.2, 1.05 * max(deviations)))
    )
    bars.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _save(figure, file)


def draw_probes(probe: dict[str, Any], file: Path) -> Path:
    """Draw the held-out R2 of `probe_actions`, one panel per target and kind of features."""
    from matplotlib import pyplot as plt

    panels = [(target, kind, s) for target, kinds in probe["targets"].items() for kind, s in kinds.items()]
    figure, axes = plt.subplots(
        2, -(-len(panels) // 2), figsize=(10, 4.5), layout="constrained", squeeze=False
    )
    for axis, (target, kind, scores) in zip(axes.T.flat, panels, strict=True):
        values = [score["r2"] or 0.0 for score in scores.values()]
        drawn = axis.barh(list(scores), np.maximum(values, -0.25), color=["C0", "lightgrey", "lightgrey"])
        axis.bar_label(
            drawn,
            ["-" if s["r2"] is None else f"{s['r2']:.2f}" for s in scores.values()],
            fontsize=8,
            padding=2,
        )
        axis.axvline(0, color="black", linewidth=1)
        axis.set_xlim(-0.25, 1.1)
        axis.invert_yaxis()
        axis.tick_params(labelsize=8)
        axis.set_title(f"{kind.replace('_', ' ')} -> {target.replace('_', ' ')}", fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel("held-out R2")
    return _save(figure, file)


def draw_looking(looking: Looking, occlusions: Occlusions, file: Path) -> Path:
    """Draw where the policy looks, one row per camera, and a bar for the use of each of its inputs."""
    from matplotlib import pyplot as plt

    cameras, shown = list(occlusions.changes), len(occlusions.episodes)
    highest = max(LEAST_HEAT, *(float(change.max()) for change in occlusions.changes.values()))
    figure = plt.figure(figsize=(2 * shown + 4, max(3.2, 2 * len(cameras) + 0.9)), layout="constrained")
    parts: Any = figure.subfigures(1, 2, width_ratios=[2 * shown + 0.8, 3.6])
    left, right = parts
    axes = left.subplots(len(cameras), shown, squeeze=False)
    for row, camera in zip(axes, cameras, strict=True):
        row[0].set_ylabel(f"{_camera_name(camera)}\nuse {looking.cameras[camera].use:.2f}", fontsize=9)
        for index, axis in enumerate(row):
            picture = occlusions.pictures[camera][index]
            # Grey and pale, so that colour means heat.
            axis.imshow(picture.mean(-1), cmap="gray", vmin=-80, vmax=255, extent=(0, 1, 1, 0))
            heat = occlusions.changes[camera][index]
            strength = np.clip(heat / highest, 0, 1)
            drawn = axis.imshow(
                heat, cmap="plasma", vmin=0, vmax=highest, alpha=0.85 * strength, extent=(0, 1, 1, 0)
            )
            axis.set(xticks=[], yticks=[], aspect=picture.shape[0] / picture.shape[1])
    for axis, episode, number in zip(axes[0], occlusions.episodes, occlusions.indices, strict=True):
        axis.set_title(f"episode {episode}, frame {number}", fontsize=8)
    bar = left.colorbar(drawn, ax=axes, shrink=0.8, pad=0.01)
    bar.solids.set_alpha(1)
    bar.set_label(
        "change of the chunk by painting over a patch,\nas a share of that by another frame", fontsize=8
    )
    _draw_uses(right.subplots(), looking)
    figure.suptitle(f"Where the policy looks. Verdict: {looking.verdict.replace('_', ' ')}")
    return _save(figure, file)


def _draw_uses(axis: Any, looking: Looking) -> None:
    uses = {_camera_name(camera): use for camera, use in looking.cameras.items()}
    if len(uses) > 1:
        uses["all pictures"] = looking.pictures
    uses |= {name: use for name, use in (("state", looking.state), ("task", looking.task)) if use is not None}
    values = [use.use for use in uses.values()]
    # The interval of a ratio need not hold the ratio itself.
    errors = [
        [max(0.0, use.use - use.low) for use in uses.values()],
        [max(0.0, use.high - use.use) for use in uses.values()],
    ]
    colours = ["C0" if name not in ("state", "task") else "C1" for name in uses]
    axis.barh(list(uses), values, xerr=errors, color=colours, capsize=3)
    axis.axvline(UNUSED, color="black", linestyle="--", linewidth=1)
    axis.set_xlim(0, max(1.05, 1.05 * max(use.high for use in uses.values())))
    axis.invert_yaxis()
    axis.tick_params(labelsize=9)
    axis.set_xlabel("use, with 95% interval (dashed: unused below)", fontsize=8)


def _camera_name(camera: str) -> str:
    return camera.rpartition(".")[2]


def _short(text: str, length: int = 40) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _save(figure: Any, file: Path) -> Path:
    from matplotlib import pyplot as plt

    figure.savefig(file, dpi=100)
    plt.close(figure)
    return file
