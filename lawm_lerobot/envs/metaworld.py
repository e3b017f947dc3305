"""LeRobot's Meta-World environment with small, quick pictures.

LeRobot's `MetaworldEnv` draws 480x480 pixels with shadows, reflections and multisampling. On a CPU the shadow map
alone is nine tenths of the time. This subclass draws at the requested size with all three off: about ten times the
steps. Measured on push-v3 with Mesa's software renderer (EGL, MuJoCo 3.16), as calls of `step` per second of CPU time,
the median of four interleaved rounds:

    environment       pixels   steps per CPU second
    LeRobot's            480                    9.9
    this                 128                   91     (7.4 with shadows=True)
    this                  96                  102
    this                  64                  104

What is left is the arm's 67 000 triangles (9 ms) and the physics (1 ms), so smaller pictures gain no more.
"""

import atexit
import multiprocessing
import os
import sys
import warnings
import weakref
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import gymnasium as gym
import numpy as np

# Chosen when mujoco is imported. Its default on Linux, GLFW, needs a display, which servers and worker processes
# do not have.
if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", "egl")

try:
    import mujoco
except AttributeError as error:  # what PyOpenGL raises when the shared library is not there
    raise ImportError(
        f"mujoco cannot load the {os.environ.get('MUJOCO_GL')} graphics library ({error}): install it (Debian: "
        "apt install libegl1, or libosmesa6 with MUJOCO_GL=osmesa), or set MUJOCO_GL to another of egl, osmesa, glfw"
    ) from error

if mujoco.mjNEQDATA != 11:
    raise ImportError(
        f"Meta-World 3.0.0 cannot read the models of mujoco {mujoco.__version__}: pip install 'mujoco<3.17'"
    )

from lerobot.envs.metaworld import MetaworldEnv
from lerobot.envs.utils import _LazyAsyncVectorEnv, freeze_after_episode_end
from metaworld import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE

from lawm_lerobot.envs.configuration_metaworld import STATE_DIM

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

    The simulation and its graphics context are made at the first `reset`, that is in the worker process of an
    `AsyncVectorEnv`, and made again if the environment is used after `close` (as `lerobot-train` does between two
    evaluations).
    """

    metadata: dict[str, Any]
    observation_space: gym.spaces.Dict
    _env: Any  # Meta-World's environment, or None before the first reset and after close

    def __init__(
        self,
        task: str,
        size: int = 128,
        cameras: Sequence[str] = ("corner2",),
        obs_type: str = "pixels_agent_pos",
        shadows: bool = False,
        episode_length: int = 500,
        fps: int = 80,
    ):
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
        self.metadata = {**self.metadata, "render_fps": fps}
        self._max_episode_steps = episode_length  # read by LeRobot's rollout()
        self._steps = 0
        self._pixels: dict[str, np.ndarray] = {}
        self._raw_obs: np.ndarray | None = None
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
        self._env = env

    def _format_raw_obs(self, raw_obs: np.ndarray) -> dict[str, Any]:
        # After a reset, the goal marker's place is in the model but not yet in the data that is drawn.
        mujoco.mj_kinematics(self._env.model, self._env.data)
        mujoco.mj_camlight(self._env.model, self._env.data)
        self._raw_obs = raw_obs
        self._pixels = {name: self._draw(name) for name in self.cameras}
        observation: dict[str, Any] = {"pixels": self._pixels}
        if self.obs_type == "pixels_agent_pos":
            observation["agent_pos"] = raw_obs[:STATE_DIM]
        return observation

    def reset(self, seed: int | None = None, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        self._steps = 0
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
        """What Meta-World's scripted expert does now: (4,) float32, clipped to [-1, 1]. It sees the exact state."""
        return np.clip(self.expert_policy.get_action(self._raw_obs), -1.0, 1.0).astype(np.float32)

    # ---- pictures ---------------------------------------------------------------------------------------------

    def _draw(self, camera: str) -> np.ndarray:
        if self._renderer is None:
            self._renderer = self._make_renderer()
            _open_renderers.add(self._renderer)
            _close_renderers_at_exit()
        self._renderer.update_scene(self._env.data, camera=camera)
        image = self._renderer.render()
        if camera in UPSIDE_DOWN_CAMERAS:
            image = np.ascontiguousarray(image[::-1, ::-1])
        return image

    def _make_renderer(self) -> mujoco.Renderer:
        visual = self._env.model.vis
        visual.global_.offwidth, visual.global_.offheight = self.observation_width, self.observation_height
        if not self.shadows:
            # Both are read when the graphics context is created, not when a frame is drawn.
            visual.quality.offsamples = 0
            visual.quality.shadowsize = 0
        try:
            renderer = mujoco.Renderer(self._env.model, self.observation_height, self.observation_width)
        except Exception as error:
            raise RuntimeError(
                f"mujoco could not open a {os.environ.get('MUJOCO_GL', 'default')} graphics context ({error}): set "
                "MUJOCO_GL to another of egl, osmesa, glfw, and see that its library is installed (Debian: libegl1, "
                "libosmesa6)"
            ) from error
        if not self.shadows:
            renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
            renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        return renderer

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


# A renderer left open at exit makes mujoco print tracebacks, because it ends the display before its contexts. Exit
# hooks run last in, first out, so this one is registered after mujoco's own, that is after the first renderer.
_open_renderers: weakref.WeakSet[mujoco.Renderer] = weakref.WeakSet()


@cache
def _close_renderers_at_exit() -> None:
    atexit.register(lambda: [renderer.close() for renderer in _open_renderers])


def create_metaworld_envs(
    suites: dict[str, list[str]], n_envs: int, gym_kwargs: dict[str, Any], use_async_envs: bool = False
) -> dict[str, dict[int, gym.vector.VectorEnv]]:
    """`{suite: {task_id: vector environment of n_envs copies}}`, the shape that LeRobot's `make_env` returns.

    Args:
        suites: `{suite: [task name, ...]}`; the task id is the place in the list.
        n_envs: episodes that run side by side per task.
        gym_kwargs: for `LawmMetaworldEnv`.
        use_async_envs: one process per copy (from two copies on), started when the task's turn comes.
    """
    use_async = use_async_envs and n_envs > 1
    if use_async:
        # Workers are forked from a server that has imported this module once, instead of each importing it.
        multiprocessing.set_forkserver_preload([__name__])

    def vectorize(task: str) -> gym.vector.VectorEnv:
        factories = [partial(LawmMetaworldEnv, task, **gym_kwargs)] * n_envs
        if use_async:
            return _LazyAsyncVectorEnv(factories)
        return gym.vector.SyncVectorEnv(
            [freeze_after_episode_end(factory) for factory in factories],
            autoreset_mode=gym.vector.AutoresetMode.NEXT_STEP,
        )

    return {suite: {i: vectorize(task) for i, task in enumerate(tasks)} for suite, tasks in suites.items()}
