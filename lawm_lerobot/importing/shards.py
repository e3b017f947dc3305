"""Parts of an import that several machines did, and how they become one dataset."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from lawm_lerobot.importing.config import ImportConfig
from lawm_lerobot.importing.segments import ImportSettingsError
from lawm_lerobot.importing.summary import SUMMARY_NAME, ImportSummary
from lawm_lerobot.labels.configuration import LABELS_PATH


def shard_root(root: Path, index: int, count: int) -> Path:
    """Folder of a part of an import until it is merged."""
    return root.with_name(root.name + ".shards") / f"shard-{index:05d}-of-{count:05d}"


def empty_summary(root: Path) -> Path:
    """Summary of an import that gave no dataset to put it into."""
    return root.with_name(f"{root.name}.{SUMMARY_NAME}")


def merge_shards(config: ImportConfig) -> ImportSummary:
    """Put all parts together with LeRobot's `aggregate_datasets`; the parts stay."""
    from lerobot.datasets.aggregate import aggregate_datasets

    from lawm_lerobot.hub.provenance import merged_provenance, write_provenance
    from lawm_lerobot.importing.publishing import push, write_card

    root = config.dataset_root()
    if root.exists():
        raise ImportSettingsError(f"--root={root} exists already: choose another, or delete it first.")
    parts = [shard_root(root, index, config.shard.count) for index in range(config.shard.count)]
    summaries = [_part_summary(part, index, config.shard.count) for index, part in enumerate(parts)]
    filled = [part for part in parts if (part / SUMMARY_NAME).is_file()]
    if not filled:
        raise ImportSettingsError(
            f"All {config.shard.count} parts of {root} are empty; there is nothing to merge."
        )
    target = root.with_name(root.name + ".merging")
    shutil.rmtree(target, ignore_errors=True)
    aggregate_datasets([config.repo_id] * len(filled), config.repo_id, roots=filled, aggr_root=target)
    write_provenance(list(merged_provenance(filled)), target)
    if (filled[0] / LABELS_PATH).is_file():
        shutil.copy(filled[0] / LABELS_PATH, target / LABELS_PATH)
    merged = ImportSummary.merge(summaries)
    write_card(target, merged, config.license)
    merged.write(target / SUMMARY_NAME, config.summary_path)
    os.rename(target, root)
    merged.print()
    print(f"Wrote {root}")
    if config.push_to_hub:
        push(config.repo_id, root, config.private)
    return merged


def _part_summary(part: Path, index: int, count: int) -> ImportSummary:
    summary = ImportSummary.read(part / SUMMARY_NAME) or ImportSummary.read(empty_summary(part))
    if summary is None:
        raise ImportSettingsError(
            f"Part {index} of {count} is not finished ({part} is missing): run it with --shard.index={index}, or set "
            "--shard.count to the number of parts there are."
        )
    return summary
