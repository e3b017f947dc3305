"""Record a scripted expert in LIBERO as a LeRobotDataset, with or without actions.

    # ten demonstrations of each of two tasks, the things all over the reachable floor
    python examples/make_libero_dataset.py --task_ids=[0,1] --episodes=10 --size=96 \\
        --repo_id=local/libero --root=data/libero

    # video without action labels, to pretrain on
    python examples/make_libero_dataset.py --task_ids=[0,1] --episodes=50 --size=96 --seed=5000 --noise=0.2 \\
        --with_actions=false --with_state=false --repo_id=local/libero_video --root=data/libero_video

    # how often the expert succeeds
    python examples/make_libero_dataset.py --episodes=10 --seed=1000 --success_only=false --draw=false --video=false --size=16 \\
        --repo_id=local/libero_expert --root=data/libero_expert

The images and the state have the keys and shapes that `--env.type=libero` and `--env.type=lawm_libero` show to a policy. The
second has the same pictures where `size`, `spread` and `shadows` are the same.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from lawm_lerobot.envs.configuration import check_size
from lawm_lerobot.envs.libero.configuration import check_spread
from lawm_lerobot.envs.libero.installation import require_libero
from lawm_lerobot.scripts.command import run_command

INTERRUPTED = "interrupted: the same command goes on where it was"


@dataclass
class MakeLiberoDatasetConfig:
    """Flags of this command.

    Args:
        repo_id: Name of the dataset, user/name.
        task: A LIBERO suite. The expert picks and places, which is all that libero_object asks for.
        task_ids: Numbers of tasks in the suite; by default all.
        episodes: Number of episodes of each task.
        root: Folder to write; by default LeRobot's own for repo_id.
        size: Height and width of the images in pixels.
        spread: Share, 0 to 1, of the reachable floor over which the things' places are drawn. At 0 they are drawn as
            LIBERO draws them, from squares of 5 cm.
        with_actions: False makes a dataset to pretrain on.
        with_state: False leaves out the arm's state.
        video: False stores the exact frames, as PNG.
        noise: Standard deviation of Gaussian noise on the executed hand motion, whose range is [-1, 1].
        record_executed: Record the noisy action; by default the expert's clean one is recorded (DART).
        seed: Seed of the first episode; episode k resets with seed + k. lerobot-eval counts up from 1000, so stay
            clear of that.
        success_only: Try failed episodes again with other seeds. Without, the expert's successes are printed.
        max_steps: Number of steps after which an episode has failed.
        frames_after_success: Number of frames recorded after the first success, which comes before the thing is let
            go.
        shadows: Render shadows as LeRobot's libero does; slower on a CPU.
        draw: False leaves the pictures black, for the successes alone.
        workers: Number of processes that simulate and draw; 0 does it in this one. Each takes 2 to 4 GB of memory.
            The dataset does not depend on it.
    """

    repo_id: str
    task: str = "libero_object"
    task_ids: list[int] | None = None
    episodes: int = 25
    root: Path | None = None
    size: int = 128
    spread: float = 1.0
    with_actions: bool = True
    with_state: bool = True
    video: bool = True
    noise: float = 0.0
    record_executed: bool = False
    seed: int = 0
    success_only: bool = True
    max_steps: int = 280
    frames_after_success: int = 10
    shadows: bool = False
    draw: bool = True
    workers: int = 2


def make_dataset(cfg: MakeLiberoDatasetConfig) -> None:
    # Everything a user can get wrong is checked before the slow imports.
    check_size(cfg.size, flag="--size")
    check_spread(cfg.spread, cfg.task, prefix="--")
    require_libero()

    from lawm_lerobot.envs.kept_episodes import record_dataset
    from lawm_lerobot.envs.libero.environment import task_ids
    from lawm_lerobot.envs.libero.recording import LiberoRecording

    recording = LiberoRecording(
        [f"{cfg.task}/{i}" for i in task_ids(cfg.task, cfg.task_ids)],
        cfg.episodes,
        seed=cfg.seed,
        size=cfg.size,
        spread=cfg.spread,
        shadows=cfg.shadows,
        draw=cfg.draw,
        noise=cfg.noise,
        record_executed=cfg.record_executed,
        max_steps=cfg.max_steps,
        frames_after_success=cfg.frames_after_success,
        success_only=cfg.success_only,
    )
    recorded = record_dataset(
        recording,
        cfg.repo_id,
        cfg.root,
        workers=cfg.workers,
        with_actions=cfg.with_actions,
        with_state=cfg.with_state,
        video=cfg.video,
    )
    print(recorded)
    if not cfg.success_only:
        for instruction, successes in recorded.successes.items():
            print(f"{instruction}: the expert succeeded in {sum(successes)} of {len(successes)}.")


def main() -> int:
    return run_command(MakeLiberoDatasetConfig, make_dataset, interrupted=INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
