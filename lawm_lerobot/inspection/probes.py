"""Measurements of what frozen features know of the true actions, and of the shift that augmentation adds.

Letters: N clips, H latent actions, T = H + 1 frames, C h w, Z latent dimension, A action dimension, D features,
S shifts.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lawm_lerobot.statistics.ridge import held_out_predictions, overall_r2, r2_interval, r2_per_dimension

# Side, in pixels, to which frames are brought before their principal components are taken.
PCA_PIXELS = 32


@dataclass(frozen=True)
class ProbeScore:
    """The R2 of a linear map in episodes that it has not seen, over all dimensions that vary and of each; NaN of none.

    Args:
        r2: The mean over the dimensions that vary.
        interval: The ends of its 95% interval over episodes.
        per_dimension: That of each dimension.
    """

    r2: float
    interval: tuple[float, float]
    per_dimension: list[float]


def linear_probe(features: Tensor, targets: Tensor, episodes: Tensor, seed: int = 0) -> ProbeScore:
    """Ridge regression from features (N,D) to targets (N,A): each of the episodes (N) is predicted by a fit on others."""
    if not features.isfinite().all():
        return ProbeScore(float("nan"), (float("nan"), float("nan")), [float("nan")] * targets.shape[1])
    truth, groups = targets.double().numpy(), episodes.numpy()
    predicted = held_out_predictions(features.double().numpy(), truth, groups, seed=seed)
    return ProbeScore(
        overall_r2(truth, predicted),
        r2_interval(truth, predicted, groups),
        r2_per_dimension(truth, predicted).tolist(),
    )


def principal_components(rows: Tensor, count: int) -> Tensor:
    """(N,D) -> (N,<=count), the first principal components, of which there are fewer than N and at most D."""
    count = min(count, len(rows) - 1, rows.shape[1])
    centred = rows.float() - rows.float().mean(0)
    with torch.random.fork_rng(devices=[]):  # a randomised decomposition; the same every time
        torch.manual_seed(0)
        _, _, directions = torch.pca_lowrank(centred, count, center=False)  # (D,count)
    return centred @ directions


def small_pixels(frames: Tensor) -> Tensor:
    """(N,T,C,h,w) in [0, 1] -> (N,T,C*h'*w') with h', w' at most `PCA_PIXELS`."""
    height, width = (min(PCA_PIXELS, size) for size in frames.shape[-2:])
    small = F.adaptive_avg_pool2d(frames.flatten(0, 1), (height, width))
    return small.flatten(1).unflatten(0, frames.shape[:2])


@contextmanager
def head_inputs(policy: nn.Module, head: nn.Parameter) -> Iterator[Callable[[], Tensor]]:
    """Yield a function that returns the latest input (B,D) of the layer that owns ``head``.

    It is averaged over the chunk, and of the last step of a policy that denoises in several.
    """
    owner = next(m for m in policy.modules() if any(p is head for p in m.parameters(recurse=False)))
    seen: list[Tensor] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen[:] = [inputs[0].detach()]

    def pooled() -> Tensor:
        features = seen[0].float()
        if isinstance(owner, nn.Conv1d | nn.Conv2d):
            return features.flatten(2).mean(2)  # (B,D,...) -> (B,D)
        return features.flatten(1, -2).mean(1) if features.ndim > 2 else features  # (B,...,D) -> (B,D)

    handle = owner.register_forward_pre_hook(note)
    try:
        yield pooled
    finally:
        handle.remove()


def shift_offsets(fraction: float) -> list[tuple[float, float]]:
    """S = 9 offsets (down, right) as fractions of the image: none, and ``fraction`` of it each way."""
    steps = (-fraction, 0.0, fraction)
    return list(product(steps, steps))


def shift_images(images: Tensor, offset: tuple[float, float]) -> Tensor:
    """(...,h,w) moved by a fraction of their size, the edge repeated: as `inverse_dynamics.random_shift` does."""
    for dim, fraction in zip((-2, -1), offset, strict=True):
        size = images.shape[dim]
        index = torch.arange(size, device=images.device) - round(fraction * size)
        images = images.index_select(dim, index.clamp(0, size - 1))
    return images


def shift_variance(latents: Tensor) -> dict[str, float]:
    """Divide the variance of latents between two causes: two-way analysis of (S,N,H,Z), shift by transition.

    Returns:
        total_std: The standard deviation over shifts and transitions, averaged over Z.
        shift: The share of the variance that the offset alone explains: the R2 of the latents on the offset.
        content: The share that the transition alone explains.
        interaction: The rest: a shift changes each transition in its own way. It is large without training too.
    """
    z = latents.double().flatten(1, 2)  # (S,N*H,Z)
    mean = z.mean((0, 1))  # (Z)
    total = (z - mean).square().mean((0, 1)).sum()
    shift = (z.mean(1) - mean).square().mean(0).sum()
    content = (z.mean(0) - mean).square().mean(0).sum()
    floor = total.clamp_min(1e-20)
    return {
        "total_std": float(z.std((0, 1), unbiased=False).mean()),
        "shift": float(shift / floor),
        "content": float(content / floor),
        "interaction": float((total - shift - content) / floor),
    }


def between_frames(rows: np.ndarray, horizon: int, stride: int) -> dict[str, Tensor]:
    """Summarise the actions (N,H*stride+1,A) recorded from x_0 to x_H for each transition, (N,H,A) each.

    Returns:
        action: The mean of the actions from x_k until just before x_{k+1}. Right for velocities and displacements.
        action_change: The action recorded with x_{k+1} minus the one with x_k. Right for positions.
    """
    actions = torch.as_tensor(rows, dtype=torch.float32)  # (N,H*stride+1,A)
    anchors = actions[:, ::stride]  # (N,T,A)
    between = actions[:, :-1].unflatten(1, (horizon, stride)).mean(2)  # (N,H,A)
    return {"action": between, "action_change": anchors[:, 1:] - anchors[:, :-1]}
