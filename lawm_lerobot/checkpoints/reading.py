"""Reading the files of a checkpoint: its config as plain data, and its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lawm_lerobot.hub.errors import hub_errors


def checkpoint_file(
    name: str,
    pretrained_path: str | Path,
    revision: str | None = None,
    flag: str = "--policy.path",
    **hub_options: Any,
) -> Path:
    """Find a file of a checkpoint in its directory, or download it from the Hub.

    Args:
        name: The name of the file.
        pretrained_path: A directory or a Hub id.
        revision: The revision of the Hub repository.
        flag: The option that gave the path, for the errors.
        hub_options: The options of `hf_hub_download` (token, cache_dir, ...).

    Raises:
        FileNotFoundError: If the directory has no such file.
        HubError: If the Hub does not hand it out.
    """
    directory = Path(pretrained_path)
    if directory.is_dir():
        if not (directory / name).is_file():
            raise FileNotFoundError(
                f"{directory} has no {name}, expected a checkpoint's 'pretrained_model' directory: change {flag}."
            )
        return directory / name
    with hub_errors(f"Loading {pretrained_path}", flag):
        return Path(hf_hub_download(str(pretrained_path), name, revision=revision, **hub_options))


def read_policy_config(
    pretrained_path: str | Path | None,
    revision: str | None = None,
    flag: str = "--policy.path",
    **hub_options: Any,
) -> dict[str, Any] | None:
    """Read the ``config.json`` of a checkpoint as plain data; None without a path.

    The decision to re-initialise weights hangs on what a checkpoint *says on disk*, never on the config in memory,
    which command-line flags have already changed. Arguments and errors are those of `checkpoint_file`, and ValueError
    if the file is damaged.
    """
    if pretrained_path is None:
        return None
    file = checkpoint_file(CONFIG_NAME, pretrained_path, revision, flag, **hub_options)
    try:
        return json.loads(file.read_text())
    except ValueError as error:  # not JSON, or not even text
        raise ValueError(_damaged(file, "JSON", error, flag)) from error


def read_weights(
    pretrained_path: str | Path, revision: str | None = None, flag: str = "--policy.path"
) -> dict[str, Tensor]:
    """Read the tensors of a policy checkpoint; arguments and errors are those of `read_policy_config`."""
    return load_weights(checkpoint_file(SAFETENSORS_SINGLE_FILE, pretrained_path, revision, flag), flag)


def load_weights(file: str | Path, flag: str = "--policy.path") -> dict[str, Tensor]:
    """Read the tensors of a safetensors file; ValueError, which names the checkpoint's flag, if it is damaged."""
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(_damaged(file, "safetensors", error, flag)) from error


def _damaged(file: str | Path, kind: str, error: Exception, flag: str) -> str:
    return (
        f"{file} cannot be read as {kind} ({error}): the file is damaged or incomplete; copy or download the "
        f"checkpoint again, or change {flag}."
    )
