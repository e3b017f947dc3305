"""Folders written aside, texts written whole, and locks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lawm_lerobot.files import LockedError, locked, read_json, write_json, written_aside


def test_a_folder_gets_its_name_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder"
    with written_aside(target) as unfinished:
        assert not unfinished.exists()
        unfinished.mkdir()
        (unfinished / "file").write_text("whole")
        (unfinished.parent / "beside").mkdir()
        assert not target.exists()
    assert (target / "file").read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


KILLED = """
import os, pathlib, signal, sys
from lawm_lerobot.files import written_aside
with written_aside(pathlib.Path(sys.argv[1])) as unfinished:
    unfinished.mkdir()
    (unfinished / "half").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_next_run_clears_what_a_killed_one_left_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, tmp_path / "folder"], check=False)
    (left,) = tmp_path.iterdir()
    assert (left / "folder" / "half").exists()
    (tmp_path / ".folder-notes").mkdir()
    with written_aside(tmp_path / "folder") as unfinished:
        unfinished.mkdir()
        assert not left.exists()
        with written_aside(tmp_path / "folder") as other:  # of a run that is still at work
            assert unfinished.exists() and unfinished.parent != other.parent
            other.mkdir()
            (other / "first").touch()
        assert (tmp_path / "folder" / "first").exists()
        (tmp_path / "folder" / "first").unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".folder-notes", "folder"]


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), written_aside(tmp_path / "folder") as unfinished:
        unfinished.mkdir()
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_only_an_empty_folder_is_replaced(tmp_path: Path) -> None:
    for name, content in (("empty", []), ("full", ["kept"])):
        (tmp_path / name).mkdir()
        for file in content:
            (tmp_path / name / file).touch()
    with written_aside(tmp_path / "empty") as unfinished:
        unfinished.mkdir()
    with pytest.raises(OSError), written_aside(tmp_path / "full") as unfinished:
        unfinished.mkdir()
    assert (tmp_path / "full" / "kept").exists()


def test_json_is_read_back_and_damage_is_none(tmp_path: Path) -> None:
    file = tmp_path / "value.json"
    assert read_json(file) is None
    write_json(file, {"a": [1, None]})
    assert read_json(file) == {"a": [1, None]}
    file.write_text('{"a": [1')
    assert read_json(file) is None
    file.write_bytes(b"\xff\xfe")
    assert read_json(file) is None


def test_a_lock_keeps_another_process_out_and_ends_with_its_own(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "lock"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from lawm_lerobot.files import locked\n"
            f"with locked(Path({str(file)!r})): print('held', flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(LockedError, match="another process"), locked(file):
        pass
    holder.kill()
    holder.wait()
    with locked(file):
        pass
