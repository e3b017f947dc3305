"""The interface of all world models.

Letters: B batch, H latent actions, T = H + 1 frames, C h w channels and pixels, Z latent dimension.
z_k drives x_k -> x_{k+1} for k = 0..H-1: the first latent drives the first transition, and none is dropped.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass
class WorldModelOutput:
    """The outcome of one training step of a world model.

    Args:
        loss: () float32, to be minimised.
        metrics: Detached tensors () by name. They are not read on the host here: `.item()` would stall the GPU.
    """

    loss: Tensor
    metrics: dict[str, Tensor]


class WorldModel(nn.Module, ABC):
    """p(x_1..x_H | x_0, z_0..z_{H-1})."""

    latent_dim: int
    image_size: int

    @abstractmethod
    def forward(self, frames: Tensor, latents: Tensor, valid: Tensor) -> WorldModelOutput:
        """Loss and metrics of a batch of clips.

        Args:
            frames: (B,T,C,h,w) float in [0, 1], already at the configured `image_size`.
            latents: (B,H,Z).
            valid: (B,H) bool, False where x_{k+1} lies past the end of the episode. The padding is at the end
                of a clip, so nothing valid follows it; padded transitions influence neither loss, metrics nor
                gradients. x_0 is always valid.

        Every model reports at least these metrics, means over the valid transitions, or in training over those it
        draws among them:
            mse: mean squared pixel error of the open-loop prediction;
            copy_mse: the same for a predictor that copies x_0;
            mse_over_copy: their ratio; below 1 the model predicts something.
        """

    @abstractmethod
    def imagine(self, first_frame: Tensor, latents: Tensor) -> Tensor:
        """Open loop and without sampling noise: (B,C,h,w), (B,H,Z) -> (B,H,C,h,w)."""

    def reconstruct(self, frames: Tensor, latents: Tensor) -> Tensor | None:
        """(B,T,C,h,w), (B,H,Z) -> (B,T,C,h,w) from the posterior; None in a model without a posterior."""
        return None

    def check_shapes(self, frames: Tensor, latents: Tensor) -> None:
        """Raises ValueError, naming the flag to change, unless (B,T,C,h,w) and (B,H,Z) fit this model."""
        if frames.shape[1] != latents.shape[1] + 1:
            raise ValueError(
                f"a world model got {frames.shape[1]} frames and {latents.shape[1]} latents, and "
                "H latents need H + 1 frames: change `--policy.latent_action.horizon`."
            )
        if tuple(frames.shape[-2:]) != (self.image_size, self.image_size):
            raise ValueError(
                f"a world model for {self.image_size}x{self.image_size} frames got "
                f"{frames.shape[-2]}x{frames.shape[-1]}: "
                "resize them or change `--policy.world_model.image_size`."
            )
        if latents.shape[-1] != self.latent_dim:
            raise ValueError(
                f"a world model for {self.latent_dim}-dimensional latents got {latents.shape[-1]}: "
                "change `--policy.latent_action.dim`."
            )
