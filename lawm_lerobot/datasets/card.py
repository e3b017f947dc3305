"""The dataset's README and its way to the Hub."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, HfApi
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.utils import create_lerobot_dataset_card

logger = logging.getLogger(__name__)

TAGS = ["lawm", "video", "unlabelled"]


def write_card(root: Path, summary: dict[str, Any], license: str | None) -> None:
    """Write README.md: LeRobot's card, then what was imported from where and under which licence notes."""
    info = LeRobotDatasetMetadata(summary["repo_id"], root=root).info
    card = create_lerobot_dataset_card(
        tags=TAGS, dataset_info=info, license=license or "other", repo_id=summary["repo_id"]
    )
    (root / "README.md").write_text(f"{card}\n{_sources_text(summary, license)}", encoding="utf-8")


def _sources_text(summary: dict[str, Any], license: str | None) -> str:
    lines = [
        "",
        "## Where the video comes from",
        "",
        f"{summary['episodes']} episodes, {summary['hours']:.2f} hours of video at {summary['fps']} frames per second and "
        f"{summary['height']}x{summary['width']} pixels, without action labels unless the features above list `action`. "
        "Resampled, resized and re-compressed from the sources below with `lawm-import-videos`.",
        "",
        "| source | episodes | hours | licence note |",
        "|---|---|---|---|",
    ]
    for source in summary["sources"]:
        notes = "; ".join(source["license_notes"]) or "nothing imported"
        cells = [source["name"], str(source["episodes"]), f"{source['hours']:.2f}", notes]
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    lines += [
        "",
        "`meta/lawm_provenance.parquet` has the source file, time range, caption source and licence note of every "
        "episode. The notes are what the importer was told or knows of the source, not legal advice; whoever passes this "
        "dataset on must check that the sources allow it.",
    ]
    if license is None:
        lines.append("No licence was stated for the collection as a whole.")
    return "\n".join(lines) + "\n"


def push(repo_id: str, root: Path, license: str | None, private: bool | None) -> None:
    """Upload with LeRobot's `push_to_hub`, then put this importer's card in place of the general one.

    LeRobot's card upload asks a fixed address to validate the card, which fails behind a mirror although the data are
    uploaded by then; the version tag that it would set afterwards is set here.
    """
    text = (root / "README.md").read_text(encoding="utf-8")
    dataset = LeRobotDataset(repo_id, root=root)
    api = HfApi()
    uploaded_by_lerobot = True
    try:
        dataset.push_to_hub(tags=TAGS, license=license or "other", private=private)
    except Exception as error:
        if not api.repo_exists(repo_id, repo_type="dataset") or not api.file_exists(
            repo_id, "meta/info.json", repo_type="dataset"
        ):
            raise
        uploaded_by_lerobot = False
        logger.warning("The data are uploaded, but the Hub's check of the card failed: %s", error)
    DatasetCard(text)  # a card that does not parse should fail here, not on the Hub
    api.upload_file(
        path_or_fileobj=text.encode("utf-8"), path_in_repo="README.md", repo_id=repo_id, repo_type="dataset"
    )
    from lerobot.datasets.dataset_metadata import CODEBASE_VERSION

    if uploaded_by_lerobot:
        api.delete_tag(repo_id, tag=CODEBASE_VERSION, repo_type="dataset")
    api.create_tag(repo_id, tag=CODEBASE_VERSION, repo_type="dataset", exist_ok=True)
