"""Latents of clips, the frames that a world model imagines from them, and pictures of these as strips."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lawm_lerobot.method.clip import Clip
from lawm_lerobot.method.latent_action import POLICY
from lawm_lerobot.policies.common.clips import pick_samples
from lawm_lerobot.policies.common.configuration import LawmConfig
from lawm_lerobot.policies.common.policy import LawmPolicy

INFERRED = "imagined, inferred latents"
PLANNED = "imagined, policy's plan"
#: Width in pixels to which the frames in a picture are enlarged, about; space between them; size of the letters.
TILE, GAP, FONT_SIZE = 96, 4, 13


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
def clip_latents(policy: LawmPolicy, seen: dict[str, Any], clip: Clip) -> ClipLatents:
    """The latents of a preprocessed pretraining batch, given its `LawmPolicy.policy_batch` and `LawmPolicy.clip`."""
    predicted = policy.latents_without_gradient(seen)  # (B,H,Z)
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
        latents = clip_latents(policy, policy.policy_batch(batch), clip).inferred
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


@dataclass(frozen=True)
class ShownClips:
    """Clips that are chosen to be shown, on the CPU.

    Args:
        clip: The n clips.
        seen: The policy's view of them, a `LawmPolicy.policy_batch`.
        other: The index among them of the clip whose latents are the wrong ones for each.
    """

    clip: Clip
    seen: dict[str, Any]
    other: Tensor  # (n)


def choose_clips(policy: LawmPolicy, batch: dict[str, Any], count: int) -> ShownClips:
    """Choose clips of a preprocessed pretraining batch that move, each in its own way."""
    clip, seen = policy.clip(batch), policy.policy_batch(batch)
    chosen, other = telling_clips(clip.frames, clip.valid, clip_latents(policy, seen, clip).inferred, count)
    places = (other[:, None] == chosen).int().argmax(1)  # (n), among the chosen
    picked = Clip(clip.frames[chosen].cpu(), clip.valid[chosen].cpu())
    return ShownClips(picked, pick_samples(seen, chosen.tolist()), places.cpu())


def imagined_strips(policy: LawmPolicy, shown: ShownClips) -> dict[str, Tensor]:
    """Strips of frames (n,T,C,h,w) in [0, 1] by title: real, and imagined from x_0 and several latents.

    These are the inferred latents; those that the policy predicts, which has seen x_0 only; and those of the shown
    clip that is least like it, which must look wrong if the latents mean anything.
    """
    device = next(policy.parameters()).device
    clip = Clip(shown.clip.frames.to(device), shown.clip.valid.to(device))
    seen = {
        key: value.to(device) if isinstance(value, Tensor) else value for key, value in shown.seen.items()
    }
    latents = clip_latents(policy, seen, clip)
    drives = {INFERRED: latents.inferred}
    # A policy that acts by fewer actions than it is trained on has no plan of the whole clip.
    whole = latents.predicted.shape == latents.inferred.shape
    if policy.config.latent_action.source != POLICY and whole:
        drives[PLANNED] = latents.predicted
    drives["imagined, another clip's latents"] = latents.inferred[shown.other.to(device)]
    strips = {title: imagine_clip(policy, clip.frames[:, 0], drive) for title, drive in drives.items()}
    return {"real": shown.clip.frames, **strips}


def save_imagination_strip(policy: LawmPolicy, batch: dict[str, Any], file: Path, rows: int = 4) -> Path:
    """Draw the `imagined_strips` of clips of a batch."""
    strips = imagined_strips(policy, choose_clips(policy, batch, rows))
    return draw_strips(strips, frame_titles(policy.config), file)


def frame_titles(config: LawmConfig) -> list[str]:
    """Names of a clip's T frames: seconds where the checkpoint knows its frame rate."""
    step, fps = config.latent_action.stride, config.dataset_fps
    return [f"{k * step / fps:.2f} s" if fps else f"x_{k}" for k in range(config.latent_action.horizon + 1)]


def draw_strips(strips: dict[str, Tensor], columns: Sequence[str], file: Path) -> Path:
    """Draw clips, one below the other, each as one line of frames per strip, into a PNG.

    ``strips`` has the same clips under each title, as frames (rows,T,C,h,w) in [0, 1]; ``columns`` names the T frames.
    """
    stacked = torch.stack(list(strips.values()), 1)  # (rows,strips,T,C,h,w)
    pixels = (stacked.float().clamp(0, 1) * 255).round().to(torch.uint8).movedim(-3, -1).numpy()
    zoom = max(1, round(TILE / pixels.shape[-2]))
    pixels = pixels.repeat(zoom, 3).repeat(zoom, 4)  # (rows,strips,T,h,w,C)
    rows, lines, time, height, width, _ = pixels.shape
    font = ImageFont.load_default(FONT_SIZE)
    margin = 2 * GAP + round(max(font.getlength(title) for title in strips))
    head = 2 * GAP + FONT_SIZE
    clip_height = lines * (height + GAP) + 2 * GAP  # more room between clips than within one
    picture = Image.new("RGB", (margin + time * (width + GAP), head + rows * clip_height - 2 * GAP), "white")
    draw = ImageDraw.Draw(picture)
    for k, name in enumerate(columns):
        draw.text((margin + k * (width + GAP) + width / 2, head - GAP), name, "black", font, anchor="mb")
    for row, line in np.ndindex(rows, lines):
        top = head + row * clip_height + line * (height + GAP)
        draw.text((margin - GAP, top + height / 2), list(strips)[line], "black", font, anchor="rm")
        for k in range(time):
            picture.paste(Image.fromarray(pixels[row, line, k]), (margin + k * (width + GAP), top))
    picture.save(file, "PNG")
    return file
