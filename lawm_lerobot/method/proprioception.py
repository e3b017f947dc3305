"""Latents that must also foretell the robot's own state, the family of villa-X (arXiv 2507.23682).

Letters: B clips, H latent actions, T = H + 1 frames, Z latent dimension, S state dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lawm_lerobot.method.latent import LatentNorm
from lawm_lerobot.method.networks import masked_mean, perceptron

HIDDEN = 64
# A number of the state whose deviation is far below its root, 1e-4 in the state's own units, counts as still.
EPSILON = 1e-8


class ProprioDynamics(nn.Module):
    """Latent z_k and state s_k -> the change of the state until s_{k+1}, standardised.

    As in villa-X (section on the latent action model): the proprioceptive forward dynamics model, a second decoder beside
    the one for frames, which gets the latent and the present state; so a latent cannot leave out what hardly shows in
    pixels, such as a gripper. Not as in villa-X: it predicts neither the states in between nor the robot's actions
    (`--policy.labels` has a read-out for these), knows one embodiment, and is a small perceptron.

    Args:
        latent_dim: Z.
        state_dim: S.
    """

    def __init__(self, latent_dim: int, state_dim: int) -> None:
        super().__init__()
        # Changes over a stride are small beside the states, and differ between them: standardised, all count alike.
        self.state_norm = LatentNorm(state_dim, eps=EPSILON)
        self.change_norm = LatentNorm(state_dim, eps=EPSILON)
        self.layers = perceptron(latent_dim + state_dim, HIDDEN, state_dim)

    def forward(self, z: Tensor, states: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """The squared error () of the foretold changes, and their R2 (), over the valid transitions of a batch.

        Latents z (B,H,Z), states (B,T,S) in any units, valid (B,H). R2 is 0 for who always foretells the mean change.
        """
        states = states.float()
        before = self.state_norm(states[:, :-1], valid)  # (B,H,S)
        change = self.change_norm(states[:, 1:] - states[:, :-1], valid)  # (B,H,S)
        foretold = self.layers(torch.cat([z, before], -1)).float()  # (B,H,S)
        error = masked_mean((foretold - change).square().mean(-1), valid)
        mean = (change * valid.unsqueeze(-1)).sum((0, 1)) / valid.sum().clamp_min(1)  # (S)
        variance = masked_mean((change - mean).square().mean(-1), valid)
        return error, 1.0 - error.detach() / variance.clamp_min(1e-8)
