"""Tiny clips whose latent actions are known, and tiny world models, in the letters of world_models/base.py."""

import torch
from torch import Tensor

from lawm_lerobot.method.configuration import WorldModelConfig
from lawm_lerobot.method.world_models.base import WorldModel

B, H, SIDE, Z = 4, 3, 32, 2
MODELS = ["rssm", "recurrent"]


def moving_squares(batch: int = B, horizon: int = H, square: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """A square that z_k moves by 4 pixels a unit: frames (B,T,3,32,32), latents (B,H,2), valid (B,H)."""
    latents = torch.randint(-1, 2, (batch, horizon, 2)).float()
    start = torch.randint(6, SIDE - 6 - square, (batch, 1, 2))
    moves = torch.cat([torch.zeros(batch, 1, 2), 4 * latents.cumsum(1)], 1)  # (B,T,2)
    corner = (start + moves).clamp(0, SIDE - square)[..., None]  # (B,T,2,1)
    inside = (torch.arange(SIDE) >= corner) & (torch.arange(SIDE) < corner + square)  # (B,T,2,32)
    inside = (inside[:, :, 0, :, None] & inside[:, :, 1, None, :]).unsqueeze(2)  # (B,T,1,32,32)
    colour = torch.tensor([0.9, 0.6, 0.1]).view(3, 1, 1)
    return torch.where(inside, colour, 0.2), latents, torch.ones(batch, horizon, dtype=torch.bool)


def build(name: str, **kwargs) -> WorldModel:
    return WorldModelConfig.get_choice_class(name)(size="test", image_size=SIDE, **kwargs).build(Z, H)
