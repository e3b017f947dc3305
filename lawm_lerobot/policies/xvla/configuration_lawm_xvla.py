"""Configuration of ``lawm_xvla``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lerobot.configs import PreTrainedConfig
from lerobot.optim import AdamWConfig
from lerobot.policies.xvla.configuration_xvla import XVLAConfig
from lerobot.utils.constants import IMAGENET_STATS

from lawm_lerobot.policies.vla.configuration import FlowVLAConfig


@PreTrainedConfig.register_subclass("lawm_xvla")
@dataclass
class LawmXVLAConfig(FlowVLAConfig, XVLAConfig):
    """LeRobot's X-VLA with LAWM pretraining: every field of `XVLAConfig` and of `LawmConfig`."""

    plain_class: ClassVar[type[PreTrainedConfig]] = XVLAConfig
    picture_stats: ClassVar[Mapping[str, Any] | None] = IMAGENET_STATS

    def chunk_overrides(self) -> dict[str, Any]:
        # One table has the positions of the actions and, after them, of what the policy sees: a chunk as long as that of
        # finetuning keeps their places. What is not a latent is padding.
        return {"chunk_size": max(self.chunk_size, self.latent_action.horizon), "action_mode": "auto"}

    def wrapped_optimizer_preset(self) -> AdamWConfig:
        """Make the preset that takes groups of parameters, which the policy makes as X-VLA's own preset does."""
        return AdamWConfig(
            lr=self.optimizer_lr,
            betas=self.optimizer_betas,
            eps=self.optimizer_eps,
            weight_decay=self.optimizer_weight_decay,
            grad_clip_norm=self.optimizer_grad_clip_norm,
        )
