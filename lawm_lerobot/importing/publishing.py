"""The dataset's card and its way to the Hub."""

from __future__ import annotations

from pathlib import Path

from lerobot.datasets.dataset_metadata import CODEBASE_VERSION
from lerobot.datasets.io_utils import load_info

from lawm_lerobot.hub.cards import dataset_card
from lawm_lerobot.hub.errors import HubError, hub_errors
from lawm_lerobot.hub.upload import upload
from lawm_lerobot.importing.config import ImportConfig
from lawm_lerobot.importing.segments import ImportSettingsError, readable
from lawm_lerobot.importing.summary import SUMMARY_NAME, ImportSummary


def write_card(root: Path, summary: ImportSummary, license: str | None) -> None:
    """Write README.md: what the dataset holds, from where, and under which licence notes."""
    dataset_card(summary.repo_id, load_info(root), summary.to_dict(), license).save(root / "README.md")


def push(repo_id: str, root: Path, private: bool | None) -> None:
    """Upload with the card that lies there, and tag the version that LeRobot looks for.

    LeRobot's own `push_to_hub` would put its general card in place of this one, and fails where the fixed address that
    checks cards cannot be reached. Whatever goes wrong, the dataset on disk is untouched.
    """
    again = f"lawm-import-videos --repo_id={repo_id} --root={root} --push_to_hub=true"
    if private:
        again += " --private=true"
    hint = f"the dataset is whole in {root}, and `{again}` pushes it again"
    try:
        with hub_errors(f"Pushing to {repo_id}", "--repo_id", hint):
            address = upload(
                root,
                repo_id,
                private=private,
                message="Upload dataset, imported by lawm-import-videos",
                repo_type="dataset",
                ignore=["images/"],
                tag=CODEBASE_VERSION,
            )
    except (HubError, ValueError) as error:
        raise ImportSettingsError(" ".join(str(error).split())) from error
    print(f"Pushed {readable(str(root))} to {address}")


def push_again(config: ImportConfig) -> ImportSummary:
    """Push a dataset that was imported before."""
    root = config.dataset_root()
    summary = ImportSummary.read(root / SUMMARY_NAME)
    if summary is None:
        raise ImportSettingsError(
            f"--root={root} holds no imported dataset to push, and there is no source to import one from: set "
            "--source.type and --source.path, or another --root."
        )
    if config.repo_id != summary.repo_id:
        summary.repo_id = config.repo_id
        write_card(root, summary, config.license)  # its commands name the repository
        summary.write(root / SUMMARY_NAME, config.summary_path)
    push(config.repo_id, root, config.private)
    return summary
