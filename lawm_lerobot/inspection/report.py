"""The report of an inspection: pictures, a film, `metrics.json`, and one HTML page that holds them all."""

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from lawm_lerobot.inspection.metrics import OWN, Metrics
from lawm_lerobot.inspection.planning import Planning
from lawm_lerobot.inspection.plots import (
    DRIVES,
    draw_explained_variance,
    draw_latents,
    draw_looking,
    draw_probes,
)
from lawm_lerobot.inspection.sample import Sample
from lawm_lerobot.inspection.shown import RECONSTRUCTED, Shown, write_video
from lawm_lerobot.inspection.verdict import HEALTHY, Findings
from lawm_lerobot.policies.common.imagination import PLANNED, draw_strips

REPORT = "report.html"
METRICS = "metrics.json"
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 span { padding: .1em .4em; border-radius: .2em; color: white; background: #b3261e } h1 span.healthy { background: #1b7f3b }
figure { margin: 2rem 0 } figure img, figure video { max-width: 100%; image-rendering: pixelated }
figcaption { color: #555 } table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .15rem .8rem; border-bottom: 1px solid #ddd; text-align: right }
td:first-child, th:first-child { text-align: left } .warning { background: #fff3cd; padding: .4rem .8rem }
""".strip()


def write_report(
    sample: Sample,
    findings: Findings,
    shown: Shown,
    planning: Planning | None,
    warnings: Sequence[str],
    about: dict[str, str],
    directory: Path,
) -> None:
    """Write everything into an existing directory, with the warnings above the rest.

    ``about`` says what was inspected, without paths of this machine.
    """
    pictures = _write_pictures(sample, findings, shown, planning, directory)
    values = {
        "verdict": findings.verdict,
        "checks": {name: asdict(check) for name, check in findings.checks.items()},
        "remarks": findings.remarks,
        "warnings": list(warnings),
        "about": about,
        "looking": None if planning is None else planning.to_json(),
        **findings.metrics.to_json(),
    }
    (directory / METRICS).write_text(json.dumps(_finite(values), indent=2, allow_nan=False) + "\n")
    (directory / REPORT).write_text(_page(findings, warnings, about, pictures), encoding="utf-8")


def _finite(value: Any) -> Any:
    """The value with None in place of numbers that are not finite, which JSON does not know."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_pictures(
    sample: Sample, findings: Findings, shown: Shown, planning: Planning | None, directory: Path
) -> dict[Path, str]:
    """The pictures and the film, with the captions below them."""
    import matplotlib

    matplotlib.use("Agg")
    metrics = findings.metrics
    pictures = {
        draw_strips(shown.strips, shown.titles, directory / "strips.png"): _caption_of_strips(shown),
        write_video(shown.strips, shown.frame_rate, directory / "imagination.mp4"): (
            f"The same clips as a film, {float(shown.frame_rate):g} frames per second, one clip per column."
        ),
        draw_strips(shown.transfer, shown.titles, directory / "transfer.png"): (
            "Transfer of a latent: clip A's latents applied to clip B's first frame. If they mean the same "
            "everywhere, B's scene now does what A's did; with B's own latents it does what B did."
        ),
        draw_explained_variance(metrics, directory / "explained_variance.png"): (
            "Explained variance of the open-loop imagination on moving pixels: 1 - sum (imagined_k - x_k)^2 / "
            "sum (x_0 - x_k)^2 over the pixels of which a channel differs from x_0 by more than "
            f"{metrics.thresholds['moved']}. 0 is what copying x_0 gets. With wrong latents it should fall."
        ),
        draw_latents(sample, metrics, directory / "latents.png"): (
            "Left: every latent on its first two principal components, coloured by task. "
            + ("This dataset has one task, hence one colour. " * (len(metrics.tasks) == 1))
            + "Right: standard deviation of each dimension; the dashed line is the limit of a collapse."
        ),
    }
    if "targets" in metrics.probe:
        pictures[draw_probes(metrics.probe, directory / "probes.png")] = (
            "Held-out R2 of linear probes to the true actions; each episode is predicted by a fit on others. "
            "Action: mean over the frames between x_k and x_{k+1}. Action change: the one recorded with x_{k+1} "
            "minus the one with x_k, which is what frames can tell of positions. Grey: baselines, of which "
            "'untrained' is the same architecture with random weights."
        )
    if planning is not None:
        pictures[draw_looking(planning.looking, planning.occlusions, directory / "looking.png")] = (
            "Where the policy looks when it plans: each patch is painted over in turn, and the colour is how far that moves "
            "the latent actions that it predicts. Right: the use of each input."
        )
    return pictures


def _caption_of_strips(shown: Shown) -> str:
    reconstructs = RECONSTRUCTED in shown.strips
    return (
        "Real frames; "
        + ("reconstructed by the world model's posterior, which sees them all; " * reconstructs)
        + "imagined open loop from x_0 and the clip's own latents"
        + (", and from those the policy plans from x_0" * (PLANNED in shown.strips))
        + "; and x_0 copied."
        + ("" if reconstructs else " This world model has no posterior, so nothing is reconstructed.")
    )


def _page(
    findings: Findings, warnings: Sequence[str], about: dict[str, str], pictures: dict[Path, str]
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
        *(_embedded(file, caption) for file, caption in pictures.items()),
        "<h2>Figures</h2>",
        *_tables(findings.metrics),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _tables(metrics: Metrics) -> list[str]:
    horizon = len(metrics.explained_variance[OWN].by_horizon)
    tables = [
        f"<p>Explained variance on moving pixels ({metrics.moving_share:.1%} of all), by "
        "horizon; error on them over that with the clip's own latents; error on all pixels over that of copying "
        "x_0.</p>",
        _table(
            ["latents", *(f"k={k + 1}" for k in range(horizon)), "all", "/ own", "/ copy"],
            [
                [
                    DRIVES[name],
                    *map(_text, explained.by_horizon),
                    _text(explained.all),
                    _text(metrics.error_ratio.get(name)),
                    _text(explained.mse_over_copy),
                ]
                for name, explained in metrics.explained_variance.items()
            ],
        ),
        f"<p>Variance of the latents of {metrics.clips_of_shift_test} clips under nine shifts of the input.</p>",
        _table(
            ["explained by", "share"],
            [
                [name, _text(getattr(metrics.augmentation, name))]
                for name in ("shift", "content", "interaction")
            ],
        ),
    ]
    probe = metrics.probe
    if "skipped" in probe:
        return [*tables, f"<p>{escape(probe['skipped'])}</p>"]
    rows = []
    for target, kinds in probe["targets"].items():
        for scores in kinds.values():
            for name, score in scores.items():
                per_dimension = ", ".join(map(_text, score.get("per_dimension", [])))
                interval = " to ".join(map(_text, score["r2_interval"]))
                rows.append([target.replace("_", " "), name, _text(score["r2"]), interval, per_dimension])
    return [
        *tables,
        f"<p>Linear probes over {probe['episodes']} episodes and {probe['clips']} clips.</p>",
        _table(["target", "from", "held-out R2", "95% interval", "per action dimension"], rows),
    ]


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if math.isfinite(value) else "not finite"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "\n".join(["<table>", line(head, "th"), *(line(row, "td") for row in rows), "</table>"])


def _embedded(file: Path, caption: str) -> str:
    data = base64.b64encode(file.read_bytes()).decode()
    if file.suffix == ".mp4":
        media = f'<video controls loop muted src="data:video/mp4;base64,{data}"></video>'
    else:
        media = f'<img alt="{escape(file.stem)}" src="data:image/png;base64,{data}">'
    return f"<figure>{media}<figcaption><b>{escape(file.name)}</b> {escape(caption)}</figcaption></figure>"
