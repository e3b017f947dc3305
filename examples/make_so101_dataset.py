"""Record the simulated SO-101's scripted expert as a LeRobotDataset, with or without actions.

    # twenty demonstrations
    python examples/make_so101_dataset.py --episodes=20 --repo_id=local/so101 --root=data/so101

    # video without actions and state, to pretrain on, of an expert whose arm is pushed about a little
    python examples/make_so101_dataset.py --episodes=60 --action_free=true --noise=0.5 --seed=5000 \\
        --repo_id=local/so101_video --root=data/so101_video

    # how often the expert succeeds
    python examples/make_so101_dataset.py --episodes=50 --success_only=false --draw=false --size=16 \\
        --repo_id=local/so101_expert --root=data/so101_expert

The images, the state and the action have the keys, names and shapes of `--env.type=lawm_so101` with the same `size` and
`camera`. Interrupted and started again with the same flags, it goes on where it was.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from lawm_lerobot.envs.configuration import check_size
from lawm_lerobot.envs.so101.configuration import TASK, parse_cameras, require_so101
from lawm_lerobot.scripts.command import run_command
from lawm_lerobot.statistics.intervals import SuccessRate

INTERRUPTED = "interrupted: the same command goes on where it was"


@dataclass
class MakeSo101DatasetConfig:
    """Flags of this command.

    Args:
        repo_id: Name of the dataset, user/name.
        episodes: Number of episodes.
        root: Folder to write; by default LeRobot's own for repo_id.
        size: Height and width of the images in pixels.
        camera: front, wrist or both, comma-separated.
        action_free: True leaves out actions and state, which makes a dataset to pretrain on.
        video: False stores the exact frames, as PNG.
        noise: Standard deviation in degrees of Gaussian noise on the joints' executed goals; above 1 the expert gets
            slow and fails.
        record_executed: Record the noisy action; by default the expert's clean one is recorded (DART).
        seed: Seed of the first episode; episode k resets with seed + k. lerobot-eval counts up from 1000, so stay
            clear of that.
        success_only: Try failed episodes again with other seeds. Without, the expert's success rate is printed.
        max_steps: Number of steps, of a tenth of a second, after which an episode has failed.
        frames_after_success: Number of frames recorded after the first success.
        shadows: Render shadows; several times slower without a GPU.
        draw: False leaves the pictures black, for the success rate alone.
        workers: Number of processes that simulate and draw; 0 does it in this one. The dataset does not depend on it.
    """

    repo_id: str
    episodes: int = 20
    root: Path | None = None
    size: int = 128
    camera: str = "front,wrist"
    action_free: bool = False
    video: bool = True
    noise: float = 0.0
    record_executed: bool = False
    seed: int = 0
    success_only: bool = True
    max_steps: int = 150
    frames_after_success: int = 5
    shadows: bool = False
    draw: bool = True
    workers: int = 2


def make_dataset(cfg: MakeSo101DatasetConfig) -> None:
    # Everything a user can get wrong is checked before the slow imports.
    cameras = parse_cameras(cfg.camera, flag="--camera")
    check_size(cfg.size, flag="--size")
    require_so101()

    from lawm_lerobot.envs.kept_episodes import record_dataset
    from lawm_lerobot.envs.so101.recording import So101Recording

    same = ("size", "shadows", "draw", "noise", "record_executed", "seed", "success_only", "max_steps")
    recording = So101Recording(
        (TASK,),
        episodes_per_task=cfg.episodes,
        cameras=tuple(cameras),
        frames_after_success=cfg.frames_after_success,
        **{name: getattr(cfg, name) for name in same},
    )
    recorded = record_dataset(
        recording,
        cfg.repo_id,
        cfg.root,
        workers=cfg.workers,
        with_actions=not cfg.action_free,
        with_state=not cfg.action_free,
        video=cfg.video,
    )
    print(recorded)
    if not cfg.success_only:
        (successes,) = recorded.successes.values()
        print(f"The expert succeeded in {SuccessRate(sum(successes), len(successes))}.")


def main() -> int:
    return run_command(MakeSo101DatasetConfig, make_dataset, interrupted=INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
