"""Measurements on a sample, from latents through the world model's imagination to probes.

Letters: N clips, H latent actions, T = H + 1 frames, C h w, Z latent dimension, A action dimension, D features.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lawm_lerobot.inspection import probes
from lawm_lerobot.inspection.probes import shift_images
from lawm_lerobot.inspection.sample import BATCH, Sample
from lawm_lerobot.method.latent import effective_rank, latent_std
from lawm_lerobot.method.latent_action import POLICY
from lawm_lerobot.method.quantizers import Quantizer
from lawm_lerobot.policies.common.health import (
    COLLAPSED_PERPLEXITY,
    COLLAPSED_RANK,
    COLLAPSED_STD,
    IGNORED_RATIO,
)
from lawm_lerobot.policies.common.imagination import imagine
from lawm_lerobot.policies.common.policy import LawmPolicy

# A pixel moves in x_k if one of its channels differs from x_0 by more than this, on the scale of [0, 1].
MOVED = 0.1
# Share of a shift of the latents' input that may turn up in the imagination before the latents code for it.
CODED_SHIFT = 0.25
# Share of the latents' variance that their place in the clip may explain before it is worth a remark.
PLACE_R2 = 0.25
# Labelled episodes that a probe needs: one to test on, two between which its penalty is chosen.
PROBE_EPISODES = 3

THRESHOLDS = {
    "collapsed_std": COLLAPSED_STD,
    "collapsed_rank": COLLAPSED_RANK,
    "collapsed_perplexity": COLLAPSED_PERPLEXITY,
    "ignored_ratio": IGNORED_RATIO,
    "coded_shift": CODED_SHIFT,
    "place_r2": PLACE_R2,
    "moved": MOVED,
}

# Names of the latents that can drive the world model; see `other_latents` for the wrong ones.
OWN = "own"
SHUFFLED_BATCH = "shuffled_batch"
SHUFFLED_EPISODE = "shuffled_episode"
ZEROED = "zeroed"
PREDICTED = "policy_plan"


@dataclass(frozen=True)
class ExplainedVariance:
    """The open-loop imagination from one set of latents, compared with copying x_0.

    Args:
        by_horizon: The explained variance of moving pixels for k = 1..H; None where nothing moves.
        all: The explained variance of moving pixels for all k together.
        mse_over_copy: The squared error over that of copying, on all pixels.
        not_finite: The number of clips whose imagination is not finite.
    """

    by_horizon: list[float | None]
    all: float | None
    mse_over_copy: float | None
    not_finite: int


@dataclass(frozen=True)
class LatentMetrics:
    """Statistics of the inferred latents of a sample.

    Args:
        dim: The number Z of dimensions.
        std, std_per_dimension: The standard deviation of each dimension and their mean.
        effective_rank: The effective rank of the latents' covariance.
        place_r2: The share of the variance that k alone explains; None if there is hardly any variance.
        codes: The metrics of `Quantizer.usage`; None if the latents are not quantised.
    """

    dim: int
    std: float
    std_per_dimension: list[float]
    effective_rank: float
    place_r2: float | None
    codes: dict[str, float] | None = None

    @classmethod
    def of(cls, latents: Tensor, quantizer: Quantizer | None) -> LatentMetrics:
        """Measure latents (N,H,Z), put together from the quantizer's codes if there is one."""
        valid = torch.ones(latents.shape[:2], dtype=torch.bool)
        return cls(
            dim=latents.shape[-1],
            std=float(latent_std(latents, valid)),
            std_per_dimension=latents.flatten(0, 1).std(0).tolist(),
            # The decomposition fails on what is not finite.
            effective_rank=float(effective_rank(latents, valid))
            if latents.isfinite().all()
            else float("nan"),
            place_r2=_place_r2(latents),
            codes=_code_usage(latents, valid, quantizer),
        )


