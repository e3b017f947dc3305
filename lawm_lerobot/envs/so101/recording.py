"""The SO-101's scripted expert as `lawm_lerobot.envs.recording` records it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lawm_lerobot.envs.recording import ExpertRecording, Robot
from lawm_lerobot.envs.so101.configuration import CAMERAS, FPS, JOINT_KEYS, require_so101

if TYPE_CHECKING:
    from lawm_lerobot.envs.so101.environment import LawmSo101Env


@dataclass(frozen=True)
class So101Recording(ExpertRecording):
    """A recording of the expert that puts the cube on the disc.

    Args:
        noise: Standard deviation in degrees of Gaussian noise on the joints' executed goals.
        cameras, shadows, draw: Arguments of `LawmSo101Env`.
    """

    # Not the driver's `so_follower`, so that examples/so101/check_setup.py tells a rehearsal from the real arm.
    robot = Robot("so101_simulated", state=JOINT_KEYS, action=JOINT_KEYS)
    module = "lawm_lerobot.envs.so101.environment"
    fps = FPS
    moving = len(JOINT_KEYS) - 1

    cameras: Sequence[str] = CAMERAS
    shadows: bool = False
    draw: bool = True
    max_steps: int = 150

    def require_simulator(self) -> None:
        require_so101()

    def make_environment(self, task: str) -> "LawmSo101Env":
        from lawm_lerobot.envs.so101.environment import LawmSo101Env

        return LawmSo101Env(
            self.size,
            tuple(self.cameras),
            shadows=self.shadows,
            episode_length=self.max_steps,
            draw=self.draw,
        )

    def frame(self, observation: dict[str, Any]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        return observation["pixels"], observation["agent_pos"]
