"""The video of co-training: its frames as the policy sees them, and the latent actions that follow each.

The inverse dynamics is frozen, so the latents of a frame never change: they are inferred once, before training, and a
training step reads one observation a sample in place of a whole clip.

Letters: N frames of the video, B a batch of them, n observations of the policy's history, H latent actions of a chunk,
Z latent dimension, C h w.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from lawm_lerobot.labels.cameras import picture_shape
from lawm_lerobot.labels.demonstrations import labelled_camera
from lawm_lerobot.labels.episodes import EpisodeReader
from lawm_lerobot.method.frames import resize_frames
from lawm_lerobot.method.transitions import latent_chunks, over_transitions
from lawm_lerobot.policies.common.clips import real_cameras
from lawm_lerobot.policies.common.configuration import LawmConfig
from lawm_lerobot.policies.common.pretraining import PretrainingPolicy

logger = logging.getLogger(__name__)

FLAG = "--policy.video"


class VideoError(ValueError):
    """The video of co-training does not fit, or can no longer be read; the message is for the user."""


@dataclass
class Video:
    """The dataset of the video, and the parts of the policy's observation that it shows.

    Args:
        reader: The dataset.
        camera: The camera of the dataset that the latents are inferred from.
        cameras: For every camera of the policy that the video shows, the dataset's camera behind it.
        has_state: The video has the robot's own state.
    """

    reader: EpisodeReader
    camera: str
    cameras: dict[str, str]
    has_state: bool

    @classmethod
    def open(cls, config: LawmConfig, state_feature: Mapping[str, Any] | None) -> Video:
        """Open the video that a policy's config names.

        Args:
            config: The config of a policy that is finetuned.
            state_feature: The demonstrations' ``observation.state`` as LeRobot describes it, with names and shape.

        Raises:
            VideoError: If the video is empty or does not fit the policy.
            ValueError: If the dataset is not there, or lacks one of the episodes or the camera.
        """
        video = config.video
        assert video.repo_id is not None
        reader = EpisodeReader(
            video.repo_id, video.root, video.revision, video.episodes, FLAG, video.tolerance_s
        )
        place = _place(config)
        shown = labelled_camera(reader, video.camera, place, f"{FLAG}.camera")
        cameras = {key: key for key in real_cameras(config) if key in reader.meta.camera_keys}
        if shown not in cameras or video.shown_as is not None:
            cameras[place] = shown
        for key, own in cameras.items():
            _warn_of_bars(reader, own, tuple(config.image_features[key].shape))
        wanted, found = config.robot_state_feature, reader.features.get(OBS_STATE)
        has_state = (
            wanted is not None
            and found is not None
            and state_feature is not None
            and all(found.get(key) == state_feature.get(key) for key in ("names", "shape"))
        )
        if ACTION in reader.features:
            logger.info(f"The video {video.repo_id} has actions, which co-training does not read.")
        return cls(reader, shown, cameras, has_state)

    def lacks(self, config: LawmConfig) -> list[str]:
        """The policy's inputs that the video does not show."""
        wanted = [*real_cameras(config), *([OBS_STATE] if config.robot_state_feature else [])]
        return [
            key for key in wanted if key not in self.cameras and not (key == OBS_STATE and self.has_state)
        ]

    @property
    def lengths(self) -> Tensor:
        """The number of frames of each episode, (episodes,) int64."""
        return torch.tensor([self.reader.length(episode) for episode in self.reader.episodes])

    def require_lengths(self, expected: Tensor) -> None:
        """Raise VideoError unless the episodes are as long as they were: latents that were saved belong to their frames."""
        if self.lengths.tolist() != expected.tolist():
            raise VideoError(
                f"{self.reader.dataset.repo_id} has {len(self.lengths)} episodes of {int(self.lengths.sum())} frames, "
                f"expected the {len(expected)} of {int(expected.sum())} that the checkpoint was trained on: change "
                f"{FLAG}.repo_id, or finetune anew from the pretraining checkpoint."
            )

    def infer_latents(self, teacher: PretrainingPolicy) -> Tensor:
        """(N,Z) the latents of x_t -> x_{t+stride} for every frame, zero where the episode ends before.

        Raises:
            VideoError: If the video's frame rate is not that of the teacher's pretraining, so that a latent would span
                another time; or if no episode is long enough.
        """
        config, reader = teacher.config, self.reader
        config.latent_action.settle(reader.fps)  # of a checkpoint that no dataset was given to
        stride = config.latent_action.stride
        if config.dataset_fps is not None and reader.fps != config.dataset_fps:
            raise VideoError(
                f"{reader.dataset.repo_id} has {reader.fps:g} frames per second, expected the {config.dataset_fps:g} of "
                f"pretraining, because a latent action spans {stride} frames: resample it with lawm-import-videos "
                f"--fps={config.dataset_fps:g}, or change {FLAG}.repo_id."
            )
        if max(map(reader.length, reader.episodes), default=0) <= config.shortest_clip:
            unit = "one chunk of latent actions" if config.whole_chunks else "one latent action"
            raise VideoError(
                f"{reader.dataset.repo_id} has no episode of more than {config.shortest_clip} frames, which {unit} takes: "
                f"change {FLAG}.repo_id or {FLAG}.episodes."
            )
        size = (config.world_model.image_size,) * 2
        parts = []
        for episode in tqdm(reader.episodes, desc="Latents of the video", unit="episode"):
            frames = reader.frames(episode, self.camera, size)  # (n,C,h,w)
            latents = torch.zeros(len(frames), config.latent_action.dim)
            if len(frames) > stride:
                pixels = frames.to(config.device).float() / 255
                rows = over_transitions(pixels, stride, teacher.pretraining.infer_latents)  # (n-stride,Z)
                latents[: len(rows)] = rows
            parts.append(latents)
        return torch.cat(parts)


