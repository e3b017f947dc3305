"""What a pretraining checkpoint learned, in figures and in a verdict.

Letters: N clips, H latent actions, T = H + 1 frames, C h w, Z latent dimension, A action dimension, D features.
"""

from __future__ import annotations

import copy
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lerobot.configs import FeatureType
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.constants import ACTION
from lerobot.utils.feature_utils import dataset_to_policy_features
from lerobot.utils.random_utils import seeded_context
from torch import Tensor
from tqdm import tqdm

from lawm_lerobot.inspection.probes import (
    between_frames,
    head_inputs,
    linear_probe,
    principal_components,
    shift_images,
    shift_offsets,
    shift_variance,
    small_pixels,
)
from lawm_lerobot.method.latent import effective_rank, latent_std
from lawm_lerobot.method.latent_action import POLICY
from lawm_lerobot.policies.common.configuration import LawmConfig
from lawm_lerobot.policies.common.health import COLLAPSED_RANK, COLLAPSED_STD, IGNORED_RATIO
from lawm_lerobot.policies.common.imagination import Preprocessor, plan_latents, preprocessed_batches, spread
from lawm_lerobot.policies.common.policy import LawmPolicy

logger = logging.getLogger(__name__)

#: A pixel moves in x_k if one of its channels differs from x_0 by more than this, on the scale of [0, 1].
MOVED = 0.1
#: Share of a shift of the latents' input that may turn up in the imagination before the latents code for it.
CODED_SHIFT = 0.25
#: Size of that shift, as a fraction of the image, for a checkpoint trained without any.
DEFAULT_SHIFT = 1 / 16
#: Clips for the shift test, which infers the latents of each nine times.
SHIFT_CLIPS = 64
#: Labelled episodes that a probe needs: one to test on, two between which its penalty is chosen.
PROBE_EPISODES = 3
BATCH = 32

#: Share of the latents' variance that their place in the clip may explain before it is worth a remark.
PLACE_R2 = 0.25
#: Difference between two R2 below which neither is called better.
PROBE_MARGIN = 0.05

#: What can drive the world model; see `other_latents` for the wrong ones.
OWN = "own"
SHUFFLED_BATCH = "shuffled_batch"
SHUFFLED_EPISODE = "shuffled_episode"
ZEROED = "zeroed"
POLICY_PLAN = "policy_plan"

HEALTHY = "healthy"
COLLAPSED = "collapsed"
IGNORED = "ignored"
CODES_AUGMENTATION = "codes the augmentation"


@dataclass
class Sample:
    """Clips of a dataset, all whole, and what the checkpoint makes of them. On the CPU."""

    frames: Tensor
    """(N,T,C,h,w) uint8, at the world model's size"""
    inferred: Tensor
    """(N,H,Z) what drove the world model in pretraining: the inverse dynamics', or the policy's"""
    planned: Tensor
    """(N,H,Z) the policy's own, from x_0 alone"""
    features: Tensor
    """(N,D) what enters the policy's output layer, averaged over the chunk"""
    untrained_latents: Tensor
    """(N,H,Z) `inferred` of the same architecture with random weights"""
    untrained_features: Tensor
    """(N,D) `features` of the same"""
    offsets: list[tuple[float, float]]
    """S shifts of the input, as fractions of the image, see `shift_images`"""
    shifted_clips: Tensor
    """(n) which of the clips were shifted"""
    shifted: Tensor
    """(S,n,H,Z) their `inferred` under every shift"""
    episodes: Tensor
    """(N) int64"""
    tasks: list[str]
    """N descriptions"""
    targets: dict[str, Tensor]
    """Of the true actions, (N,H,A) each, see `between_frames`; empty for a dataset without"""

    def pixels(self, index: Any = slice(None)) -> Tensor:
        """Frames in [0, 1]."""
        return self.frames[index].float() / 255


@dataclass(frozen=True)
class Check:
    """One way for latents to fail."""

    failed: bool | None
    """None where it cannot be judged."""
    sentence: str
    """What was found, with its figure and threshold, in plain words."""


@dataclass
class Findings:
    """Everything the report says in words and figures. `figures` holds numbers, strings, lists and None only."""

    verdict: str
    checks: dict[str, Check]
    remarks: list[str]
    figures: dict[str, Any] = field(default_factory=dict)


