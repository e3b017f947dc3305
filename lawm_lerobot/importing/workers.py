"""Worker processes that survive what they read.

A damaged video can crash the C libraries that decode it. `concurrent.futures` gives up the whole pool then; here the
file is named in the summary, a new worker takes the dead one's place, and the rest of the import goes on.
"""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

from lawm_lerobot.importing.footage import Footage
from lawm_lerobot.importing.reasons import Reason, UnreadableVideoError, error_text
from lawm_lerobot.importing.tasks import Task, WriteSettings, commit_task, encode_sample, quiet_libraries
from lawm_lerobot.processes import end_with_parent

# Trouble of the target disk, not of one video: going on would list every file as bad.
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
SAMPLE_S = 2.0  # a dry run encodes this much of a task to estimate sizes


class DiskError(RuntimeError):
    """The place that is written to does not take more, in one sentence for the user."""


@dataclass
class Job:
    """A request to a worker: the claims of footage, the size of the start of a task, or all of the task."""

    kind: Literal["probe", "sample", "encode"]
    key: Any
    payload: Footage | Task


@dataclass
class Answer:
    """Outcome of a job: a value or a reason, or the progress of one that is going on.

    Args:
        value: A `Probe`, the numbers of bytes and of frames of a sample, a `TaskResult`, or a `DiskError` to raise.
        progress: Seconds of source video done since the last answer.
    """

    key: Any
    value: Any = None
    reason: Reason | None = None
    detail: str = ""
    progress: float | None = None


def do_job(
    job: Job, settings: WriteSettings, tasks_folder: Path | None, progress: Callable[[float], None]
) -> Answer:
    """Do a job in this process. Whatever a video does wrong becomes a reason; a full disk is raised."""
    try:
        if job.kind == "probe":
            assert isinstance(job.payload, Footage)
            return Answer(job.key, job.payload.probe())
        assert isinstance(job.payload, Task)
        if job.kind == "sample":
            return Answer(job.key, encode_sample(job.payload, settings, SAMPLE_S))
        assert tasks_folder is not None
        return Answer(job.key, commit_task(job.payload, settings, tasks_folder, progress))
    except UnreadableVideoError as error:
        return Answer(job.key, reason=error.reason, detail=error.detail)
    except Exception as error:  # noqa: BLE001 - one bad video must not end the import; the summary shows the error
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise DiskError(
                f"writing failed ({error_text(error)}): free some space and run the same command again."
            ) from error
        detail = f"{type(error).__name__}: {error_text(error)}"
        return Answer(job.key, reason=Reason.CANNOT_BE_DECODED, detail=detail)


def _worker_main(pipe: Connection, settings: WriteSettings, tasks_folder: Path | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-c reaches the whole group; the parent decides
    end_with_parent()
    quiet_libraries()
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            job = pipe.recv()
            if job is None:
                return

            def report(seconds: float, key: Any = job.key) -> None:
                pipe.send(Answer(key, progress=seconds))

            try:
                answer = do_job(job, settings, tasks_folder, report)
            except DiskError as error:
                answer = Answer(job.key, value=error)
            pipe.send(answer)


class _Worker:
    def __init__(self, settings: WriteSettings, tasks_folder: Path | None):
        context = multiprocessing.get_context("spawn")  # forking after FFmpeg threads ran is not safe
        self.pipe, child = context.Pipe()
        self.process = context.Process(target=_worker_main, args=(child, settings, tasks_folder), daemon=True)
        self.process.start()
        child.close()
        self.job: Job | None = None

    def give(self, job: Job) -> bool:
        """Hand over a job; False when the worker died before it could take it."""
        try:
            self.pipe.send(job)
        except (BrokenPipeError, ConnectionResetError, OSError):
            return False
        self.job = job
        return True

    def death(self) -> str:
        """The end of the process in words."""
        self.process.join()
        code = self.process.exitcode or 0
        if code >= 0:
            return f"exit status {code}"
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
        return f"signal {-code}"


class WorkerPool:
    """Processes that do jobs in any order; `count` 0 works in this one. Use as a context manager."""

    def __init__(self, count: int, settings: WriteSettings, tasks_folder: Path | None):
        self.count, self.settings, self.tasks_folder = count, settings, tasks_folder
        self._workers: list[_Worker] = []

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            with contextlib.suppress(OSError):
                if worker.job is None:
                    worker.pipe.send(None)
                else:
                    worker.process.terminate()
        for worker in self._workers:
            worker.process.join(timeout=5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.pipe.close()
        self._workers = []

    def run(self, jobs: Iterator[Job]) -> Iterator[Answer]:
        """Do jobs until there are no more and all are answered. A job whose worker dies is answered with a reason.

        `jobs` is asked for another one after each answer, so it may decide by what has come in so far. A `DiskError`
        is raised.
        """
        if self.count <= 0:
            yield from self._run_here(jobs)
            return
        while True:
            self._hand_out(jobs)
            busy = [worker for worker in self._workers if worker.job is not None]
            if not busy:
                return
            ready = wait([worker.pipe for worker in busy])
            for worker in busy:
                if worker.pipe not in ready:
                    continue
                assert worker.job is not None
                try:
                    answer = worker.pipe.recv()
                except (EOFError, ConnectionResetError, OSError):
                    key = worker.job.key
                    self._workers.remove(worker)
                    yield Answer(key, reason=Reason.CRASHED, detail=worker.death())
                    continue
                if isinstance(answer.value, DiskError):
                    raise answer.value
                if answer.progress is None:
                    worker.job = None
                yield answer

    def _hand_out(self, jobs: Iterator[Job]) -> None:
        idle = [worker for worker in self._workers if worker.job is None]
        while len(idle) + sum(worker.job is not None for worker in self._workers) < self.count or idle:
            job = next(jobs, None)
            if job is None:
                return
            while True:
                if idle:
                    worker = idle.pop()
                else:
                    worker = _Worker(self.settings, self.tasks_folder)
                    self._workers.append(worker)
                if worker.give(job):
                    break
                self._workers.remove(worker)

    def _run_here(self, jobs: Iterator[Job]) -> Iterator[Answer]:
        quiet_libraries()
        progress: list[float] = []
        for job in jobs:
            answer = do_job(job, self.settings, self.tasks_folder, progress.append)
            for seconds in progress:
                yield Answer(job.key, progress=seconds)
            progress.clear()
            yield answer
