"""All true actions of a pretraining run: some of the corpus's own, and a second dataset of demonstrations.

Only training loads them: a checkpoint has all that looking into it needs.

Letters: B clips of the corpus, L labelled clips, H latent actions, T = H + 1, C h w.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lawm_lerobot.labels.configuration import LabelsConfig
from lawm_lerobot.labels.corpus import CorpusLabels
from lawm_lerobot.labels.demonstrations import Demonstrations, PolicyViews
from lawm_lerobot.method.latent_action import LatentActionConfig
from lawm_lerobot.method.readout import ActionReadout, ActionTargets, LabelBatch


class TrainingLabels:
    """The labels of a pretraining run, drawn step by step.

    Args:
        labels: The configuration of the labels.
        action: The latent actions, which set how clips are cut.
        corpus: The corpus's own labels, if some are used.
        demos: The labelled demonstrations, if there are any.
    """

    def __init__(
        self,
        labels: LabelsConfig,
        action: LatentActionConfig,
        corpus: CorpusLabels | None,
        demos: Demonstrations | None,
    ) -> None:
        self.labels, self.action, self.corpus, self.demos = labels, action, corpus, demos

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

        Raises:
            ValueError: If the labels do not fit the corpus.
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
        """Draw the labels of a training step.

        Args:
            index: (B,) dataset index of the corpus's clips.
            like: (B,T,C,h,w) the corpus's frames, whose device and dtype the labels take.
            seed: Seed of the draw of labelled clips.

        Returns:
            The labels, and the policy's observation of the labelled clips if it has to look at them.
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
