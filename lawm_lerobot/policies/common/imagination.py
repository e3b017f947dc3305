"""Latents of clips, and the frames that a world model imagines from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lawm_lerobot.method.clip import Clip
from lawm_lerobot.method.latent_action import POLICY
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
