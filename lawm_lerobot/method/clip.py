"""The batch of clips that the world model and the inverse dynamics learn from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Clip:
    """Frames x_0..x_H of B episodes, `latent_action.stride` dataset frames apart.

    Args:
        frames: (B,T,C,h,w) in [0, 1], at the world model's size.
        valid: (B,H) bool, False where x_{k+1} lies past the episode's end.
        states: (B,T,S) the robot's state in each frame, in any units; None where it is not looked at.
    """

    frames: Tensor
    valid: Tensor
    states: Tensor | None = None

    def __len__(self) -> int:
        """B."""
        return len(self.frames)

    def followed_by(self, other: Clip) -> Clip:
        """These B clips and the other L, without states: (B+L,...)."""
        return Clip(torch.cat([self.frames, other.frames]), torch.cat([self.valid, other.valid]))
