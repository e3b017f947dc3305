"""Record scripted experts of simulated robots as a LeRobotDataset.

    episodes = record_expert_episodes(ExpertRecording(["push-v3"], episodes_per_task=25, size=96))
    write_dataset(episodes, repo_id="me/push", root=Path("data/push"), fps=80)

A frame holds the observation before the policy acts, and the action it should take there. Object positions, and what
`variation` changes, come from the episode's seed: 0, 1, 2, ... above `seed`, the same that LeRobot's evaluation counts up
from its own `--seed` (1000 unless changed), so keep the two ranges apart.
"""

import multiprocessing
import os
import shutil
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import av
import datasets
import numpy as np
from lerobot.configs.video import RGBEncoderConfig
from lerobot.datasets import LeRobotDataset
from lerobot.utils.constants import ACTION, HF_LEROBOT_HOME, OBS_IMAGES, OBS_STATE

from lawm_lerobot.envs.configuration_metaworld import PICTURES, require_metaworld

# A failed episode is tried again with the next of these above its seed. Far from any seed that a user counts up to.
RETRY_SEED_STEP = 1_000_000
MAX_ATTEMPTS = 20


@dataclass
class RecordedEpisode:
    """One recorded episode of n frames.

    Args:
        task, instruction: The simulator's name of the task, such as push-v3, and the words for it in the dataset.
        seed: The seed of the reset; `reset(seed=...)` gives the same object positions again.
        success: True if the expert succeeded.
        images, state: Pictures of each camera and the arm's state in each frame.
        action: The action chosen in each frame, or the one executed, see `Recording.record_executed`.
    """

    task: str
    instruction: str
    seed: int
    success: bool
    images: dict[str, np.ndarray]  # {camera: (n, size, size, 3) uint8}
    state: np.ndarray  # (n, S) float32
    action: np.ndarray  # (n, A) float32


@dataclass(frozen=True)
class Robot:
    """A robot as a dataset names it.

    Args:
        type: LeRobot's `robot_type`.
        state, action: The names of the numbers in `observation.state` and in `action`.
    """

    type: str
    state: Sequence[str]
    action: Sequence[str]


SAWYER = Robot(
    "metaworld_sawyer",
    state=("hand_x", "hand_y", "hand_z", "gripper_opening"),
    action=("hand_dx", "hand_dy", "hand_dz", "gripper_effort"),
)


@dataclass(frozen=True)
class Recording(ABC):
    """The settings of a recording in some simulator; the same settings give the same episodes.

    The environment has `cameras`, `task_description` and `expert_action()`, and the last number of its action is the
    gripper's.

    Args:
        tasks: The simulator's task names.
        episodes_per_task: Number of episodes of each task.
        seed: Seed of the first episode of every task; episode k resets with `seed + k`.
        size: Height and width of an image in pixels.
        cameras: Names of the cameras.
        shadows: Render shadows.
        noise: Standard deviation of Gaussian noise on the executed action, in its own unit. The gripper follows the
            expert: it is a plain open or close in most of them.
        record_executed: Record the noisy action that moved the arm. By default the expert's clean action is
            recorded while the noisy one is executed, as DART does (arXiv 1703.09327): the states then cover small
            mistakes and every recorded action leads back, which makes better imitation data.
        max_steps: Number of steps after which an episode that has not succeeded has failed.
        frames_after_success: Number of frames recorded after the first success.
        success_only: Try a failed episode again with another seed, up to `MAX_ATTEMPTS` times.
    """

    tasks: Sequence[str]
    episodes_per_task: int
    seed: int = 0
    size: int = 128
    cameras: Sequence[str] = ()
    shadows: bool = False
    noise: float = 0.0
    record_executed: bool = False
    max_steps: int = 500
    frames_after_success: int = 5
    success_only: bool = True

    #: Name of the module that makes environments, which is slow to import.
    simulator: ClassVar[str]

    @abstractmethod
    def require(self) -> None:
        """Raise ImportError, with the command that installs it, if the simulator is missing."""

    @abstractmethod
    def make_env(self, task: str) -> Any:
        """Make the environment of a task."""


@dataclass(frozen=True)
class ExpertRecording(Recording):
    """A recording of Meta-World's experts.

    Args:
        tasks: Meta-World v3 task names.
        episodes_per_task, seed, record_executed, max_steps, frames_after_success, success_only: See `Recording`.
        size, cameras, shadows, camera_shift, distractors, body, variation, camera_zoom: Arguments of
            `LawmMetaworldEnv`.
        noise: Standard deviation of Gaussian noise on the executed hand motion (the action's x, y, z, which are in
            [-1, 1]).
    """

    cameras: Sequence[str] = ("corner2",)
    camera_shift: float = 0.0
    distractors: int = 0
    body: str = "sawyer"
    variation: float = 0.0
    camera_zoom: float = 1.0

    simulator: ClassVar[str] = "lawm_lerobot.envs.metaworld"

    def require(self) -> None:
        require_metaworld()

    def make_env(self, task: str) -> Any:
        from lawm_lerobot.envs.metaworld import LawmMetaworldEnv

        pictures = {name: getattr(self, name) for name in ("size", *PICTURES)}
        return LawmMetaworldEnv(task, cameras=tuple(self.cameras), episode_length=self.max_steps, **pictures)


