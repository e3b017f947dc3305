"""Replay one demonstration's actions on fresh episodes and count how often that succeeds without looking.

    python examples/replay_blindly.py --dataset.repo_id=local/so101 --dataset.root=data/so101 \\
        --env.type=lawm_so101 --env.camera=front --env.size=16 --output=outputs/replay.json

Any simulated environment of LeRobot will do whose actions the demonstration has. A policy that does not succeed more
often need not have looked either.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from lerobot.envs import EnvConfig
from lerobot.utils.import_utils import register_third_party_plugins
from tqdm import tqdm

from lawm_lerobot.envs.replay import demonstrated_actions, replay_blindly
from lawm_lerobot.files import write_json
from lawm_lerobot.scripts.command import run_command
from lawm_lerobot.statistics.intervals import SuccessRate


@dataclass
class DemonstrationConfig:
    """The demonstration.

    Args:
        repo_id: Name of the dataset.
        root: Its folder; LeRobot's own for repo_id by default.
        episode: Number of the episode, from 0.
    """

    repo_id: str
    root: Path | None = None
    episode: int = 0


@dataclass
class ReplayConfig:
    """Flags of this command.

    Args:
        dataset: The demonstration that is replayed.
        env: The environment, as in lerobot-eval. Its pictures are not looked at, so small ones are quickest.
        episodes: Number of fresh episodes.
        seed: Seed of the first one; episode k resets with seed + k, as in lerobot-eval.
        output: JSON file for the counts; none by default.
    """

    dataset: DemonstrationConfig
    env: EnvConfig
    episodes: int = 50
    seed: int = 1000
    output: Path | None = None


def replay(cfg: ReplayConfig) -> None:
    if cfg.episodes < 1:
        raise ValueError(f"{cfg.episodes} episodes are none: raise --episodes")
    actions = demonstrated_actions(cfg.dataset.repo_id, cfg.dataset.root, cfg.dataset.episode)
    seeds = range(cfg.seed, cfg.seed + cfg.episodes)
    successes = list(tqdm(replay_blindly(cfg.env, actions, seeds), total=cfg.episodes, unit="episode"))
    rate = SuccessRate(sum(successes), cfg.episodes)
    print(f"Blind replay of episode {cfg.dataset.episode} of {cfg.dataset.repo_id} in {cfg.env.type}: {rate}")
    if cfg.output is not None:
        cfg.output.parent.mkdir(parents=True, exist_ok=True)
        low, high = rate.interval()
        counts = {"successes": rate.successes, "episodes": rate.episodes, "interval_95": [low, high]}
        write_json(cfg.output, {"env": cfg.env.type, "seed": cfg.seed, **counts})


def main() -> int:
    register_third_party_plugins()
    return run_command(ReplayConfig, replay)


if __name__ == "__main__":
    sys.exit(main())
