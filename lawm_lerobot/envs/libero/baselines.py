"""Success of two players that are no policies: the scripted expert, and demonstrations that are replayed blindly.

No policy's success says that it looks while blind replay succeeds as often, on the same placements.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from lerobot.datasets import LeRobotDataset
from lerobot.utils.constants import ACTION

from lawm_lerobot.envs.recording import ExpertEnv

# What a player does at each step of an episode, given the environment after its reset and the episode's number.
Player = Callable[[Any, int], Iterator[np.ndarray]]


@dataclass(frozen=True)
class Outcome:
    """An episode's end: whether it succeeded, after how many steps."""

    seed: int
    success: bool
    steps: int


def play(
    env: ExpertEnv, player: Player, seeds: Iterable[int], max_steps: int, noise: float = 0.0
) -> Iterator[Outcome]:
    """Yield the outcome of an episode for each seed.

    Args:
        env: The environment.
        player: The expert or a replay.
        seeds: The seeds of the resets.
        max_steps: Number of steps after which an episode has failed.
        noise: Standard deviation of Gaussian noise on the hand's motion.
    """
    for number, seed in enumerate(seeds):
        env.reset(seed=seed)
        random = np.random.default_rng(seed)
        success, steps = False, 0
        for action in player(env, number):
            moved = action.copy()
            moved[:3] = np.clip(moved[:3] + noise * random.standard_normal(3), -1, 1)
            _, _, success, _, _ = env.step(moved)
            steps += 1
            if success or steps == max_steps:
                break
        yield Outcome(seed, bool(success), steps)


def expert(env: Any, number: int) -> Iterator[np.ndarray]:
    """Act by the environment's scripted expert."""
    while True:
        yield env.expert_action()


def replay(demonstrations: list[np.ndarray]) -> Player:
    """Act out demonstrations, (n, A) each, whatever happens: episode k the k-th, and the first again after the last."""

    def act(env: Any, number: int) -> Iterator[np.ndarray]:
        yield from demonstrations[number % len(demonstrations)]

    return act


def demonstrations_of(dataset: LeRobotDataset, instruction: str) -> list[np.ndarray]:
    """The actions, (n, A) float32, of each episode with an instruction.

    Raises:
        ValueError: If the dataset has no actions, or no such episode.
    """
    if ACTION not in dataset.meta.features:
        raise ValueError(f"{dataset.repo_id} has no actions to replay: record it with --with_actions=true")
    episodes = dataset.meta.episodes
    chosen = [i for i, tasks in enumerate(episodes["tasks"]) if instruction in tasks]
    if not chosen:
        raise ValueError(
            f"{dataset.repo_id} has no demonstration of {instruction!r}: record it, or change --task_ids"
        )
    actions = np.asarray(dataset.hf_dataset.with_format("numpy")[ACTION], np.float32)
    first, last = episodes["dataset_from_index"], episodes["dataset_to_index"]
    return [actions[first[i] : last[i]] for i in chosen]
