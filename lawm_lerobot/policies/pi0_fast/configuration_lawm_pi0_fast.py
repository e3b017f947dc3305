"""Configuration of ``lawm_pi0_fast``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lerobot.configs import PreTrainedConfig
from lerobot.policies.pi0_fast.configuration_pi0_fast import PI0FastConfig

from lawm_lerobot.policies.vla.configuration import VLAConfig


@PreTrainedConfig.register_subclass("lawm_pi0_fast")
@dataclass
class LawmPI0FastConfig(VLAConfig, PI0FastConfig):
    """LeRobot's pi0-FAST with LAWM pretraining: every field of `PI0FastConfig` and of `LawmConfig`."""

    plain_class: ClassVar[type[PreTrainedConfig]] = PI0FastConfig
    state_in_prompt: ClassVar[bool] = True
    robot_conversions: ClassVar[tuple[str, ...]] = ("use_relative_actions",)
    #: The network has an output layer for latents. True of the configs of those that predict latents, and not saved.
    has_latent_head: ClassVar[bool] = False

    def chunk_overrides(self) -> dict[str, Any]:
        return {**super().chunk_overrides(), "has_latent_head": True}
