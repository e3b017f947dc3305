"""Count the successes of LIBERO's scripted expert, or of demonstrations that are replayed blindly.

    python examples/count_libero_successes.py --player=expert --output=outputs/libero_expert.json

    # the rows behind which no policy may hide: on new placements, and on the starts that are stored with LIBERO
    python examples/count_libero_successes.py --player=replay --repo_id=local/libero --root=data/libero --task_ids=[0,1]
    python examples/count_libero_successes.py --player=replay --repo_id=local/narrow --root=data/narrow --task_ids=[0,1] \\
        --init_states=true --spread=0

Nothing is drawn, so an episode takes a few seconds. `lerobot-eval` has the same placements for the same seeds.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lawm_lerobot.envs.libero.configuration import check_spread
from lawm_lerobot.envs.libero.installation import require_libero
from lawm_lerobot.files import write_json
from lawm_lerobot.scripts.command import UsageError, run_command


@dataclass
class CountLiberoSuccessesConfig:
    """Flags of this command.

    Args:
        player: `expert`, or `replay` for the actions of recorded demonstrations.
        task: A LIBERO suite.
        task_ids: Numbers of tasks in the suite; by default all.
        episodes: Number of episodes of each task.
        seed: Seed of the first episode; the default is lerobot-eval's.
        spread: Share, 0 to 1, of the reachable floor over which the things' places are drawn.
        init_states: Begin with the starts that are stored with LIBERO, one after the other.
        max_steps: Number of steps after which an episode has failed.
        noise: Standard deviation of Gaussian noise on the hand's motion.
        repo_id: The dataset to replay, user/name.
        root: Its folder; by default LeRobot's own for repo_id.
        demonstrations: Number of demonstrations of each task that are replayed, in turn. With 1 all episodes replay
            the first.
        output: A JSON file for the outcome of each episode.
    """

    player: str = "expert"
    task: str = "libero_object"
    task_ids: list[int] | None = None
    episodes: int = 10
    seed: int = 1000
    spread: float = 1.0
    init_states: bool = False
    max_steps: int = 280
    noise: float = 0.0
    repo_id: str | None = None
    root: Path | None = None
    demonstrations: int = 10
    output: Path | None = None


def count(cfg: CountLiberoSuccessesConfig) -> None:
    if cfg.player not in ("expert", "replay"):
        raise UsageError(f"unknown player {cfg.player!r}: set --player to expert or replay")
    if cfg.player == "replay" and not cfg.repo_id:
        raise UsageError("a replay needs recorded demonstrations: add --repo_id and --root")
    check_spread(cfg.spread, cfg.task, cfg.init_states, prefix="--")
    require_libero()
    # Imported late: LeRobot takes seconds to load.
    from lerobot.datasets import LeRobotDataset

    from lawm_lerobot.envs.libero.baselines import demonstrations_of, expert, play, replay
    from lawm_lerobot.envs.libero.environment import LawmLiberoEnv, task_ids
    from lawm_lerobot.statistics.intervals import SuccessRate

    dataset = LeRobotDataset(cfg.repo_id, root=cfg.root) if cfg.player == "replay" else None
    tasks = {}
    print("| task | successes | steps to success, mean (least to most) |\n|---|---|---|")
    for task_id in task_ids(cfg.task, cfg.task_ids):
        env = LawmLiberoEnv(
            cfg.task, task_id, spread=cfg.spread, init_states=cfg.init_states, draw=False, obs_type="pixels"
        )
        player = expert
        if dataset is not None:
            player = replay(demonstrations_of(dataset, env.task_description)[: cfg.demonstrations])
        seeds = range(cfg.seed, cfg.seed + cfg.episodes)
        played = play(env, player, seeds, cfg.max_steps, cfg.noise)
        outcomes = list(tqdm(played, total=cfg.episodes, desc=env.task_description, leave=False))
        env.close()
        steps = [outcome.steps for outcome in outcomes if outcome.success]
        lengths = f"{np.mean(steps):.0f} ({min(steps)} to {max(steps)})" if steps else ""
        tqdm.write(f"| {env.task_description} | {len(steps)} of {cfg.episodes} | {lengths} |")
        tasks[env.task_description] = [asdict(outcome) for outcome in outcomes]
    successes = [outcome["success"] for outcomes in tasks.values() for outcome in outcomes]
    print(f"| all | {SuccessRate(sum(successes), len(successes))} | |")
    if cfg.output:
        cfg.output.parent.mkdir(parents=True, exist_ok=True)
        settings = {key: value for key, value in asdict(cfg).items() if not isinstance(value, Path)}
        write_json(cfg.output, {"settings": settings, "tasks": tasks}, indent=None)


def main() -> int:
    return run_command(CountLiberoSuccessesConfig, count, interrupted="interrupted: nothing was written")


if __name__ == "__main__":
    sys.exit(main())
