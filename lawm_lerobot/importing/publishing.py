"""The dataset's card and its way to the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lerobot.datasets.dataset_metadata import CODEBASE_VERSION, LeRobotDatasetMetadata

from lawm_lerobot.hub.cards import dataset_card
from lawm_lerobot.hub.errors import hub_errors
from lawm_lerobot.hub.upload import upload


def write_card(root: Path, summary: dict[str, Any], license: str | None) -> None:
    """Write README.md: what the dataset holds, from where, and under which licence notes."""
    info = LeRobotDatasetMetadata(summary["repo_id"], root=root).info
    dataset_card(summary["repo_id"], info, summary, license).save(root / "README.md")


def push(repo_id: str, root: Path, private: bool | None) -> str:
    """Upload with the card that lies there, and tag the version that LeRobot looks for.

    LeRobot's own `push_to_hub` would put its general card in place of this one, and fails where the fixed address that
    checks cards cannot be reached.

    Returns:
        The repository's address.

    Raises:
        HubError: In one sentence; the dataset on disk is untouched.
        ValueError: If the repository must be private and is public, or the Hub refuses the card.
    """
    again = f"lawm-import-videos --repo_id={repo_id} --root={root} --push_to_hub=true"
    if private:
        again += " --private=true"
    with hub_errors(
        f"Pushing to {repo_id}", "--repo_id", f"the dataset is whole in {root}, and `{again}` pushes it again"
    ):
        return upload(
            root,
            repo_id,
            private=private,
            message="Upload dataset, imported by lawm-import-videos",
            repo_type="dataset",
            ignore=["images/"],
            tag=CODEBASE_VERSION,
        )
