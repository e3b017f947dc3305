"""The finetuning half of every ``lawm_*`` policy: the wrapped policy's own loss, with video beside it if wanted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor

from lawm_lerobot.policies.common.checkpointed import CheckpointedPolicy
from lawm_lerobot.policies.common.compat import is_main_process
from lawm_lerobot.policies.common.loading import Source
from lawm_lerobot.policies.common.observation_dropout import drop_samples, normalised_mean

if TYPE_CHECKING:
    from lawm_lerobot.policies.common.cotraining import CoTraining


class FinetuningPolicy(CheckpointedPolicy):
    """The half of `LawmPolicy` that is finetuned, mixed in front of a LeRobot policy.

    Args:
        cotraining: The video's part of the training; only in a finetuning with ``--policy.video``.
    """

    cotraining: CoTraining | None = None
    _mean_state: Tensor | None = None

    def estimate_chunk(self, batch: dict[str, Any]) -> Tensor:
        """Predict a chunk (B,slots,A), or of latents in pretraining, in one pass of the network.

        A policy that denoises in many passes overrides this, to be asked often at little cost.
        """
        return self.predict_action_chunk(batch)

    def start_finetuning(self, source: Source | None, stats: dict[str, Any] | None, meta: Any) -> None:
        """Prepare a training, with the weights in place; the arguments are those of `CoTraining`."""
        config = self.config
        if config.state_dropout and config.robot_state_feature is not None:
            self._mean_state = normalised_mean(config, OBS_STATE, stats)
        if config.video.repo_id is not None:
            # Imported late: it reads datasets, which a policy that controls a robot does not.
            from lawm_lerobot.policies.common.cotraining import CoTraining
            from lawm_lerobot.policies.common.latent_twin import OwnParameters

            self.cotraining = CoTraining(self, source, stats, meta)
            self.latents_own = OwnParameters(self.cotraining.own)

    def finetuning_loss(self, batch: dict[str, Any], *args: Any, **kwargs: Any) -> tuple[Tensor, dict | None]:
        """The wrapped policy's loss, () or (B) as ``reduction`` asks for, plus the weighted one on the video."""
        if self.training and self._mean_state is not None:
            share = self.config.state_dropout
            batch = {**batch, OBS_STATE: drop_samples(batch[OBS_STATE], self._mean_state, share)}
        loss, metrics = super().forward(batch, *args, **kwargs)
        if self.cotraining is None or not self.training:
            return loss, metrics
        video_loss = self.cotraining.loss(len(batch[ACTION]))
        return loss + self.config.video.weight * video_loss, {
            **(metrics or {}),
            "video_loss": video_loss.item(),
        }

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # The twin is no part of the module, so that its tensors have one name; it follows to another device.
        super()._apply(fn, recurse)
        if self.cotraining is not None:
            self.cotraining.twin._apply(fn, recurse)
        return self

    def _save_pretrained(self, save_directory: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        super()._save_pretrained(save_directory, state_dict)
        if self.cotraining is not None and is_main_process():
            self.cotraining.save(save_directory)
