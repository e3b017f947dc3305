"""LeRobot's Meta-World environment with small, quick pictures.

LeRobot's `MetaworldEnv` draws 480x480 pixels with shadows, reflections and multisampling; on a CPU the shadow map
alone is nine tenths of the time. This subclass draws at the requested size with all three off. Measured on push-v3 with
Mesa's software renderer (EGL, MuJoCo 3.16), as calls of `step` per second of CPU time, median of four rounds:

    environment       pixels   steps per CPU second
    LeRobot's            480                    9.9
    this                 128                   91     (7.4 with shadows=True)
    this                  96                  102
    this                  64                  104

What is left is the arm's 67 000 triangles (9 ms) and the physics (1 ms), so smaller pictures gain no more, and
body="hidden" doubles the steps.
"""

import sys
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np

from lawm_lerobot.envs.rendering import make_renderer, mujoco

if mujoco.mjNEQDATA != 11:
    raise ImportError(
        f"Meta-World 3.0.0 cannot read the models of mujoco {mujoco.__version__}: pip install 'mujoco<3.17'"
    )

from lerobot.envs.metaworld import MetaworldEnv
from metaworld import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE

from lawm_lerobot.envs.metaworld.configuration import STATE_DIM, check_variation
from lawm_lerobot.envs.metaworld.scenery import Scenery, change_body, draw_scenery, turn_cameras, zoom_cameras
from lawm_lerobot.envs.vectorizing import vectorize

# Said by the scripted experts at nearly every step: their raw actions are larger than 1. expert_action() clips them.
warnings.filterwarnings("ignore", message=r"Constant\(s\) may be too high", module="metaworld")

# These hang head down in Meta-World's scene file: their picture is turned by 180 degrees.
UPSIDE_DOWN_CAMERAS = ("corner", "corner2", "corner3")

# Closer than in Meta-World's scene file; LeRobot moves the camera to the same place, and so do its public datasets.
CORNER2_POSITION = (0.75, 0.075, 0.7)  # metres


