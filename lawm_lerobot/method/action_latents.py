"""A second way into the space of latents, from true actions: the family of GLAM (arXiv 2606.21672).

Letters: N labelled clips, H latent actions, Z latent dimension, A robot action dimension; `stride` actions belong to a latent.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lawm_lerobot.method.networks import perceptron

HIDDEN = 64


class ActionEncoder(nn.Module):
    """One small perceptron per embodiment: the actions between x_k and x_{k+1} -> the latent z_k.

    As in GLAM, by its abstract and project page: actions that do the same are to be the same latent as the one that the
    inverse dynamics infers from what they did, whoever acted; so latents of both kinds drive one world model, and one
    decoder, the `ActionReadout`, leads from both to actions. Not as in GLAM, or not known to be: the latents are points
    and no distributions, the encoder sees no frame, the decoder is linear, and the world model predicts pixels.

    Args:
        latent_dim: Z.
        stride: Actions per latent.
        action_dims: A of every embodiment.
    """

    def __init__(self, latent_dim: int, stride: int, action_dims: Sequence[int]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(perceptron(stride * dim, HIDDEN, latent_dim) for dim in action_dims)

    def forward(self, actions: Tensor, head: int) -> Tensor:
        """Standardised actions (N,H,stride*A) of one embodiment -> (N,H,Z) in float32."""
        return self.heads[head](actions).float()
