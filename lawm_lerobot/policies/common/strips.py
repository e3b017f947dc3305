"""Pictures of clips, real and imagined, as strips of frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lawm_lerobot.method.latent_action import POLICY
from lawm_lerobot.policies.common.configuration import LawmConfig
from lawm_lerobot.policies.common.imagination import clip_latents, imagine_clip
from lawm_lerobot.policies.common.policy import LawmPolicy


def telling_clips(frames: Tensor, valid: Tensor, latents: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Choose clips to show, and for each of them the least similar one among the chosen.

    The first moves most; each further one is, among the half that moves more, the least like those before.

    Args:
        frames: Frames (B,T,C,h,w) in [0, 1].
        valid: Transitions (B,H) bool that lie within the episode.
        latents: The latents (B,H,Z) by which clips are compared.
        count: Number of clips to choose.

    Returns:
        Indices (count,) of the chosen clips, and of each one's companion.
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
    """Draw clips, one below the other, each as one line of frames per strip.

    Args:
        strips: Title -> frames (rows,T,C,h,w) in [0, 1], the same clips in each.
        columns: Names of the T frames.
        file: PNG to write.
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
