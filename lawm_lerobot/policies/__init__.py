"""LeRobot's own policies, pretrainable on video without actions. Importing this registers their configs."""

from lawm_lerobot.policies.act.configuration_lawm_act import LawmActConfig

__all__ = ["LawmActConfig"]
