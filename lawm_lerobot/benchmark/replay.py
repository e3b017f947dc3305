"""The benchmark's blind replay: demonstrations acted out on the evaluation's episodes, see `envs/replay.py`."""

from dataclasses import dataclass
from pathlib import Path

import draccus
from lerobot.envs import EnvConfig
from lerobot.utils.import_utils import register_third_party_plugins
from tqdm import tqdm

from lawm_lerobot.envs.replay import demonstrated_actions, replay_blindly
from lawm_lerobot.files import write_json
from lawm_lerobot.statistics.intervals import SuccessRate


@dataclass
class DemonstrationsConfig:
    """The demonstrations.

    Args:
        repo_id: Name of the dataset.
        root: Its folder; LeRobot's own for repo_id by default.
        episodes: Numbers of the episodes that are replayed; all by default.
    """

    repo_id: str
    root: Path | None = None
    episodes: list[int] | None = None


@dataclass
class ReplayConfig:
    """Flags of a blind replay.

    Args:
        dataset: The demonstrations that are replayed, one after the other, and then from the first again.
        env: The environment, as in lerobot-eval. Its pictures are not looked at: --env.draw=false is quickest.
        episodes: Number of fresh episodes.
        seed: Seed of the first one; episode k resets with seed + k, as in lerobot-eval.
        output: JSON file for the outcomes, written as lerobot-eval writes its eval_info.json; None for none.
    """

    dataset: DemonstrationsConfig
    env: EnvConfig
    episodes: int = 50
    seed: int = 1000
    output: Path | None = None


def replay(cfg: ReplayConfig) -> None:
    """Replay, print the success and write the outcomes; ValueError says what cannot be replayed."""
    if cfg.episodes < 1:
        raise ValueError(f"{cfg.episodes} episodes are none: raise --episodes")
    demonstrations = demonstrated_actions(cfg.dataset.repo_id, cfg.dataset.root, cfg.dataset.episodes)
    seeds = range(cfg.seed, cfg.seed + cfg.episodes)
    outcomes = tqdm(replay_blindly(cfg.env, demonstrations, seeds), total=cfg.episodes, unit="episode")
    successes = list(outcomes)
    rate = SuccessRate(sum(successes), cfg.episodes)
    print(f"Blind replay of {cfg.dataset.repo_id} in {cfg.env.type}: {rate}")
    if cfg.output is not None:
        cfg.output.parent.mkdir(parents=True, exist_ok=True)
        overall = {"pc_success": 100 * rate.rate, "n_episodes": cfg.episodes}
        write_json(cfg.output, {"per_task": [{"metrics": {"successes": successes}}], "overall": overall})


def main() -> None:
    register_third_party_plugins()
    replay(draccus.parse(ReplayConfig))
