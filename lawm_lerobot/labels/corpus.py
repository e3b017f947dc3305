"""The corpus's own true actions, held in memory and looked up by frame.

Letters: B clips, H latent actions in a clip, A robot action dimension, N frames of the corpus.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from lerobot.utils.constants import ACTION
from torch import Tensor

from lawm_lerobot.labels.configuration import EMBODIMENT, LABELS_PATH, LabelsConfig
from lawm_lerobot.method.readout import ActionTargets


@dataclass
class CorpusLabels:
    """Actions of the corpus's chosen episodes, by the dataset's frame index.

    Args:
        actions: (N,A) float32 with the A of the widest embodiment; zero where nothing is known.
        embodiment: (N,) int64 number of the embodiment that acts in a frame, -1 where the action is not used.
        action_dims: The A of every embodiment.
    """

    actions: Tensor
    embodiment: Tensor
    action_dims: list[int]

    @classmethod
    def load(cls, labels: LabelsConfig, dataset_meta: Any) -> CorpusLabels:
        """Read the corpus's actions: numbers only, no pictures.

        Raises:
            ValueError: If the corpus has no actions.
        """
        features, root = dataset_meta.features, Path(dataset_meta.root)
        if ACTION not in features:
            raise ValueError(
                f"labels.fraction is {labels.fraction}, but the dataset has no 'action': leave out "
                "--policy.labels.fraction, or give labelled demonstrations by --policy.labels.repo_id."
            )
        pooled = EMBODIMENT in features
        width = int(features[ACTION]["shape"][0])
        dims = _pooled_action_dims(root) if pooled else [width]
        columns = [ACTION, "episode_index", "index"] + ([EMBODIMENT] if pooled else [])
        total = int(dataset_meta.total_frames)
        actions = torch.zeros(total, width)
        embodiment = torch.full((total,), -1)
        episodes = torch.full((total,), -1)
        for file in sorted((root / "data").glob("*/*.parquet")):
            table = pq.read_table(file, columns=columns)
            index = torch.from_numpy(np.array(table["index"]))
            rows = np.stack([np.atleast_1d(row) for row in table[ACTION].to_numpy()])
            actions[index] = torch.from_numpy(rows.astype(np.float32))
            episodes[index] = torch.from_numpy(np.array(table["episode_index"]))
            ids = np.array(table[EMBODIMENT]) if pooled else np.zeros(len(index), np.int64)
            embodiment[index] = torch.from_numpy(ids.astype(np.int64))
        chosen = _chosen_episodes(episodes, embodiment, labels.fraction, labels.seed)
        embodiment[~torch.isin(episodes, chosen)] = -1
        return cls(actions, embodiment, dims)

    def known(self, head: int) -> Tensor:
        """(n,A) all actions in use of one embodiment."""
        return self.actions[self.embodiment == head, : self.action_dims[head]]

    def targets(self, index: Tensor, horizon: int, stride: int) -> list[ActionTargets]:
        """The actions from x_0 on of the clips whose x_0 has this dataset `index` (B,), where they are known."""
        index = index.reshape(-1).cpu()
        steps = index[:, None] + torch.arange(horizon * stride)  # (B,H*stride)
        steps = steps.clamp_max(len(self.actions) - 1)  # beyond the episode's end nothing counts anyway
        targets = []
        for head, dim in enumerate(self.action_dims):
            rows = (self.embodiment[index] == head).nonzero()[:, 0]  # (n)
            if len(rows):
                actions = self.actions[steps[rows], :dim].unflatten(1, (horizon, stride))  # (n,H,stride,A)
                targets.append(ActionTargets(head, rows, actions))
        return targets


def _pooled_action_dims(root: Path) -> list[int]:
    if not (root / LABELS_PATH).is_file():
        raise ValueError(
            f"{root} pools actions of several embodiments, but {LABELS_PATH}, which tells their dimensions, "
            "is missing: import the dataset again, or leave out --policy.labels.fraction."
        )
    sidecar = json.loads((root / LABELS_PATH).read_text())
    return [int(embodiment["dim"]) for embodiment in sidecar["embodiments"]]


def _chosen_episodes(episodes: Tensor, embodiment: Tensor, fraction: float, seed: int) -> Tensor:
    """Choose the episodes whose actions are used: of each embodiment a fraction of those that have some.

    Args:
        episodes: (N,) int64 episode of every frame, -1 for a frame that no file has.
        embodiment: (N,) int64 embodiment of every frame, -1 for a frame without an action.
        fraction: Share of the labelled episodes to choose; each embodiment keeps at least one.
        seed: Seed of the random choice.

    Returns:
        (n,) int64 numbers of the chosen episodes.
    """
    chosen = []
    for head in embodiment.unique().tolist():
        labelled = episodes[(embodiment == head) & (episodes >= 0)].unique()
        if head < 0 or not len(labelled):
            continue
        count = max(1, math.floor(fraction * len(labelled) + 1e-9))
        order = torch.randperm(len(labelled), generator=torch.Generator().manual_seed(seed + head))
        chosen.append(labelled[order[:count]])
    return torch.cat(chosen) if chosen else episodes.new_zeros(0)
