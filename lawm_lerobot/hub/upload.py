"""Upload of a folder to the Hub in one commit."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from huggingface_hub import HfApi
from huggingface_hub.errors import RevisionNotFoundError

logger = logging.getLogger(__name__)


class _Api(HfApi):
    """The client, for which a card that cannot be checked is no reason to publish nothing."""

    def _validate_yaml(self, *args: Any, **kwargs: Any) -> None:
        try:
            super()._validate_yaml(*args, **kwargs)
        except (httpx.HTTPError, json.JSONDecodeError) as error:
            reason = str(error).splitlines()[0]
            logger.warning(
                f"The Hub's check of the card could not be asked ({reason}); it is published unchecked."
            )


def upload(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None,
    message: str,
    repo_type: str = "model",
    ignore: Sequence[str] = (),
    tag: str | None = None,
) -> str:
    """Publish a folder in one commit, in a repository that is made if need be, and return its address.

    Args:
        folder: The folder to publish.
        repo_id: The repository to publish it in.
        private: True makes the repository private, None leaves that to the Hub's default; one that exists keeps its
            setting.
        message: The commit message.
        repo_type: The kind of repository, ``model`` or ``dataset``.
        ignore: Patterns of files that are left out.
        tag: A tag that is moved to the new commit.

    Raises:
        ValueError: If it must be private and exists in public, or if the Hub refuses the card.
    """
    api = _Api()
    address = api.create_repo(repo_id, private=private, repo_type=repo_type, exist_ok=True)
    if private and not api.repo_info(repo_id, repo_type=repo_type).private:
        raise ValueError(
            f"{repo_id} exists and is public, but a private repository was asked for: choose another repo_id, or "
            "make it private on its page."
        )
    api.upload_folder(
        repo_id=repo_id,
        repo_type=repo_type,
        folder_path=folder,
        commit_message=message,
        ignore_patterns=[*ignore],
    )
    if tag is not None:
        with contextlib.suppress(RevisionNotFoundError):
            api.delete_tag(repo_id, tag=tag, repo_type=repo_type)
        api.create_tag(repo_id, tag=tag, repo_type=repo_type)
    return str(address)
