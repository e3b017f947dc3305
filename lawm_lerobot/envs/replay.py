"""Blind replay: the actions of demonstrations on fresh episodes, as a row beside policies that look.

Where it succeeds often, the episodes hardly differ, and success says little about a policy's eyes.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.datasets import LeRobotDataset
from lerobot.envs import EnvConfig, close_envs, make_env
from lerobot.envs.utils import NEW_ROLLOUT_OPTION
from lerobot.utils.constants import ACTION

from lawm_lerobot.envs.success import SUCCESS, check_success_reported


def demonstrated_actions(
    repo_id: str, root: Path | None = None, episodes: Sequence[int] | None = None
) -> list[np.ndarray]:
    """The actions, (n, A) float32, of a dataset's episodes, all or those chosen.

    Raises:
        ValueError: If it has no actions, not all of these episodes, or demonstrations of several tasks; names the flag to
            change.
    """
    dataset = LeRobotDataset(repo_id, root=root)
    if ACTION not in dataset.features:
        raise ValueError(f"{repo_id} has no actions to replay: choose demonstrations with --dataset.repo_id")
    rows = dataset.hf_dataset.select_columns([ACTION, "episode_index"]).with_format("numpy")[:]
    actions, numbers = np.asarray(rows[ACTION], np.float32), np.asarray(rows["episode_index"])
    chosen = list(range(dataset.num_episodes)) if episodes is None else list(episodes)
    if not set(chosen) <= set(range(dataset.num_episodes)):
        raise ValueError(
            f"{repo_id} has {dataset.num_episodes} episodes, not all of {chosen}: change --dataset.episodes"
        )
    tasks = sorted({task for episode in chosen for task in dataset.meta.episodes["tasks"][episode]})
    if len(tasks) > 1:
        raise ValueError(
            f"the demonstrations in {repo_id} are of several tasks ({'; '.join(tasks)}): choose those of one with "
            "--dataset.episodes"
        )
    return [actions[numbers == episode] for episode in chosen]


def replay_blindly(
    config: EnvConfig, demonstrations: Sequence[np.ndarray], seeds: Sequence[int]
) -> Iterator[bool]:
    """Yield for each seed whether its episode succeeds, in which one demonstration after the other is acted out.

    An episode ends when the demonstration does, if not before.

    Args:
        config: An environment of one task.
        demonstrations: The actions (n, A) of each, in the environment's units.
        seeds: The seeds of the episodes' resets.

    Raises:
        ValueError: If there are several tasks, if the actions are not the environment's, or if the environment does not
            say whether an episode succeeded.
    """
    suites = make_env(config, n_envs=1)
    try:
        envs = [env for tasks in suites.values() for env in tasks.values()]
        if len(envs) != 1:
            raise ValueError(f"demonstrations of one task for {len(envs)}: name one with --env.task")
        (env,) = envs
        shape = env.single_action_space.shape
        for actions in demonstrations:
            if actions.shape[1:] != shape:
                raise ValueError(
                    f"a demonstration's actions are {actions.shape[1:]}, those of {config.type} {shape}: change "
                    "--dataset.repo_id or --env.type"
                )
        for seed, actions in zip(seeds, cycle(demonstrations), strict=False):
            # Without the option, LeRobot's wrapper would answer with the end of an earlier episode.
            env.reset(seed=[seed], options={NEW_ROLLOUT_OPTION: True})
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
