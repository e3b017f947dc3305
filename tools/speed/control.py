"""Latency of a policy in the control loop: a finetuned ``lawm_act`` beside the plain ``act`` of the same weights.

    python -m tools.speed.control                      # 2 cameras of 480x640, ACT as LeRobot sets it
    python -m tools.speed.control --size=128 --json=control.json

Both get the same observations, turn by turn in one process, so that a busy machine slows both. `make bench` runs it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE
from torch import Tensor

from lawm_lerobot.policies.act.configuration_lawm_act import LawmActConfig
from lawm_lerobot.policies.act.modeling_lawm_act import LawmActPolicy
from lawm_lerobot.policies.common.configuration import FINETUNE
from tools.speed.table import row

#: Medians of equal steps differ by this share between runs: no more is asked of ratios that should be 1.
NOISE = 0.05
JOINTS = 6  # of an SO-101


def policies(device: str, height: int, width: int) -> tuple[ACTPolicy, LawmActPolicy]:
    """Both with the same random weights, as LeRobot sizes ACT."""
    features: dict[str, Any] = {
        "input_features": {
            OBS_STATE: PolicyFeature(FeatureType.STATE, (JOINTS,)),
            **{
                f"{OBS_IMAGES}.{name}": PolicyFeature(FeatureType.VISUAL, (3, height, width))
                for name in ("front", "wrist")
            },
        },
        "output_features": {ACTION: PolicyFeature(FeatureType.ACTION, (JOINTS,))},
        "pretrained_backbone_weights": None,
        "device": device,
    }
    plain = ACTPolicy(ACTConfig(**features)).to(device).eval()
    wrapped = LawmActPolicy(LawmActConfig(stage=FINETUNE, **features)).to(device).eval()
    wrapped.load_state_dict(plain.state_dict(), strict=True)
    return plain, wrapped


def observation(policy: PreTrainedPolicy, device: str) -> dict[str, Tensor]:
    return {key: torch.rand(1, *ft.shape, device=device) for key, ft in policy.config.input_features.items()}


@torch.inference_mode()
def milliseconds(policy: PreTrainedPolicy, batch: dict[str, Tensor]) -> float:
    """Time of one `select_action`, up to the action's arrival on the CPU, where the robot's driver needs it."""
    start = time.perf_counter()
    policy.select_action(batch).cpu()
    return (time.perf_counter() - start) * 1e3


def percentiles(times: list[float]) -> dict[str, float]:
    """Median, 95th percentile, and jitter: how far the 95th percentile lies above the median."""
    median, p95 = np.percentile(times, (50, 95))
    return {
        "median_ms": round(float(median), 4),
        "p95_ms": round(float(p95), 4),
        "jitter_ms": round(float(p95 - median), 4),
    }


def file_bytes(policy: PreTrainedPolicy, folder: Path) -> int:
    policy.save_pretrained(folder)
    return (folder / "model.safetensors").stat().st_size


def bench_control(
    device: str = "cpu", height: int = 480, width: int = 640, chunks: int = 20, queued: int = 2000
) -> dict[str, Any]:
    """Latency of a control step with and without the network, and size on disk.

    Args:
        device: The device of the policies.
        height: The height of the two cameras' pictures.
        width: Their width.
        chunks: The number of measured steps that run the network.
        queued: The number of measured steps that take an action from the queue.

    Returns:
        ``network`` and ``queue``: for each policy `percentiles`, and ``ratio``, lawm_act over act, of the medians and of
        the 95th percentiles; ``checkpoint_bytes`` of each.
    """
    pair = dict(zip(("act", "lawm_act"), policies(device, height, width), strict=True))
    batch = observation(pair["act"], device)
    times: dict[str, dict[str, list[float]]] = {
        kind: {name: [] for name in pair} for kind in ("network", "queue")
    }
    for policy in pair.values():  # first calls allocate
        for _ in range(2):
            policy.reset()
            milliseconds(policy, batch)
    per_chunk = -(-queued // chunks)
    for turn in range(chunks):
        order = list(pair.items()) if turn % 2 == 0 else list(pair.items())[::-1]
        for name, policy in order:
            policy.reset()
            times["network"][name].append(milliseconds(policy, batch))
        for step in range(min(per_chunk, pair["act"].config.n_action_steps - 1)):
            for name, policy in order if step % 2 == 0 else order[::-1]:
                times["queue"][name].append(milliseconds(policy, batch))
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "threads": torch.get_num_threads(),
        "cameras": [height, width, 2],
    }
    for kind, by_policy in times.items():
        found = {name: percentiles(values) for name, values in by_policy.items()}
        ratio = {
            key: round(found["lawm_act"][f"{key}_ms"] / found["act"][f"{key}_ms"], 3)
            for key in ("median", "p95")
        }
        report[kind] = {"steps": len(by_policy["act"]), **found, "ratio": ratio}
    with tempfile.TemporaryDirectory() as folder:
        report["checkpoint_bytes"] = {
            name: file_bytes(policy, Path(folder) / name) for name, policy in pair.items()
        }
    return report


def control_section(quick: bool, device: str) -> dict[str, Any]:
    """The section `control` of the speed report; on the CPU with small pictures, or the backbone would hide the plugin."""
    size = {"height": 128, "width": 128} if device == "cpu" else {}
    few = {"chunks": 8, "queued": 400} if quick else {"chunks": 60}
    report = bench_control(device, **size, **few)
    ratios = [
        row(f"{step}: lawm_act over act, median", report[kind]["ratio"]["median"], target=1 + NOISE)
        for kind, step in (("network", "step with the network"), ("queue", "step from the queue"))
    ]
    size_of = report["checkpoint_bytes"]
    ratios.append(row("checkpoint bytes: lawm_act over act", size_of["lawm_act"] / size_of["act"], 1))
    return {**report, "ratios": ratios}


def main() -> None:
    """Print a table; write the report as JSON if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", type=int, help="height and width of the pictures, instead of 480x640")
    parser.add_argument("--chunks", type=int, default=20, help="steps measured that run the network")
    parser.add_argument("--json", type=Path, help="where the report goes")
    arguments = parser.parse_args()
    size = {"height": arguments.size, "width": arguments.size} if arguments.size else {}
    report = bench_control(arguments.device, chunks=arguments.chunks, **size)
    print(f"{'':10}{'policy':12}{'median ms':>10}{'p95 ms':>10}{'jitter ms':>11}")
    for kind in ("network", "queue"):
        for name in ("act", "lawm_act"):
            found = report[kind][name]
            times = (found["median_ms"], found["p95_ms"], found["jitter_ms"])
            print(f"{kind:10}{name:12}{times[0]:10.3f}{times[1]:10.3f}{times[2]:11.3f}")
        print(
            f"{'':10}{'ratio':12}{report[kind]['ratio']['median']:10.3f}{report[kind]['ratio']['p95']:10.3f}"
        )
    print(", ".join(f"{name}: {size:,} bytes" for name, size in report["checkpoint_bytes"].items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
