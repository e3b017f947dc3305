"""LeRobot's LIBERO environment with placements that differ and quicker pictures."""

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np

from lawm_lerobot.envs.libero.installation import INSTALL, config_file, require_libero

if not config_file().is_file():
    require_libero()  # LIBERO would ask for its configuration when it is imported
# Chosen when mujoco is imported. Its default on Linux, GLFW, needs a display, which servers do not have.
if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", "egl")

import mujoco

if tuple(map(int, mujoco.__version__.split(".")[:2])) >= (3, 9):
    raise ImportError(f"LIBERO's robosuite 1.4.0 does not run with mujoco {mujoco.__version__}: {INSTALL}")

from lerobot.envs.libero import LiberoEnv, _get_suite, _select_task_ids

from lawm_lerobot.envs.libero.scene import Scene
from lawm_lerobot.envs.vectorizing import vectorize


class LawmLiberoEnv(LiberoEnv):
    """One LIBERO task, observed as LeRobot's `LiberoEnv` observes it, and with a scripted expert.

    Args:
        suite: Name of a suite.
        task_id: Number of a task in it.
        spread, shadows, init_states: Those of `LawmLiberoEnvConfig`.
        draw: False simulates without pictures, which are black then, in a fraction of the time.
        arguments: Those of LeRobot's `LiberoEnv`.
    """

    _env: Scene | None  # None before the first reset and after close

    def __init__(
        self,
        suite: str,
        task_id: int,
        *,
        spread: float = 1.0,
        shadows: bool = False,
        draw: bool = True,
        init_states: bool = False,
        **arguments: Any,
    ) -> None:
        super().__init__(_get_suite(suite), task_id, suite, init_states=init_states, **arguments)
        self.spread, self.shadows, self.draw = spread, shadows, draw
        self._expert: Callable[[], np.ndarray] | None = None

    def _ensure_env(self) -> None:
        if self._env is None:
            self._env = Scene(
                spread=self.spread,
                shadows=self.shadows,
                draw=self.draw,
                bddl_file_name=self._task_bddl_file,
                camera_names=[name.removesuffix("_image") for name in self.camera_name],
                camera_heights=self.observation_height,
                camera_widths=self.observation_width,
                control_freq=self.control_freq,
                hard_reset=self.hard_reset,
            )

    def _format_raw_obs(self, raw_obs: dict[str, Any]) -> dict[str, Any]:
        if not self.draw:
            black = np.zeros((self.observation_height, self.observation_width, 3), np.uint8)
            raw_obs = dict.fromkeys(self.camera_name, black) | raw_obs
        return super()._format_raw_obs(raw_obs)

    def reset(self, seed: int | None = None, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        self._expert = None
        return super().reset(seed=seed, **kwargs)

    def expert_action(self) -> np.ndarray:
        """The scripted expert's action, (7,) float32 in [-1, 1]. The expert sees the exact state."""
        assert self._env is not None, "the environment has not been reset"
        if self._expert is None:
            self._expert = self._env.expert()
        return self._expert()


def task_ids(suite: str, chosen: list[int] | None = None) -> list[int]:
    """The numbers of a suite's tasks, all or those chosen; ValueError for an unknown suite or number."""
    return _select_task_ids(len(_get_suite(suite).tasks), chosen)


def create_libero_envs(
    suites: str, n_envs: int, gym_kwargs: dict[str, Any], use_async_envs: bool = False
) -> dict[str, dict[int, gym.vector.VectorEnv]]:
    """`{suite: {task_id: vector environment of n_envs copies}}`, the shape that LeRobot's `make_env` returns.

    Args:
        suites: Names of suites, comma-separated.
        n_envs: Number of episodes that run side by side per task.
        gym_kwargs: Arguments of `LawmLiberoEnv`, and `task_ids` to take only some tasks of each suite.
        use_async_envs: Use one process per copy (from two copies on), started when the task's turn comes.

    Raises:
        ValueError: For an unknown suite or task.
    """
    arguments = dict(gym_kwargs)
    chosen = arguments.pop("task_ids", None)

    def make(suite: str, task_id: int) -> gym.vector.VectorEnv:
        make_copy = partial(LawmLiberoEnv, suite, task_id, n_envs=n_envs, **arguments)
        copies = [partial(make_copy, episode_index=i) for i in range(n_envs)]
        return vectorize(copies, use_async_envs, __name__)

    names = [name.strip() for name in suites.split(",") if name.strip()]
    return {suite: {i: make(suite, i) for i in task_ids(suite, chosen)} for suite in names}
