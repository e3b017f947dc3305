"""Configuration of ``lawm_vqbet``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lerobot.configs import PreTrainedConfig
from lerobot.policies.vqbet.configuration_vqbet import VQBeTConfig

from lawm_lerobot.policies.common.configuration import LawmConfig


@PreTrainedConfig.register_subclass("lawm_vqbet")
@dataclass
class LawmVqbetConfig(LawmConfig, VQBeTConfig):
    """LeRobot's VQ-BeT with LAWM pretraining: every field of `VQBeTConfig` and of `LawmConfig`."""

    plain_class: ClassVar[type[PreTrainedConfig]] = VQBeTConfig
    needs_state: ClassVar[bool] = True
    whole_chunks: ClassVar[bool] = True

    def chunk_overrides(self) -> dict[str, Any]:
        # Its tokens of the past predict chunks of the past, for which there are no latents.
        return {
            "n_obs_steps": 1,
            "action_chunk_size": self.latent_action.horizon + 1 - self.n_action_pred_token,
        }

    @property
    def drop_n_last_frames(self) -> int:
        """LeRobot's field: the frames at an episode's end that no sample begins with."""
        return self.shortest_clip if self.pretraining else 0