@dataclass(frozen=True)
class ShiftMetrics:
    """The effects of a shift of the latents' input: the results of `coded_shift` and of `shift_variance`."""

    coded_shift: float | None
    total_std: float
    shift: float
    content: float
    interaction: float


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Everything that is measured on a sample.

    Args:
        latents: Statistics of the inferred latents.
        not_finite: The number of clips whose latents, imagination or policy's plan are not finite, by these names.
        moving_share: The share of pixels that move.
        explained_variance: The explained variance with each set of latents.
        error_ratio: The error on moving pixels of each wrong set of latents over that of the clip's own.
        augmentation: The effects of a shift of the latents' input.
        probe: The result of `probe_actions`.
        plan_r2: The R2 of the latents that the policy predicts on the inferred ones; None if they are the same.
        thresholds: The limits that decide on checks and remarks.
        clips, clips_of_shift_test, episodes: The numbers of clips, of those shifted, and of episodes they are from.
        tasks: The number of clips of each task.
    """

    latents: LatentMetrics
    not_finite: dict[str, int]
    moving_share: float
    explained_variance: dict[str, ExplainedVariance]
    error_ratio: dict[str, float | None]
    augmentation: ShiftMetrics
    probe: dict[str, Any]
    plan_r2: float | None
    thresholds: dict[str, float] = field(default_factory=lambda: dict(THRESHOLDS))
    clips: int
    clips_of_shift_test: int
    episodes: int
    tasks: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """The metrics as in ``metrics.json``, where `moving_share` stands among the explained variances."""
        values = asdict(self)
        share = values.pop("moving_share")
        values["explained_variance"] = {"moving_share": share, **values["explained_variance"]}
        return values


def measure(policy: LawmPolicy, sample: Sample, seed: int) -> Metrics:
    """Measure a sample of the policy's; the seed is of shuffled latents and of the probes' splits of episodes."""
    drives = {OWN: sample.inferred, **other_latents(sample.inferred, sample.episodes, seed)}
    if policy.config.latent_action.source != POLICY:
        drives[PREDICTED] = sample.predicted
    moving_share, explained = explained_variance(policy, sample, drives)
    return Metrics(
        latents=LatentMetrics.of(sample.inferred, policy.pretraining.quantizer),
        not_finite={
            "latents": _not_finite(sample.inferred),
            "imagination": explained[OWN].not_finite,
            "policy's plan": _not_finite(sample.predicted),
        },
        moving_share=moving_share,
        explained_variance=explained,
        error_ratio={name: _error_ratio(explained, name) for name in drives if name != OWN},
        augmentation=ShiftMetrics(coded_shift(policy, sample), **probes.shift_variance(sample.shifted)),
        probe=probe_actions(sample, seed),
        plan_r2=_predicted_r2(sample) if PREDICTED in drives else None,
        clips=len(sample.frames),
        clips_of_shift_test=sample.shifted.shape[1],
        episodes=int(sample.episodes.unique().numel()),
        tasks=dict(Counter(sample.tasks)),
    )


def other_latents(latents: Tensor, episodes: Tensor, seed: int) -> dict[str, Tensor]:
    """Latents (N,H,Z) that are wrong in three ways.

    Returns:
        shuffled_batch: The latents of another clip, drawn at random.
        shuffled_episode: Latents from a random clip and time of the same episode, so that what holds of it all does.
        zeroed: The mean of all latents, since they are standardised.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(latents), generator=generator)
    over_batch = torch.empty_like(latents)
    over_batch[order] = latents[order.roll(1)]
    within = latents.clone()
    for episode in episodes.unique():
        mine = (episodes == episode).nonzero().squeeze(1)
        pool = latents[mine].flatten(0, 1)  # (n*H,Z)
        pool = pool[torch.randperm(len(pool), generator=generator)]
        within[mine] = pool.unflatten(0, (len(mine), -1))
    return {SHUFFLED_BATCH: over_batch, SHUFFLED_EPISODE: within, ZEROED: torch.zeros_like(latents)}


