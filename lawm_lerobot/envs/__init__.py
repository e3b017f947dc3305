"""Simulated environments for LeRobot's `lerobot-eval` and `lerobot-train`.

Importing this package registers `--env.type=lawm_metaworld` and `--env.type=lawm_libero` and nothing more: Meta-World,
LIBERO and MuJoCo are imported when an environment is made.
"""

from lawm_lerobot.envs.configuration_libero import LawmLiberoEnvConfig
from lawm_lerobot.envs.configuration_metaworld import LawmMetaworldEnvConfig

__all__ = ["LawmLiberoEnvConfig", "LawmMetaworldEnvConfig"]
