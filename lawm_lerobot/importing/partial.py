"""The folder of an unfinished import, `<root>.partial`, from which the same command goes on.

It holds `settings.json` (what the import was started with), `content.json` (a fingerprint of its tasks), `probes.jsonl`
(headers read so far), `tasks/` (finished tasks, each one folder that appeared by a rename) and `dataset/` (the result
being put together), which the last step renames to `<root>`. A kill at any moment leaves either no `<root>` or a
complete one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import draccus

from lawm_lerobot.files import LockedError, locked, read_json, write_json
from lawm_lerobot.importing.config import ImportConfig
from lawm_lerobot.importing.footage import Probe
from lawm_lerobot.importing.segments import ImportSettingsError
from lawm_lerobot.importing.sources import VideoSource

FORMAT_VERSION = 4  # a change makes older folders unusable
# Flags that may change between an interrupted import and the one that goes on.
FREE_FLAGS = (
    "workers",
    "hwaccel",
    "dry_run",
    "merge",
    "push_to_hub",
    "private",
    "summary_path",
    "root",
    "license",
)


class ProbeLog:
    """Headers read so far, one line of JSON each, for an import that goes on; without a file nothing is kept."""

    def __init__(self, file: Path | None):
        self.file = file

    def read(self) -> dict[str, Probe]:
        """The probes by path."""
        known: dict[str, Probe] = {}
        if self.file is None or not self.file.is_file():
            return known
        for line in self.file.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # the last line of a killed run may be cut
                path, record = json.loads(line)
                known[path] = Probe(**record)
        return known

    def add(self, path: str, probe: Probe) -> None:
        """Append a line, which is on the disk when this returns."""
        if self.file is not None:
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps([path, asdict(probe)]) + "\n")


class PartialFolder:
    """The folder of an unfinished import into `root`."""

    def __init__(self, root: Path, config: ImportConfig):
        self.path = root.with_name(root.name + ".partial")
        self.tasks = self.path / "tasks"
        self.dataset = self.path / "dataset"
        self.probes = ProbeLog(self.path / "probes.jsonl")
        self._root = root
        self._settings = settings_record(config)

    def is_left_over(self) -> bool:
        """True if this import was killed after its last rename: the result is whole, only the clearing up is missing."""
        return self.path.is_dir() and read_json(self.path / "settings.json") == self._settings

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder, or go on with it, and hold a lock on it that the system frees even when this process is killed."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(self.path / "lock"))
            except LockedError as error:
                raise ImportSettingsError(
                    f"Another import is writing to {self.path}: wait for it, or choose another --root."
                ) from error
            self._check_settings()
            self.tasks.mkdir(exist_ok=True)
            yield

    def _check_settings(self) -> None:
        before = read_json(self.path / "settings.json")
        if before is None:
            write_json(self.path / "settings.json", self._settings)
        elif before == self._settings:
            print(f"Going on with the unfinished import in {self.path}")
        else:
            keys = sorted({*before, *self._settings})
            changed = ", ".join(f"--{key}" for key in keys if before.get(key) != self._settings.get(key))
            raise ImportSettingsError(
                f"{self.path} holds an unfinished import with other settings ({changed} changed): "
                "run it with the same ones to finish it, or delete that folder to start anew."
            )

    def check_content(self, fingerprint: str) -> None:
        """Refuse to go on with other videos or captions than those that the import began with."""
        before = read_json(self.path / "content.json")
        if before is None:
            write_json(self.path / "content.json", fingerprint)
        elif before != fingerprint:
            raise ImportSettingsError(
                f"The videos or captions changed since the unfinished import in {self.path} began: delete that folder "
                "to start anew."
            )

    def finish(self) -> None:
        """Give the dataset its name and clear up."""
        os.rename(self.dataset, self._root)
        self.remove()

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.path)


def settings_record(config: ImportConfig) -> dict[str, Any]:
    """Everything that shapes the result, as JSON; an import that goes on must agree on all of it."""
    record = draccus.encode(config)
    for name in FREE_FLAGS:
        record.pop(name, None)
    record["source"] = None
    record["sources"] = [draccus.encode(source, VideoSource) for source in config.all_sources()]
    record["format"] = FORMAT_VERSION
    return json.loads(json.dumps(record, default=str))
