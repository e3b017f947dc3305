"""The decoder `readout`: a ridge from the frozen latents of a pretraining checkpoint to actions.

Letters: n frames of an episode, C h w, Z latent dimension, A action dimension, N frames of all demonstrations, D
features of a frame, M members of the ensemble.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor
from tqdm import tqdm

from lawm_lerobot.labelling.configuration import READOUT
from lawm_lerobot.labelling.decoders import (
    Decoded,
    Demonstration,
    FittedDecoder,
    HeldOut,
    action_scale,
    held_out_parts,
    number_of_each_frame,
)
from lawm_lerobot.method.transitions import over_transitions
from lawm_lerobot.policies.common.policy import LawmPolicy
from lawm_lerobot.statistics.ridge import Ridge, fit_ridge, splits

BOOTSTRAPS = 8


def frame_features(policy: LawmPolicy, device: str) -> Callable[[Tensor], np.ndarray]:
    """A function from the frames (n,C,h,w) uint8 of an episode to the `latent_features` (n,D) of each."""
    stride = policy.config.latent_action.stride

    def features(frames: Tensor) -> np.ndarray:
        pixels = frames.to(device).float() / 255
        latents = over_transitions(pixels, stride, policy.pretraining.infer_latents)
        return latent_features(latents.numpy(), len(frames), stride)

    return features


def latent_features(latents: np.ndarray, frames: int, stride: int) -> np.ndarray:
    """(n,(2*stride+1)*Z): z_{t-stride} .. z_{t+stride} for every frame t of an episode of n `frames`.

    These are the transitions that contain the frame's action, and their neighbours. `latents` (max(n-stride,1),Z) has
    the z_t of x_t -> x_{t+stride}; near the episode's ends the nearest stands for those that do not exist.
    """
    around = np.arange(frames)[:, None] + np.arange(-stride, stride + 1)  # (n,2*stride+1)
    return latents[around.clip(0, len(latents) - 1)].reshape(frames, -1)


def fit_latent_readout(
    demonstrations: Sequence[Demonstration],
    features: Callable[[Tensor], np.ndarray],
    stride: int,
    folds: int,
    seed: int,
) -> FittedDecoder:
    """Fit a ridge from frozen latents to actions; its penalty is cross-validated over episodes.

    The ensemble are ridges on bootstrapped episodes. `features` gives the inputs (n,D) of an episode's frames
    (n,C,h,w) uint8, from transitions of `stride`; `folds` are those of the held-out metrics.
    """
    bar = tqdm(demonstrations, desc="Latents of the demonstrations", unit="episode")
    inputs = np.concatenate([features(demo.frames) for demo in bar])  # (N,D)
    targets = np.concatenate([demo.actions for demo in demonstrations])  # (N,A)
    if not np.isfinite(inputs).all():
        raise ValueError(
            "The checkpoint's latents of the demonstrations are not finite (NaN or infinite), expected finite numbers: "
            "its training diverged, so change --policy.path."
        )
    parts, folds = held_out_parts(demonstrations, stride, folds)
    groups, apart = number_of_each_frame(parts), inputs
    if len(parts) > len(
        demonstrations
    ):  # A block's latents come from its own frames, so that no other shows it.
        apart = np.concatenate([features(part.frames) for part in parts])
    scale = action_scale(targets)
    held_out = Decoded(np.empty(targets.shape), np.empty(len(targets)))
    for train, test in splits(groups, folds, seed):
        ridges = _ridge_ensemble(apart[train], targets[train], groups[train], seed)
        decoded = _decode(ridges, apart[test], scale)
        held_out.actions[test], held_out.deviation[test] = decoded.actions, decoded.deviation
    ridges = _ridge_ensemble(inputs, targets, groups, seed)
    return FittedDecoder(
        READOUT, lambda frames: _decode(ridges, features(frames), scale), HeldOut.of(parts, held_out)
    )


def _ridge_ensemble(inputs: np.ndarray, targets: np.ndarray, groups: np.ndarray, seed: int) -> list[Ridge]:
    """The ridge on all rows, then ridges with its penalty on episodes drawn with replacement."""
    best = fit_ridge(inputs, targets, groups, seed=seed)
    rng, names, ridges = np.random.default_rng(seed), np.unique(groups), [best]
    members = {name: np.flatnonzero(groups == name) for name in names}
    for _ in range(BOOTSTRAPS):
        rows = np.concatenate([members[name] for name in rng.choice(names, len(names))])
        ridges.append(fit_ridge(inputs[rows], targets[rows], groups[rows], (best.penalty,)))
    return ridges


def _decode(ridges: list[Ridge], inputs: np.ndarray, scale: np.ndarray) -> Decoded:
    """Decode inputs (n,D) by the first ridge; the others' disagreement is the deviation."""
    members = np.stack([ridge.predict(inputs) for ridge in ridges[1:]])  # (M,n,A)
    return Decoded(ridges[0].predict(inputs), np.sqrt(((members.std(0) / scale) ** 2).mean(1)))
