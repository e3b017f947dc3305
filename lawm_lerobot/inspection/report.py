"""The report of an inspection: pictures, a video, `metrics.json`, and one HTML page that holds them all.

Letters: n shown clips, H latent actions, T = H + 1 frames, C h w, Z latent dimension.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lawm_lerobot.inspection.inspection import (
    HEALTHY,
    OWN,
    POLICY_PLAN,
    SHUFFLED_BATCH,
    SHUFFLED_EPISODE,
    ZEROED,
    Findings,
    Sample,
    imagine,
)
from lawm_lerobot.method.latent_action import POLICY
from lawm_lerobot.policies.common.configuration import LawmConfig
from lawm_lerobot.policies.common.imagination import Clips, draw_strips, frame_titles, telling_clips
from lawm_lerobot.policies.common.policy import LawmPolicy

REPORT = "report.html"
METRICS = "metrics.json"

DRIVES = {
    OWN: "own latents",
    SHUFFLED_BATCH: "latents shuffled over the batch",
    SHUFFLED_EPISODE: "latents shuffled within the episode",
    ZEROED: "latents zeroed",
    POLICY_PLAN: "policy's plan",
}
SHOWN_CLIPS = 4
#: Clips among which the shown ones are chosen.
CANDIDATES = 128
#: Tasks with a colour of their own in the map.
COLOURS = 9
VIDEO_ROUNDS = 3
#: Seconds for which a video rests on the last frame of a clip.
VIDEO_REST = 0.5


@dataclass(frozen=True)
class Figure:
    """A file beside the report, and what it shows."""

    file: Path
    caption: str


@dataclass(frozen=True)
class Shown:
    """The clips in the pictures, as titled strips of frames (n,T,C,h,w) in [0, 1]."""

    strips: dict[str, Tensor]
    transfer: dict[str, Tensor]
    titles: list[str]
    """Names of the T frames"""


@torch.no_grad()
def choose_shown(policy: LawmPolicy, sample: Sample) -> Shown:
    """Clips that move, each in its own way, real and imagined; and each with another one's latents."""
    candidates = torch.arange(len(sample.frames))[:: -(-len(sample.frames) // CANDIDATES)]
    frames = sample.pixels(candidates)
    valid = torch.ones(frames.shape[0], frames.shape[1] - 1, dtype=torch.bool)
    clips = Clips(frames, valid, sample.inferred[candidates], sample.planned[candidates])
    chosen, other = telling_clips(clips, SHOWN_CLIPS)
    real, first = frames[chosen], frames[chosen][:, :1]  # (n,T,C,h,w), (n,1,C,h,w)

    def open_loop(start: Tensor, latents: Tensor) -> Tensor:
        return torch.cat([start, imagine(policy, start[:, 0], latents)], 1)  # (n,T,C,h,w)

    device = policy.config.device
    reconstructed = policy.pretraining.world_model.reconstruct(
        real.to(device), clips.inferred[chosen].to(device)
    )
    strips = {"real": real}
    if reconstructed is not None:
        strips["reconstructed"] = reconstructed.float().cpu()
    strips["imagined, own latents"] = open_loop(first, clips.inferred[chosen])
    if policy.config.latent_action.source != POLICY:
        strips["imagined, policy's plan"] = open_loop(first, clips.planned[chosen])
    strips["copy of x_0"] = first.expand_as(real)
    transfer = {
        "A, real": frames[other],
        "B, real": real,
        "B, imagined, B's latents": strips["imagined, own latents"],
        "B, imagined, A's latents": open_loop(first, clips.inferred[other]),
    }
    return Shown(strips, transfer, frame_titles(policy.config))


# --- pictures ----------------------------------------------------------------------------------------------


def draw_explained_variance(figures: dict[str, Any], file: Path) -> Path:
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MaxNLocator

    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    lowest = -0.5
    for name, of in figures["explained_variance"].items():
        if name != "moving_share":
            values = [np.nan if v is None else v for v in of["by_horizon"]]
            axis.plot(
                range(1, len(values) + 1),
                values,
                marker="o",
                label=DRIVES[name],
            )
            lowest = min(lowest, *(v for v in values if v == v), lowest)
    axis.axhline(0, color="black", linewidth=1, linestyle="--", label="copy of x_0")
    # Wrong latents can be arbitrarily bad; below -1 it no longer matters how bad.
    axis.set_ylim(max(lowest, -1) - 0.05, 1.05)
    axis.set_xlabel("horizon k")
    axis.set_ylabel("explained variance on moving pixels")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(fontsize=8)
    return _save(figure, file)


def draw_latents(sample: Sample, figures: dict[str, Any], file: Path) -> Path:
    """A map of the latents' first two principal components, and their standard deviation per dimension."""
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MaxNLocator

    points = sample.inferred.flatten(0, 1)  # (N*H,Z)
    centred = points - points.mean(0)
    _, strength, directions = torch.linalg.svd(centred, full_matrices=False)  # (r), (r,Z)
    flat = (centred @ directions[:2].T).numpy()  # (N*H,<=2)
    if flat.shape[1] == 1:
        flat = np.concatenate([flat, np.zeros_like(flat)], 1)
    share = strength.square() / strength.square().sum().clamp_min(1e-20)
    horizon = sample.inferred.shape[1]
    tasks = np.repeat(np.asarray(sample.tasks), horizon)
    common = (
        list(figures["tasks"])[:COLOURS] if len(figures["tasks"]) > COLOURS + 1 else list(figures["tasks"])
    )

    figure, (axis, bars) = plt.subplots(
        1, 2, figsize=(10, 4.5), layout="constrained", gridspec_kw={"width_ratios": [2.2, 1]}
    )
    for index, task in enumerate(common):
        axis.scatter(*flat[tasks == task].T, s=6, alpha=0.5, color=f"C{index}", label=_short(task))
    rest = ~np.isin(tasks, common)
    if rest.any():
        others = len(figures["tasks"]) - len(common)
        axis.scatter(
            *flat[rest].T, s=6, alpha=0.5, color="lightgrey", label=f"{others} other tasks", zorder=0
        )
    for name, label, part in zip("xy", ("first", "second"), [*share.tolist(), 0.0], strict=False):
        axis.set(**{f"{name}label": f"{label} principal component ({part:.0%})"})
    # A collapse should look like one, not be zoomed into.
    for set_limits, values in ((axis.set_xlim, flat[:, 0]), (axis.set_ylim, flat[:, 1])):
        set_limits(min(-1.0, 1.1 * values.min()), max(1.0, 1.1 * values.max()))
    axis.legend(fontsize=8, markerscale=3)

    deviations = figures["latents"]["std_per_dimension"]
    bars.bar(range(len(deviations)), deviations)
    bars.axhline(figures["thresholds"]["collapsed_std"], color="black", linestyle="--", linewidth=1)
    bars.set(
        xlabel="latent dimension", ylabel="standard deviation", ylim=(0, max(1.2, 1.05 * max(deviations)))
    )
    bars.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _save(figure, file)


def draw_probes(probe: dict[str, Any], file: Path) -> Path:
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


def _short(text: str, length: int = 40) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _save(figure: Any, file: Path) -> Path:
    from matplotlib import pyplot as plt

    figure.savefig(file, dpi=100)
    plt.close(figure)
    return file


def write_video(strips: dict[str, Tensor], frame_rate: Fraction, file: Path) -> Path:
    """The strips as a film: one row per strip, one column per clip, all playing side by side.

    Args:
        strips: Title -> frames (n,T,C,h,w) in [0, 1].
        frame_rate: Of the clips, per second.
        file: MP4 (H.264) to write.
    """
    import av
    import cv2

    side = next(iter(strips.values())).shape[-1]
    zoom = max(1, 128 // side)
    margin, gap = 220, 4
    tile = side * zoom + gap
    clips, time = next(iter(strips.values())).shape[:2]
    height, width = len(strips) * tile, margin + clips * tile
    canvas = np.full((height + height % 2, width + width % 2, 3), 255, np.uint8)  # H.264 wants even sides
    for row, title in enumerate(strips):
        cv2.putText(
            canvas,
            title,
            (4, row * tile + tile // 2),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.5,
            (0, 0, 0),
            1,
            cv2.LINE_AA,
        )
    pictures: list[np.ndarray] = []
    for k in range(time):
        picture = canvas.copy()
        for row, frames in enumerate(strips.values()):
            for clip in range(clips):
                small = (frames[clip, k].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
                large = small.repeat(zoom, 0).repeat(zoom, 1)
                top, left = row * tile, margin + clip * tile
                picture[top : top + large.shape[0], left : left + large.shape[1]] = large
        pictures.append(picture)
    rest = max(1, round(VIDEO_REST * frame_rate))
    with av.open(str(file), "w") as container:
        stream: Any = container.add_stream("libx264", rate=frame_rate, options={"crf": "18"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in (pictures + [pictures[-1]] * rest) * VIDEO_ROUNDS:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return file


# --- the whole report --------------------------------------------------------------------------------------


def write_report(
    policy: LawmPolicy,
    sample: Sample,
    findings: Findings,
    shown: Shown,
    warnings: Sequence[str],
    about: dict[str, str],
    directory: Path,
) -> Path:
    """Write everything into an existing directory; returns the path of the HTML page.

    Args:
        policy: The inspected one.
        sample: Its clips.
        findings: `inspect_sample`'s.
        shown: `choose_shown`'s.
        warnings: Sentences to print above everything.
        about: What was inspected; names and numbers only, no paths of this machine.
        directory: Where to.
    """
    import matplotlib

    matplotlib.use("Agg")
    rate = _frame_rate(policy.config)
    reconstructs = "reconstructed" in shown.strips
    how = (
        "Real frames; "
        + ("reconstructed by the world model's posterior, which sees them all; " * reconstructs)
        + "imagined open loop from x_0 and the clip's own latents"
        + (", and from those the policy plans from x_0" * ("imagined, policy's plan" in shown.strips))
        + "; and x_0 copied."
        + ("" if reconstructs else " This world model has no posterior, so nothing is reconstructed.")
    )
    figures = [
        Figure(draw_strips(shown.strips, shown.titles, directory / "strips.png"), how),
        Figure(
            write_video(shown.strips, rate, directory / "imagination.mp4"),
            f"The same clips as a film, {float(rate):g} frames per second, one clip per column.",
        ),
        Figure(
            draw_strips(shown.transfer, shown.titles, directory / "transfer.png"),
            "Transfer of a latent: clip A's latents applied to clip B's first frame. If they mean the same "
            "everywhere, B's scene now does what A's did; with B's own latents it does what B did.",
        ),
        Figure(
            draw_explained_variance(findings.figures, directory / "explained_variance.png"),
            "Explained variance of the open-loop imagination on moving pixels: 1 - sum (imagined_k - x_k)^2 / "
            "sum (x_0 - x_k)^2 over the pixels of which a channel differs from x_0 by more than "
            f"{findings.figures['thresholds']['moved']}. 0 is what copying x_0 gets. With wrong latents it should "
            "fall.",
        ),
        Figure(
            draw_latents(sample, findings.figures, directory / "latents.png"),
            "Left: every latent on its first two principal components, coloured by task. "
            + ("This dataset has one task, hence one colour. " * (len(findings.figures["tasks"]) == 1))
            + "Right: standard deviation of each dimension; the dashed line is the limit of a collapse.",
        ),
    ]
    if "targets" in findings.figures["probe"]:
        figures.append(
            Figure(
                draw_probes(findings.figures["probe"], directory / "probes.png"),
                "Held-out R2 of linear probes to the true actions; each episode is predicted by a fit on others. "
                "Action: mean over the frames between x_k and x_{k+1}. Action change: the one recorded with x_{k+1} "
                "minus the one with x_k, which is what frames can tell of positions. Grey: baselines, of which "
                "'untrained' is the same architecture with random weights.",
            )
        )
    metrics = {
        "verdict": findings.verdict,
        "checks": {name: asdict(check) for name, check in findings.checks.items()},
        "remarks": findings.remarks,
        "warnings": list(warnings),
        "about": about,
        **findings.figures,
    }
    (directory / METRICS).write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    page = directory / REPORT
    page.write_text(_html(findings, warnings, about, figures), encoding="utf-8")
    return page


def _frame_rate(config: LawmConfig) -> Fraction:
    """At which a clip plays as fast as it happened; of a checkpoint that does not know it, one that is easy to watch."""
    return Fraction(config.dataset_fps, config.latent_action.stride) if config.dataset_fps else Fraction(5)


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 span { padding: .1em .4em; border-radius: .2em; color: white; background: #b3261e } h1 span.healthy { background: #1b7f3b }
figure { margin: 2rem 0 } figure img, figure video { max-width: 100%; image-rendering: pixelated }
figcaption { color: #555 } table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .15rem .8rem; border-bottom: 1px solid #ddd; text-align: right }
td:first-child, th:first-child { text-align: left } .warning { background: #fff3cd; padding: .4rem .8rem }
""".strip()


def _html(
    findings: Findings, warnings: Sequence[str], about: dict[str, str], figures: Sequence[Figure]
) -> str:
    """One page without a single request to anywhere: pictures and the film are in it."""
    marks = {True: "✗", False: "✓", None: "?"}
    colour = "healthy" if findings.verdict == HEALTHY else "failed"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><title>lawm-inspect</title>',
        f"<style>{STYLE}</style></head><body>",
        f'<h1>Latent actions: <span class="{colour}">{escape(findings.verdict)}</span></h1>',
        *(f'<p class="warning">{escape(warning)}</p>' for warning in warnings),
        _table(["inspected", ""], [[name, value] for name, value in about.items()]),
        "<ul>",
        *(f"<li>{marks[c.failed]} {escape(c.sentence)}</li>" for c in findings.checks.values()),
        *(f"<li>{escape(remark)}</li>" for remark in findings.remarks),
        "</ul>",
        *(_figure(figure) for figure in figures),
        "<h2>Figures</h2>",
        *_tables(findings.figures),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _tables(figures: dict[str, Any]) -> list[str]:
    explained = {name: of for name, of in figures["explained_variance"].items() if name != "moving_share"}
    horizon = len(explained[OWN]["by_horizon"])
    ratios = figures["error_ratio"]
    tables = [
        f"<p>Explained variance on moving pixels ({figures['explained_variance']['moving_share']:.1%} of all), by "
        "horizon; error on them over that with the clip's own latents; error on all pixels over that of copying "
        "x_0.</p>",
        _table(
            ["latents", *(f"k={k + 1}" for k in range(horizon)), "all", "/ own", "/ copy"],
            [
                [
                    DRIVES[name],
                    *map(_text, of["by_horizon"]),
                    _text(of["all"]),
                    _text(ratios.get(name)),
                    _text(of["mse_over_copy"]),
                ]
                for name, of in explained.items()
            ],
        ),
        f"<p>Variance of the latents of {figures['clips_of_shift_test']} clips under nine shifts of the input.</p>",
        _table(
            ["explained by", "share"],
            [[name, _text(figures["augmentation"][name])] for name in ("shift", "content", "interaction")],
        ),
    ]
    probe = figures["probe"]
    if "skipped" in probe:
        return [*tables, f"<p>{escape(probe['skipped'])}</p>"]
    rows = []
    for target, kinds in probe["targets"].items():
        for scores in kinds.values():
            for name, score in scores.items():
                per_dimension = ", ".join(map(_text, score.get("per_dimension", [])))
                rows.append([target.replace("_", " "), name, _text(score["r2"]), per_dimension])
    return [
        *tables,
        f"<p>Linear probes over {probe['episodes']} episodes and {probe['clips']} clips.</p>",
        _table(["target", "from", "held-out R2", "per action dimension"], rows),
    ]


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "\n".join(["<table>", line(head, "th"), *(line(row, "td") for row in rows), "</table>"])


def _figure(figure: Figure) -> str:
    data = base64.b64encode(figure.file.read_bytes()).decode()
    if figure.file.suffix == ".mp4":
        media = f'<video controls loop muted src="data:video/mp4;base64,{data}"></video>'
    else:
        media = f'<img alt="{escape(figure.file.stem)}" src="data:image/png;base64,{data}">'
    name = escape(figure.file.name)
    return f"<figure>{media}<figcaption><b>{name}</b> {escape(figure.caption)}</figcaption></figure>"
