"""Configuration of ``lawm_act``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lerobot.configs import PreTrainedConfig
from lerobot.policies.act.configuration_act import ACTConfig

from lawm_lerobot.method.latent_action import POLICY
from lawm_lerobot.policies.common.configuration import LawmConfig


@PreTrainedConfig.register_subclass("lawm_act")
@dataclass
class LawmActConfig(LawmConfig, ACTConfig):
    """LeRobot's ACT with LAWM pretraining: every field of `ACTConfig` and of `LawmConfig`."""

    plain_class: ClassVar[type[PreTrainedConfig]] = ACTConfig

    def chunk_overrides(self) -> dict[str, Any]:
        horizon = self.latent_action.horizon
        overrides: dict[str, Any] = {
            "chunk_size": horizon,
            "n_action_steps": horizon,
            "temporal_ensemble_coeff": None,
        }
        if self.latent_action.source == POLICY:
            # ACT's VAE encodes the actions it is to imitate; here there are none to encode.
            overrides["use_vae"] = False
        return overrides
