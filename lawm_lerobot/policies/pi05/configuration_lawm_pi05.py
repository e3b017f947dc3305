"""Configuration of ``lawm_pi05``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lerobot.configs import PreTrainedConfig
from lerobot.policies.pi05.configuration_pi05 import PI05Config

from lawm_lerobot.policies.vla.configuration import FlowVLAConfig


@PreTrainedConfig.register_subclass("lawm_pi05")
@dataclass
class LawmPI05Config(FlowVLAConfig, PI05Config):
    """LeRobot's pi0.5 with LAWM pretraining: every field of `PI05Config` and of `LawmConfig`."""

    plain_class: ClassVar[type[PreTrainedConfig]] = PI05Config
    state_in_prompt: ClassVar[bool] = True
    robot_conversions: ClassVar[tuple[str, ...]] = ("use_relative_actions",)
