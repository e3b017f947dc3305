"""The HTML page of a report."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from lawm_lerobot.inspection.metrics import OWN, Metrics
from lawm_lerobot.inspection.plots import DRIVES
from lawm_lerobot.inspection.verdict import HEALTHY, Findings

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 span { padding: .1em .4em; border-radius: .2em; color: white; background: #b3261e } h1 span.healthy { background: #1b7f3b }
figure { margin: 2rem 0 } figure img, figure video { max-width: 100%; image-rendering: pixelated }
figcaption { color: #555 } table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .15rem .8rem; border-bottom: 1px solid #ddd; text-align: right }
td:first-child, th:first-child { text-align: left } .warning { background: #fff3cd; padding: .4rem .8rem }
""".strip()


@dataclass(frozen=True)
class Picture:
    """A PNG or a film beside the page.

    Args:
        file: The file, whose content the page repeats.
        caption: The text below it.
    """

    file: Path
    caption: str


def html_page(
    findings: Findings, warnings: Sequence[str], about: dict[str, str], pictures: Sequence[Picture]
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
        *(_embedded(picture) for picture in pictures),
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


def _embedded(picture: Picture) -> str:
    data = base64.b64encode(picture.file.read_bytes()).decode()
    if picture.file.suffix == ".mp4":
        media = f'<video controls loop muted src="data:video/mp4;base64,{data}"></video>'
    else:
        media = f'<img alt="{escape(picture.file.stem)}" src="data:image/png;base64,{data}">'
    name = escape(picture.file.name)
    return f"<figure>{media}<figcaption><b>{name}</b> {escape(picture.caption)}</figcaption></figure>"