# --- does the dataset fit? -------------------------------------------------------------------------------


def check_fit(policy: LawmPolicy, meta: LeRobotDatasetMetadata, repo_id: str) -> list[str]:
    """Compare a checkpoint's inputs with a dataset's features.

    Returns:
        Warnings: what differs but can be measured all the same.

    Raises:
        ValueError: If the dataset lacks an input, or has it in another shape.
    """
    config, offered = policy.config, dataset_to_policy_features(meta.features)
    for key, wanted in (config.input_features or {}).items():
        visual = wanted.type is FeatureType.VISUAL
        if visual and key not in policy.cameras:
            continue  # one that the policy fills itself
        found = offered.get(key)
        if found is None:
            raise ValueError(
                f"The dataset {repo_id} has no '{key}' (it has {', '.join(sorted(meta.features))}), which this "
                "checkpoint was pretrained with: choose another --dataset.repo_id or --policy.path."
            )
        # The world model's frames are resized, and the policy's own network says if it minds the size.
        ours, theirs = (wanted.shape[0], found.shape[0]) if visual else (wanted.shape, found.shape)
        if ours != theirs:
            what = "channels" if visual else "shape"
            raise ValueError(
                f"'{key}' of the dataset {repo_id} has {what} {theirs}, but this checkpoint was pretrained with "
                f"{what} {ours}: choose another --dataset.repo_id or --policy.path."
            )
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


# --- a pass over the dataset -------------------------------------------------------------------------------


@torch.no_grad()
def take_sample(
    policy: LawmPolicy, preprocessor: Preprocessor, dataset: LeRobotDataset, clips: int, seed: int
) -> Sample:
    """Decode clips spread evenly over the dataset, once, and keep what the figures need of them.

    The seed is that of the untrained baselines' weights, and of the noise that some policies denoise.
    """
    with seeded_context(seed):
        return _take_sample(policy, preprocessor, dataset, clips)


