"""A pretraining batch of LeRobot's as the method and the wrapped policy see it.

Letters: B batch, T = H + 1 frames of a clip, n observations of the policy's history, C h w channels and pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature, PreTrainedConfig
from lerobot.utils.constants import (
    ACTION,
    OBS_IMAGES,
    OBS_LANGUAGE,
    OBS_LANGUAGE_SUBTASK,
    OBS_PREFIX,
    OBS_STATE,
)
from torch import Tensor

from lawm_lerobot.labels.cameras import is_depth
from lawm_lerobot.labels.demonstrations import PolicyViews, Preprocess
from lawm_lerobot.method.clip import Clip
from lawm_lerobot.method.frames import resize_frames
from lawm_lerobot.method.latent_action import INVERSE_DYNAMICS
from lawm_lerobot.policies.common.configuration import EMPTY_CAMERA, LawmConfig

IS_PAD = "_is_pad"


def real_cameras(config: PreTrainedConfig) -> dict[str, PolicyFeature]:
    """The image features that a batch must have; a policy fills LeRobot's empty cameras itself."""
    return {key: ft for key, ft in config.image_features.items() if not key.startswith(EMPTY_CAMERA)}


def world_model_camera(config: LawmConfig) -> str:
    """The image feature whose frames the world model predicts.

    Raises:
        ValueError: If ``world_model.camera`` names none.
    """
    # The world model predicts colour. Depth maps have one channel, or three and a name that says so.
    cameras = sorted(key for key, feature in real_cameras(config).items() if feature.shape[0] == 3)
    cameras.sort(key=is_depth)
    wanted = config.world_model.camera
    if wanted is None and cameras:
        return cameras[0]
    for camera in cameras:
        if wanted in (camera, camera.removeprefix(f"{OBS_IMAGES}.")):
            return camera
    raise ValueError(
        f"world_model.camera is {wanted!r}, but the dataset's colour cameras are "
        f"{', '.join(cameras) or 'none'}: change --policy.world_model.camera."
    )


def require_cameras(batch: dict[str, Any], cameras: list[str]) -> None:
    """Raises ValueError unless the batch has all cameras."""
    missing = [key for key in cameras if key not in batch]
    if missing:
        raise ValueError(
            f"The batch has no {', '.join(missing)} (it has "
            f"{', '.join(sorted(k for k in batch if k.startswith(OBS_IMAGES) and not k.endswith(IS_PAD)))}):"
            " finetuning from a pretraining checkpoint takes the dataset's own cameras, so leave out "
            "--rename_map."
        )


def make_clip(batch: dict[str, Any], config: LawmConfig, mean: Tensor, scale: Tensor) -> Clip:
    """The world model's view of a pretraining batch, with the `pixel_affine` (C,1,1) of its camera."""
    camera = world_model_camera(config)
    first = len(config.history_deltas) - 1
    images = batch[camera][:, first:]  # (B,T,C,h,w)
    size = config.world_model.image_size
    frames = resize_frames(images.flatten(0, 1), (size, size))  # (B*T,C,size,size)
    frames = (frames * scale + mean).clamp(0, 1)
    is_pad = batch.get(f"{camera}{IS_PAD}")
    valid = (
        torch.ones(images.shape[:2], dtype=torch.bool, device=images.device)
        if is_pad is None
        else ~is_pad[:, first:]
    )  # (B,T)
    states = batch.get(OBS_STATE) if config.latent_action.proprio_weight > 0 else None  # (B,n-1+T,S)
    return Clip(
        frames.unflatten(0, images.shape[:2]), valid[:, 1:], None if states is None else states[:, first:]
    )


def present_batch(batch: dict[str, Any], config: LawmConfig) -> dict[str, Any]:
    """A pretraining batch up to x_0, in the wrapped policy's format: its history (B,[n],...), and no action."""
    steps = len(config.history_deltas)
    has_time = config.wrapped_history is not None
    seen: dict[str, Any] = {}
    for key, value in batch.items():
        if key.startswith(ACTION):
            continue
        # What the processors made of the task has no time axis.
        observed = key.startswith(OBS_PREFIX) and not key.startswith((OBS_LANGUAGE, OBS_LANGUAGE_SUBTASK))
        if observed and isinstance(value, Tensor):
            value = value[:, :steps] if has_time else value[:, 0]
        seen[key] = value
    return seen


