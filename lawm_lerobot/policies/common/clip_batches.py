"""Preprocessed pretraining batches from a dataset, outside of a training run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.factory import resolve_delta_timestamps
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lawm_lerobot.policies.common.configuration import LawmConfig
from lawm_lerobot.policies.common.policy import LawmPolicy
from lawm_lerobot.policies.common.pretraining_checkpoint import Preprocessor


def open_clips(
    config: LawmConfig, repo_id: str, root: Path | None, tolerance_s: float = 1e-4
) -> LeRobotDataset:
    """The dataset, each of whose items is a pretraining clip that starts there."""
    meta = LeRobotDatasetMetadata(repo_id, root=root)
    deltas = resolve_delta_timestamps(config, meta)
    return LeRobotDataset(
        repo_id, root=root, delta_timestamps=deltas, return_uint8=True, tolerance_s=tolerance_s
    )


def preprocessed_batches(
    dataset: LeRobotDataset, starts: Sequence[int], preprocessor: Preprocessor, batch_size: int = 32
) -> Iterator[dict[str, Any]]:
    """Preprocessed pretraining batches of the clips that start at given frames of `open_clips`."""
    loader = torch.utils.data.DataLoader(torch.utils.data.Subset(dataset, starts), batch_size=batch_size)
    for batch in loader:
        for key in dataset.meta.camera_keys:
            if batch[key].dtype == torch.uint8:  # from video; pictures come as floats already
                batch[key] = batch[key].float() / 255
        yield preprocessor(batch)


def pretraining_batches(
    policy: LawmPolicy,
    preprocessor: Preprocessor,
    repo_id: str,
    root: Path | None,
    clips: int,
    batch_size: int = 32,
) -> Iterator[dict[str, Any]]:
    """Preprocessed pretraining batches of clips spaced evenly over a dataset."""
    dataset = open_clips(policy.config, repo_id, root)
    starts = evenly_spaced(len(dataset), clips)
    return preprocessed_batches(dataset, starts, preprocessor, min(batch_size, clips))


def evenly_spaced(total: int, count: int) -> list[int]:
    """``count`` indices spaced evenly over ``range(total)``."""
    # Half a step in from either end: the very first and last frames of a recording are the least typical.
    return ((np.arange(count) + 0.5) * total / count).astype(int).tolist()
