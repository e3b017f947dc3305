"""A second dataset, of labelled demonstrations, decoded once and held in memory as bytes.

Nothing of it passes through the training's preprocessor, which would take `action` for latent actions.

Letters: L labelled clips, H latent actions in a clip, T = H + 1 frames, A robot action dimension, S state dimension,
C h w, N frames of all demonstrations.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE
from torch import Tensor
from tqdm import tqdm

from lawm_lerobot.labels.cameras import is_depth, picture_shape
from lawm_lerobot.labels.configuration import EMBODIMENT, LabelsConfig
from lawm_lerobot.method.latent_action import LatentActionConfig

if TYPE_CHECKING:
    from lawm_lerobot.labels.episodes import EpisodeReader

logger = logging.getLogger(__name__)

# The demonstrations' pictures are held in memory; more than this is no longer "a few".
MEMORY_LIMIT_GIB = 4.0

Preprocess = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass
class PolicyViews:
    """The policy's observation, for a policy that has to look at the demonstrations too.

    Args:
        cameras: The features of the policy's cameras, and the size (h,w) at which it sees each.
        state_shape: The shape of the state that the policy takes; None if it takes no state.
        history: Dataset frames before the present one that the policy sees, then 0 for the present one; None if its
            observation has no time axis.
        preprocessor: A function from the statistics of the demonstrations' state to the policy's preprocessor.
    """

    cameras: dict[str, tuple[int, int]]
    state_shape: tuple[int, ...] | None
    history: list[int] | None
    preprocessor: Callable[[dict[str, Any]], Preprocess]

    def check(self, reader: EpisodeReader, source: str) -> None:
        """Raises ValueError unless the demonstrations have all that the policy sees."""
        advice = f"with --policy.latent_action.source={source} the policy must see the demonstrations too; "
        missing = [key for key in self.cameras if key not in reader.meta.camera_keys]
        if missing:
            raise ValueError(
                f"{reader.dataset.repo_id} has no {', '.join(missing)}, and {advice}choose "
                "--policy.latent_action.source=inverse_dynamics, or rename its cameras."
            )
        found = reader.features.get(OBS_STATE, {}).get("shape")
        if self.state_shape is not None and (found is None or tuple(found) != self.state_shape):
            raise ValueError(
                f"{reader.dataset.repo_id} has {'no ' if found is None else ''}{OBS_STATE}"
                f"{'' if found is None else f' of shape {tuple(found)}'}, expected shape {self.state_shape}: "
                f"{advice}choose --policy.latent_action.source=inverse_dynamics."
            )


class Demonstrations:
    """Clips of the labelled demonstrations.

    Args:
        labels: The dataset's name and place, and the choice of its episodes and camera.
        action: The latent actions, which set how clips are cut.
        camera: The corpus's camera that the world model predicts.
        image_size: Pixels of the square frames that the world model sees.
        fps: Frames per second of the corpus.
        views: The policy's observation, if the policy has to look at the demonstrations too.

    Raises:
        ValueError: If the dataset does not fit the corpus or the memory.
    """

    def __init__(
        self,
        labels: LabelsConfig,
        action: LatentActionConfig,
        camera: str,
        image_size: int,
        fps: int,
        views: PolicyViews | None = None,
    ) -> None:
        from lawm_lerobot.labels.episodes import EpisodeReader

        assert labels.repo_id is not None
        reader = EpisodeReader(
            labels.repo_id,
            labels.root,
            labels.revision,
            labels.episodes,
            flag="--policy.labels",
            tolerance_s=labels.tolerance_s,
        )
        check_demonstrations(reader, fps, action.stride)
        self.action, self.views = action, views
        own_camera = labelled_camera(reader, labels.camera, camera, "--policy.labels.camera")
        size = (image_size, image_size)
        reader.check_finite(ACTION)
        if views is not None:
            views.check(reader, action.source)
            if views.state_shape is not None:
                reader.check_finite(OBS_STATE)
        policy_cameras = views.cameras if views is not None else {}
        _check_memory(reader, [size, *policy_cameras.values()])

        frames: list[Tensor] = []
        policy_frames: dict[str, list[Tensor]] = {key: [] for key in policy_cameras}
        starts, ends, self.tasks = [], [], []
        total = 0
        for episode in tqdm(reader.episodes, desc="Reading the demonstrations", unit="episode"):
            frames.append(reader.frames(episode, own_camera, size))
            for key, policy_size in policy_cameras.items():
                policy_frames[key].append(reader.frames(episode, key, policy_size))
            length = reader.length(episode)
            starts += [total] * length
            ends += [total + length] * length
            self.tasks += [reader.task(episode)] * length
            total += length
        self.frames = torch.cat(frames)  # (N,C,h,w) uint8
        self.actions = torch.from_numpy(reader.column(ACTION))  # (N,A)
        self.digests = [digest(reader.numbers(episode, ACTION)) for episode in reader.episodes]
        self.starts, self.ends = torch.tensor(starts), torch.tensor(ends)  # (N,) each
        # A clip without a second frame teaches nothing.
        self.first_frames = (torch.arange(total) + action.stride < self.ends).nonzero()[:, 0]
        if views is not None:
            self.observations = {key: torch.cat(parts) for key, parts in policy_frames.items()}
            if views.state_shape is not None:
                self.observations[OBS_STATE] = torch.from_numpy(reader.column(OBS_STATE))  # (N,S)
            self.preprocess = views.preprocessor(_state_statistics(reader, labels.episodes is not None))

    @property
    def action_dim(self) -> int:
        return self.actions.shape[1]

    def draw(self, count: int, seed: list[int]) -> Tensor:
        """(L,) first frames of `count` clips, the same ones for the same seed."""
        picks = np.random.default_rng(seed).integers(len(self.first_frames), size=count)
        return self.first_frames[torch.from_numpy(picks)]

    def clips(self, first: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """frames (L,T,C,h,w) uint8, valid (L,H) and actions (L,H,stride,A) of the clips that start at `first` (L,)."""
        horizon, stride = self.action.horizon, self.action.stride
        last = self.ends[first, None] - 1  # (L,1)
        steps = first[:, None] + stride * torch.arange(horizon + 1)  # (L,T)
        frames = self.frames[torch.minimum(steps, last)]  # (L,T,C,h,w)
        actions = self.actions[torch.minimum(first[:, None] + torch.arange(horizon * stride), last)]
        return frames, (steps <= last)[:, 1:], actions.unflatten(1, (horizon, stride))

    def policy_batch(self, first: Tensor) -> dict[str, Any] | None:
        """The policy's preprocessed history up to frames `first` (L,); None if it need not look at them."""
        if self.views is None:
            return None
        deltas = torch.tensor(self.views.history or [0])  # (n)
        steps = torch.maximum(first[:, None] + deltas, self.starts[first, None])  # (L,n)
        if self.views.history is None:
            steps = steps[:, -1]  # (L)
        batch: dict[str, Any] = {key: values[steps] for key, values in self.observations.items()}
        for key, value in batch.items():
            if key.startswith(OBS_IMAGES):
                batch[key] = value.float() / 255
        batch["task"] = [self.tasks[frame] for frame in first.tolist()]
        return self.preprocess(batch)


