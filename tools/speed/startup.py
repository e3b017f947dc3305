"""Start of `lerobot-train` with the plugin and without: its help, and the time until the first step is done; help of ours.

    python -m tools.speed --only=startup

Every measurement is of a fresh process, with the plugin installed or hidden from LeRobot's discovery.
"""

from __future__ import annotations

import functools
import importlib.metadata
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tools.speed.fixtures import record
from tools.speed.processes import Launch, launch
from tools.speed.table import row
from tools.speed.timing import interleaved, ratio, spread

DISTRIBUTION = "lerobot_policy_lawm"
IMPORT_TORCH = "import torch"
# The console script `lerobot-train`, in an environment without the distribution that the first argument names.
COMMAND = """
import importlib.metadata, sys, time
hidden, every = sys.argv.pop(1), importlib.metadata.distributions
importlib.metadata.distributions = lambda **which: (d for d in every(**which) if d.metadata["Name"] != hidden)
from lerobot.scripts.lerobot_train import main
start = time.perf_counter()
try:
    sys.exit(main())
finally:
    print(f"\\nmain() took {time.perf_counter() - start} s", flush=True)
"""
#: The smallest ACT, and what `lawm_act` adds to it: the start is measured, not the step.
TINY_ACT = (
    "--policy.dim_model=32",
    "--policy.n_heads=2",
    "--policy.dim_feedforward=64",
    "--policy.n_encoder_layers=1",
    "--policy.n_vae_encoder_layers=1",
)
TINY_LAWM = (
    "--policy.latent_action.horizon=4",
    "--policy.latent_action.stride=2",
    "--policy.world_model.size=test",
    "--policy.world_model.image_size=32",
    "--policy.idm.size=test",
)


def lerobot_train(*flags: str, plugin: bool = True, awaited: str | None = None) -> Launch:
    """Run the command with the plugin, or hidden from it, up to its end."""
    return launch([sys.executable, "-c", COMMAND, "" if plugin else DISTRIBUTION, *flags], awaited)


def dataset_flags(root: Path) -> tuple[str, ...]:
    return f"--dataset.repo_id=bench/{root.name}", f"--dataset.root={root}"


def in_turns(subjects: Mapping[str, Callable[[], Launch]], turns: int) -> dict[str, list[Launch]]:
    """Launches of every subject, one each turn."""
    launches: dict[str, list[Launch]] = {name: [] for name in subjects}

    def keep(name: str) -> None:
        launches[name].append(subjects[name]())

    interleaved({name: functools.partial(keep, name) for name in subjects}, turns, warmup=0)
    return launches


def main_s(found: Launch) -> float:
    """Seconds that `COMMAND` spent once LeRobot was imported: in these it looks for plugins and imports them."""
    printed = re.search(r"^main\(\) took (\S+) s$", found.output, re.MULTILINE)
    assert printed is not None
    return float(printed[1])


def difference_row(what: str, ours: list[float], theirs: list[float], target: float | None) -> dict[str, Any]:
    """A row of the table with the difference of the medians, and the quartiles of the differences within a turn."""
    q1, q3 = np.percentile(np.subtract(ours, theirs), (25, 75))
    found = {"median": np.median(ours) - np.median(theirs), "q1": q1, "q3": q3}
    rounded = {name: round(float(value), 3) for name, value in found.items()}
    return row(what, rounded, target, unit="s")


def first_steps(device: str, turns: int) -> dict[str, list[Launch]]:
    """Training up to the first step, on a labelled recording, whose labels `lawm_act` does not use."""
    with tempfile.TemporaryDirectory() as place:
        root = record(Path(place) / "labelled", 64, 64, episodes=1, seconds=1, labelled=True)
        flags = (
            *dataset_flags(root),
            *TINY_ACT,
            *("--policy.pretrained_backbone_weights=null", f"--policy.device={device}"),
            *("--policy.push_to_hub=false", "--batch_size=8", "--num_workers=0", "--save_checkpoint=false"),
            *("--steps=1", "--log_freq=1", f"--output_dir={place}/run"),
        )
        train = functools.partial(lerobot_train, *flags, awaited=" step:1 ")
        return in_turns(
            {
                "lawm_act": lambda: train("--policy.type=lawm_act", *TINY_LAWM),
                "act": lambda: train("--policy.type=act", plugin=False),
            },
            turns,
        )


def own_helps(turns: int) -> dict[str, list[Launch]]:
    """``--help`` of each of this package's commands, and Python that imports PyTorch."""
    commands = [
        one.name
        for one in importlib.metadata.distribution(DISTRIBUTION).entry_points
        if one.group == "console_scripts"
    ]
    words = {name: [str(Path(sys.executable).parent / name), "--help"] for name in commands}
    words[IMPORT_TORCH] = [sys.executable, "-c", IMPORT_TORCH]
    return in_turns({name: functools.partial(launch, argv) for name, argv in words.items()}, turns)


def bench_startup(quick: bool = False, device: str = "cpu") -> dict[str, Any]:
    """Help and first step, with and without the plugin.

    The first step is that of a tiny `lawm_act` with the plugin, and of a tiny `act` without.

    Args:
        quick: One turn: does it work?
        device: The device of the first step.

    Returns:
        ``help`` and ``first_step``: wall and processor seconds of each, for the help also those after LeRobot's own
        imports, whose 15 seconds vary by more than a plugin takes; ``own_help``: those of this package's commands;
        ``offers_lawm_act``: whether the help names it; ``ratios``.
    """
    # First, because it also brings all files into the system's cache.
    steps = first_steps(device, 1 if quick else 3)
    helps = in_turns(
        {
            "with": lambda: lerobot_train("--help"),
            "without": lambda: lerobot_train("--help", plugin=False),
        },
        1 if quick else 7,
    )
    own = own_helps(1 if quick else 7)
    launches = helps | steps | own
    wall = {name: [one.seconds for one in found] for name, found in launches.items()}
    cpu = {name: [one.cpu_s for one in found] for name, found in launches.items()}
    after = {name: [main_s(one) for one in found] for name, found in helps.items()}
    times = {name: {"seconds": spread(wall[name]), "cpu_s": spread(cpu[name])} for name in launches}
    helped = "lerobot-train --help: what the plugin adds"
    to_step = "lawm_act over act without the plugin, from the command to the first step"
    return {
        "help": {name: {**times[name], "after_imports_s": spread(after[name])} for name in helps},
        "first_step": {name: times[name] for name in steps},
        "own_help": {name: times[name] for name in own},
        "offers_lawm_act": {name: "lawm_act" in found[0].output for name, found in helps.items()},
        "ratios": [
            difference_row(f"{helped}, after LeRobot's imports", after["with"], after["without"], 0.3),
            difference_row(f"{helped}, whole process", wall["with"], wall["without"], None),
            row(f"{to_step}, time", ratio(wall["lawm_act"], wall["act"])),
            row(f"{to_step}, processor time of the run", ratio(cpu["lawm_act"], cpu["act"])),
            *(
                row(
                    f"{name} --help over `{IMPORT_TORCH}`, processor time",
                    ratio(cpu[name], cpu[IMPORT_TORCH]),
                    2,
                )
                for name in own
                if name != IMPORT_TORCH
            ),
        ],
    }
