"""Configuration of ``lawm_pi0``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lerobot.configs import PreTrainedConfig
from lerobot.policies.pi0.configuration_pi0 import PI0Config

from lawm_lerobot.policies.vla.configuration import FlowVLAConfig


@PreTrainedConfig.register_subclass("lawm_pi0")
@dataclass
class LawmPI0Config(FlowVLAConfig, PI0Config):
    """LeRobot's pi0 with LAWM pretraining: every field of `PI0Config` and of `LawmConfig`."""

    plain_class: ClassVar[type[PreTrainedConfig]] = PI0Config
    robot_conversions: ClassVar[tuple[str, ...]] = ("use_relative_actions",)
