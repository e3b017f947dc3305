"""Pretraining checkpoints and batches to look into them with, outside of a training run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.factory import resolve_delta_timestamps
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies import get_policy_class, make_pre_post_processors

import lawm_lerobot.policies  # noqa: F401  registers the types that a checkpoint may be of
from lawm_lerobot.policies.common.configuration import LawmConfig
from lawm_lerobot.policies.common.finite_actions import require_finite_tensors
from lawm_lerobot.policies.common.policy import LawmPolicy

Preprocessor = Callable[[dict[str, Any]], dict[str, Any]]


def load_pretraining_policy(
    path: str | Path,
    overrides: Sequence[str] = (),
    finite: bool = True,
    revision: str | None = None,
    flag: str = "--policy.path",
) -> LawmPolicy:
    """Load the policy in evaluation mode; ValueError if the checkpoint is not of pretraining.

    ``overrides`` are flags of the policy's config, without ``--policy.`` (``--device=cpu``). Weights must be numbers if
    ``finite``. The ``flag`` that gave the path is named in errors.
    """
    config = PreTrainedConfig.from_pretrained(path, revision=revision, cli_overrides=list(overrides))
    if not isinstance(config, LawmConfig) or not config.pretraining:
        stage = getattr(config, "stage", "none")
        raise ValueError(
            f"{path} holds a {config.type} policy of stage {stage}, expected a lawm_* pretraining checkpoint: "
            f"change {flag}."
        )
    config.pretrained_path = Path(path)
    policy_class = get_policy_class(config.type)
    policy = policy_class.from_pretrained(path, config=config, revision=revision, allow_pretraining=True)
    if finite:
        require_finite_tensors("weights", policy.state_dict())
    return policy


def load_pretraining_checkpoint(
    path: str | Path, overrides: Sequence[str] = (), finite: bool = True
) -> tuple[LawmPolicy, Preprocessor]:
    """The policy as `load_pretraining_policy` loads it, and its preprocessor."""
    policy = load_pretraining_policy(path, overrides, finite)
    config = policy.config
    preprocessor, _ = make_pre_post_processors(
        config, str(path), preprocessor_overrides={"device_processor": {"device": config.device}}
    )
    return policy, preprocessor


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
