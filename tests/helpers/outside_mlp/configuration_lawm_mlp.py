"""Configuration of ``lawm_mlp``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from helpers.outside_mlp.configuration_mlp import MLPConfig
from lerobot.configs import PreTrainedConfig

from lawm_lerobot.policies.common.configuration import LawmConfig


@PreTrainedConfig.register_subclass("lawm_mlp")
@dataclass
class LawmMLPConfig(LawmConfig, MLPConfig):
    """The MLP with LAWM pretraining."""

    plain_class: ClassVar[type[PreTrainedConfig]] = MLPConfig

    def chunk_overrides(self) -> dict[str, Any]:
        return {"chunk_size": self.latent_action.horizon}
