"""Record a simulation's scripted experts as a LeRobotDataset.

    recording = MetaworldRecording(["push-v3"], episodes_per_task=25, size=96)
    episodes = record_expert_episodes(recording)
    write_dataset(episodes, recording.robot, repo_id="me/push", root=Path("data/push"), fps=80)

A frame holds the observation before the policy acts, and the action it should take there. Places of things, and what
else varies, come from the episode's seed: 0, 1, 2, ... above `seed`, the same that LeRobot's evaluation counts up from its own `--seed` (1000
unless changed), so keep the two ranges apart.
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
from typing import Any, ClassVar, Protocol

import av
import datasets
import gymnasium as gym
import numpy as np
from lerobot.configs.video import RGBEncoderConfig
from lerobot.datasets import LeRobotDataset
from lerobot.utils.constants import ACTION, HF_LEROBOT_HOME, OBS_IMAGES, OBS_STATE

# A failed episode is tried again with the next of these above its seed. Far from any seed that a user counts up to.
RETRY_SEED_STEP = 1_000_000
MAX_ATTEMPTS = 20


@dataclass(frozen=True)
class Robot:
    """A simulated robot as a dataset describes it: its type, and the names of the numbers of its state and action."""

    type: str
    state: tuple[str, ...]
    action: tuple[str, ...]


@dataclass
class RecordedEpisode:
    """One recorded episode of n frames.

    Args:
        task, instruction: The simulation's name of the task, such as push-v3, and the words for it.
        seed: The seed of the reset; `reset(seed=...)` gives the same places of things again.
        success: True if the expert succeeded.
        images, state: Pictures of each camera and the arm's state in each frame.
        action: The action chosen in each frame, or the one executed, see `ExpertRecording.record_executed`.
    """

    task: str
    instruction: str
    seed: int
    success: bool
    images: dict[str, np.ndarray]  # {camera: (n, size, size, 3) uint8}
    state: np.ndarray  # (n, S) float32
    action: np.ndarray  # (n, A) float32


class ExpertEnv(Protocol):
    """A simulation with a scripted expert, which may be stepped on after a success."""

    task_description: str
    action_space: gym.spaces.Box

    def reset(self, *, seed: int) -> tuple[dict[str, Any], dict[str, Any]]: ...
    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]: ...
    def expert_action(self) -> np.ndarray: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class ExpertRecording(ABC):
    """The settings of a recording; the same settings give the same episodes. A simulation has a subclass with its own.

    Args:
        tasks: The simulation's names of tasks.
        episodes_per_task: Number of episodes of each task.
        seed: Seed of the first episode of every task; episode k resets with `seed + k`.
        size: Height and width of the images in pixels.
        noise: Standard deviation of Gaussian noise on the executed motion, the first `moving` numbers of the action, in
            their own unit. The gripper follows the expert: it is a plain open or close in most of them.
        record_executed: Record the noisy action that moved the arm. By default the expert's clean action is
            recorded while the noisy one is executed, as DART does (arXiv 1703.09327): the states then cover small
            mistakes and every recorded action leads back, which makes better imitation data.
        max_steps: Number of steps after which an episode that has not succeeded has failed.
        frames_after_success: Number of frames recorded after the first success.
        success_only: Try a failed episode again with another seed, up to `MAX_ATTEMPTS` times.
    """

    robot: ClassVar[Robot]
    module: ClassVar[str]  # of the environment, which worker processes import once
    fps: ClassVar[int]  # frames per second
    moving: ClassVar[int] = 3

    tasks: Sequence[str]
    episodes_per_task: int
    seed: int = 0
    size: int = 128
    noise: float = 0.0
    record_executed: bool = False
    max_steps: int = 500
    frames_after_success: int = 5
    success_only: bool = True

    @abstractmethod
    def require_simulator(self) -> None:
        """Raise ImportError, with what to do, if the simulator cannot be used."""

    @abstractmethod
    def make_environment(self, task: str) -> ExpertEnv:
        """An environment of one task."""

    @abstractmethod
    def frame(self, observation: dict[str, Any]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The pictures, {camera: (size, size, 3) uint8}, and the state, (S,) float32, that a policy would be given."""


def record_expert_episodes(
    recording: ExpertRecording, workers: int = 0, skip: int = 0
) -> Iterator[RecordedEpisode]:
    """Yield the episodes of each task, in order.

    Args:
        recording: The settings.
        workers: Number of processes that simulate and draw; 0 does it in this one. The result does not depend on it.
        skip: Number of episodes at the beginning that are left out.

    Raises:
        RuntimeError: If the expert fails `MAX_ATTEMPTS` times running and `success_only` is set.
    """
    recording.require_simulator()
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
    context.set_forkserver_preload([__name__, recording.module])
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