def record_expert_episodes(
    recording: Recording, workers: int = 0, skip: int = 0
) -> Iterator[RecordedEpisode]:
    """Yield the episodes of each task, in order.

    Args:
        recording: The settings.
        workers: Number of processes that simulate and draw; 0 does it in this one. The result does not depend on it.
        skip: Number of episodes at the beginning that are left out.

    Raises:
        RuntimeError: If the expert fails `MAX_ATTEMPTS` times running and `success_only` is set.
    """
    recording.require()
    seeds = range(recording.seed, recording.seed + recording.episodes_per_task)
    episodes = [(recording, task, seed) for task, seed in product(recording.tasks, seeds)][skip:]
    if workers == 0:
        try:
            for episode in episodes:
                yield _record_episode(*episode)
        finally:
            _close_env()
        return

    # Fork servers, not forks: a graphics context that this process may hold does not survive a fork.
    context = multiprocessing.get_context("forkserver")
    # The server imports this module and the simulator once; the workers it forks have them.
    context.set_forkserver_preload([__name__, recording.simulator])
    pool = ProcessPoolExecutor(workers, mp_context=context)
    waiting: deque[Future[RecordedEpisode]] = deque()
    try:
        for episode in episodes:
            waiting.append(pool.submit(_record_episode, *episode))
            if len(waiting) > 2 * workers:  # so that finished episodes do not pile up in memory
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


# The environment of this process's latest episode and what it was made of, kept because making one takes half a second.
_latest: tuple[Recording, str, Any] | None = None


def _close_env() -> None:
    global _latest
    if _latest is not None:
        _latest[2].close()
        _latest = None


def _get_env(recording: Recording, task: str) -> Any:
    """The environment of a recording's task: the latest episode's if that was of the same."""
    global _latest
    if _latest is None or _latest[:2] != (recording, task):
        _close_env()
        _latest = recording, task, recording.make_env(task)
    return _latest[2]


def _record_episode(recording: Recording, task: str, seed: int) -> RecordedEpisode:
    attempts = MAX_ATTEMPTS if recording.success_only else 1
    for attempt in range(attempts):
        episode = _attempt_episode(recording, task, seed + attempt * RETRY_SEED_STEP)
        if episode.success or not recording.success_only:
            return episode
    raise RuntimeError(
        f"the scripted expert failed {attempts} times running on {task}, from seed {seed}: raise --max_steps "
        f"(now {recording.max_steps}), lower --noise (now {recording.noise}), or keep failures with "
        "--success_only=false"
    )


def _attempt_episode(recording: Recording, task: str, seed: int) -> RecordedEpisode:
    env = _get_env(recording, task)
    generator = np.random.default_rng([seed, *task.encode()])
    images: dict[str, list[np.ndarray]] = {camera: [] for camera in env.cameras}
    states, actions = [], []
    steps_left, success = recording.max_steps, False

    observation, _ = env.reset(seed=seed)
    while steps_left > 0:
        chosen = env.expert_action()  # (A,)
        executed = chosen.copy()
        executed[:-1] += recording.noise * generator.standard_normal(len(chosen) - 1)
        executed = executed.clip(env.action_space.low, env.action_space.high)

        for camera in env.cameras:
            images[camera].append(observation["pixels"][camera])
        states.append(observation["agent_pos"].astype(np.float32))
        actions.append(executed if recording.record_executed else chosen)

        observation, _, terminated, _, info = env.step(executed)
        steps_left -= 1
        if terminated and not success:
            success = info["is_success"]
            steps_left = recording.frames_after_success if success else 0
    return RecordedEpisode(
        task=task,
        instruction=env.task_description,
        seed=seed,
        success=success,
        images={camera: np.stack(frames) for camera, frames in images.items()},
        state=np.stack(states),
        action=np.stack(actions),
    )


def default_root(repo_id: str) -> Path:
    """The folder in which LeRobot looks for a dataset when no `--root` is given."""
    return HF_LEROBOT_HOME / repo_id


def check_root_is_free(root: Path, flag: str = "--root") -> None:
    """Refuse to write over anything that exists."""
    if root.exists():
        raise FileExistsError(f"{root} exists already: remove it, or choose another folder with {flag}")


