"""The identity of a benchmark's protocol: its file, the hash of the settings that decide results, and its commit."""

import argparse
import hashlib
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import draccus

from lawm_lerobot.benchmark.configuration import BenchmarkConfig

# What changes no result: where and how fast it runs, what it may take, and what else is measured or read.
INDIFFERENT = ("output_dir", "workers", "costs", "dry_run", "gate", "gate_file")


def deciding_settings(cfg: BenchmarkConfig) -> dict[str, Any]:
    """The settings that decide results, as plain values."""
    settings = {key: value for key, value in draccus.encode(cfg).items() if key not in INDIFFERENT}
    settings["evaluation"] = {key: value for key, value in settings["evaluation"].items() if key != "look"}
    return settings


@dataclass(frozen=True)
class Protocol:
    """The protocol of a run.

    Args:
        file: The name of the YAML file, within its git repository if it is in one; None if there was none.
        sha256: The hash of the settings that decide results, flags included.
        commit: The commit that gave the file its content; None if it is not in git as it stands.
        changed: The settings that flags changed.
    """

    file: str | None
    sha256: str
    commit: str | None
    changed: tuple[str, ...]

    def __str__(self) -> str:
        text = f"Protocol: {self.file or 'flags alone'}, sha256 of its settings {self.sha256}"
        if self.file is not None:
            text += f", commit {self.commit}" if self.commit else ", not committed as it stands"
        return text + (f"; changed by flags: {', '.join(self.changed)}" if self.changed else "") + "."


def protocol_of(cfg: BenchmarkConfig, file: Path | None) -> Protocol:
    settings = deciding_settings(cfg)
    sha256 = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    if file is None:
        return Protocol(None, sha256, None, ())
    alone = draccus.parse(BenchmarkConfig, args=[f"--config_path={file}", f"--output_dir={cfg.output_dir}"])
    written = deciding_settings(alone)
    changed = tuple(key for key, value in settings.items() if value != written[key])
    name, commit = _committed(file)
    return Protocol(name, sha256, commit, changed)


def config_path(argv: Sequence[str]) -> Path | None:
    """The value of ``--config_path`` among the flags of a command."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config_path", type=Path)
    return parser.parse_known_args(list(argv))[0].config_path


def _committed(file: Path) -> tuple[str, str | None]:
    """The file's name in its git repository and its commit, None where it has changes or is in none."""
    try:
        (name,) = _git(file, "ls-files", "--full-name", "--", file.name)
        changes = _git(file, "status", "--porcelain", "--", file.name)
        (commit,) = _git(file, "log", "-1", "--format=%H", "--", file.name)
    except (OSError, subprocess.CalledProcessError, ValueError):
        return file.name, None
    return name, None if changes else commit


def _git(file: Path, *arguments: str) -> list[str]:
    command = ["git", "-C", str(file.resolve().parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
