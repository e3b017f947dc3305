"""A policy of ten lines, and the whole pretraining loss with it, without LeRobot."""

import torch
from torch import Tensor, nn

from lawm_lerobot.method.clip import Clip
from lawm_lerobot.method.latent_action import INVERSE_DYNAMICS, LATENT_MODELS
from lawm_lerobot.method.objective import InferredLatents, LatentActionPretraining
from lawm_lerobot.method.readout import LabelBatch


class ToyPolicy(nn.Module):
    """x_0 (B,C,h,w) -> H latents (B,H,Z), learned by their squared error."""

    def __init__(self, side: int, horizon: int, dim: int):
        super().__init__()
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(3 * side**2, 16), nn.Tanh())
        self.head = nn.Sequential(nn.Linear(16, horizon * dim, bias=False), nn.Unflatten(1, (horizon, dim)))

    def forward(self, first: Tensor) -> Tensor:
        return self.head(self.trunk(first))

    def imitation_loss(self, first: Tensor, latents: Tensor) -> Tensor:
        return (self(first) - latents).square().mean()


def pretraining_loss(
    method: LatentActionPretraining, policy: ToyPolicy | None, clip: Clip, labels: LabelBatch | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss () and the metrics of its optional parts; without a policy, nothing imitates."""
    clips = clip if labels is None else clip.followed_by(Clip(labels.frames, labels.valid))
    loss, metrics = torch.zeros(()), {}
    for model in LATENT_MODELS[method.config.source]:
        if model == INVERSE_DYNAMICS:
            continuous = method.continuous_latents(clips.frames, clips.valid)
            z = method.quantised(continuous, clips.valid)
        else:
            z = method.policy_latents(policy(clips.frames[:, 0]), clips.valid)
        latents = z[: len(clip)]
        driven = clip if method.action_encoder is None else clips
        loss = loss + method.world_model_loss(driven, z[: len(driven)]).loss
        if model == INVERSE_DYNAMICS:
            step = InferredLatents(clip, clips, labels, continuous, z)
            options, found = method.option_losses(step)
            loss, metrics = loss + options, metrics | found
        if model == INVERSE_DYNAMICS and policy is not None:
            targets = method.imitation_targets(clip.frames, clip.valid, latents)
            imitation = policy.imitation_loss(clip.frames[:, 0], targets)
            loss = loss + method.config.imitation_weight * imitation
        if labels is not None:
            error, found = method.readout_loss(z, clips.valid, labels)
            loss, metrics = loss + error, metrics | found
    return loss, metrics
