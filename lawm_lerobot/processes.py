"""Processes that do not outlive the one that started them, and the memory that one has held."""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # Workers that compute nothing start without it.
    import torch


def end_with_parent() -> None:
    """End this process, without any clean-up, as soon as the process that started it by multiprocessing is gone.

    A killed parent cannot end its children, which would go on writing where the next run starts.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a process that multiprocessing has started has a parent to watch"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def peak_bytes(device: torch.device | str) -> int:
    """The most memory so far: allocated on the GPU, since LeRobot last reset it, or resident on the host."""
    import torch

    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # On Linux a child's ru_maxrss starts at what its parent held.
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if found:
            return int(found[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return psutil.Process().memory_info().peak_wset
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
