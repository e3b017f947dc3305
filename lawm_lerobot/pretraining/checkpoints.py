"""Reading a checkpoint's config before its weights: what is this, and may it be loaded for that?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.constants import CONFIG_NAME


def read_policy_config(
    pretrained_path: str | Path | None, revision: str | None = None, **hub_kwargs: Any
) -> dict[str, Any] | None:
    """The ``config.json`` of a policy checkpoint as plain data, from a directory or from the Hub.

    The decision to re-initialise weights hangs on what a checkpoint *says on disk*, never on the config in
    memory, which command-line flags have already changed.

    Args:
        pretrained_path: A directory, a Hub id, or None.
        revision: Of the Hub repository.
        hub_kwargs: Passed to `hf_hub_download` (token, cache_dir, ...).

    Returns:
        The parsed JSON, or None without a ``pretrained_path``.

    Raises:
        FileNotFoundError: If the directory has no ``config.json``.
        ValueError: If the file is damaged.
    """
    if pretrained_path is None:
        return None
    directory = Path(pretrained_path)
    if directory.is_dir():
        file = directory / CONFIG_NAME
        if not file.is_file():
            raise FileNotFoundError(
                f"{directory} has no {CONFIG_NAME}, expected a checkpoint's 'pretrained_model' directory: "
                "change --policy.path."
            )
    else:
        file = Path(hf_hub_download(str(pretrained_path), CONFIG_NAME, revision=revision, **hub_kwargs))
    try:
        return json.loads(file.read_text())
    except ValueError as error:  # not JSON, or not even text
        raise ValueError(
            f"{file} cannot be read as JSON ({error}): the file is damaged or incomplete; copy or download the "
            "checkpoint again, or change --policy.path."
        ) from error
