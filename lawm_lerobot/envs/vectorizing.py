"""Copies of an environment side by side, as LeRobot's evaluation takes them."""

import multiprocessing
from collections.abc import Callable, Sequence

import gymnasium as gym
from lerobot.envs.utils import _LazyAsyncVectorEnv, freeze_after_episode_end


def vectorize(
    factories: Sequence[Callable[[], gym.Env]], use_async_envs: bool, module: str
) -> gym.vector.VectorEnv:
    """One vector environment of what the factories make; a copy that has finished its episode costs nothing.

    Args:
        factories: One for each copy.
        use_async_envs: Use one process per copy (from two copies on), started when the environment's turn comes.
        module: The environment's, which a server imports once, and from which the processes are forked.
    """
    if use_async_envs and len(factories) > 1:
        multiprocessing.set_forkserver_preload([module])
        return _LazyAsyncVectorEnv(factories)
    return gym.vector.SyncVectorEnv(
        [freeze_after_episode_end(factory) for factory in factories],
        autoreset_mode=gym.vector.AutoresetMode.NEXT_STEP,
    )
