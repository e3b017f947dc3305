"""Worker processes that survive what they read.

A damaged video can crash the C libraries that decode it. `concurrent.futures` gives up the whole pool then; here the
file is named in the summary, a new worker takes the dead one's place, and the rest of the import goes on.
"""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from lawm_lerobot.importing.decoding import UnreadableVideoError, error_text
from lawm_lerobot.importing.segments import Clip
from lawm_lerobot.importing.work import (
    Task,
    WriteSettings,
    commit_task,
    encoded_bytes,
    probe_clip,
    quiet_libraries,
)

# Trouble of the target disk, not of one video: going on would list every file as bad.
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
SAMPLE_S = 2.0  # a dry run encodes this much of a clip to estimate sizes


class DiskError(RuntimeError):
    """The place that is written to does not take more."""


class Job:
    """What a worker is asked: `kind` is "probe", "sample" or "import"; `key` comes back with the answer."""

    def __init__(self, kind: str, key: Any, payload: Clip | Task):
        self.kind, self.key, self.payload = kind, key, payload


class Answer:
    """What came of a job. Exactly one of `value` and `reason` is set; `progress` only while it is going on."""

    def __init__(
        self, key: Any, value: Any = None, reason: str = "", detail: str = "", progress: float | None = None
    ):
        self.key, self.value, self.reason, self.detail, self.progress = key, value, reason, detail, progress


def do_job(
    job: Job, settings: WriteSettings, tasks_folder: Path | None, progress: Callable[[float], None]
) -> Answer:
    """Do a job in this process. Whatever a video does wrong becomes a reason; a full disk is raised."""
    try:
        if job.kind == "probe":
            assert isinstance(job.payload, Clip)
            return Answer(job.key, probe_clip(job.payload))
        assert isinstance(job.payload, Task)
        if job.kind == "sample":
            return Answer(job.key, encoded_bytes(job.payload, settings, SAMPLE_S))
        assert tasks_folder is not None
        return Answer(job.key, commit_task(job.payload, settings, tasks_folder, progress))
    except UnreadableVideoError as error:
        return Answer(job.key, reason=error.reason, detail=error.detail)
    except Exception as error:  # noqa: BLE001 - one bad video must not end the import; the summary shows the error
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise DiskError(error_text(error)) from error
        return Answer(
            job.key, reason="cannot be decoded", detail=f"{type(error).__name__}: {error_text(error)}"
        )


def _report(pipe: Connection, key: Any, seconds: float) -> None:
    pipe.send(Answer(key, progress=seconds))


def _worker_main(pipe: Connection, settings: WriteSettings, tasks_folder: Path | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-c reaches the whole group; the parent decides
    parent = multiprocessing.parent_process()
    if parent is not None:
        # A killed parent cannot tell its workers; without this they would go on reading for nobody.
        def leave_with_parent(sentinel: int = parent.sentinel) -> None:
            wait([sentinel])
            os._exit(1)

        threading.Thread(target=leave_with_parent, daemon=True).start()
    quiet_libraries()
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            job = pipe.recv()
            if job is None:
                return
            try:
                answer = do_job(job, settings, tasks_folder, partial(_report, pipe, job.key))
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
        """How the process ended, in words."""
        self.process.join()
        code = self.process.exitcode or 0
        if code >= 0:
            return f"exit status {code}"
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
        return f"signal {-code}"


class WorkerPool:
    """`count` processes (0: this one) that do jobs in any order. Use as a context manager."""

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

    def run(self, next_job: Callable[[], Job | None]) -> Iterator[Answer]:
        """Do jobs until `next_job` gives None and all are answered. A job whose worker dies is answered with a reason.

        `next_job` is asked again after each answer, so it may decide by what has come in so far.

        Raises:
            DiskError: the target disk takes no more.
        """
        if self.count <= 0:
            yield from self._run_here(next_job)
            return
        while True:
            self._hand_out(next_job)
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
                    yield Answer(key, reason="crashed the decoder", detail=worker.death())
                    continue
                if isinstance(answer.value, DiskError):
                    raise answer.value
                if answer.progress is None:
                    worker.job = None
                yield answer

    def _hand_out(self, next_job: Callable[[], Job | None]) -> None:
        idle = [worker for worker in self._workers if worker.job is None]
        while len(idle) + sum(worker.job is not None for worker in self._workers) < self.count or idle:
            job = next_job()
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

    def _run_here(self, next_job: Callable[[], Job | None]) -> Iterator[Answer]:
        quiet_libraries()
        progress: list[float] = []
        while (job := next_job()) is not None:
            answer = do_job(job, self.settings, self.tasks_folder, progress.append)
            for seconds in progress:
                yield Answer(job.key, progress=seconds)
            progress.clear()
            yield answer
