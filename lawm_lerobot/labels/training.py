"""All true actions of a pretraining run: some of the corpus's own, and a second dataset of demonstrations.

Only training loads them: a checkpoint has all that looking into it needs.

Letters: B clips of the corpus, L labelled clips, H latent actions, T = H + 1, A robot action dimension, N frames of the
corpus, C h w.
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
from lawm_lerobot.labels.demonstrations import Demonstrations, PolicyViews, digest
from lawm_lerobot.method.latent_action import LatentActionConfig
from lawm_lerobot.method.readout import ActionReadout, ActionTargets, LabelBatch


@dataclass
class TrainingLabels:
    """The labels of a pretraining run, drawn step by step.

    Args:
        labels: The configuration of the labels.
        action: The latent actions, which set how clips are cut.
        corpus: The corpus's own labels, if some are used.
        demos: The labelled demonstrations, if there are any.
    """

    labels: LabelsConfig
    action: LatentActionConfig
    corpus: CorpusLabels | None
    demos: Demonstrations | None

    @classmethod
    def load(
        cls,
        labels: LabelsConfig,
        action: LatentActionConfig,
        camera: str,
        image_size: int,
        dataset_meta: Any,
        views: PolicyViews | None = None,
    ) -> TrainingLabels | None:
        """Read all labels that the configuration asks for; None if it asks for none.

        ``dataset_meta`` is LeRobot's metadata of the corpus; the other arguments are those of `Demonstrations`.
        """
        corpus = CorpusLabels.load(labels, dataset_meta) if labels.fraction > 0 else None
        demos = None
        if labels.repo_id is not None:
            demos = Demonstrations(labels, action, camera, image_size, dataset_meta.fps, views)
        return cls(labels, action, corpus, demos) if corpus is not None or demos is not None else None

    @property
    def action_dims(self) -> list[int]:
        """The action dimension of every embodiment: the corpus's, then the demonstrations'."""
        corpus = self.corpus.action_dims if self.corpus is not None else []
        return corpus + ([self.demos.action_dim] if self.demos is not None else [])

    @property
    def digests(self) -> list[str]:
        """Digests of the actions of all episodes in use."""
        corpus = self.corpus.digests if self.corpus is not None else []
        return corpus + (self.demos.digests if self.demos is not None else [])

    def set_statistics(self, readout: ActionReadout) -> None:
        """Give the read-out the means and deviations that standardise the actions."""
        known = (
            [self.corpus.known(head) for head in range(len(self.corpus.action_dims))] if self.corpus else []
        )
        known += [self.demos.actions] if self.demos is not None else []
        for head, actions in enumerate(known):
            if len(actions):
                readout.set_statistics(head, actions.mean(0), actions.std(0, correction=0))

    def batch(self, index: Tensor, like: Tensor, seed: list[int]) -> tuple[LabelBatch, dict[str, Any] | None]:
        """The labels of a training step, and the policy's observation of labelled clips if it has to look at them.

        `index` (B,) is the dataset index of the corpus's clips, `like` (B,T,C,h,w) their frames, whose device and
        dtype the labels take, and `seed` that of the draw of labelled clips.
        """
        horizon, device = self.action.horizon, like.device
        targets: list[ActionTargets] = []
        if self.corpus is not None:
            targets += self.corpus.targets(index, horizon, self.action.stride)
        frames = like.new_zeros(0, *like.shape[1:])
        valid = torch.zeros(0, horizon, dtype=torch.bool)
        observation = None
        if self.demos is not None:
            first = self.demos.draw(self.labels.batch_size, seed)  # (L,)
            pictures, valid, actions = self.demos.clips(first)
            frames = pictures.to(device).to(like.dtype) / 255  # (L,T,C,h,w)
            rows = len(like) + torch.arange(len(first))
            targets.append(ActionTargets(len(self.action_dims) - 1, rows, actions))
            observation = self.demos.policy_batch(first)
        targets = [ActionTargets(t.head, t.rows.to(device), t.actions.to(device)) for t in targets]
        return LabelBatch(targets, frames, valid.to(device)), observation


@dataclass
class CorpusLabels:
    """Actions of the corpus's chosen episodes, by the dataset's frame index.

    Args:
        actions: (N,A) float32 with the A of the widest embodiment; zero where nothing is known.
        embodiment: (N,) int64 number of the embodiment that acts in a frame, -1 where the action is not used.
        action_dims: The A of every embodiment.
        digests: Digests of the actions of the chosen episodes.
    """

    actions: Tensor
    embodiment: Tensor
    action_dims: list[int]
    digests: list[str]

    @classmethod
    def load(cls, labels: LabelsConfig, dataset_meta: Any) -> CorpusLabels:
        """Read the actions of the corpus's episodes in use: numbers only, no pictures.

        Raises ValueError if there are none, or if one is not finite.
        """
        from lawm_lerobot.labels.episodes import episodes_in_use, not_finite

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
        in_use = episodes_in_use(dataset_meta)
        embodiment[~torch.isin(episodes, torch.tensor(in_use))] = -1
        if not (embodiment >= 0).any():
            raise ValueError(
                f"labels.fraction is {labels.fraction}, but none of the {len(in_use)} episodes in use has actions: "
                "change --dataset.episodes, or leave out --policy.labels.fraction."
            )
        chosen = _chosen_episodes(episodes, embodiment, labels.fraction, labels.seed)
        embodiment[~torch.isin(episodes, chosen)] = -1
        digests = []
        for episode in chosen.tolist():
            rows = (episodes == episode).nonzero()[:, 0]
            used = actions[rows, : dims[int(embodiment[rows[0]])]]
            bad = (~used.isfinite().all(1)).nonzero()[:, 0]
            if len(bad):
                raise not_finite(dataset_meta.repo_id, ACTION, episode, bad.numpy(), "--dataset")
            digests.append(digest(used.numpy()))
        return cls(actions, embodiment, dims, digests)

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
    """The episodes (n,) whose actions are used: of each embodiment a fraction of those that have some, at least one.

    `episodes` and `embodiment` (N,) are of every frame, -1 for a frame that no file has or that has no action.
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