# The environment of this process's latest episode, with what it was made for, kept because making one takes a second.
_latest: tuple[ExpertRecording, str, ExpertEnv] | None = None


def _close_env() -> None:
    global _latest
    if _latest is not None:
        _latest[2].close()
        _latest = None


def _get_env(recording: ExpertRecording, task: str) -> ExpertEnv:
    """An environment of this recording: the latest episode's if that was of the same task."""
    global _latest
    if _latest is None or _latest[:2] != (recording, task):
        _close_env()
        _latest = recording, task, recording.make_environment(task)
    return _latest[2]


def _record_episode(recording: ExpertRecording, task: str, seed: int) -> RecordedEpisode:
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


def _attempt_episode(recording: ExpertRecording, task: str, seed: int) -> RecordedEpisode:
    env = _get_env(recording, task)
    generator = np.random.default_rng([seed, *task.encode()])
    frames, actions = [], []
    steps_left, success = recording.max_steps, False

    observation, _ = env.reset(seed=seed)
    while steps_left > 0:
        chosen = env.expert_action()  # (A,)
        executed = chosen.copy()
        executed[: recording.moving] += recording.noise * generator.standard_normal(recording.moving)
        executed = executed.clip(env.action_space.low, env.action_space.high).astype(np.float32)

        frames.append(recording.frame(observation))
        actions.append(executed if recording.record_executed else chosen)

        observation, _, terminated, _, info = env.step(executed)
        steps_left -= 1
        if terminated and not success:
            success = bool(info["is_success"])
            steps_left = recording.frames_after_success if success else 0
    images, states = zip(*frames, strict=True)
    return RecordedEpisode(
        task=task,
        instruction=env.task_description,
        seed=seed,
        success=success,
        images={camera: np.stack([image[camera] for image in images]) for camera in images[0]},
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
    robot: Robot,
    *,
    repo_id: str,
    root: Path,
    fps: int,
    with_actions: bool = True,
    with_state: bool = True,
    video: bool = True,
) -> int:
    """Write episodes as a LeRobotDataset v3 under `root` and return how many frames it has.

    The dataset grows in `<root>.partial` and takes its name when it is whole, so an interrupted run leaves nothing
    that looks like a dataset. What an earlier interrupted run left there is removed.

    Args:
        episodes: The episodes, at least one; all with the same cameras and image size.
        robot: The robot that they show.
        repo_id: Name of the dataset, user/name.
        root: Folder to write.
        fps: Frames per second.
        with_actions: False leaves out `action`, which makes a dataset to pretrain on.
        with_state: False leaves out `observation.state`.
        video: False stores every frame as a PNG in the parquet files: the exact pictures, no decoder needed. Measured
            at 64 pixels, one thread, pyav: 9 times the size; one frame loads in 2.2 ms in place of 3.9, a clip of 9 in
            4.9 in place of 6.4, and with the state's history in 9.6 in place of 8.6 (LeRobot's lookups, not the PNG).

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
                dataset = _create_dataset(
                    repo_id, partial_root, fps, episode, robot, with_actions, with_state, video
                )
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


def _create_dataset(
    repo_id: str,
    root: Path,
    fps: int,
    episode: RecordedEpisode,
    robot: Robot,
    with_actions: bool,
    with_state: bool,
    video: bool,
) -> LeRobotDataset:
    features = {}
    for camera, images in episode.images.items():
        features[f"{OBS_IMAGES}.{camera}"] = {
            "dtype": "video" if video else "image",
            "shape": images.shape[1:],
            "names": ["height", "width", "channels"],
        }
    for key, names, wanted in ((OBS_STATE, robot.state, with_state), (ACTION, robot.action, with_actions)):
        if wanted:
            features[key] = {"dtype": "float32", "shape": (len(names),), "names": list(names)}
    return LeRobotDataset.create(
        repo_id,
        fps,
        features,
        root=root,
        robot_type=robot.type,
        use_videos=video,
        # Key frames two apart and a stream that is quick to decode: training reads short clips at random places.
        rgb_encoder=RGBEncoderConfig(vcodec="h264", g=2, crf=20, fast_decode=1),
        # Frames go straight to the encoder. Its queue drops what does not fit, so it holds a whole episode.
        streaming_encoding=True,
        encoder_queue_maxsize=max(100_000, len(episode.state)),
        encoder_threads=1,  # the workers have the other cores
        video_backend="pyav",  # for reading, which does not happen here: saves looking for torchcodec
    )