def join_batches(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """The keys that two batches have in common, the one's values followed by the other's."""
    shared = {key: (first[key], second[key]) for key in first if second.get(key) is not None}
    for key, (a, b) in shared.items():
        if key.startswith(OBS_LANGUAGE):  # (B,L) tokens and masks, padded to the longest of their own batch
            longest = max(a.shape[1], b.shape[1])
            shared[key] = F.pad(a, (0, longest - a.shape[1])), F.pad(b, (0, longest - b.shape[1]))
    return {
        key: torch.cat([a, b]) if isinstance(a, Tensor) else [*a, *b]
        for key, (a, b) in shared.items()
        if isinstance(a, (Tensor, list))
    }


def pick_samples(batch: dict[str, Any], indices: Sequence[int]) -> dict[str, Any]:
    """Copy some samples of a batch to the CPU, with whatever of it is given for each sample."""
    return {
        key: value[list(indices)].cpu() if isinstance(value, Tensor) else [value[index] for index in indices]
        for key, value in batch.items()
        if (isinstance(value, Tensor) and value.ndim) or isinstance(value, list)
    }


def pixel_affine(
    config: LawmConfig, camera: str, stats: dict[str, dict[str, Any]] | None
) -> tuple[Tensor, Tensor]:
    """mean, scale (C,1,1) such that ``normalised * scale + mean`` is the image in [0, 1].

    The inverse of LeRobot's `NormalizerProcessorStep`, or of ``picture_stats``; identity without statistics.
    """
    channels = config.image_features[camera].shape[0]
    mean, scale = torch.zeros(channels, 1, 1), torch.ones(channels, 1, 1)
    mode = config.normalization_mapping.get(FeatureType.VISUAL.value, NormalizationMode.IDENTITY)
    camera_stats: Mapping[str, Any] | None = (stats or {}).get(camera)
    if config.picture_stats is not None:
        mode, camera_stats = NormalizationMode.MEAN_STD, config.picture_stats
    if camera_stats is None or mode is NormalizationMode.IDENTITY:
        return mean, scale

    def stat(name: str) -> Tensor:
        return torch.as_tensor(camera_stats[name], dtype=torch.float32).reshape(channels, 1, 1)

    if mode is NormalizationMode.MEAN_STD:
        return stat("mean"), stat("std")
    if mode is NormalizationMode.MIN_MAX:  # LeRobot maps [min, max] to [-1, 1]
        return (stat("max") + stat("min")) / 2, (stat("max") - stat("min")) / 2
    raise ValueError(
        f"Images are normalised by {mode.value}, expected MEAN_STD, MIN_MAX or IDENTITY: change "
        "--policy.normalization_mapping."
    )


def policy_views(
    config: LawmConfig, cameras: Sequence[str], corpus_stats: dict[str, dict[str, Any]] | None
) -> PolicyViews | None:
    """Describe the policy's observation, if its own latents are in use; else it need not look at the demonstrations.

    ``corpus_stats`` normalise the demonstrations' pictures too; the state is normalised by the demonstrations' own.
    """
    if config.latent_action.source == INVERSE_DYNAMICS:
        return None
    shapes = {key: config.image_features[key].shape for key in cameras}
    state = config.robot_state_feature
    pictures = {key: value for key, value in (corpus_stats or {}).items() if key in config.image_features}

    def preprocessor(state_stats: dict[str, Any]) -> Preprocess:
        from lerobot.policies.factory import make_pre_post_processors

        return make_pre_post_processors(config, dataset_stats={**pictures, OBS_STATE: state_stats})[0]

    return PolicyViews(
        {key: (shape[1], shape[2]) for key, shape in shapes.items()},
        tuple(state.shape) if state is not None else None,
        config.wrapped_history,
        preprocessor,
    )