def digest(actions: np.ndarray) -> str:
    """A short name for the content of an episode's actions (n,A), the same wherever the episode is kept."""
    return hashlib.sha256(np.ascontiguousarray(actions, np.float32).tobytes()).hexdigest()[:12]


def _state_statistics(reader: EpisodeReader, chosen: bool) -> dict[str, Any]:
    """Statistics of the state, of the chosen episodes alone if some were chosen: others may be broken."""
    if not chosen or OBS_STATE not in reader.features:
        return reader.meta.stats.get(OBS_STATE, {})
    from lerobot.datasets.compute_stats import compute_episode_stats

    feature = {OBS_STATE: reader.features[OBS_STATE]}
    return compute_episode_stats({OBS_STATE: reader.column(OBS_STATE)}, feature)[OBS_STATE]


def check_demonstrations(reader: EpisodeReader, fps: int, stride: int) -> None:
    """Raises ValueError unless a dataset can serve as labelled demonstrations for a corpus of this frame rate."""
    name, flag = reader.dataset.repo_id, reader.flag
    if ACTION not in reader.features:
        raise ValueError(f"{name} has no 'action', expected labelled demonstrations: change {flag}.repo_id.")
    if EMBODIMENT in reader.features:
        raise ValueError(
            f"{name} pools the actions of several embodiments, expected the demonstrations of one: "
            f"change {flag}.repo_id."
        )
    if reader.fps != fps:
        raise ValueError(
            f"{name} has {reader.fps} frames per second and the corpus {fps}, so its actions would belong to "
            f"other motions: resample one of them with lawm-import-videos --fps, or change {flag}.repo_id."
        )
    longest = max(reader.length(episode) for episode in reader.episodes)
    if longest <= stride:
        raise ValueError(
            f"The longest episode of {name} has {longest} frames, too few for one latent action of {stride}: "
            f"lower --policy.latent_action.stride, or change {flag}.repo_id."
        )


def labelled_camera(reader: EpisodeReader, name: str | None, same_as: str | None, flag: str) -> str:
    """The dataset's camera: the one asked for, the one of the same name as another dataset's, or the only one of colour.

    Args:
        reader: The dataset.
        name: The camera asked for, with or without its prefix; None leaves the choice open.
        same_as: The other dataset's camera, which is taken if this dataset has it and none is asked for.
        flag: The flag that chooses the camera, for the ValueError that says that there is no such camera.
    """
    cameras = [key for key in reader.meta.camera_keys if picture_shape(reader.features[key])[0] == 3]
    for key in cameras:
        if name in (key, key.removeprefix(f"{OBS_IMAGES}.")) or (name is None and key == same_as):
            return key
    cameras = [key for key in cameras if not is_depth(key)] or cameras
    if name is None and len(cameras) == 1:
        return cameras[0]
    raise ValueError(
        f"{reader.dataset.repo_id} has the colour cameras {', '.join(cameras) or 'none'}, expected "
        f"{name or same_as or 'only one'} among them: change {flag}."
    )


def _check_memory(reader: EpisodeReader, sizes: Sequence[tuple[int, int]]) -> None:
    frames = sum(reader.length(episode) for episode in reader.episodes)
    gibibytes = frames * sum(3 * height * width for height, width in sizes) / 2**30
    logger.info(
        f"Demonstrations: {len(reader.episodes)} episodes, {frames} frames, {gibibytes:.2f} GiB of memory in "
        "every process."
    )
    if gibibytes > MEMORY_LIMIT_GIB:
        raise ValueError(
            f"The {len(reader.episodes)} demonstrations need {gibibytes:.1f} GiB of memory in every process, "
            f"expected at most {MEMORY_LIMIT_GIB:.0f}: take fewer with --policy.labels.episodes, or a smaller "
            "--policy.world_model.image_size."
        )
