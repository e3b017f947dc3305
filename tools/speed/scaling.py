"""Samples a second of pretraining as loader workers, processes and the batch grow, by real runs of `lerobot-train`.

    python -m tools.speed --only=scaling

Every process computes with one thread: threads that wait for each other on a machine in use are slower than one.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tools.speed.fixtures import import_videos
from tools.speed.processes import launch
from tools.speed.startup import TINY_ACT, TINY_LAWM, dataset_flags
from tools.speed.table import row

LOGGED = re.compile(r"updt_s:(?P<update_s>[\d.]+).*data_s:(?P<data_s>[\d.]+)")


def train(
    root: Path,
    *flags: str,
    steps: int,
    workers: int = 0,
    batch: int = 8,
    processes: int | None = None,
    threads: int = 1,
) -> dict[str, Any]:
    """Run a few steps of `lerobot-train`.

    Args:
        root: The folder of the dataset.
        flags: Further flags of `lerobot-train`.
        steps: The number of steps that count; one more goes before them.
        workers: The number of loader workers of each process.
        batch: The batch size of each process.
        processes: The number of processes that torchrun starts; None for one plain process.
        threads: The number of threads of each process.

    Returns:
        ``samples_per_s`` of all processes together, and the seconds that a step waits for data and then computes,
        the medians over the steps.
    """
    torchrun = ("-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}")
    with tempfile.TemporaryDirectory() as place:
        output = launch(
            [
                *(sys.executable, *(torchrun if processes else ()), "-m", "lerobot.scripts.lerobot_train"),
                *dataset_flags(root),
                *("--policy.pretrained_backbone_weights=null", *flags),
                *(
                    f"--batch_size={batch}",
                    f"--num_workers={workers}",
                    f"--steps={steps + 1}",
                    "--log_freq=1",
                ),
                *("--policy.push_to_hub=false", "--save_checkpoint=false", f"--output_dir={place}/run"),
            ],
            environment={"OMP_NUM_THREADS": str(threads)},
        ).output
    logged = [found.groupdict() for found in LOGGED.finditer(output)][1:]
    update, data = ([float(step[name]) for step in logged] for name in ("update_s", "data_s"))
    processes = processes or 1
    # LeRobot logs samples/s without decimals.
    return {
        **{"workers": workers, "batch": batch, "processes": processes},
        "samples_per_s": round(batch * processes / float(np.median(np.add(update, data))), 2),
        "update_s": round(float(np.median(update)), 3),
        "data_s": round(float(np.median(data)), 3),
    }


def bench_scaling(quick: bool = False, device: str = "cpu") -> dict[str, Any]:
    """Pretraining of the default `lawm_act` on an imported dataset of 128 pixels.

    Args:
        quick: One run of a tiny policy: does it work?
        device: The device of all runs but those by torchrun, which compute on the processor, joined by gloo.

    Returns:
        ``workers``, ``batch`` and ``processes``: one entry per run, see `train`; ``ratios`` of samples a second.
    """
    policy = ("--policy.type=lawm_act", *((*TINY_ACT, *TINY_LAWM) if quick else ()))
    here, processor = (*policy, f"--policy.device={device}"), (*policy, "--policy.device=cpu")
    steps = 2 if quick else 5
    with tempfile.TemporaryDirectory() as place:
        root = import_videos(Path(place) / "imported", episodes=2, seconds=2 if quick else 8)
        alone = train(root, *here, steps=steps)
        runs = {"workers": [alone], "batch": [alone], "processes": [alone]}
        if not quick:
            runs["workers"] += [train(root, *here, steps=steps, workers=count) for count in (1, 2)]
            four, *larger = (train(root, *here, steps=steps, batch=size) for size in (4, 16, 32))
            runs["batch"] = [four, alone, *larger]
            runs["processes"] = [train(root, *processor, steps=steps, processes=count) for count in (1, 2)]

    def ratio_row(grown: str) -> dict[str, Any]:
        first, last = runs[grown][0], runs[grown][-1]
        what = f"samples/s of {last[grown]} over {first[grown]} ({grown})"
        value = round(last["samples_per_s"] / first["samples_per_s"], 3)
        return row(what, value, at_most=False)

    return {**runs, "ratios": [ratio_row(grown) for grown in runs]}
