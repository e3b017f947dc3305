"""The SO-101's scripted expert as `lawm_lerobot.envs.recording` records it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lawm_lerobot.envs.recording import Recording, Robot
from lawm_lerobot.envs.so101.configuration import CAMERAS, JOINT_KEYS, require_so101

#: Not the driver's `so_follower`, so that `examples/so101/check_setup.py` tells a rehearsal from the real arm.
SO101 = Robot("so101_simulated", state=JOINT_KEYS, action=JOINT_KEYS)


@dataclass(frozen=True)
class So101Recording(Recording):
    """A recording of the expert that puts the cube on the disc.

    Args:
        tasks, episodes_per_task, seed, record_executed, max_steps, frames_after_success, success_only: See `Recording`.
        size, cameras, shadows: Arguments of `LawmSo101Env`.
        noise: Standard deviation in degrees of Gaussian noise on the joints' executed goals.
    """

    cameras: Sequence[str] = CAMERAS
    max_steps: int = 150

    simulator: ClassVar[str] = "lawm_lerobot.envs.so101.environment"

    def require(self) -> None:
        require_so101()

    def make_env(self, task: str) -> Any:
        from lawm_lerobot.envs.so101.environment import LawmSo101Env

        return LawmSo101Env(
            self.size, tuple(self.cameras), shadows=self.shadows, episode_length=self.max_steps
        )
