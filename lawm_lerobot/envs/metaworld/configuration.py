"""`--env.type=lawm_metaworld`: Meta-World v3 rendered small and without shadows, for quick evaluation on a CPU.

Imported at every `lerobot-train --help`, so nothing here imports metaworld or mujoco.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

import gymnasium as gym
import lerobot.envs
from lerobot.envs import EnvConfig

from lawm_lerobot.envs import configuration
from lawm_lerobot.envs.configuration import PicturesEnvConfig

ACTION_DIM = 4  # hand displacement x, y, z and gripper effort, each in [-1, 1]
STATE_DIM = 4  # hand position x, y, z in metres and gripper opening in [0, 1]

# The cameras of Meta-World's scene file. Kept here so that a wrong name is refused before MuJoCo is imported.
FIXED_CAMERAS = ("topview", "corner", "corner2", "corner3")
CAMERAS = (*FIXED_CAMERAS, "behindGripper", "gripperPOV")

# Arguments of LawmMetaworldEnv that change its pictures, besides their size and cameras; a recording has the same.
PICTURES = ("shadows", "camera_shift", "distractors", "body", "variation", "camera_zoom", "draw")

# Looks of the arm, see LawmMetaworldEnv.
BODIES = ("sawyer", "hidden", "recoloured", "rescaled")
MAX_DISTRACTORS = 20  # more leave no room on the table
VARIED_DISTRACTORS = 8  # that a variation of 1 adds
MAX_ZOOM = 10


@cache
def _lerobot_tables() -> dict[str, dict]:
    """LeRobot's own task table, read from its JSON because `lerobot.envs.metaworld` imports MuJoCo."""
    return json.loads((Path(lerobot.envs.__file__).parent / "metaworld_config.json").read_text())


def task_names() -> list[str]:
    """The Meta-World v3 task names LeRobot knows, sorted."""
    return sorted(_lerobot_tables()["TASK_DESCRIPTIONS"])


def parse_tasks(task: str | None, flag: str = "--env.task") -> dict[str, list[str]]:
    """`{suite: [task name, ...]}` for a comma-separated list of task names or difficulty groups.

    A task name is its own suite of one task. A difficulty group ("easy", "medium", "hard", "very_hard") is one suite
    with all its tasks, as in LeRobot's `metaworld` environment.

    Raises:
        ValueError: For an empty list or an unknown name; the message lists the valid names and `flag`.
    """
    groups = _lerobot_tables()["DIFFICULTY_TO_TASKS"]
    names = [name.strip().removeprefix("metaworld-") for name in (task or "").split(",") if name.strip()]
    valid = f"{', '.join(task_names())}; or a whole group: {', '.join(groups)}"
    if not names:
        raise ValueError(f"no Meta-World task given: set {flag} to one or more, comma-separated, of {valid}")
    for name in names:
        if name not in groups and name not in _lerobot_tables()["TASK_DESCRIPTIONS"]:
            raise ValueError(
                f"unknown Meta-World task {name!r}: set {flag} to one or more, comma-separated, of {valid}"
            )
    return {name: groups.get(name, [name]) for name in names}


def parse_cameras(camera: str, flag: str = "--env.camera") -> list[str]:
    """Camera names of a comma-separated list; ValueError names `flag` and the valid ones."""
    return configuration.parse_cameras(camera, CAMERAS, "Meta-World", flag)


def check_variation(
    camera_shift: float,
    distractors: int,
    body: str,
    cameras: Iterable[str],
    prefix: str = "--env.",
    variation: float = 0.0,
    camera_zoom: float = 1.0,
) -> None:
    """Refuse a change of the pictures that does not exist; ValueError names `prefix` and the flag to change."""
    if not math.isfinite(camera_shift) or abs(camera_shift) > 180:
        raise ValueError(
            f"a camera shift of {camera_shift} is not between -180 and 180 degrees: change {prefix}camera_shift"
        )
    if not 1 <= camera_zoom <= MAX_ZOOM:
        raise ValueError(
            f"a camera zoom of {camera_zoom} is not between 1 and {MAX_ZOOM}: change {prefix}camera_zoom"
        )
    for changed, verb, remedy in (
        (camera_shift != 0, "shift", "camera_shift=0"),
        (camera_zoom != 1, "zoom", "camera_zoom=1"),
    ):
        if changed and not set(cameras) & set(FIXED_CAMERAS):
            raise ValueError(
                f"the cameras on the gripper do not {verb}: set {prefix}{remedy}, or {prefix}camera to one or more of "
                f"{', '.join(FIXED_CAMERAS)}"
            )
    if not 0 <= variation <= 1:
        raise ValueError(f"a variation of {variation} is not between 0 and 1: change {prefix}variation")
    if not 0 <= distractors <= MAX_DISTRACTORS:
        raise ValueError(
            f"{distractors} distractors is not between 0 and {MAX_DISTRACTORS}: change {prefix}distractors"
        )
    if distractors + varied_distractors(variation) > MAX_DISTRACTORS:
        raise ValueError(
            f"{distractors} distractors, with the {varied_distractors(variation)} that a variation of {variation} adds, "
            f"are more than {MAX_DISTRACTORS}: lower {prefix}distractors or {prefix}variation"
        )
    if body not in BODIES:
        raise ValueError(f"unknown body {body!r}: set {prefix}body to one of {', '.join(BODIES)}")


