"""Copies of an environment side by side, as LeRobot's evaluation takes them."""

import multiprocessing
from collections.abc import Callable

import gymnasium as gym
from lerobot.envs.utils import _LazyAsyncVectorEnv, freeze_after_episode_end


def vectorize(
    make: Callable[[], gym.Env], n_envs: int, use_async_envs: bool, preload: str
) -> gym.vector.VectorEnv:
    """`n_envs` copies of an environment; a copy whose episode is over costs nothing until the next reset.

    Args:
        make: Makes one copy.
        n_envs: Number of episodes that run side by side.
        use_async_envs: Use one process per copy (from two copies on), started at the first reset.
        preload: Module that the processes need, imported once by the server that they are forked from.
    """
    if use_async_envs and n_envs > 1:
        multiprocessing.set_forkserver_preload([preload])
        return _LazyAsyncVectorEnv([make] * n_envs)
    return gym.vector.SyncVectorEnv(
        [freeze_after_episode_end(make) for make in [make] * n_envs],
        autoreset_mode=gym.vector.AutoresetMode.NEXT_STEP,
    )
