"""The report of an inspection: pictures, a film, `metrics.json`, and one HTML page that holds them all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lawm_lerobot.inspection.page import Picture, html_page
from lawm_lerobot.inspection.plots import draw_explained_variance, draw_latents, draw_probes
from lawm_lerobot.inspection.sample import Sample
from lawm_lerobot.inspection.shown import IMAGINED_FROM_PREDICTED, RECONSTRUCTED, Shown, write_video
from lawm_lerobot.inspection.verdict import Findings
from lawm_lerobot.policies.common.imagination import draw_strips

REPORT = "report.html"
METRICS = "metrics.json"


def write_report(
    sample: Sample,
    findings: Findings,
    shown: Shown,
    warnings: Sequence[str],
    about: dict[str, str],
    directory: Path,
) -> None:
    """Write everything into an existing directory.

    Args:
        sample: The clips of the inspection.
        findings: The result of `judge`.
        shown: The result of `choose_shown`.
        warnings: Sentences to print above everything.
        about: The names and numbers of what was inspected; no paths of this machine.
        directory: The directory to write to.
    """
    pictures = _write_pictures(sample, findings, shown, directory)
    values = {
        "verdict": findings.verdict,
        "checks": {name: asdict(check) for name, check in findings.checks.items()},
        "remarks": findings.remarks,
        "warnings": list(warnings),
        "about": about,
        **findings.metrics.to_json(),
    }
    (directory / METRICS).write_text(json.dumps(values, indent=2, allow_nan=False) + "\n")
    (directory / REPORT).write_text(html_page(findings, warnings, about, pictures), encoding="utf-8")


def _write_pictures(sample: Sample, findings: Findings, shown: Shown, directory: Path) -> list[Picture]:
    import matplotlib

    matplotlib.use("Agg")
    metrics = findings.metrics
    pictures = [
        Picture(draw_strips(shown.strips, shown.titles, directory / "strips.png"), _caption_of_strips(shown)),
        Picture(
            write_video(shown.strips, shown.frame_rate, directory / "imagination.mp4"),
            f"The same clips as a film, {float(shown.frame_rate):g} frames per second, one clip per column.",
        ),
        Picture(
            draw_strips(shown.transfer, shown.titles, directory / "transfer.png"),
            "Transfer of a latent: clip A's latents applied to clip B's first frame. If they mean the same "
            "everywhere, B's scene now does what A's did; with B's own latents it does what B did.",
        ),
        Picture(
            draw_explained_variance(metrics, directory / "explained_variance.png"),
            "Explained variance of the open-loop imagination on moving pixels: 1 - sum (imagined_k - x_k)^2 / "
            "sum (x_0 - x_k)^2 over the pixels of which a channel differs from x_0 by more than "
            f"{metrics.thresholds['moved']}. 0 is what copying x_0 gets. With wrong latents it should fall.",
        ),
        Picture(
            draw_latents(sample, metrics, directory / "latents.png"),
            "Left: every latent on its first two principal components, coloured by task. "
            + ("This dataset has one task, hence one colour. " * (len(metrics.tasks) == 1))
            + "Right: standard deviation of each dimension; the dashed line is the limit of a collapse.",
        ),
    ]
    if "targets" in metrics.probe:
        pictures.append(
            Picture(
                draw_probes(metrics.probe, directory / "probes.png"),
                "Held-out R2 of linear probes to the true actions; each episode is predicted by a fit on others. "
                "Action: mean over the frames between x_k and x_{k+1}. Action change: the one recorded with x_{k+1} "
                "minus the one with x_k, which is what frames can tell of positions. Grey: baselines, of which "
                "'untrained' is the same architecture with random weights.",
            )
        )
    return pictures


def _caption_of_strips(shown: Shown) -> str:
    reconstructs = RECONSTRUCTED in shown.strips
    return (
        "Real frames; "
        + ("reconstructed by the world model's posterior, which sees them all; " * reconstructs)
        + "imagined open loop from x_0 and the clip's own latents"
        + (", and from those the policy plans from x_0" * (IMAGINED_FROM_PREDICTED in shown.strips))
        + "; and x_0 copied."
        + ("" if reconstructs else " This world model has no posterior, so nothing is reconstructed.")
    )
