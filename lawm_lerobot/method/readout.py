"""The linear read-out from latent actions to robot actions. Plain PyTorch; knows nothing of LeRobot.

Letters: B clips, N of them, H latent actions, T = H + 1 frames `stride` dataset frames apart, Z latent dimension, A robot
action dimension. All `stride` actions between x_k and x_{k+1} are read out of z_k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Share of a step in the running R2.
MOMENTUM = 0.05


@dataclass
class ActionTargets:
    """The true actions of some clips of a batch, all of one embodiment.

    Args:
        head: The index of the embodiment, and so of its head.
        rows: (N) int64, the indices of the clips in the batch.
        actions: (N,H,stride,A) float32 in the robot's units.
    """

    head: int
    rows: Tensor
    actions: Tensor


@dataclass
class LabelBatch:
    """The true actions that are known in a training step, and labelled clips beside the batch's own.

    Args:
        targets: The actions. Their rows count the batch's B clips first, then the L labelled ones.
        frames: (L,T,C,h,w) in [0, 1], the labelled clips; L may be 0.
        valid: (L,H) bool, False where x_{k+1} lies past the episode's end.
    """

    targets: list[ActionTargets]
    frames: Tensor
    valid: Tensor

    @property
    def rows(self) -> Tensor:
        """(n) int64, the indices of all clips whose actions are known."""
        none = torch.zeros(0, dtype=torch.int64, device=self.valid.device)
        return torch.cat([none, *(target.rows for target in self.targets)])


class ActionReadout(nn.Module):
    """One linear head per embodiment, on actions standardised by the labels' own statistics.

    Actions of different embodiments differ in dimension and meaning, so they share the latents and no weights.

    Args:
        latent_dim: Z.
        stride: Actions per latent.
        action_dims: A of every embodiment.
    """

    steps: Tensor
    residual: Tensor
    variance: Tensor

    def __init__(self, latent_dim: int, stride: int, action_dims: Sequence[int]) -> None:
        super().__init__()
        self.stride = stride
        self.heads = nn.ModuleList(nn.Linear(latent_dim, stride * dim) for dim in action_dims)
        for head, dim in enumerate(action_dims):
            self.register_buffer(f"action_mean_{head}", torch.zeros(dim))
            self.register_buffer(f"action_std_{head}", torch.ones(dim))
        # Training steps so far; saved, so that a resumed run does not draw its first clips again.
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("residual", torch.zeros(()), persistent=False)
        self.register_buffer("variance", torch.zeros(()), persistent=False)

    def set_statistics(self, head: int, mean: Tensor, std: Tensor) -> None:
        """Standardises the actions of an embodiment by mean and std (A); a constant dimension is left at zero."""
        getattr(self, f"action_mean_{head}").copy_(mean)
        getattr(self, f"action_std_{head}").copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))

    def forward(self, z: Tensor, valid: Tensor, targets: Sequence[ActionTargets]) -> tuple[Tensor, Tensor]:
        """Squared error of the standardised actions, summed over clips of all embodiments.

        For z (B,H,Z) and valid (B,H): the mean error () over the valid transitions of the targets' clips, and over the
        same ones the variance () of the actions, which is the error of always predicting their mean.
        """
        error, variance, count = z.new_zeros(()), z.new_zeros(()), z.new_zeros(())
        for target in targets:
            mask = valid[target.rows].unsqueeze(-1).float()  # (N,H,1)
            actions = self.standardised(target)  # (N,H,stride*A)
            predicted = self.heads[target.head](z[target.rows]).float()  # (N,H,stride*A)
            error = error + ((predicted - actions).square() * mask).mean(-1).sum()
            variance = variance + (actions.square() * mask).mean(-1).sum()
            count = count + mask.sum()
        count = count.clamp_min(1.0)
        return error / count, variance / count

    def standardised(self, target: ActionTargets) -> Tensor:
        """The true actions of each transition side by side (N,H,stride*A), standardised by the labels' statistics."""
        mean, std = self._statistics(target.head)
        return ((target.actions - mean) / std).flatten(2)

    @torch.no_grad()
    def track(self, error: Tensor, variance: Tensor) -> Tensor:
        """Running R2 () over the last steps, given the two results () of `forward`; NaN before the first label.

        These are training clips: it says that the labels were learned, not that the read-out decodes unseen episodes.
        """
        self.residual.lerp_(error, MOMENTUM)
        self.variance.lerp_(variance, MOMENTUM)
        r2 = 1.0 - self.residual / self.variance.clamp_min(1e-8)
        return r2.where(self.variance > 0, torch.nan)

    def predict(self, z: Tensor, head: int) -> Tensor:
        """(B,H,Z) -> (B,H,stride,A) in the robot's units."""
        mean, std = self._statistics(head)
        return self.heads[head](z).unflatten(-1, (self.stride, -1)) * std + mean

    def _statistics(self, head: int) -> tuple[Tensor, Tensor]:
        return getattr(self, f"action_mean_{head}"), getattr(self, f"action_std_{head}")