def _take_sample(
    policy: LawmPolicy, preprocessor: Preprocessor, dataset: LeRobotDataset, clips: int
) -> Sample:
    config = policy.config
    starts, owners = whole_clips(dataset.meta, config)
    chosen = spread(len(starts), min(clips, len(starts)))
    picks = starts[chosen]
    untrained = _untrained(policy)
    # Those for the shift test are spread over the picks, as these are over the dataset.
    shifted_clips = torch.arange(0, len(picks), -(-len(picks) // SHIFT_CLIPS))  # (n)
    offsets = shift_offsets(config.idm.random_shift / config.world_model.image_size or DEFAULT_SHIFT)

    parts: dict[str, list[Tensor]] = {}
    done = 0
    batches = preprocessed_batches(dataset, picks.tolist(), preprocessor, BATCH)
    with tqdm(total=len(picks), desc="clips", unit="clip") as bar:
        for batch in batches:
            clip = policy.clip(batch)
            frames, valid = clip.frames, clip.valid
            inferred, planned, features = _encode(policy, batch, frames, valid)
            untrained_latents, _, untrained_features = _encode(untrained, batch, frames, valid)
            here = shifted_clips[(shifted_clips >= done) & (shifted_clips < done + len(frames))] - done
            new = {
                "frames": (frames * 255).round().to(torch.uint8),
                "inferred": inferred,
                "planned": planned,
                "features": features,
                "untrained_latents": untrained_latents,
                "untrained_features": untrained_features,
            }
            if len(here):
                shifted = _shifted_latents(policy, batch, frames, valid, offsets)  # (S,B,H,Z)
                new["shifted"] = shifted[:, here.to(shifted.device)].transpose(0, 1)  # (n,S,H,Z)
            for name, tensor in new.items():
                parts.setdefault(name, []).append(tensor.cpu())
            done += len(frames)
            bar.update(len(frames))
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


def _encode(
    policy: LawmPolicy, batch: dict[str, Any], frames: Tensor, valid: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Inferred (B,H,Z) and planned (B,H,Z) latents, and the policy's features (B,D)."""
    with head_inputs(policy, policy.latent_head) as features:
        planned = plan_latents(policy, batch)
    if policy.config.latent_action.source == POLICY:
        planned = policy.pretraining.latent_norm(planned, valid)
        return planned, planned, features()
    return policy.pretraining.infer_latents(frames, valid), planned, features()


def _shifted_latents(
    policy: LawmPolicy,
    batch: dict[str, Any],
    frames: Tensor,
    valid: Tensor,
    offsets: Sequence[tuple[float, float]],
) -> Tensor:
    """(S,B,H,Z): the inferred latents under every shift of the input, one shift for all frames of a clip."""
    if policy.config.latent_action.source != POLICY:
        inputs = [shift_images(frames, offset) for offset in offsets]
        return torch.stack([policy.pretraining.infer_latents(shifted, valid) for shifted in inputs])
    rows = []
    for offset in offsets:
        shifted = {**batch, **{key: shift_images(batch[key], offset) for key in policy.cameras}}
        with seeded_context(0):  # policies that denoise start from the same noise under every shift
            planned = plan_latents(policy, shifted)
        rows.append(policy.pretraining.latent_norm(planned, valid))
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


# --- figures -----------------------------------------------------------------------------------------------


def other_latents(latents: Tensor, episodes: Tensor, seed: int) -> dict[str, Tensor]:
    """Latents (N,H,Z) that are wrong in three ways.

    Returns:
        shuffled_batch: those of another clip, drawn at random;
        shuffled_episode: each from a random clip and time of the same episode (N), so that what is
            true of the whole episode stays true;
        zeroed: their mean, since latents are standardised.
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


@torch.no_grad()
def imagine(policy: LawmPolicy, first: Tensor, latents: Tensor) -> Tensor:
    """`WorldModel.imagine` on the policy's device, back on the CPU: (N,C,h,w), (N,H,Z) -> (N,H,C,h,w)."""
    device = policy.config.device
    return policy.pretraining.world_model.imagine(first.to(device), latents.to(device)).float().cpu()


def explained_variance(policy: LawmPolicy, sample: Sample, drives: dict[str, Tensor]) -> dict[str, Any]:
    """Open-loop error of each set of latents (N,H,Z) against copying x_0, on pixels that move.

    A pixel moves in x_k if one of its channels differs from x_0 by more than `MOVED`. Over the moving pixels of all
    clips, 1 - sum (imagined_k - x_k)^2 / sum (x_0 - x_k)^2: 1 is perfect, 0 no better than copying x_0.

    Returns:
        moving_share: of the pixels, over all horizons;
        and per set of latents ``by_horizon``, for k = 1..H, ``all``, for all of them together (None where nothing
        moves), and ``mse_over_copy``, the error over that of copying on *all* pixels.
    """
    horizon = sample.inferred.shape[1]
    sums = {name: torch.zeros(2, horizon, dtype=torch.float64) for name in ("copy", *drives)}
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
                squared = (prediction - targets).square()
                sums[name] += torch.stack([(moving * squared).sum((0, 2, 3, 4)), squared.sum((0, 2, 3, 4))])
    copied = sums.pop("copy")
    result: dict[str, Any] = {"moving_share": float(torch.cat(moving_share).mean())}
    for name, error in sums.items():
        result[name] = {
            "by_horizon": [_explained(e, c) for e, c in zip(error[0], copied[0], strict=True)],
            "all": _explained(error[0].sum(), copied[0].sum()),
            "mse_over_copy": float(error[1].sum() / copied[1].sum()) if copied[1].sum() > 0 else None,
        }
    return result


def _explained(error: Tensor, copied: Tensor) -> float | None:
    return float(1 - error / copied) if copied > 0 else None


def coded_shift(policy: LawmPolicy, sample: Sample) -> float | None:
    """How much of a shift of the latents' input turns up in the imagination, which starts from an x_0 not shifted.

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
    """Linear probes from latents, policy features and their baselines to the true actions.

    Latents are probed per transition; the policy's features, which have seen x_0 only, for all H transitions at once.

    Returns:
        ``skipped``, a sentence, if there is nothing to probe; else per target ``latents`` and ``policy_features``
        with the R2 of each source of features, and counts.
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
    pixels = small_pixels(sample.pixels(finite))  # (n,T,D')
    changes = (pixels[:, 1:] - pixels[:, :-1]).flatten(0, 1)  # (n*H,D')
    # Per kind what is probed, then its baselines.
    sources = {
        "latents": {
            "latents": sample.inferred[finite].flatten(0, 1),  # (n*H,Z)
            "principal components of the change": principal_components(changes, dim),
            "untrained": sample.untrained_latents[finite].flatten(0, 1),
        },
        "policy_features": {
            "policy features": sample.features[finite],  # (n,D)
            "principal components of x_0": principal_components(pixels[:, 0], sample.features.shape[1]),
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
                    score = linear_probe(features, rows[kind], groups[kind], seed)
                    scores[name] = {"r2": _number(score.r2)}
                    if kind == "latents":
                        scores[name]["per_dimension"] = [_number(r2) for r2 in score.per_dimension]
                    bar.update()
                result["targets"][target][kind] = scores
    return result


def _number(value: float) -> float | None:
    """JSON knows no NaN."""
    return float(value) if np.isfinite(value) else None


# --- verdict -----------------------------------------------------------------------------------------------


def inspect_sample(policy: LawmPolicy, sample: Sample, seed: int) -> Findings:
    """All figures of a sample, and what they mean."""
    drives = {OWN: sample.inferred, **other_latents(sample.inferred, sample.episodes, seed)}
    if policy.config.latent_action.source != POLICY:
        drives[POLICY_PLAN] = sample.planned
    explained = explained_variance(policy, sample, drives)

    valid = torch.ones(sample.inferred.shape[:2], dtype=torch.bool)
    dim = sample.inferred.shape[-1]
    latents = {
        "dim": dim,
        "std": float(latent_std(sample.inferred, valid)),
        "std_per_dimension": sample.inferred.flatten(0, 1).std(0).tolist(),
        "effective_rank": float(effective_rank(sample.inferred, valid)),
        "place_r2": _place_r2(sample.inferred),
    }
    augmentation = {"coded_shift": coded_shift(policy, sample), **shift_variance(sample.shifted)}
    probe = probe_actions(sample, seed)
    checks = {
        COLLAPSED: _check_collapsed(latents),
        CODES_AUGMENTATION: _check_augmentation(augmentation),
        IGNORED: _check_ignored(explained),
    }
    # A code for the shift may well be (nearly) constant on frames that are not shifted, and so look collapsed or
    # ignored; and another clip's constant is the same constant.
    order = (CODES_AUGMENTATION, COLLAPSED, IGNORED)
    figures = {
        "latents": latents,
        "explained_variance": explained,
        "error_ratio": {name: _error_ratio(explained, name) for name in drives if name != OWN},
        "augmentation": augmentation,
        "probe": probe,
        "plan_r2": None if POLICY_PLAN not in drives else _plan_r2(sample),
        "thresholds": {
            "collapsed_std": COLLAPSED_STD,
            "collapsed_rank": COLLAPSED_RANK,
            "ignored_ratio": IGNORED_RATIO,
            "coded_shift": CODED_SHIFT,
            "place_r2": PLACE_R2,
            "moved": MOVED,
        },
        "clips": len(sample.frames),
        "clips_of_shift_test": sample.shifted.shape[1],
        "episodes": int(sample.episodes.unique().numel()),
        "tasks": dict(Counter(sample.tasks)),
    }
    verdict = next((name for name in order if checks[name].failed), HEALTHY)
    return Findings(verdict, checks, _remarks(figures), figures)


def _error_ratio(explained: dict[str, Any], name: str) -> float | None:
    """Squared error on moving pixels over that with the clip's own latents."""
    own, other = explained[OWN]["all"], explained[name]["all"]
    return None if own is None else (1 - other) / max(1 - own, 1e-8)


def _place_r2(latents: Tensor) -> float | None:
    """Share of the variance of (N,H,Z) that k alone explains."""
    variance = (latents - latents.mean((0, 1))).square().mean()
    of_places = (latents.mean(0) - latents.mean((0, 1))).square().mean()
    return float(of_places / variance) if variance > COLLAPSED_STD**2 else None


def _plan_r2(sample: Sample) -> float | None:
    variance = (sample.inferred - sample.inferred.mean((0, 1))).square().mean()
    error = (sample.planned - sample.inferred).square().mean()
    return float(1 - error / variance) if variance > COLLAPSED_STD**2 else None


def _check_collapsed(latents: dict[str, Any]) -> Check:
    std, rank, dim = latents["std"], latents["effective_rank"], latents["dim"]
    failed = std < COLLAPSED_STD or (dim > 1 and rank < COLLAPSED_RANK)
    found = f"standard deviation {std:.2f} (collapsed below {COLLAPSED_STD})"
    if dim > 1:
        found += f", effective rank {rank:.2f} of {dim} (collapsed below {COLLAPSED_RANK})"
    if not failed:
        return Check(False, f"The latents vary: {found}.")
    what = "a constant" if std < COLLAPSED_STD else "a line"
    return Check(
        True,
        f"The latents have collapsed to (nearly) {what}: {found}. Pretrain with "
        "--policy.latent_action.source=inverse_dynamics, or with frames further apart "
        "(--policy.latent_action.stride).",
    )


def _check_augmentation(augmentation: dict[str, Any]) -> Check:
    share = augmentation["coded_shift"]
    if augmentation["total_std"] < COLLAPSED_STD or share is None:
        why = "a shift changes no pixel" if share is None else "they do not vary"
        return Check(None, f"Whether the latents code the augmentation cannot be judged: {why}.")
    found = (
        f"of a shift of their input, which changes nothing that happens in a clip, {share:.0%} turns up in what is "
        f"imagined from an x_0 that is not shifted (codes the augmentation above {CODED_SHIFT:.0%})"
    )
    if share > CODED_SHIFT:
        return Check(
            True,
            f"The latents code the augmentation, where things are and not how they move: {found}. Pretrain with "
            "--policy.idm.random_shift, which only the inverse dynamics sees, and without "
            "--dataset.image_transforms, which the world model sees too.",
        )
    return Check(False, f"The latents do not code the augmentation: {found}.")


def _check_ignored(explained: dict[str, Any]) -> Check:
    ratio = _error_ratio(explained, SHUFFLED_BATCH)
    if ratio is None:
        return Check(
            None,
            "Whether the world model uses the latents cannot be judged: no pixel of these clips differs from x_0 by "
            f"more than {MOVED}.",
        )
    found = (
        f"with another clip's latents its error on moving pixels is {ratio:.2f} times that with the clip's own "
        f"(ignored below {IGNORED_RATIO})"
    )
    if ratio < IGNORED_RATIO:
        return Check(
            True,
            f"The world model ignores the latents: {found}. Pretrain for longer, or with frames further apart "
            "(--policy.latent_action.stride).",
        )
    return Check(False, f"The world model uses the latents: {found}.")


def _remarks(figures: dict[str, Any]) -> list[str]:
    """What is worth knowing beside the verdict."""
    remarks = []
    own = figures["explained_variance"][OWN]["all"]
    if own is not None:
        better = "better than" if own > 0 else "no better than"
        remarks.append(
            f"The world model imagines moving pixels {better} copying x_0 would: explained variance {own:.2f}."
        )
    within = figures["error_ratio"][SHUFFLED_EPISODE]
    if within is not None and within < IGNORED_RATIO <= figures["error_ratio"][SHUFFLED_BATCH]:
        remarks.append(
            "The latents tell which episode it is, but not what happens when: those of another moment of the same "
            f"episode do as well (error {within:.2f} times that with the clip's own)."
        )
    place = figures["latents"]["place_r2"]
    if place is not None and place > PLACE_R2:
        remarks.append(
            f"The latents tell their own place in the clip: k alone explains {place:.0%} of their variance (worth a "
            f"remark above {PLACE_R2:.0%})."
        )
    if figures["plan_r2"] is not None:
        remarks.append(
            f"The policy foresees the latents from x_0 alone with R2 {figures['plan_r2']:.2f} (0: it knows their "
            "mean only)."
        )
    if "skipped" in figures["probe"]:
        return [*remarks, figures["probe"]["skipped"]]
    for target, kinds in figures["probe"]["targets"].items():
        for scores in kinds.values():
            (name, ours), *baselines = scores.items()
            known = {n: s["r2"] for n, s in baselines if s["r2"] is not None}
            if ours["r2"] is None or not known:
                continue
            best = max(known, key=lambda n: known[n])
            lead = ours["r2"] - known[best]
            how = "about as much as" if abs(lead) < PROBE_MARGIN else "more than" if lead > 0 else "less than"
            remarks.append(
                f"About the true {target.replace('_', ' ')}, {name} tell {how} the best baseline ({best}): held-out R2 "
                f"{ours['r2']:.2f} against {known[best]:.2f}."
            )
    return remarks
