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

The images and the state have the keys and shapes of `--env.type=lawm_metaworld` with the same `size` and `camera`.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import draccus
from tqdm import tqdm

from lawm_lerobot.envs.configuration_metaworld import (
    check_size,
    check_variation,
    parse_cameras,
    parse_tasks,
    require_metaworld,
)


@dataclass
class MakeMetaworldDatasetConfig:
    repo_id: str  # name of the dataset, user/name
    tasks: str = "push-v3"  # Meta-World task names or difficulty groups, comma-separated
    episodes: int = 25  # of each task
    root: Path | None = None  # folder to write; by default LeRobot's own for repo_id
    size: int = 128  # height and width of the images in pixels
    camera: str = "corner2"  # one or more of Meta-World's cameras, comma-separated
    with_actions: bool = True  # false makes a dataset to pretrain on
    with_state: bool = True
    video: bool = (
        True  # false stores the exact frames, as PNG: 9 times the size, single ones load twice as fast
    )
    noise: float = (
        0.0  # standard deviation of Gaussian noise on the executed hand motion, whose range is [-1, 1]
    )
    record_executed: bool = False  # record the noisy action; by default the expert's clean one is (DART)
    seed: int = 0  # episode k resets with seed + k; lerobot-eval counts up from 1000, so stay clear of that
    success_only: bool = True  # try failed episodes again with other seeds
    max_steps: int = 500
    frames_after_success: int = 5  # frames recorded after the first success
    fps: int = 80  # Meta-World's own rate
    shadows: bool = False  # as LeRobot draws them; much slower without a GPU
    camera_shift: float = (
        0.0  # degrees that the camera is turned around the workspace, anticlockwise from above
    )
    distractors: int = 0  # coloured things on the table that have no part in the task
    body: str = "sawyer"  # or hidden (the gripper alone), recoloured, rescaled (thicker links)
    workers: int = (
        2  # processes that simulate and draw; 0 does it in this one. The dataset does not depend on it
    )


@draccus.wrap()
def main(cfg: MakeMetaworldDatasetConfig) -> None:
    # Everything a user can get wrong is checked before the slow imports.
    tasks = [task for group in parse_tasks(cfg.tasks, flag="--tasks").values() for task in group]
    cameras = parse_cameras(cfg.camera, flag="--camera")
    check_size(cfg.size, flag="--size")
    check_variation(cfg.camera_shift, cfg.distractors, cfg.body, cameras, prefix="--")
    require_metaworld()

    from lawm_lerobot.envs.recording import (
        check_root_is_free,
        default_root,
        record_expert_episodes,
        write_dataset,
    )

    root = cfg.root or default_root(cfg.repo_id)
    check_root_is_free(root)
    episodes = record_expert_episodes(
        tasks,
        cfg.episodes,
        seed=cfg.seed,
        size=cfg.size,
        cameras=cameras,
        shadows=cfg.shadows,
        camera_shift=cfg.camera_shift,
        distractors=cfg.distractors,
        body=cfg.body,
        noise=cfg.noise,
        record_executed=cfg.record_executed,
        max_steps=cfg.max_steps,
        frames_after_success=cfg.frames_after_success,
        success_only=cfg.success_only,
        workers=cfg.workers,
    )
    frames = write_dataset(
        tqdm(episodes, total=len(tasks) * cfg.episodes, unit="episode"),
        repo_id=cfg.repo_id,
        root=root,
        fps=cfg.fps,
        with_actions=cfg.with_actions,
        with_state=cfg.with_state,
        video=cfg.video,
    )
    print(f"{len(tasks) * cfg.episodes} episodes, {frames} frames: {root}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: no dataset was written")