def varied_distractors(variation: float) -> int:
    """The number of distractors that a variation, 0 to 1, adds."""
    return round(variation * VARIED_DISTRACTORS)


def require_metaworld() -> None:
    """Raise ImportError with the command that installs the simulator, if it is not installed."""
    configuration.require_installed("Meta-World", ("metaworld", "mujoco"), extra="metaworld")


@EnvConfig.register_subclass("lawm_metaworld")
@dataclass
class LawmMetaworldEnvConfig(PicturesEnvConfig):
    """Meta-World v3 for `lerobot-eval` and `lerobot-train`, quick enough for a CPU.

    Observations are `observation.images.<camera>` (size, size, 3) uint8 and `observation.state` (4,): the same keys
    and shapes that `examples/make_metaworld_dataset.py` records, so no `--rename_map` is needed. One seed gives the
    same object positions as in LeRobot's own `metaworld` environment. An episode ends at the first success or after
    `episode_length` steps; a finished sub-environment of a batch then costs nothing.

    Args:
        task: One or more Meta-World v3 task names or difficulty groups, comma-separated. Each is a suite of its own.
        fps: Frame rate written into evaluation videos. Meta-World steps 80 times a simulated second.
        size: Height and width of an image in pixels, an even number.
        camera: One or more of Meta-World's cameras, comma-separated; the first is the one in evaluation videos.
        episode_length: Number of steps after which an episode has failed. Meta-World's own limit is 500.
        obs_type: `pixels_agent_pos`, or `pixels` for images without the state.
        shadows: Render shadows, reflections and 4x multisampling as LeRobot's environment does; about ten times
            slower on a CPU.
        camera_shift: Angle in degrees by which the fixed cameras are turned around the workspace, anticlockwise from
            above.
        distractors: Number of small coloured things, 0 to 20, that stand on the table without a part in the task.
        body: The look of the arm: `sawyer`, `hidden` (the gripper alone), `recoloured` or `rescaled`.
        variation: Share, 0 to 1, of what differs from one reset to the next. At 1 there are 8 distractors more, the
            fixed cameras are turned by up to 10 degrees to either side of `camera_shift`, and each colour channel is
            multiplied by 0.7 to 1.3.
        camera_zoom: Factor, 1 to 10, by which things appear larger in the pictures of the fixed cameras. The pictures'
            centres stay.
        draw: False leaves the pictures black: a policy that is trained and evaluated so has not looked.
        features: The observations and the action, filled in from the fields above.
        features_map: The names of ``features`` for policies, filled in too.

    `camera_shift`, `distractors`, `body`, `variation` and `camera_zoom` change the pictures only: a seed's states, rewards
    and success stay. They combine freely.
    """

    ACTION_DIM: ClassVar[int] = ACTION_DIM
    STATE_DIM: ClassVar[int] = STATE_DIM

    task: str = "push-v3"
    fps: int = 80
    camera: str = "corner2"
    camera_shift: float = 0.0
    distractors: int = 0
    body: str = "sawyer"
    variation: float = 0.0
    camera_zoom: float = 1.0

    @property
    def cameras(self) -> list[str]:
        return parse_cameras(self.camera)

    def _check(self) -> None:
        parse_tasks(self.task)
        super()._check()
        check_variation(
            self.camera_shift,
            self.distractors,
            self.body,
            self.cameras,
            variation=self.variation,
            camera_zoom=self.camera_zoom,
        )

    @property
    def gym_kwargs(self) -> dict:
        same = ("size", "obs_type", "episode_length", "fps", *PICTURES)
        return {"cameras": self.cameras} | {name: getattr(self, name) for name in same}

    def create_envs(
        self, n_envs: int, use_async_envs: bool = False
    ) -> dict[str, dict[int, gym.vector.VectorEnv]]:
        """`{suite: {task_id: VectorEnv}}`; ImportError says what to install when the simulator is missing."""
        require_metaworld()
        from lawm_lerobot.envs.metaworld.environment import create_metaworld_envs

        return create_metaworld_envs(parse_tasks(self.task), n_envs, self.gym_kwargs, use_async_envs)
