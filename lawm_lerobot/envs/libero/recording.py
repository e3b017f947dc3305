"""Recordings of the scripted expert in LIBERO, see `lawm_lerobot/envs/recording.py`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lerobot.processor import LiberoProcessorStep

from lawm_lerobot.envs.libero.installation import require_libero
from lawm_lerobot.envs.recording import ExpertRecording, Robot

if TYPE_CHECKING:
    from lawm_lerobot.envs.libero.environment import LawmLiberoEnv


@dataclass(frozen=True)
class LiberoRecording(ExpertRecording):
    """The settings of a recording in LIBERO, whose tasks are named `<suite>/<task id>`.

    Args:
        spread, shadows, draw: Arguments of `LawmLiberoEnv`.
    """

    robot = Robot(
        "panda",
        state=("x", "y", "z", "axis_angle_x", "axis_angle_y", "axis_angle_z", "finger_left", "finger_right"),
        action=("x", "y", "z", "turn_x", "turn_y", "turn_z", "gripper"),
    )
    module = "lawm_lerobot.envs.libero.environment"
    fps = 20  # LIBERO's own control frequency

    max_steps: int = 280
    frames_after_success: int = 10  # the thing counts as placed before it is let go
    spread: float = 1.0
    shadows: bool = False
    draw: bool = True

    def require_simulator(self) -> None:
        require_libero()

    def make_environment(self, task: str) -> "LawmLiberoEnv":
        from lawm_lerobot.envs.libero.environment import LawmLiberoEnv

        suite, _, task_id = task.partition("/")
        return LawmLiberoEnv(
            suite,
            int(task_id),
            spread=self.spread,
            shadows=self.shadows,
            draw=self.draw,
            obs_type="pixels_agent_pos",
            observation_height=self.size,
            observation_width=self.size,
            episode_length=self.max_steps,
        )

    def frame(self, observation: dict[str, Any]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        # As LeRobot's processor for LIBERO, which turns its pictures by half a turn and shortens its state.
        images = {
            camera: np.ascontiguousarray(image[::-1, ::-1]) for camera, image in observation["pixels"].items()
        }
        robot = observation["robot_state"]
        batch = {
            "eef": {key: torch.from_numpy(robot["eef"][key])[None] for key in ("pos", "quat")},
            "gripper": {"qpos": torch.from_numpy(robot["gripper"]["qpos"])[None]},
        }
        processed = LiberoProcessorStep().observation({"observation.robot_state": batch})
        return images, processed["observation.state"][0].numpy()
