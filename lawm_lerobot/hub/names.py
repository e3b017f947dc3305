"""Public names: of checkpoints and folders, as people outside this machine read them."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from huggingface_hub.constants import CONFIG_NAME

logger = logging.getLogger(__name__)

_REPO_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")
#: Directories that LeRobot makes below a run's; they name no run.
_CHECKPOINT_FOLDERS = re.compile(r"checkpoints|last|\d+|pretrained_model|")


def is_repo_id(name: str) -> bool:
    """True for a Hub id (with ``@revision`` perhaps) that is, as LeRobot decides it, no directory."""
    return _REPO_ID.fullmatch(name) is not None and not Path(name).exists()


def public_name(source: str | Path, private: bool | None) -> str:
    """The name by which a published copy calls the checkpoint (a Hub id, with ``@revision`` perhaps, or a directory).

    A Hub id stays as it is. A directory gets the name of the repository that its run was pushed to, unless that one is
    private and the copy is not; else that of the run's directory.
    """
    source = str(source)
    if is_repo_id(source):
        return source
    try:
        config = json.loads((Path(source) / CONFIG_NAME).read_text())
    except (OSError, ValueError):
        config = {}
    pushed = config.get("repo_id") if config.get("push_to_hub") else None
    if pushed and (private or not config.get("private")):
        return str(pushed)
    parts = [part for part in re.split(r"[/\\]", source) if not _CHECKPOINT_FOLDERS.fullmatch(part)]
    return parts[-1] if parts else "unnamed"


def make_public(folder: Path, private: bool | None) -> None:
    """Rewrite the JSON files of a copy of a checkpoint that will be published, without the paths of this machine.

    The checkpoint that it came from keeps its public name, dataset and output directories go (LeRobot then looks the
    dataset up by its id), and any other absolute path is cut to its last part, with a warning.
    """
    for file in sorted(folder.glob("*.json")):
        data = json.loads(file.read_text(encoding="utf-8"))
        public = _public(data, "", private, file.name)
        if file.name == "transfer_report.json":
            public["source"] = public_name(data["source"], private)
        if public != data:
            file.write_text(json.dumps(public, indent=4) + "\n", encoding="utf-8")


def _public(value: Any, key: str, private: bool | None, file: str) -> Any:
    if isinstance(value, dict):
        return {name: _public(item, name, private, file) for name, item in value.items()}
    if isinstance(value, list):
        return [_public(item, key, private, file) for item in value]
    if not isinstance(value, str) or not value:
        return value
    if key in ("root", "output_dir", "checkpoint_path"):
        return None
    if key == "pretrained_path":  # of a resumed run it is the run's own
        return value if is_repo_id(value) else None
    if key == "base_path":
        name = public_name(value, private)
        return name if is_repo_id(name) else None
    if key in ("transferred_from", "base_model_name_or_path", "checkpoint"):
        return public_name(value, private)
    if PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute():
        if key != "source":  # transfer_report.json's, which has its public name
            logger.warning(f"{file} names a path of this machine as {key}; only its last part is published.")
        return PureWindowsPath(value).name
    return value
