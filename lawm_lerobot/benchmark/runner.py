"""Runs commands: several at a time, each in a process of its own, every one once.

Importing LeRobot takes longer than many a command. A fork server does it once; each command is a fresh fork of it,
which sets ``sys.argv`` and calls the program's ``main``, so no state is left from one command to the next.

A command's folder holds ``log.txt``, its output in ``out`` and, once it has finished, ``done.json``. An interrupted
command's, without that, is removed and the command starts over: a training resumed from a checkpoint would draw other
random numbers, and the results would depend on when it was interrupted.
"""

import importlib
import json
import multiprocessing
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from tqdm import tqdm

from lawm_lerobot import files
from lawm_lerobot.benchmark.commands import PROGRAMS, Command
from lawm_lerobot.benchmark.configuration import BenchmarkError
from lawm_lerobot.processes import end_with_parent

LOG, DONE = "log.txt", "done.json"
LOG_TAIL = 15  # lines shown of a failed command
REFRESH = 5.0  # seconds between looks at the running commands' own progress bars


@contextmanager
def locked(output_dir: Path) -> Iterator[None]:
    """Keep a second benchmark out of ``output_dir``, by `files.locked`; BenchmarkError if one is at work there."""
    try:
        with files.locked(output_dir / ".lock"):
            yield
    except files.LockedError as error:
        raise BenchmarkError(
            f"another lawm-benchmark is writing to {output_dir}: wait for it, or change --output_dir."
        ) from error


def is_done(output_dir: Path, command: Command) -> bool:
    return (output_dir / command.directory / DONE).exists()


def duration_of(output_dir: Path, command: Command) -> float:
    """Seconds that a finished command took."""
    return json.loads((output_dir / command.directory / DONE).read_text())["seconds"]


def log_of(output_dir: Path, command: Command) -> str:
    return (output_dir / command.directory / LOG).read_text(errors="replace")


@dataclass(frozen=True)
class _Running:
    """A command that is under way, since ``start`` by the monotonic clock."""

    command: Command
    process: ForkServerProcess
    start: float


class CommandRunner:
    """Runs commands in ``output_dir``, ``workers`` at a time with ``threads`` each.

    ``simulator`` is the module of the environments, which is imported once for all commands.

    Attributes:
        failed: The commands that failed, by name.
    """

    def __init__(self, output_dir: Path, workers: int, threads: int, simulator: str) -> None:
        self.output_dir, self.workers, self.threads = output_dir.resolve(), workers, threads
        self.failed: dict[str, Command] = {}
        self._running: dict[object, _Running] = {}  # by the process's sentinel
        # Read once, when the fork server imports its libraries.
        os.environ["OMP_NUM_THREADS"] = str(threads)
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        # Asking CUDA itself whether there is a GPU would make it unusable in the forks.
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
        self.context = multiprocessing.get_context("forkserver")
        modules = {program.split(":")[0] for program in PROGRAMS.values()}
        self.context.set_forkserver_preload(
            [
                *sorted(modules),
                "lerobot.scripts.lerobot_train",
                "accelerate",
                "lawm_lerobot.policies",
                simulator,
            ]
        )

    def run(self, commands: Sequence[Command], finished: Callable[[], None]) -> None:
        """Run the commands that are not done, inputs first; ``finished`` is called after each.

        A command that fails, and with it what depends on it, is left out; the others go on. Whatever ends this call
        early ends the running commands.
        """
        waiting = [command for command in commands if not is_done(self.output_dir, command)]
        with tqdm(total=len(waiting), unit="stage", disable=not waiting) as bar:
            try:
                while (waiting := self._start(waiting)) or self._running:
                    bar.total = bar.n + len(waiting) + len(self._running)
                    bar.set_postfix_str(" | ".join(map(self._progress, self._running.values())))
                    for sentinel in wait(
                        [running.process.sentinel for running in self._running.values()],
                        REFRESH if sys.stderr.isatty() else None,
                    ):
                        self._finish(self._running.pop(sentinel))
                        bar.update()
                        finished()
            finally:
                for running in self._running.values():
                    running.process.terminate()
                for running in self._running.values():
                    running.process.join(5)
                    running.process.kill()

    def _start(self, waiting: list[Command]) -> list[Command]:
        """Start commands whose inputs are there; returns those that still have to wait."""
        later = []
        for command in waiting:
            if any(source.name in self.failed for source in command.inputs):
                self.failed[command.name] = command
            elif len(self._running) < self.workers and all(
                is_done(self.output_dir, source) for source in command.inputs
            ):
                process = self._process(command)
                process.start()
                self._running[process.sentinel] = _Running(command, process, time.monotonic())
            else:
                later.append(command)
        return later

    def _process(self, command: Command) -> ForkServerProcess:
        folder = self.output_dir / command.directory
        if folder.exists():
            tqdm.write(f"{command.name}: not finished last time; it starts over", file=sys.stderr)
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        (folder / LOG).touch()  # A failure is described from it, however early.
        return self.context.Process(
            target=_run_in_fork,
            args=(command.typed(), self.output_dir, folder / LOG, self.threads),
            name=command.name,
        )

    def _progress(self, running: _Running) -> str:
        """The command, and the state of its own progress bar."""
        found = re.findall(r"(\d+/\d+) \[", log_of(self.output_dir, running.command)[-2000:])
        return " ".join([running.command.kind, running.command.title, *found[-1:]])

    def _finish(self, running: _Running) -> None:
        seconds = time.monotonic() - running.start
        command, process = running.command, running.process
        process.join()
        if process.exitcode != 0:
            self.failed[command.name] = command
            with (self.output_dir / command.directory / LOG).open("a") as log:
                print(f"\n{command.program} ended with exit status {process.exitcode}", file=log)
            tqdm.write(f"{self.describe_failure(command)}\n", file=sys.stderr)
            return
        tidy(self.output_dir, command)
        done = {"command": shlex.join(command.typed()), "seconds": round(seconds, 1)}
        files.write_json(self.output_dir / command.directory / DONE, done)

    def describe_failure(self, command: Command) -> str:
        """The end of a failed command's log, or of the input's that failed before it."""
        source = next((source for source in command.inputs if source.name in self.failed), None)
        if source is not None:
            return self.describe_failure(source)
        lines = log_of(self.output_dir, command).splitlines()[-LOG_TAIL:]
        tail = "\n".join(f"    {line}" for line in lines)
        return f"{command.name} failed; {command.directory / LOG} ends in\n{tail}"


def tidy(output_dir: Path, command: Command) -> None:
    """Free what no later command reads: most of a checkpoint is the state of its optimizer."""
    if command.program == "lerobot-train":
        for state in (output_dir / command.out / "checkpoints").glob("[0-9]*/training_state"):
            shutil.rmtree(state)
    if command.kind == "imitation":
        for source in command.inputs:
            last = output_dir / source.out / "checkpoints" / "last"
            if last.exists():
                for folder in last.parent.iterdir():
                    if folder != last and folder.resolve() != last.resolve():
                        shutil.rmtree(folder)


def _run_in_fork(typed: list[str], directory: Path, log: Path, threads: int) -> None:
    """In a fresh fork: a command, as if it had been typed in ``directory`` with its output sent to ``log``."""
    end_with_parent()
    os.chdir(directory)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    print(f"$ {shlex.join(typed)}", flush=True)
    import torch

    torch.set_num_threads(threads)
    module, function = PROGRAMS[typed[0]].split(":")
    sys.argv = typed
    sys.exit(getattr(importlib.import_module(module), function)())
