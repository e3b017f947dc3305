"""Hours that the README's own trainings take on this machine, from a few steps of each by `lerobot-train`.

python -m tools.speed --only=runs
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from tools.speed.fixtures import SIZE, import_videos, record
from tools.speed.processes import THREADS
from tools.speed.scaling import train
from tools.speed.startup import TINY_ACT, TINY_LAWM
from tools.speed.table import row

#: Of pretraining and of finetuning, as in the README.
STEPS = 50_000
PRETRAINING_BATCH, FINETUNING_BATCH = 32, 8


def bench_runs(quick: bool = False, device: str = "cpu") -> dict[str, Any]:
    """Steps of real runs, whose batches LeRobot's loader decodes from video of `SIZE` pixels.

    Args:
        quick: Two steps of a tiny policy: does it work?
        device: The device of the policies; on a GPU as many processes load as there are cores, up to 16.

    Returns:
        ``runs``, see `scaling.train`, and ``ratios``: the hours of `STEPS` steps of each.
    """
    tiny = (*TINY_ACT, *TINY_LAWM) if quick else ()
    here = {
        "steps": 2 if quick else 8,
        "workers": min(os.cpu_count() or 1, 16) if device == "cuda" else 0,
        "threads": THREADS,
    }
    with tempfile.TemporaryDirectory() as place:
        video = import_videos(Path(place) / "imported", episodes=2, seconds=2 if quick else 8)
        recorded = record(
            Path(place) / "recorded", SIZE, SIZE, episodes=2, seconds=2 if quick else 8, labelled=True
        )
        runs = {}
        for policy in ("lawm_act",) if quick else ("lawm_act", "lawm_diffusion"):
            flags = (
                f"--policy.type={policy}",
                f"--policy.device={device}",
                *(tiny if policy == "lawm_act" else ()),
            )
            for stage, root, batch in (
                ("pretrain", video, PRETRAINING_BATCH),
                ("finetune", recorded, FINETUNING_BATCH),
            ):
                name = f"{policy}, {stage}, batches of {batch}, pictures of {SIZE}x{SIZE}"
                runs[name] = train(root, *flags, f"--policy.stage={stage}", batch=batch, **here)
    return {
        "runs": runs,
        "ratios": [
            row(
                f"{name}: {STEPS:,} steps",
                round((run["update_s"] + run["data_s"]) * STEPS / 3600, 1),
                unit="hours",
            )
            for name, run in runs.items()
        ],
    }