class LawmMetaworldEnv(MetaworldEnv):
    """One Meta-World v3 task, observed as LeRobot's policies expect it.

    Observation: `pixels` {camera: (size, size, 3) uint8, upright}; `agent_pos` (4,) float64, the hand's x, y, z in
    metres and the gripper's opening in [0, 1]. Action: (4,) float32 in [-1, 1], the hand's displacement and the
    gripper's effort. The episode terminates at the first success and is truncated after `episode_length` steps;
    `info["is_success"]` and, at the end, `info["final_info"]["is_success"]` say which. Unlike LeRobot's class it
    does not reset itself then, so a recorder can go on stepping for a few frames.

    The simulation and its graphics context are made at the first `reset` (in the worker process of an `AsyncVectorEnv`),
    and again if the environment is used after `close` (as `lerobot-train` does between two evaluations).

    The arguments are those of `LawmMetaworldEnvConfig`. On some of them:

    Args:
        task: Meta-World's name of one task.
        cameras: Cameras of Meta-World; the first is the one in evaluation videos.
        camera_shift: Angle in degrees by which the fixed cameras are turned around the vertical axis through the
            workspace's centre, anticlockwise from above: the tripod stands elsewhere and still looks at the table.
            Cameras on the gripper stay there.
        distractors: Number of boxes, cylinders and spheres, 3 to 6 cm wide, that stand on the table, at other places
            in other colours in every episode; one seed gives the same. They keep clear of the task's objects and of
            the line from object to goal if there is room. Nothing collides with them.
        body: `sawyer`; `hidden`, the gripper alone, as a hand that moves things; `recoloured`, blue links; or
            `rescaled`, links half as thick again. The gripper is always Sawyer's.
        variation: Share, 0 to 1, of what may differ from one reset to the next: see `draw_scenery`. One seed gives the
            same scenery, before or after other episodes, in recording and in evaluation.
        camera_zoom: Factor, 1 to 10, by which things appear larger in the pictures of the fixed cameras, whose field of
            view narrows about the picture's centre. Cameras on the gripper see what they saw.
    """

    metadata: dict[str, Any]
    observation_space: gym.spaces.Dict
    _env: Any  # Meta-World's environment, or None before the first reset and after close
    # Positions (cameras, 3) and orientations (cameras, 4), before an episode's variation turns the cameras.
    _camera_poses: tuple[np.ndarray, np.ndarray]

    def __init__(
        self,
        task: str,
        size: int = 128,
        cameras: Sequence[str] = ("corner2",),
        obs_type: str = "pixels_agent_pos",
        shadows: bool = False,
        episode_length: int = 500,
        fps: int = 80,
        camera_shift: float = 0.0,
        distractors: int = 0,
        body: str = "sawyer",
        variation: float = 0.0,
        camera_zoom: float = 1.0,
        draw: bool = True,
    ):
        check_variation(camera_shift, distractors, body, cameras, "", variation, camera_zoom)
        super().__init__(
            task,
            camera_name=cameras[0],
            obs_type=obs_type,
            observation_width=size,
            observation_height=size,
            visualization_width=size,
            visualization_height=size,
        )
        self.cameras = tuple(cameras)
        self.shadows = shadows
        self.camera_shift = camera_shift
        self.distractors = distractors
        self.body = body
        self.variation = variation
        self.camera_zoom = camera_zoom
        self.draw = draw
        self.metadata = {**self.metadata, "render_fps": fps}
        self._max_episode_steps = episode_length  # read by LeRobot's rollout()
        self._steps = 0
        self._pixels: dict[str, np.ndarray] = {}
        self._raw_obs: np.ndarray | None = None
        self._scenery: Scenery | None = None  # None: not yet drawn for this episode
        self._renderer: mujoco.Renderer | None = None

        images = gym.spaces.Dict(dict.fromkeys(self.cameras, self.observation_space["pixels"]))
        self.observation_space = gym.spaces.Dict({**self.observation_space.spaces, "pixels": images})

    # ---- simulation -------------------------------------------------------------------------------------------

    def _ensure_env(self) -> None:
        if self._env is not None:
            return
        # LeRobot goes through metaworld.MT1, which simulates 50 resets to draw 50 goals that are not used after.
        # The seed only keeps this constructor from drawing from NumPy's global generator.
        make: Any = ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[f"{self.task}-goal-observable"]
        env = make(seed=0)
        env._freeze_rand_vec = False  # new object positions at every reset ...
        env.seeded_rand_vec = True  # ... drawn from the generator that reset(seed=...) seeds
        env.max_path_length = sys.maxsize  # step() decides when an episode ends
        env.model.camera("corner2").pos = CORNER2_POSITION
        turn_cameras(env.model, self.camera_shift)
        zoom_cameras(env.model, self.camera_zoom)
        change_body(env.model, self.body)
        self._camera_poses = env.model.cam_pos.copy(), env.model.cam_quat.copy()
        self._env = env

    def _format_raw_obs(self, raw_obs: np.ndarray) -> dict[str, Any]:
        # After a reset, the goal marker's place is in the model but not yet in the data that is drawn.
        mujoco.mj_kinematics(self._env.model, self._env.data)
        if self._scenery is None:
            self._scenery = self._set_scene()
        mujoco.mj_camlight(self._env.model, self._env.data)
        self._raw_obs = raw_obs
        self._pixels = {name: self._draw(name) for name in self.cameras}
        observation: dict[str, Any] = {"pixels": self._pixels}
        if self.obs_type == "pixels_agent_pos":
            observation["agent_pos"] = raw_obs[:STATE_DIM]
        return observation

    def reset(self, seed: int | None = None, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        self._steps = 0
        self._scenery = None
        return super().reset(seed=seed, **kwargs)

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self._ensure_env()
        raw_obs, reward, _, _, info = self._env.step(np.asarray(action))
        self._steps += 1
        is_success = bool(info["success"])
        truncated = not is_success and self._steps >= self._max_episode_steps
        info = {"is_success": is_success, "task": self.task}
        if is_success or truncated:
            info["final_info"] = {"is_success": is_success, "task": self.task}
        return self._format_raw_obs(raw_obs), float(reward), is_success, truncated, info

    def expert_action(self) -> np.ndarray:
        """The action of Meta-World's scripted expert, (4,) float32 in [-1, 1]. The expert sees the exact state."""
        return np.clip(self.expert_policy.get_action(self._raw_obs), -1.0, 1.0).astype(np.float32)

    def _set_scene(self) -> Scenery:
        """The scenery of this episode, with the fixed cameras put where it has them."""
        if not (self.distractors or self.variation):
            return Scenery()
        # A child of the generator, because the simulation draws its positions from the same seed's plain stream.
        random = self.np_random.spawn(1)[0]
        scenery = draw_scenery(self._env, random, self.distractors, self.variation)
        if self.variation:
            # From where they stood at first: turned back and forth, they would keep rounding errors of other episodes.
            model = self._env.model
            model.cam_pos[:], model.cam_quat[:] = self._camera_poses
            turn_cameras(model, scenery.camera_turn)
        return scenery

    # ---- pictures ---------------------------------------------------------------------------------------------

    def _draw(self, camera: str) -> np.ndarray:
        if not self.draw:
            return np.zeros((self.observation_height, self.observation_width, 3), np.uint8)
        if self._renderer is None:
            self._renderer = make_renderer(self._env.model, self.observation_width, self.shadows)
        self._renderer.update_scene(self._env.data, camera=camera)
        # Into the picture, not into the model, where a body more would change the simulation.
        scene, scenery = self._renderer.scene, self._scenery or Scenery()
        for distractor in scenery.distractors:
            mujoco.mjv_initGeom(scene.geoms[scene.ngeom], *distractor)
            scene.geoms[scene.ngeom].category = mujoco.mjtCatBit.mjCAT_DYNAMIC  # casts a shadow
            scene.ngeom += 1
        image = self._renderer.render()
        if camera in UPSIDE_DOWN_CAMERAS:
            image = np.ascontiguousarray(image[::-1, ::-1])
        return image if scenery.light is None else np.minimum(image * scenery.light, 255).astype(np.uint8)

    def render(self) -> np.ndarray:
        """The first camera's current observation, (size, size, 3) uint8: evaluation videos cost no second drawing."""
        if not self._pixels:
            self.reset()
        return self._pixels[self.cameras[0]]

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        super().close()
        self._env = None
        self._pixels = {}


def create_metaworld_envs(
    suites: dict[str, list[str]], n_envs: int, gym_kwargs: dict[str, Any], use_async_envs: bool = False
) -> dict[str, dict[int, gym.vector.VectorEnv]]:
    """`{suite: {task_id: vector environment of n_envs copies}}`, the shape that LeRobot's `make_env` returns.

    Args:
        suites: `{suite: [task name, ...]}`; the task id is the place in the list.
        n_envs: Number of episodes that run side by side per task.
        gym_kwargs: Arguments of `LawmMetaworldEnv`.
        use_async_envs: Use one process per copy (from two copies on), started when the task's turn comes.
    """

    def make(task: str) -> gym.vector.VectorEnv:
        return vectorize([partial(LawmMetaworldEnv, task, **gym_kwargs)] * n_envs, use_async_envs, __name__)

    return {suite: {i: make(task) for i, task in enumerate(tasks)} for suite, tasks in suites.items()}
