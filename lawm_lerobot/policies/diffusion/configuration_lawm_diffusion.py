"""Configuration of ``lawm_diffusion``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lerobot.configs import PreTrainedConfig
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig

from lawm_lerobot.policies.common.configuration import LawmConfig


@PreTrainedConfig.register_subclass("lawm_diffusion")
@dataclass
class LawmDiffusionConfig(LawmConfig, DiffusionConfig):
    """LeRobot's Diffusion Policy with LAWM pretraining: every field of `DiffusionConfig` and of `LawmConfig`."""

    plain_class: ClassVar[type[PreTrainedConfig]] = DiffusionConfig
    needs_state: ClassVar[bool] = True

    def chunk_overrides(self) -> dict[str, Any]:
        # The chunk starts at the oldest observation, and its length is a multiple of the Unet's downsampling. The
        # present keeps its slot in both stages; what is not a latent is padding, which the loss must then leave out.
        needed = self.n_obs_steps - 1 + self.latent_action.horizon
        factor = 2 ** len(self.down_dims)
        return {"horizon": -(-needed // factor) * factor, "do_mask_loss_for_padding": True}
