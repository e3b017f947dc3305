"""Configuration of ``lawm_multi_task_dit``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lerobot.configs import PreTrainedConfig
from lerobot.policies.multi_task_dit.configuration_multi_task_dit import MultiTaskDiTConfig

from lawm_lerobot.policies.common.configuration import LawmConfig


@PreTrainedConfig.register_subclass("lawm_multi_task_dit")
@dataclass
class LawmMultiTaskDiTConfig(LawmConfig, MultiTaskDiTConfig):
    """LeRobot's multi-task DiT with LAWM pretraining: every field of `MultiTaskDiTConfig` and of `LawmConfig`."""

    plain_class: ClassVar[type[PreTrainedConfig]] = MultiTaskDiTConfig
    needs_state: ClassVar[bool] = True  # LeRobot's own reads it, and whatever width it has

    def chunk_overrides(self) -> dict[str, Any]:
        # The chunk starts at the oldest observation: the present keeps its slot in both stages, and the past is
        # padding, which the loss must then leave out.
        return {
            "horizon": self.n_obs_steps - 1 + self.latent_action.horizon,
            "do_mask_loss_for_padding": True,
        }
