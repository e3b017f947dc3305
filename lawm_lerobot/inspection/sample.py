"""Clips of a dataset, and what a pretraining checkpoint and its untrained twin make of them.

Letters: N clips, H latent actions, T = H + 1 frames, C h w, Z latent dimension, A action dimension, D features,
S shifts of the input, n clips that are shifted.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lerobot.configs import FeatureType
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.constants import ACTION
from lerobot.utils.random_utils import seeded_context
from torch import Tensor
from tqdm import tqdm

from lawm_lerobot.inspection.inputs import require_inputs
from lawm_lerobot.inspection.probes import between_frames, head_inputs, shift_images, shift_offsets
from lawm_lerobot.method.clip import Clip
from lawm_lerobot.method.latent_action import POLICY
from lawm_lerobot.policies.common.configuration import LawmConfig
from lawm_lerobot.policies.common.imagination import clip_latents
from lawm_lerobot.policies.common.policy import LawmPolicy
from lawm_lerobot.policies.common.pretraining_checkpoint import (
    Preprocessor,
    evenly_spaced,
    preprocessed_batches,
)

# Size of a shift of the input, as a fraction of the image, for a checkpoint trained without any.
DEFAULT_SHIFT = 1 / 16
# Clips for the shift test, which infers the latents of each nine times.
SHIFT_CLIPS = 64
BATCH = 32


@dataclass
class Sample:
    """Clips of a dataset, all whole, and what the checkpoint makes of them. All tensors are on the CPU.

    Args:
        frames: The frames as uint8, at the world model's size.
        inferred: The latents that drove the world model in pretraining: the inverse dynamics', or the policy's.
        predicted: The latents that the policy predicts from x_0 alone.
        features: The input of the policy's output layer, averaged over the chunk.
        untrained_latents, untrained_features: The same of the same architecture with random weights.
        offsets: The S shifts of the input, as fractions of the image; see `shift_images`.
        shifted_clips: The indices of the clips that were shifted.
        shifted: The inferred latents of those clips under every shift.
        episodes: The index of each clip's episode.
        tasks: The description of each clip's task.
        targets: The true actions, as `between_frames` gives them; empty for a dataset without actions.
    """

    frames: Tensor  # (N,T,C,h,w)
    inferred: Tensor  # (N,H,Z)
    predicted: Tensor  # (N,H,Z)
    features: Tensor  # (N,D)
    untrained_latents: Tensor  # (N,H,Z)
    untrained_features: Tensor  # (N,D)
    offsets: list[tuple[float, float]]
    shifted_clips: Tensor  # (n)
    shifted: Tensor  # (S,n,H,Z)
    episodes: Tensor  # (N)
    tasks: list[str]
    targets: dict[str, Tensor]  # (N,H,A) each

    def pixels(self, index: Any = slice(None)) -> Tensor:
        """Frames in [0, 1]."""
        return self.frames[index].float() / 255

    def latent_map(self, components: int) -> tuple[np.ndarray, Tensor]:
        """All latents on their first principal components, and each component's share of the variance.

        Points (N*H,components), zero on components that do not exist, and shares (min(N*H,Z),).
        """
        points = self.inferred.flatten(0, 1).nan_to_num(0, 0, 0)  # (N*H,Z)
        centred = points - points.mean(0)
        _, strength, directions = torch.linalg.svd(centred, full_matrices=False)  # (r), (r,Z)
        flat = np.zeros((len(points), components), np.float32)
        flat[:, : len(directions)] = (centred @ directions[:components].T).numpy()
        return flat, strength.square() / strength.square().sum().clamp_min(1e-20)


def check_fit(policy: LawmPolicy, meta: LeRobotDatasetMetadata, repo_id: str) -> list[str]:
    """Warn of what differs between a checkpoint's inputs and a dataset, but can be measured all the same.

    Raises:
        ValueError: If the dataset lacks an input, or has it in another shape.
    """
    config = policy.config
    inputs = {
        key: feature
        for key, feature in (config.input_features or {}).items()
        if feature.type is not FeatureType.VISUAL or key in policy.cameras
    }
    require_inputs(inputs, meta, repo_id, "pretrained")
    if config.dataset_fps not in (None, meta.fps):
        return [
            f"The dataset has {meta.fps} frames per second, the pretraining dataset had {config.dataset_fps}: "
            f"{config.latent_action.stride} frames apart is another time here."
        ]
    return []


def whole_clips(meta: LeRobotDatasetMetadata, config: LawmConfig) -> tuple[np.ndarray, np.ndarray]:
    """First frames (M,) of all clips that lie within one episode, and their episodes (M,).

    Raises:
        ValueError: If there are fewer than two.
    """
    span = config.latent_action.stride * config.latent_action.horizon
    begins = np.asarray(meta.episodes["dataset_from_index"])
    ends = np.asarray(meta.episodes["dataset_to_index"]) - span
    starts = [np.arange(begin, end) for begin, end in zip(begins, ends, strict=True)]
    total = sum(map(len, starts))
    if total < 2:
        raise ValueError(
            f"The dataset has {total} whole clip{'s' * (total != 1)}, expected at least two: a clip spans "
            f"{span + 1} frames ({config.latent_action.horizon} latents, {config.latent_action.stride} frames "
            f"apart), and the longest episode has {max(meta.episodes['length'])}; choose a --dataset.repo_id with "
            "longer episodes."
        )
    return np.concatenate(starts), np.repeat(np.arange(len(starts)), [len(s) for s in starts])


@torch.no_grad()
def take_sample(
    policy: LawmPolicy, preprocessor: Preprocessor, dataset: LeRobotDataset, clips: int, seed: int
) -> Sample:
    """Decode clips spaced evenly over the dataset, once, and keep what the metrics need of them.

    Args:
        policy: The pretraining checkpoint's policy.
        preprocessor: The checkpoint's preprocessor.
        dataset: The dataset, opened by `open_clips`.
        clips: Number of clips; fewer are taken if the dataset has fewer whole ones.
        seed: Seed of the untrained baselines' weights, and of the noise that some policies denoise.
    """
    config = policy.config
    starts, owners = whole_clips(dataset.meta, config)
    chosen = evenly_spaced(len(starts), min(clips, len(starts)))
    picks = starts[chosen]
    # Those for the shift test are spaced over the picks, as these are over the dataset.
    shifted_clips = torch.arange(0, len(picks), -(-len(picks) // SHIFT_CLIPS))  # (n)
    offsets = shift_offsets(config.idm.random_shift / config.world_model.image_size or DEFAULT_SHIFT)

    parts: dict[str, list[Tensor]] = {}
    done = 0
    with seeded_context(seed), tqdm(total=len(picks), desc="clips", unit="clip") as bar:
        untrained = _untrained(policy)
        batches = preprocessed_batches(dataset, picks.tolist(), preprocessor, BATCH)
        for batch in batches:
            clip = policy.clip(batch)
            with head_inputs(policy, policy.latent_head) as features:
                latents = clip_latents(policy, policy.policy_batch(batch), clip)
            with head_inputs(untrained, untrained.latent_head) as untrained_features:
                untrained_latents = clip_latents(untrained, untrained.policy_batch(batch), clip).inferred
            new = {
                "frames": (clip.frames * 255).round().to(torch.uint8),
                "inferred": latents.inferred,
                "predicted": latents.predicted,
                "features": features(),
                "untrained_latents": untrained_latents,
                "untrained_features": untrained_features(),
            }
            here = shifted_clips[(shifted_clips >= done) & (shifted_clips < done + len(clip))] - done
            if len(here):
                shifted = _shifted_latents(policy, batch, clip, offsets)  # (S,B,H,Z)
                new["shifted"] = shifted[:, here.to(shifted.device)].transpose(0, 1)  # (n,S,H,Z)
            for name, tensor in new.items():
                parts.setdefault(name, []).append(tensor.cpu())
            done += len(clip)
            bar.update(len(clip))
    joined = {name: torch.cat(tensors) for name, tensors in parts.items()}
    joined["shifted"] = joined["shifted"].transpose(0, 1)  # (n,S,H,Z) -> (S,n,H,Z)
    rows = dataset.hf_dataset.with_format("numpy")
    names = {index: str(task) for task, index in dataset.meta.tasks["task_index"].items()}
    return Sample(
        **joined,
        offsets=offsets,
        shifted_clips=shifted_clips,
        episodes=torch.as_tensor(owners[chosen]),
        tasks=[names[int(index)] for index in rows.select(picks)["task_index"][:]],
        targets=_action_targets(rows, picks, config),
    )


def _shifted_latents(
    policy: LawmPolicy, batch: dict[str, Any], clip: Clip, offsets: Sequence[tuple[float, float]]
) -> Tensor:
    """(S,B,H,Z): the inferred latents under every shift of the input, one shift for all frames of a clip."""
    if policy.config.latent_action.source != POLICY:
        inputs = [shift_images(clip.frames, offset) for offset in offsets]
        return torch.stack([policy.pretraining.infer_latents(shifted, clip.valid) for shifted in inputs])
    rows = []
    for offset in offsets:
        shifted = {**batch, **{key: shift_images(batch[key], offset) for key in policy.cameras}}
        with seeded_context(0):  # policies that denoise start from the same noise under every shift
            rows.append(clip_latents(policy, policy.policy_batch(shifted), clip).inferred)
    return torch.stack(rows)


def _untrained(policy: LawmPolicy) -> LawmPolicy:
    """The same architecture with random weights."""
    config = copy.deepcopy(policy.config)
    if hasattr(config, "load_vlm_weights"):
        config.load_vlm_weights = False
    return type(policy)(config, load_base=False).to(config.device).eval()


def _action_targets(rows: Any, picks: np.ndarray, config: LawmConfig) -> dict[str, Tensor]:
    if ACTION not in rows.column_names:
        return {}
    horizon, stride = config.latent_action.horizon, config.latent_action.stride
    wanted, where = np.unique(picks[:, None] + np.arange(horizon * stride + 1), return_inverse=True)
    actions = np.asarray(rows.select_columns([ACTION]).select(wanted)[ACTION][:], np.float32)
    actions = actions.reshape(len(wanted), -1)  # (rows,A)
    return between_frames(actions[where.reshape(len(picks), -1)], horizon, stride)
