"""Runs stages: several at a time, each in a process of its own, every one once.

Importing LeRobot takes longer than many a stage. A fork server does it once; each stage is a fresh fork of it, which
sets ``sys.argv`` and calls the command's ``main``, so no state is left from one stage to the next.

A stage's folder holds ``log.txt``, the command's output in ``out`` and, once it has finished, ``done.json``. A folder
without that is of an interrupted stage: it is removed and the stage starts over. It does not go on from a checkpoint,
because a resumed training draws other random numbers and the figures would depend on when it was interrupted.
"""

import fcntl
import importlib
import json
import multiprocessing
import os
import re
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from tqdm import tqdm

from lawm_lerobot.benchmark.plan import BenchmarkError
from lawm_lerobot.benchmark.stages import PROGRAMS, Stage

LOG, DONE = "log.txt", "done.json"
LOG_TAIL = 15  # lines shown of a failed stage
REFRESH = 5.0  # seconds between looks at the running stages' own progress bars


def write_atomically(file: Path, text: str) -> None:
    """The whole text or nothing, also when the machine goes down."""
    partial = file.with_name(file.name + ".partial")
    with partial.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)


@contextmanager
def locked(output_dir: Path) -> Iterator[None]:
    """Keep a second benchmark out of ``output_dir``; the lock goes with this process, however it ends.

    Raises:
        BenchmarkError: If another one is at work there.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    with (output_dir / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BenchmarkError(
                f"another lawm-benchmark is writing to {output_dir}: wait for it, or change --output_dir."
            ) from error
        yield


def is_done(output_dir: Path, stage: Stage) -> bool:
    return (output_dir / stage.directory / DONE).exists()


def seconds_of(output_dir: Path, stage: Stage) -> float:
    """How long a finished stage took."""
    return json.loads((output_dir / stage.directory / DONE).read_text())["seconds"]


def log_of(output_dir: Path, stage: Stage) -> str:
    return (output_dir / stage.directory / LOG).read_text(errors="replace")


class StageRunner:
    """Runs stages in ``output_dir``, ``workers`` at a time with ``threads`` each.

    Attributes:
        failed: Stages that failed, by name.
    """

    def __init__(self, output_dir: Path, workers: int, threads: int) -> None:
        self.output_dir, self.workers, self.threads = output_dir.resolve(), workers, threads
        self.failed: dict[str, Stage] = {}
        # Read once, when the fork server imports its libraries.
        os.environ["OMP_NUM_THREADS"] = str(threads)
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        # Asking CUDA itself whether there is a GPU would make it unusable in the forks.
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
        self.context = multiprocessing.get_context("forkserver")
        modules = {program.split(":")[0] for program in PROGRAMS.values()}
        self.context.set_forkserver_preload(
            [*sorted(modules), "accelerate", "lawm_lerobot.policies", "lawm_lerobot.envs.metaworld"]
        )

    def run(self, stages: Sequence[Stage], finished: Callable[[], None]) -> None:
        """Run the stages that are not done, inputs first; ``finished`` is called after each.

        A stage that fails, and with it what depends on it, is left out; the others go on. Whatever ends this call
        early ends the running stages.
        """
        waiting = [stage for stage in stages if not is_done(self.output_dir, stage)]
        running: dict[object, tuple[Stage, ForkServerProcess, float]] = {}  # by sentinel
        with tqdm(total=len(waiting), unit="stage", disable=not waiting) as bar:
            try:
                while (waiting := self._start(waiting, running)) or running:
                    bar.total = bar.n + len(waiting) + len(running)
                    bar.set_postfix_str(" | ".join(self._progress(stage) for stage, _, _ in running.values()))
                    for sentinel in wait(
                        [process.sentinel for _, process, _ in running.values()],
                        REFRESH if sys.stderr.isatty() else None,
                    ):
                        stage, process, start = running.pop(sentinel)
                        self._finish(stage, process, time.monotonic() - start)
                        bar.update()
                        finished()
            finally:
                for _, process, _ in running.values():
                    process.terminate()
                for _, process, _ in running.values():
                    process.join(5)
                    process.kill()

    def _start(self, waiting: list[Stage], running: dict) -> list[Stage]:
        """Start stages whose inputs are there; returns those that still have to wait."""
        later = []
        for stage in waiting:
            if any(source.name in self.failed for source in stage.inputs):
                self.failed[stage.name] = stage
            elif len(running) < self.workers and all(is_done(self.output_dir, s) for s in stage.inputs):
                process = self._process(stage)
                process.start()
                running[process.sentinel] = stage, process, time.monotonic()
            else:
                later.append(stage)
        return later

    def _process(self, stage: Stage) -> ForkServerProcess:
        folder = self.output_dir / stage.directory
        if folder.exists():
            tqdm.write(f"{stage.name}: not finished last time; it starts over", file=sys.stderr)
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        (folder / LOG).touch()  # A failure is described from it, however early.
        return self.context.Process(
            target=run_command,
            args=(stage.program, stage.command(), self.output_dir, folder / LOG, self.threads),
            name=stage.name,
        )

    def _progress(self, stage: Stage) -> str:
        """The stage, and how far its own progress bar is."""
        found = re.findall(r"(\d+/\d+) \[", log_of(self.output_dir, stage)[-2000:])
        return " ".join([stage.kind, stage.label, *found[-1:]])

    def _finish(self, stage: Stage, process: ForkServerProcess, seconds: float) -> None:
        process.join()
        if process.exitcode != 0:
            self.failed[stage.name] = stage
            with (self.output_dir / stage.directory / LOG).open("a") as log:
                print(f"\n{stage.program} ended with exit status {process.exitcode}", file=log)
            tqdm.write(f"{self.describe_failure(stage)}\n", file=sys.stderr)
            return
        tidy(self.output_dir, stage)
        done = {"command": shlex.join([stage.program, *stage.command()]), "seconds": round(seconds, 1)}
        write_atomically(self.output_dir / stage.directory / DONE, json.dumps(done, indent=1) + "\n")

    def describe_failure(self, stage: Stage) -> str:
        """The end of a failed stage's log, or of the input's that failed before it."""
        source = next((source for source in stage.inputs if source.name in self.failed), None)
        if source is not None:
            return self.describe_failure(source)
        tail = "\n".join(f"    {line}" for line in log_of(self.output_dir, stage).splitlines()[-LOG_TAIL:])
        return f"{stage.name} failed; {stage.directory / LOG} ends in\n{tail}"


def tidy(output_dir: Path, stage: Stage) -> None:
    """Free what no later stage reads: most of a checkpoint is the state of its optimizer."""
    if stage.program == "lerobot-train":
        for state in (output_dir / stage.out / "checkpoints").glob("[0-9]*/training_state"):
            shutil.rmtree(state)
    if stage.kind == "imitation":
        for source in stage.inputs:
            last = output_dir / source.out / "checkpoints" / "last"
            if last.exists():
                for folder in last.parent.iterdir():
                    if folder != last and folder.resolve() != last.resolve():
                        shutil.rmtree(folder)


def run_command(program: str, arguments: list[str], directory: Path, log: Path, threads: int) -> None:
    """In a fresh fork: a command, as if it had been typed in ``directory`` with its output sent to ``log``."""
    _end_with_parent()
    os.chdir(directory)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    print(f"$ {shlex.join([program, *arguments])}", flush=True)
    import torch

    torch.set_num_threads(threads)
    module, function = PROGRAMS[program].split(":")
    sys.argv = [program, *arguments]
    sys.exit(getattr(importlib.import_module(module), function)())


def _end_with_parent() -> None:
    """A killed benchmark must not leave stages behind that write where the next one starts."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