def _place(config: LawmConfig) -> str:
    """The policy's camera in whose place the video is seen, unless their names agree."""
    cameras = sorted(key for key, feature in real_cameras(config).items() if feature.shape[0] == 3)
    wanted = config.video.shown_as
    for key in cameras:
        if wanted in (None, key, key.removeprefix(f"{OBS_IMAGES}.")):
            return key
    raise VideoError(
        f"video.shown_as is {wanted!r}, but the policy's colour cameras are {', '.join(cameras) or 'none'}: change "
        f"{FLAG}.shown_as."
    )


def _warn_of_bars(reader: EpisodeReader, camera: str, wanted: tuple[int, ...]) -> None:
    _, height, width = picture_shape(reader.features[camera])
    if fitting_size((height, width), wanted[1:]) != wanted[1:]:
        logger.warning(
            f"The pictures of '{camera}' in {reader.dataset.repo_id} are {height}x{width} and the demonstrations' "
            f"{wanted[1]}x{wanted[2]} pixels: the policy sees them with black bars. To avoid that, import the video again "
            f"with lawm-import-videos --size={wanted[1]}x{wanted[2]}."
        )


def fitting_size(size: tuple[int, ...], into: tuple[int, ...]) -> tuple[int, int]:
    """The largest (h,w) of the shape of `size` that fits `into`; `into` itself where a pixel row is all that lacks."""
    scale = min(into[0] / size[0], into[1] / size[1])
    height, width = round(size[0] * scale), round(size[1] * scale)
    return (into[0] if into[0] - height <= 1 else height), (into[1] if into[1] - width <= 1 else width)


def fit_pictures(pictures: Tensor, into: tuple[int, int]) -> Tensor:
    """([n],C,h,w) -> ([n],C,*into), resized without distortion, on black where the shapes differ."""
    height, width = fitting_size(pictures.shape[-2:], into)
    resized = resize_frames(pictures.reshape(-1, *pictures.shape[-3:]), (height, width))
    top, left = (into[0] - height) // 2, (into[1] - width) // 2
    padded = F.pad(resized, (left, into[1] - width - left, top, into[0] - height - top))
    return padded.reshape(*pictures.shape[:-2], *into)


