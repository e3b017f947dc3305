"""Blind replay: one demonstration's actions on fresh episodes, as a row beside policies that look.

Where it succeeds often, the episodes hardly differ, and success says little about a policy's eyes.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.datasets import LeRobotDataset
from lerobot.envs import EnvConfig, close_envs, make_env
from lerobot.utils.constants import ACTION

from lawm_lerobot.envs.success import SUCCESS, check_success_reported


def demonstrated_actions(repo_id: str, root: Path | None, episode: int) -> np.ndarray:
    """(n, A) float32: the actions of a dataset's episode.

    Raises:
        ValueError: If the dataset has no such episode or no actions; names the flag to change.
    """
    dataset = LeRobotDataset(repo_id, root=root)
    if ACTION not in dataset.features:
        raise ValueError(f"{repo_id} has no actions to replay: choose demonstrations with --dataset.repo_id")
    if not 0 <= episode < dataset.num_episodes:
        raise ValueError(
            f"{repo_id} has {dataset.num_episodes} episodes and no {episode}: change --dataset.episode"
        )
    rows = dataset.hf_dataset.with_format("numpy")
    return np.stack(rows[ACTION])[np.asarray(rows["episode_index"]) == episode].astype(np.float32)


def replay_blindly(config: EnvConfig, actions: np.ndarray, seeds: Sequence[int]) -> Iterator[bool]:
    """Yield for each seed whether its episode succeeds; it ends when the actions (n, A) do, if not before.

    Args:
        config: An environment of one task.
        actions: The actions of a demonstration, in the environment's units.
        seeds: The seeds of the episodes' resets.

    Raises:
        ValueError: If there are several tasks, if the actions are not the environment's, or if the environment does not
            say whether an episode succeeded.
    """
    suites = make_env(config, n_envs=1)
    try:
        envs = [env for tasks in suites.values() for env in tasks.values()]
        if len(envs) != 1:
            raise ValueError(f"one demonstration for {len(envs)} tasks: name one with --env.task")
        (env,) = envs
        if env.single_action_space.shape != actions.shape[1:]:
            raise ValueError(
                f"the demonstration's actions are {actions.shape[1:]}, those of {config.type} "
                f"{env.single_action_space.shape}: change --dataset.repo_id or --env.type"
            )
        for seed in seeds:
            env.reset(seed=[seed])
            yield _succeeds(env, actions, config.type)
    finally:
        close_envs(suites)


def _succeeds(env: Any, actions: np.ndarray, name: str) -> bool:
    info: Mapping[str, Any] = {}
    for action in actions:
        _, _, terminated, truncated, info = env.step(action[None])
        if terminated.any() or truncated.any():
            break
    check_success_reported(info, name)
    final = info.get("final_info", info)
    (end,) = [final] if isinstance(final, Mapping) else final
    return bool(np.ravel(end[SUCCESS])[0])
