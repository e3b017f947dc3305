"""Configuration of ``lawm_smolvla``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lerobot.configs import PreTrainedConfig
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig

from lawm_lerobot.policies.vla.configuration import FlowVLAConfig


@PreTrainedConfig.register_subclass("lawm_smolvla")
@dataclass
class LawmSmolVLAConfig(FlowVLAConfig, SmolVLAConfig):
    """LeRobot's SmolVLA with LAWM pretraining: every field of `SmolVLAConfig` and of `LawmConfig`."""

    plain_class: ClassVar[type[PreTrainedConfig]] = SmolVLAConfig
    robot_conversions: ClassVar[tuple[str, ...]] = ("adapt_to_pi_aloha",)