def explained_variance(
    policy: LawmPolicy, sample: Sample, drives: dict[str, Tensor]
) -> tuple[float, dict[str, ExplainedVariance]]:
    """Compare the open-loop imagination from each set of latents (N,H,Z) with copying x_0, on pixels that move.

    A pixel moves in x_k if one of its channels differs from x_0 by more than `MOVED`. Over the moving pixels of all
    clips, 1 - sum (imagined_k - x_k)^2 / sum (x_0 - x_k)^2: 1 is perfect, 0 no better than copying x_0.

    Returns:
        The share of pixels that move, over all horizons, and the explained variance with each set of latents.
    """
    horizon = sample.inferred.shape[1]
    sums = {name: torch.zeros(2, horizon, dtype=torch.float64) for name in ("copy", *drives)}
    not_finite = Counter(dict.fromkeys(sums, 0))
    moving_share = []
    with tqdm(total=len(drives) * len(sample.frames), desc="imagination", unit="clip") as bar:
        for part in torch.arange(len(sample.frames)).split(BATCH):
            frames = sample.pixels(part)
            first, targets = frames[:, :1], frames[:, 1:]  # (B,1,C,h,w), (B,H,C,h,w)
            moving = (targets - first).abs().amax(2, keepdim=True) > MOVED  # (B,H,1,h,w)
            moving_share.append(moving.float().mean((1, 2, 3, 4)))
            predictions = {"copy": first.expand_as(targets)}
            for name, latents in drives.items():
                predictions[name] = imagine(policy, frames[:, 0], latents[part])
                bar.update(len(part))
            for name, prediction in predictions.items():
                not_finite[name] += _not_finite(prediction)
                squared = (prediction - targets).square()
                sums[name] += torch.stack([(moving * squared).sum((0, 2, 3, 4)), squared.sum((0, 2, 3, 4))])
    copied = sums.pop("copy")
    explained = {
        name: ExplainedVariance(
            by_horizon=[_explained(e, c) for e, c in zip(error[0], copied[0], strict=True)],
            all=_explained(error[0].sum(), copied[0].sum()),
            mse_over_copy=float(error[1].sum() / copied[1].sum()) if copied[1].sum() > 0 else None,
            not_finite=not_finite[name],
        )
        for name, error in sums.items()
    }
    return float(torch.cat(moving_share).mean()), explained


def _not_finite(clips: Tensor) -> int:
    """The number of clips (N,...) with a number that is not finite."""
    return int((~clips.isfinite()).flatten(1).any(1).sum())


def _explained(error: Tensor, copied: Tensor) -> float | None:
    return float(1 - error / copied) if copied > 0 else None


def _code_usage(latents: Tensor, valid: Tensor, quantizer: Quantizer | None) -> dict[str, float] | None:
    if quantizer is None or not latents.isfinite().all():
        return None
    device = next(quantizer.buffers()).device
    return {k: float(v) for k, v in quantizer.usage(latents.to(device), valid.to(device)).items()}


def _place_r2(latents: Tensor) -> float | None:
    """Share of the variance of (N,H,Z) that k alone explains."""
    mean = latents.mean((0, 1))  # (Z)
    variance = (latents - mean).square().mean()
    of_places = (latents.mean(0) - mean).square().mean()
    return float(of_places / variance) if variance > COLLAPSED_STD**2 else None


def _predicted_r2(sample: Sample) -> float | None:
    variance = (sample.inferred - sample.inferred.mean((0, 1))).square().mean()
    error = (sample.predicted - sample.inferred).square().mean()
    return float(1 - error / variance) if variance > COLLAPSED_STD**2 else None


def _error_ratio(explained: dict[str, ExplainedVariance], name: str) -> float | None:
    """Squared error on moving pixels over that with the clip's own latents."""
    own, other = explained[OWN].all, explained[name].all
    return None if own is None or other is None else (1 - other) / max(1 - own, 1e-8)


