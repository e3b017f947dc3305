"""Processes that are measured: their threads, their peak memory, and programs that are run to their end."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lawm_lerobot.processes import peak_bytes

#: Threads of measured processes on the CPU, so that machines with more cores stay comparable.
THREADS = 2
GB = 1e9


def use_threads(device: str) -> None:
    """Limit this process to `THREADS` if it computes on the CPU."""
    if device == "cpu":
        torch.set_num_threads(THREADS)


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of ``function`` in a process that has done nothing else."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def memory_entry(device: str, imports: int) -> dict[str, float]:
    """The entry of a report on this process's peak memory, which was ``imports`` bytes before its work."""
    return {"peak_gb": round(peak_bytes(device) / GB, 3), "of_which_imports_gb": round(imports / GB, 3)}


@dataclass(frozen=True)
class Launch:
    """A program that has ended.

    Args:
        seconds: Wall time from its start to the awaited line, or to its end.
        cpu_s: Processor time in user mode, up to its end.
        output: Everything that it printed, errors included.
    """

    seconds: float
    cpu_s: float
    output: str


def launch(
    command: Sequence[str | Path], awaited: str | None = None, environment: Mapping[str, str] | None = None
) -> Launch:
    """Run a program to its end.

    Args:
        command: The program and its arguments.
        awaited: The clock stops at the first line of output that contains this text.
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
    _, status, usage = os.wait4(process.pid, 0)  # `Popen.wait` does not give the processor time
    process.returncode = os.waitstatus_to_exitcode(status)
    ended = time.perf_counter() - start
    if process.returncode or (awaited is not None and reached is None):
        tail = "".join(lines[-20:])
        raise RuntimeError(f"{' '.join(process.args)} ended with {process.returncode}: {tail}")  # type: ignore[arg-type]
    return Launch(ended if reached is None else reached, usage.ru_utime, "".join(lines))
