"""Latents without learning, as a control: the principal components of how the picture changes from frame to frame."""

import torch
from torch import Tensor, nn

from lawm_lerobot.method.frames import resize_frames
from lawm_lerobot.method.networks import IMAGE_CHANNELS

SIDE = 16  # Of the shrunken pictures whose changes are decomposed.


class PrincipalComponents(nn.Module):
    """Frames of a clip -> the first Z principal components of the change between neighbours, of unit variance.

    Stands where `InverseDynamics` does, and tells what latents are worth beyond any numbers that describe motion. In
    training it gathers the covariance of all changes that it has seen; no gradient runs through it. D = C * SIDE^2.

    Args:
        latent_dim: Z.
    """

    shifts = False
    count: Tensor
    total: Tensor
    products: Tensor
    components: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        numbers = IMAGE_CHANNELS * SIDE**2
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("total", torch.zeros(numbers))
        self.register_buffer("products", torch.zeros(numbers, numbers))
        self.register_buffer("components", torch.zeros(latent_dim, numbers))  # divided by their deviation

    @torch.no_grad()
    def forward(self, frames: Tensor, valid: Tensor, shift: bool = True) -> Tensor:
        """(B,T,C,h,w) in [0, 1], (B,H) bool -> (B,H,Z) in float32, zero at padded transitions; `shift` has no effect."""
        small = resize_frames(frames.flatten(0, 1).float(), (SIDE, SIDE)).unflatten(0, frames.shape[:2])
        change = (small[:, 1:] - small[:, :-1]).flatten(2)  # (B,H,D)
        if self.training and valid.any():
            self._learn(change[valid])
        mean = self.total / self.count.clamp_min(1)  # (D)
        return (change - mean) @ self.components.T * valid.unsqueeze(-1)

    def _learn(self, changes: Tensor) -> None:
        """Take changes (n,D) into account."""
        self.count += len(changes)
        self.total += changes.sum(0)
        self.products += changes.T @ changes
        mean = self.total / self.count
        covariance = self.products / self.count - torch.outer(mean, mean)  # (D,D)
        variances, directions = torch.linalg.eigh(covariance)  # rising
        chosen = slice(-len(self.components), None)
        deviations = variances[chosen].clamp_min(1e-12).sqrt()  # (Z)
        self.components.copy_((directions[:, chosen] / deviations).T.flip(0))