class VideoSamples(Dataset):
    """One observation of the video a sample, with the chunk of latents (H,Z) that follows and where it is valid (H,).

    Args:
        video: The video.
        config: The config of the twin that learns from it, which may have another history than the policy itself.
        latents: (N,Z), see `Video.infer_latents`.
        image_transforms: LeRobot's image transforms of the demonstrations, which the video gets too.
    """

    def __init__(self, video: Video, config: LawmConfig, latents: Tensor, image_transforms: Any) -> None:
        reader = video.reader
        self.cameras = video.cameras
        self.sizes = {key: config.image_features[key].shape[1:] for key in video.cameras}
        self.has_state = video.has_state
        self.latents, self.action = latents, config.latent_action
        self.history = history = config.wrapped_history
        keys = [*video.cameras.values(), *([OBS_STATE] if video.has_state else [])]
        self.frames = LeRobotDataset(
            reader.dataset.repo_id,
            root=config.video.root,
            revision=config.video.revision,
            episodes=config.video.episodes and sorted(set(config.video.episodes)),
            image_transforms=image_transforms,
            delta_timestamps=history and {key: [delta / reader.fps for delta in history] for key in keys},
            tolerance_s=config.video.tolerance_s,
            return_uint8=True,
        )
        self.ends = video.lengths.cumsum(0).repeat_interleave(video.lengths)  # (N,)
        #: (M,) the frames that a transition begins with, or a whole chunk of them.
        self.starts = (torch.arange(len(latents)) + config.shortest_clip < self.ends).nonzero()[:, 0].numpy()

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.frames[index]
        first = torch.tensor([index])
        chunk, valid = latent_chunks(
            self.latents, first, self.ends[first], self.action.horizon, self.action.stride
        )
        sample = {"latents": chunk[0], "valid": valid[0], "task": item["task"]}
        for key, own in self.cameras.items():
            image = item[own]  # ([n],C,h,w)
            image = image.float() / 255 if image.dtype == torch.uint8 else image
            if self.history is not None and image.ndim == 3:
                image = image[None]  # LeRobot drops the time axis of a single frame.
            sample[key] = fit_pictures(image, self.sizes[key])
        if self.has_state:
            sample[OBS_STATE] = item[OBS_STATE]
        return sample


class Draws(Sampler):
    """The frames of every training step, the same ones for the same seed and step, whatever was drawn before.

    Args:
        starts: (M,) the frames to draw from.
        batch_size: The number of frames in a step.
        seed: The seed; every process has its own.
        first_step: The step that the first draw is for.
    """

    def __init__(self, starts: np.ndarray, batch_size: int, seed: list[int], first_step: int) -> None:
        self.starts, self.batch_size, self.seed, self.first_step = starts, batch_size, seed, first_step

    def __iter__(self) -> Iterator[list[int]]:
        step = self.first_step
        while True:
            picks = np.random.default_rng([*self.seed, step]).integers(len(self.starts), size=self.batch_size)
            yield self.starts[picks].tolist()
            step += 1


def video_batches(
    samples: VideoSamples, config: LawmConfig, batch_size: int, first_step: int
) -> Iterator[dict[str, Any]]:
    """Batches of `VideoSamples` without end; VideoError if they can no longer be read."""
    video = config.video
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    loader = DataLoader(
        samples,
        batch_sampler=Draws(samples.starts, batch_size, [video.seed, rank], first_step),
        num_workers=video.num_workers,
    )
    try:
        yield from loader
    except Exception as error:
        reason = str(error).strip().splitlines()[-1]
        raise VideoError(
            f"The video {video.repo_id} can no longer be read ({reason}), expected the files that were there when the "
            f"training began: put them back and go on with --resume=true, or change {FLAG}.root."
        ) from error
