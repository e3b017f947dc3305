"""What the plugin adds to the start of `lerobot-train`: to its help, and to the time until the first step is done.

    python -m tools.speed --only=startup

Every figure is of a fresh process, with the plugin installed or hidden from LeRobot's discovery.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tools.speed.bench import figure
from tools.speed.timing import interleaved, ratio, spread

DISTRIBUTION = "lerobot_policy_lawm"
# What the console script `lerobot-train` does, in an environment without the distribution that the first argument names.
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


@dataclass(frozen=True)
class Launch:
    """A process that has ended."""

    seconds: float
    """Wall time from its start to the awaited line, or to its end."""
    cpu_s: float
    """Processor time in user mode, up to its end."""
    output: str


def launch(
    command: Sequence[str | Path], awaited: str | None = None, environment: Mapping[str, str] | None = None
) -> Launch:
    """Run a command to its end.

    Args:
        command: Program and arguments.
        awaited: Stop the clock at the first line of output that contains this.
        environment: Variables beside those of this process.

    Raises:
        RuntimeError: If it fails, or never prints ``awaited``.
    """
    start, reached, lines = time.perf_counter(), None, []
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    assert process.stdout is not None
    with process.stdout as output:
        for line in output:
            lines.append(line)
            if awaited is not None and reached is None and awaited in line:
                reached = time.perf_counter() - start
    _, status, usage = os.wait4(process.pid, 0)  # `Popen.wait` does not tell the processor time
    process.returncode = os.waitstatus_to_exitcode(status)
    ended = time.perf_counter() - start
    if process.returncode or (awaited is not None and reached is None):
        tail = "".join(lines[-20:])
        raise RuntimeError(f"{' '.join(process.args)} ended with {process.returncode}: {tail}")  # type: ignore[arg-type]
    return Launch(ended if reached is None else reached, usage.ru_utime, "".join(lines))


def lerobot_train(*flags: str, plugin: bool = True, awaited: str | None = None) -> Launch:
    return launch([sys.executable, "-c", COMMAND, "" if plugin else DISTRIBUTION, *flags], awaited)


def dataset_flags(root: Path) -> tuple[str, ...]:
    return f"--dataset.repo_id=bench/{root.name}", f"--dataset.root={root}"


def in_turns(subjects: Mapping[str, Callable[[], Launch]], turns: int) -> dict[str, list[Launch]]:
    """Launches of every subject, one a turn."""
    launches: dict[str, list[Launch]] = {name: [] for name in subjects}

    def keep(name: str) -> None:
        launches[name].append(subjects[name]())

    interleaved({name: functools.partial(keep, name) for name in subjects}, turns, warmup=0)
    return launches


def main_s(found: Launch) -> float:
    """Seconds that `COMMAND` spent once LeRobot was imported: in these it looks for plugins and imports them."""
    told = re.search(r"^main\(\) took (\S+) s$", found.output, re.MULTILINE)
    assert told is not None
    return float(told[1])


def added(what: str, ours: list[float], theirs: list[float], target: float | None) -> dict[str, Any]:
    """The difference of the medians, and the quartiles of the differences within a turn."""
    q1, q3 = np.percentile(np.subtract(ours, theirs), (25, 75))
    found = {"median": np.median(ours) - np.median(theirs), "q1": q1, "q3": q3}
    rounded = {name: round(float(value), 3) for name, value in found.items()}
    return figure(what, rounded, target, unit="s")


def bench_startup(quick: bool = False, device: str = "cpu") -> dict[str, Any]:
    """Help and first step, with and without the plugin.

    The first step is that of a tiny `lawm_act` with the plugin, and of a tiny `act` without, on the same labelled
    recording, whose labels `lawm_act` does not use.

    Args:
        quick: One turn: does it work?
        device: Of the first step.

    Returns:
        ``help`` and ``first_step``: wall and processor seconds of each, for the help also those after LeRobot's own
        imports, whose 15 seconds vary by more than a plugin takes; ``offers_lawm_act``: whether the help names it;
        ``ratios``.
    """
    from tools.speed.loading import (
        record,
    )  # imports LeRobot, which the launches do for themselves

    with tempfile.TemporaryDirectory() as place:
        root = record(Path(place) / "labelled", 64, 64, episodes=1, seconds=1, labelled=True)
        flags = (
            *dataset_flags(root),
            *TINY_ACT,
            *("--policy.pretrained_backbone_weights=null", f"--policy.device={device}"),
            *("--policy.push_to_hub=false", "--batch_size=8", "--num_workers=0", "--save_checkpoint=false"),
            *("--steps=1", "--log_freq=1", f"--output_dir={place}/run"),
        )

        def first_step(policy: str, *more: str, plugin: bool) -> Launch:
            return lerobot_train(f"--policy.type={policy}", *flags, *more, plugin=plugin, awaited=" step:1 ")

        # First, because it also brings all files into the system's cache.
        steps = in_turns(
            {
                "lawm_act": lambda: first_step("lawm_act", *TINY_LAWM, plugin=True),
                "act": lambda: first_step("act", plugin=False),
            },
            1 if quick else 3,
        )
    helps = in_turns(
        {
            "with": lambda: lerobot_train("--help"),
            "without": lambda: lerobot_train("--help", plugin=False),
        },
        1 if quick else 7,
    )
    wall = {name: [one.seconds for one in launches] for name, launches in (helps | steps).items()}
    cpu = {name: [one.cpu_s for one in launches] for name, launches in (helps | steps).items()}

    after = {name: [main_s(one) for one in launches] for name, launches in helps.items()}

    def figures(name: str) -> dict[str, Any]:
        return {"seconds": spread(wall[name]), "cpu_s": spread(cpu[name])}

    helped = "lerobot-train --help: what the plugin adds"
    to_step = "lawm_act over act without the plugin, from the command to the first step"
    return {
        "help": {name: {**figures(name), "after_imports_s": spread(after[name])} for name in helps},
        "first_step": {name: figures(name) for name in steps},
        "offers_lawm_act": {name: "lawm_act" in launches[0].output for name, launches in helps.items()},
        "ratios": [
            added(f"{helped}, after LeRobot's imports", after["with"], after["without"], 0.3),
            added(f"{helped}, whole process", wall["with"], wall["without"], None),
            figure(f"{to_step}, time", ratio(wall["lawm_act"], wall["act"])),
            figure(f"{to_step}, processor time of the run", ratio(cpu["lawm_act"], cpu["act"])),
        ],
    }