def write_dataset(
    episodes: Iterable[RecordedEpisode],
    *,
    repo_id: str,
    root: Path,
    fps: int,
    with_actions: bool = True,
    with_state: bool = True,
    video: bool = True,
    robot: Robot = SAWYER,
) -> int:
    """Write episodes as a LeRobotDataset v3 under `root` and return how many frames it has.

    The dataset grows in `<root>.partial` and takes its name when it is whole, so an interrupted run leaves nothing
    that looks like a dataset. What an earlier interrupted run left there is removed.

    Args:
        episodes: The episodes, at least one; all with the same cameras and image size.
        repo_id: Name of the dataset, user/name.
        root: Folder to write.
        fps: Frames per second.
        with_actions: False leaves out `action`, which makes a dataset to pretrain on.
        with_state: False leaves out `observation.state`.
        video: False stores every frame as a PNG in the parquet files: the exact pictures, no decoder needed. Measured
            at 64 pixels, one thread, pyav: 9 times the size; one frame loads in 2.2 ms in place of 3.9, a clip of 9 in
            4.9 in place of 6.4, and with the state's history in 9.6 in place of 8.6 (LeRobot's lookups, not the PNG).
        robot: The robot's type, and the names of its state and action.

    Raises:
        FileExistsError: If `root` exists.
        ValueError: If there are no episodes.
    """
    check_root_is_free(root)
    partial_root = root.with_name(root.name + ".partial")
    shutil.rmtree(partial_root, ignore_errors=True)
    # A page of x264's settings and a progress bar of its own for every episode would hide the caller's.
    av.logging.set_libav_level(av.logging.ERROR)
    datasets.disable_progress_bars()
    dataset: LeRobotDataset | None = None
    frames = 0
    try:
        for episode in episodes:
            if dataset is None:
                features = _features(episode, robot, with_actions, with_state, video)
                dataset = _create_dataset(repo_id, partial_root, fps, features, robot, len(episode.state))
            frames += _add_episode(dataset, episode)
        if dataset is None:
            raise ValueError("there are no episodes to write: raise --episodes")
        dataset.finalize()
        # The writer's empty folders, without video.
        shutil.rmtree(partial_root / "images", ignore_errors=True)
        os.rename(partial_root, root)
    except BaseException:  # Ctrl-C too
        try:
            if dataset is not None:
                dataset.finalize()  # stops its encoder thread
        finally:
            shutil.rmtree(partial_root, ignore_errors=True)
        raise
    return frames


def _add_episode(dataset: LeRobotDataset, episode: RecordedEpisode) -> int:
    """Add what the dataset has features for; returns the number of frames."""
    columns = {f"{OBS_IMAGES}.{camera}": images for camera, images in episode.images.items()}
    columns |= {OBS_STATE: episode.state, ACTION: episode.action}
    columns = {key: values for key, values in columns.items() if key in dataset.features}
    for i in range(len(episode.state)):
        dataset.add_frame({key: values[i] for key, values in columns.items()} | {"task": episode.instruction})
    dataset.save_episode()
    return len(episode.state)


def _features(
    episode: RecordedEpisode, robot: Robot, with_actions: bool, with_state: bool, video: bool
) -> dict[str, dict]:
    """LeRobot's description of what the episodes hold."""
    features: dict[str, dict] = {}
    for camera, images in episode.images.items():
        features[f"{OBS_IMAGES}.{camera}"] = {
            "dtype": "video" if video else "image",
            "shape": images.shape[1:],
            "names": ["height", "width", "channels"],
        }
    for key, names, wanted in ((OBS_STATE, robot.state, with_state), (ACTION, robot.action, with_actions)):
        if wanted:
            features[key] = {"dtype": "float32", "shape": (len(names),), "names": list(names)}
    return features


def _create_dataset(
    repo_id: str, root: Path, fps: int, features: dict[str, dict], robot: Robot, length: int
) -> LeRobotDataset:
    """An empty dataset for episodes of about `length` frames."""
    return LeRobotDataset.create(
        repo_id,
        fps,
        features,
        root=root,
        robot_type=robot.type,
        use_videos=any(feature["dtype"] == "video" for feature in features.values()),
        # Key frames two apart and a stream that is quick to decode: training reads short clips at random places.
        rgb_encoder=RGBEncoderConfig(vcodec="h264", g=2, crf=20, fast_decode=1),
        # Frames go straight to the encoder. Its queue drops what does not fit, so it holds a whole episode.
        streaming_encoding=True,
        encoder_queue_maxsize=max(100_000, length),
        encoder_threads=1,  # the workers have the other cores
        video_backend="pyav",  # for reading, which does not happen here: saves looking for torchcodec
    )
