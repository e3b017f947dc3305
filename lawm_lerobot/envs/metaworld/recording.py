"""Recordings of Meta-World's scripted experts, see `recording.py`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lawm_lerobot.envs.metaworld.configuration import PICTURES, require_metaworld
from lawm_lerobot.envs.recording import ExpertRecording, Robot

if TYPE_CHECKING:
    from lawm_lerobot.envs.metaworld.environment import LawmMetaworldEnv


@dataclass(frozen=True)
class MetaworldRecording(ExpertRecording):
    """The settings of a recording in Meta-World v3.

    Args:
        cameras, shadows, camera_shift, distractors, body, variation, camera_zoom, draw: Those of `LawmMetaworldEnv`.
    """

    robot = Robot(
        "metaworld_sawyer",
        state=("hand_x", "hand_y", "hand_z", "gripper_opening"),
        action=("hand_dx", "hand_dy", "hand_dz", "gripper_effort"),
    )
    module = "lawm_lerobot.envs.metaworld.environment"
    fps = 80

    cameras: Sequence[str] = ("corner2",)
    shadows: bool = False
    camera_shift: float = 0.0
    distractors: int = 0
    body: str = "sawyer"
    variation: float = 0.0
    camera_zoom: float = 1.0
    draw: bool = True

    def require_simulator(self) -> None:
        require_metaworld()

    def make_environment(self, task: str) -> "LawmMetaworldEnv":
        from lawm_lerobot.envs.metaworld.environment import LawmMetaworldEnv

        arguments = {name: getattr(self, name) for name in ("size", *PICTURES)}
        return LawmMetaworldEnv(task, cameras=tuple(self.cameras), episode_length=self.max_steps, **arguments)

    def frame(self, observation: dict[str, Any]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        return observation["pixels"], observation["agent_pos"].astype(np.float32)
