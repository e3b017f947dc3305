"""The report of a labelling run: ``label_report.json`` and ``label_report.png``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import draccus
import numpy as np

from lawm_lerobot.labelling.configuration import LabelActionsConfig
from lawm_lerobot.labelling.decoders import DecodedCorpus, FittedDecoder
from lawm_lerobot.labelling.recordings import Recordings

REPORT, PICTURE = "label_report.json", "label_report.png"


def write_report(
    config: LabelActionsConfig,
    recordings: Recordings,
    decoders: dict[str, FittedDecoder],
    decoded: DecodedCorpus,
    copies: int,
    folder: Path,
) -> None:
    """Write both files into the `folder` of the labelled dataset, which has so many `copies` of each demonstration."""
    names, moving = recordings.action_names(), recordings.moving
    moving_names = [name for name, moves in zip(names, moving, strict=True) if moves]
    chosen = decoders[decoded.decoder]
    frames = sum(map(recordings.corpus.length, decoded.kept))
    true_frames = copies * sum(map(recordings.demos.length, recordings.episodes))
    report = {
        "decoder": chosen.name,
        "decoders": {name: _metrics(fitted, names, moving) for name, fitted in decoders.items()},
        "demonstrations": len(recordings.episodes),
        "judged_on": len(np.unique(chosen.held_out.episode)),
        "episodes": len(decoded.kept),
        "episodes_left_out": len(recordings.corpus.episodes) - len(decoded.kept),
        "frames": frames,
        "mean_confidence": decoded.mean_confidence,
        "episode_confidence": [round(confidence, 4) for confidence in decoded.episode_confidence],
        "merged": config.merge,
        "demonstration_copies": copies,
        "demonstration_share": round(true_frames / (frames + true_frames), 4),
        "settings": draccus.encode(config) | {"policy": config.policy.path},
    }
    (folder / REPORT).write_text(json.dumps(report, indent=2, ensure_ascii=False, default=str) + "\n")
    save_picture(chosen, moving_names, recordings.demos.fps, folder / PICTURE)


def _metrics(fitted: FittedDecoder, names: list[str], moving: np.ndarray) -> dict[str, Any]:
    """R2 and its uncertainty; None where a dimension is the same in all demonstrations that judge."""
    held_out, r2 = fitted.held_out, np.full(len(names), np.nan)
    r2[moving] = held_out.r2_per_dimension
    return {
        "held_out": held_out.unit,
        "held_out_r2": _number(held_out.r2),
        "held_out_r2_95": [_number(end) for end in held_out.r2_interval],
        "held_out_r2_per_dimension": dict(zip(names, map(_number, r2), strict=True)),
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def save_picture(fitted: FittedDecoder, names: list[str], fps: int, file: Path, episodes: int = 3) -> None:
    """True and decoded actions of the first held-out demonstrations, one row per dimension."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    held_out = fitted.held_out
    shown = np.unique(held_out.episode)[:episodes]
    figure, axes = plt.subplots(
        len(names),
        len(shown),
        figsize=(4 * len(shown), 1.6 * len(names) + 0.6),
        squeeze=False,
        sharey="row",
        layout="constrained",
    )
    for dimension, name in enumerate(names):
        for episode in range(len(shown)):
            rows, axis = held_out.episode == shown[episode], axes[dimension][episode]
            time = np.arange(rows.sum()) / fps
            axis.plot(time, held_out.true[rows, dimension], color="0.55", label="true")
            axis.plot(time, held_out.decoded.actions[rows, dimension], color="tab:blue", label="decoded")
            if dimension == 0:
                axis.set_title(f"demonstration {shown[episode]}", fontsize=9)
            if dimension == len(names) - 1:
                axis.set_xlabel("s")
        axes[dimension][0].set_ylabel(f"{name}\nR2 {held_out.r2_per_dimension[dimension]:.2f}", fontsize=8)
    axes[0][0].legend(fontsize=8)
    figure.suptitle(f"Actions told by {fitted.name}\n{held_out}", fontsize=10)
    figure.savefig(file, dpi=90)
    plt.close(figure)
