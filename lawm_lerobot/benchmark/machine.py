"""The machine that measurements were taken on: processor, accelerator and versions; nothing that names its user."""

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("lerobot_policy_lawm", "lerobot", "torch", "torchvision", "numpy", "mujoco", "metaworld")


def machine() -> dict[str, Any]:
    """``processor``, ``cores``, ``gpu`` (None without one) and ``versions`` of the packages that decide results."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {"processor": _processor(), "cores": os.cpu_count(), "gpu": _gpu(), "versions": versions}


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _gpu() -> str | None:
    try:
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None