def coded_shift(policy: LawmPolicy, sample: Sample) -> float | None:
    """The share of a shift of the latents' input that turns up in the imagination, which starts from an x_0 not shifted.

    All frames of a clip are shifted alike: nothing else happens in it by that. With z the clip's latents, z' those of
    the shifted clip, and x' its frames, the projection of imagine(x_0, z') - imagine(x_0, z) on x' - x, over all
    horizons, clips and shifts: 1 if the latents tell the world model the shift, 0 if they tell it nothing of it.
    (That latents merely change under a shift proves nothing: so do those of an untrained network.) None if a shift
    changes no pixel.
    """
    frames = sample.pixels(sample.shifted_clips)  # (n,T,C,h,w)
    still = sample.offsets.index((0.0, 0.0))
    along = size = 0.0
    with tqdm(total=len(sample.offsets) * len(frames), desc="shifts", unit="clip") as bar:
        for part in torch.arange(len(frames)).split(BATCH):
            real = frames[part]
            own = imagine(policy, real[:, 0], sample.shifted[still, part])  # (B,H,C,h,w)
            for index, offset in enumerate(sample.offsets):
                bar.update(len(part))
                if index == still:
                    continue
                moved = (shift_images(real, offset) - real)[:, 1:]  # (B,H,C,h,w)
                change = imagine(policy, real[:, 0], sample.shifted[index, part]) - own
                along += float((change * moved).sum())
                size += float(moved.square().sum())
    return along / size if size > 0 else None


def probe_actions(sample: Sample, seed: int) -> dict[str, Any]:
    """Fit linear probes from latents, policy features and their baselines to the true actions.

    Latents are probed per transition; the policy's features, which have seen x_0 only, for all H transitions at once.

    Returns:
        ``skipped``, a sentence, if there is nothing to probe; else the R2 per target, kind and source, and counts.
    """
    if not sample.targets:
        return {"skipped": "The dataset has no 'action': there is nothing to probe."}
    # Where only some episodes of a corpus are labelled, the others hold no numbers.
    finite = torch.stack([t.isfinite().all(-1) for t in sample.targets.values()]).all(0).all(1)  # (N)
    labelled = int(sample.episodes[finite].unique().numel())
    if labelled < PROBE_EPISODES:
        return {
            "skipped": f"{labelled} episode{'s' * (labelled != 1)} with actions and whole clips: a probe needs "
            f"{PROBE_EPISODES}, one to test on and two between which its penalty is chosen."
        }
    episodes = sample.episodes[finite]
    clips, horizon, dim = sample.inferred[finite].shape
    pixels = probes.small_pixels(sample.pixels(finite))  # (n,T,D')
    changes = (pixels[:, 1:] - pixels[:, :-1]).flatten(0, 1)  # (n*H,D')
    # Per kind what is probed, then its baselines.
    sources = {
        "latents": {
            "latents": sample.inferred[finite].flatten(0, 1),  # (n*H,Z)
            "principal components of the change": probes.principal_components(changes, dim),
            "untrained": sample.untrained_latents[finite].flatten(0, 1),
        },
        "policy_features": {
            "policy features": sample.features[finite],  # (n,D)
            "principal components of x_0": probes.principal_components(
                pixels[:, 0], sample.features.shape[1]
            ),
            "untrained": sample.untrained_features[finite],
        },
    }
    result: dict[str, Any] = {"episodes": labelled, "clips": clips, "targets": {}}
    with tqdm(total=len(sample.targets) * 6, desc="probes", unit="probe") as bar:
        for target, values in sample.targets.items():
            truth = values[finite]  # (n,H,A)
            rows = {"latents": truth.flatten(0, 1), "policy_features": truth.flatten(1)}
            groups = {"latents": episodes.repeat_interleave(horizon), "policy_features": episodes}
            result["targets"][target] = {}
            for kind, of_kind in sources.items():
                scores: dict[str, dict[str, Any]] = {}
                for name, features in of_kind.items():
                    score = probes.linear_probe(features, rows[kind], groups[kind], seed)
                    scores[name] = {
                        "r2": _number(score.r2),
                        "r2_interval": [_number(r2) for r2 in score.interval],
                    }
                    if kind == "latents":
                        scores[name]["per_dimension"] = [_number(r2) for r2 in score.per_dimension]
                    bar.update()
                result["targets"][target][kind] = scores
    return result


def _number(value: float) -> float | None:
    """JSON knows no NaN."""
    return float(value) if np.isfinite(value) else None
