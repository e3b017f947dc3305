"""`lawm-inspect`, run in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from helpers.training import run_command

from lawm_lerobot.scripts import lawm_inspect

TASKS = ("push the square", "pull the square")


def run_inspect(checkpoint: Path | str, dataset: Path, output_dir: Path, *flags: str) -> tuple[int, str]:
    """The exit code, and all that the command logged."""
    codes = []
    log = run_command(
        lambda: codes.append(lawm_inspect.main()),
        f"--policy.path={checkpoint}",
        f"--dataset.repo_id=test/{dataset.name}",
        f"--dataset.root={dataset}",
        f"--output_dir={output_dir}",
        *flags,
    )
    return codes[0], log


def inspect(checkpoint: Path, dataset: Path, output_dir: Path, *flags: str) -> str:
    """Write a report; returns the log."""
    code, log = run_inspect(checkpoint, dataset, output_dir, *flags)
    assert code == 0, log
    return log


def metrics_of(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "metrics.json").read_text())
