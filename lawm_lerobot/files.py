"""Files and folders that are whole or not there, and locks that end with their process."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

# The lock of a folder that is being written; free when its process has ended.
IN_USE = ".in_use"


class LockedError(RuntimeError):
    """Another process holds the lock."""


@contextlib.contextmanager
def written_aside(target: Path) -> Iterator[Path]:
    """A folder that gets its name when everything in it is written, or leaves nothing behind.

    Yields a path that does not exist yet, to be made and filled; its parent is removed in the end, so that further
    unfinished folders may stand beside it. ``target`` may exist if it is empty; otherwise an OSError is raised.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # A process that was killed could not remove what it had left of this target.
    for left in target.parent.glob(f".{glob.escape(target.name)}-*"):
        if (left / IN_USE).is_file():
            with contextlib.suppress(LockedError, OSError):
                with locked(left / IN_USE):
                    pass
                shutil.rmtree(left, ignore_errors=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        with locked(aside / IN_USE):
            unfinished = aside / target.name
            yield unfinished
            if target.exists():
                target.rmdir()  # It is empty; replace() would refuse it on some systems.
            unfinished.replace(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_text(file: Path, text: str) -> None:
    """The whole text in UTF-8 or nothing, also when the machine goes down."""
    partial = file.with_name(f"{file.name}.partial")
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)


def write_json(file: Path, value: Any, indent: int | None = 1) -> None:
    """`write_text` of a value as JSON."""
    write_text(file, json.dumps(value, indent=indent) + "\n")


def read_json(file: Path) -> Any:
    """The value in a JSON file; None if there is no such file, or if it is damaged."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a lock that the system frees when this process ends, however it does; LockedError if another one holds it.

    The file and its folder are made if they are not there.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as stream:
        try:
            _lock(stream)
        except OSError as error:
            raise LockedError(f"{file} is locked by another process.") from error
        yield


def _lock(stream: IO[str]) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        stream.seek(0)
        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
