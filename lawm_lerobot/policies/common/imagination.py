"""Latents of clips, the frames that a world model imagines from them, and pictures of these as strips."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lawm_lerobot.method.clip import Clip
from lawm_lerobot.method.latent_action import POLICY
from lawm_lerobot.policies.common.configuration import LawmConfig
from lawm_lerobot.policies.common.policy import LawmPolicy


@dataclass(frozen=True)
class ClipLatents:
    """The latents of a batch of clips.

    Args:
        inferred: The latents that drove the world model in pretraining: the inverse dynamics', or the policy's.
        predicted: The latents that the policy predicts from x_0 alone.
    """

    inferred: Tensor  # (B,H,Z)
    predicted: Tensor  # (B,H,Z)


@torch.no_grad()
def clip_latents(policy: LawmPolicy, batch: dict[str, Any], clip: Clip) -> ClipLatents:
    """The latents of a preprocessed pretraining batch, whose `LawmPolicy.clip` is ``clip``."""
    predicted = policy.latents_without_gradient(policy.policy_batch(batch))  # (B,H,Z)
    if policy.config.latent_action.source == POLICY:
        predicted = policy.pretraining.latent_norm(predicted, clip.valid)
        return ClipLatents(predicted, predicted)
    return ClipLatents(policy.pretraining.infer_latents(clip.frames, clip.valid), predicted)


@torch.no_grad()
def imagine(policy: LawmPolicy, first: Tensor, latents: Tensor) -> Tensor:
    """`WorldModel.imagine` on the policy's device, back on the CPU: (N,C,h,w), (N,H,Z) -> (N,H,C,h,w)."""
    device = policy.config.device
    return policy.pretraining.world_model.imagine(first.to(device), latents.to(device)).float().cpu()


def imagine_clip(policy: LawmPolicy, first: Tensor, latents: Tensor) -> Tensor:
    """x_0 and the imagined frames after it, on the CPU: (N,C,h,w), (N,H,Z) -> (N,T,C,h,w)."""
    return torch.cat([first[:, None].cpu(), imagine(policy, first, latents)], 1)  # (N,T,C,h,w)


@torch.no_grad()
def latent_health(policy: LawmPolicy, batches: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Average `LatentActionPretraining.health` and the world model's error against copying x_0 over batches."""
    rows = []
    for batch in batches:
        clip = policy.clip(batch)
        latents = clip_latents(policy, batch, clip).inferred
        health = policy.pretraining.health(clip.frames, latents, clip.valid)
        output = policy.pretraining.world_model(clip.frames, latents, clip.valid)
        rows.append(
            {k: float(v) for k, v in {**health, "mse_over_copy": output.metrics["mse_over_copy"]}.items()}
        )
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def telling_clips(frames: Tensor, valid: Tensor, latents: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Choose clips to show, and for each of them the least similar one among the chosen: indices (count,) of both.

    The first moves most; each further one is, among the half that moves more, the least like those before.

    Args:
        frames: Frames (B,T,C,h,w) in [0, 1].
        valid: Transitions (B,H) bool that lie within the episode.
        latents: The latents (B,H,Z) by which clips are compared.
        count: Number of clips to choose.
    """
    # Whole clips only: past the episode's end there is nothing real to compare with.
    motion = (frames[:, 1:] - frames[:, :1]).square().mean((1, 2, 3, 4))  # (B)
    motion = motion * valid.all(1)
    movers = motion.argsort(descending=True)[: max(len(motion) // 2, min(count, len(motion)))]
    flat = latents[movers].flatten(1)  # (movers,H*Z)
    distance = torch.cdist(flat, flat)  # (movers,movers)
    picked = [0]
    while len(picked) < min(count, len(movers)):
        picked.append(int(distance[picked].min(0).values.argmax()))
    companions = distance[picked][:, picked].argmax(1)
    return movers[picked], movers[picked][companions]


def save_imagination_strip(policy: LawmPolicy, batch: dict[str, Any], file: Path, rows: int = 4) -> Path:
    """Draw real frames above those imagined from x_0, for clips of a batch that move, and each in its own way.

    Per clip: the real x_0..x_H; imagined from the inferred latents; from those that the policy predicts, which has
    seen x_0 only; and from the latents of the shown clip that is least like it, which must look wrong if the
    latents mean anything.
    """
    clip = policy.clip(batch)
    latents = clip_latents(policy, batch, clip)
    chosen, other = telling_clips(clip.frames, clip.valid, latents.inferred, rows)
    drives = {"imagined, inferred latents": latents.inferred[chosen]}
    if policy.config.latent_action.source != POLICY:
        drives["imagined, policy's plan"] = latents.predicted[chosen]
    drives["imagined, another clip's latents"] = latents.inferred[other]
    strips = {title: imagine_clip(policy, clip.frames[chosen, 0], drive) for title, drive in drives.items()}
    return draw_strips({"real": clip.frames[chosen].cpu(), **strips}, frame_titles(policy.config), file)


def frame_titles(config: LawmConfig) -> list[str]:
    """Names of a clip's T frames: seconds where the checkpoint knows its frame rate."""
    step, fps = config.latent_action.stride, config.dataset_fps
    return [f"{k * step / fps:.2f} s" if fps else f"x_{k}" for k in range(config.latent_action.horizon + 1)]


def draw_strips(strips: dict[str, Tensor], columns: Sequence[str], file: Path) -> Path:
    """Draw clips, one below the other, each as one line of frames per strip, into a PNG.

    ``strips`` has the same clips under each title, as frames (rows,T,C,h,w) in [0, 1]; ``columns`` names the T frames.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    stacked = torch.stack(list(strips.values()), 1).float().clamp(0, 1)  # (rows,strips,T,C,h,w)
    rows, lines, time, _, height, width = stacked.shape
    gap = max(1, height // 16)
    tiles = F.pad(stacked, (0, gap, 0, gap), value=1.0)  # (...,h+gap,w+gap), white
    per_clip = tiles.permute(0, 1, 4, 2, 5, 3).reshape(rows, lines * (height + gap), time * (width + gap), 3)
    per_clip = F.pad(per_clip, (0, 0, 0, 0, 0, 3 * gap), value=1.0)  # more room between clips than within one
    mosaic = per_clip.flatten(0, 1)[: -4 * gap, :-gap].numpy()

    figure, axis = plt.subplots(
        figsize=(1.1 * time + 2.2, 1.1 * time * mosaic.shape[0] / mosaic.shape[1] + 0.3), layout="constrained"
    )
    axis.imshow(mosaic, interpolation="nearest")
    axis.set_xticks((np.arange(time) + 0.5) * (width + gap), columns, fontsize=8)
    tops = np.arange(rows)[:, None] * per_clip.shape[1] + np.arange(lines) * (height + gap)
    axis.set_yticks(tops.flatten() + height / 2, list(strips) * rows, fontsize=8)
    axis.tick_params(length=0, labeltop=True, labelbottom=False)
    axis.spines[:].set_visible(False)
    figure.savefig(file, dpi=100, bbox_inches="tight")
    plt.close(figure)
    return file
