"""Record Meta-World's scripted experts as a LeRobotDataset, with or without actions.

    # ten labelled demonstrations of one task
    python examples/make_metaworld_dataset.py --tasks=push-v3 --episodes=10 \\
        --repo_id=local/push --root=data/push

    # video without action labels of four tasks, to pretrain on
    python examples/make_metaworld_dataset.py --tasks=push-v3,reach-v3,drawer-open-v3,door-open-v3 --episodes=25 \\
        --with_actions=false --with_state=false --noise=0.2 --seed=5000 --repo_id=local/play --root=data/play

    # video of another body under another camera, every frame exact
    python examples/make_metaworld_dataset.py --tasks=push-v3 --episodes=50 --with_actions=false --with_state=false \\
        --body=hidden --camera_shift=20 --distractors=4 --video=false --size=64 --repo_id=local/hand --root=data/hand

    # a scene that differs from episode to episode, framed more closely; evaluate with the same two flags after --env.
    python examples/make_metaworld_dataset.py --tasks=drawer-open-v3 --episodes=5 --size=64 \\
        --variation=1 --camera_zoom=1.5 --repo_id=local/drawer --root=data/drawer

The images and the state have the keys and shapes of `--env.type=lawm_metaworld` with the same `size` and `camera`.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from lawm_lerobot.envs.configuration import check_size
from lawm_lerobot.envs.metaworld.configuration import (
    check_variation,
    parse_cameras,
    parse_tasks,
    require_metaworld,
)
from lawm_lerobot.scripts.command import run_command

INTERRUPTED = "interrupted: the same command goes on where it was"


@dataclass
class MakeMetaworldDatasetConfig:
    """Flags of this command.

    Args:
        repo_id: Name of the dataset, user/name.
        tasks: Meta-World task names or difficulty groups, comma-separated.
        episodes: Number of episodes of each task.
        root: Folder to write; by default LeRobot's own for repo_id.
        size: Height and width of the images in pixels.
        camera: One or more of Meta-World's cameras, comma-separated.
        with_actions: False makes a dataset to pretrain on.
        with_state: False leaves out the arm's state.
        video: False stores the exact frames, as PNG: 9 times the size, single ones load twice as fast.
        noise: Standard deviation of Gaussian noise on the executed hand motion, whose range is [-1, 1].
        record_executed: Record the noisy action; by default the expert's clean one is recorded (DART).
        seed: Seed of the first episode; episode k resets with seed + k. lerobot-eval counts up from 1000, so stay
            clear of that.
        success_only: Try failed episodes again with other seeds.
        max_steps: Number of steps after which an episode has failed.
        frames_after_success: Number of frames recorded after the first success.
        fps: Frames per second; the default is Meta-World's own rate.
        shadows: Render shadows as LeRobot does; much slower without a GPU.
        camera_shift: Angle in degrees by which the camera is turned around the workspace, anticlockwise from above.
        distractors: Number of coloured things on the table that have no part in the task.
        body: The look of the arm: sawyer, hidden (the gripper alone), recoloured or rescaled (thicker links).
        variation: Share, 0 to 1, of what differs from one episode to the next: up to 8 distractors more, the camera
            turned by up to 10 degrees, other light.
        camera_zoom: Factor, 1 to 10, by which things appear larger; the picture's centre stays.
        workers: Number of processes that simulate and draw; 0 does it in this one. The dataset does not depend on it.
    """

    repo_id: str
    tasks: str = "push-v3"
    episodes: int = 25
    root: Path | None = None
    size: int = 128
    camera: str = "corner2"
    with_actions: bool = True
    with_state: bool = True
    video: bool = True
    noise: float = 0.0
    record_executed: bool = False
    seed: int = 0
    success_only: bool = True
    max_steps: int = 500
    frames_after_success: int = 5
    fps: int = 80
    shadows: bool = False
    camera_shift: float = 0.0
    distractors: int = 0
    body: str = "sawyer"
    variation: float = 0.0
    camera_zoom: float = 1.0
    workers: int = 2


def make_dataset(cfg: MakeMetaworldDatasetConfig) -> None:
    # Everything a user can get wrong is checked before the slow imports.
    tasks = [task for group in parse_tasks(cfg.tasks, flag="--tasks").values() for task in group]
    cameras = parse_cameras(cfg.camera, flag="--camera")
    check_size(cfg.size, flag="--size")
    check_variation(
        cfg.camera_shift, cfg.distractors, cfg.body, cameras, "--", cfg.variation, cfg.camera_zoom
    )
    require_metaworld()

    from lawm_lerobot.envs.kept_episodes import record_dataset
    from lawm_lerobot.envs.metaworld.recording import MetaworldRecording

    recording = MetaworldRecording(
        tasks,
        cfg.episodes,
        seed=cfg.seed,
        size=cfg.size,
        cameras=cameras,
        shadows=cfg.shadows,
        camera_shift=cfg.camera_shift,
        distractors=cfg.distractors,
        body=cfg.body,
        variation=cfg.variation,
        camera_zoom=cfg.camera_zoom,
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
        fps=cfg.fps,
        with_actions=cfg.with_actions,
        with_state=cfg.with_state,
        video=cfg.video,
    )
    print(recorded)


def main() -> int:
    return run_command(MakeMetaworldDatasetConfig, make_dataset, interrupted=INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
