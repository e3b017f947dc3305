"""A network over all transitions of an episode, and the chunks of latents that begin with its frames.

Letters: n frames of an episode, C h w, T = H + 1 frames of a clip, D outputs of the network, Z latent dimension.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


@torch.no_grad()
def over_transitions(pixels: Tensor, stride: int, network: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Apply a network to every transition x_t -> x_{t+stride} of an episode; (max(n-stride,1),D) begin with frame t.

    Args:
        pixels: (n,C,h,w) in [0, 1], on the network's device. An episode too short for a transition is taken to stand
            still after its last frame.
        stride: Dataset frames of a transition.
        network: A function from the frames (1,T,C,h,w) and valid (1,H) of a clip to a row per transition (1,H,D).

    Returns:
        the rows, on the CPU.
    """
    if len(pixels) <= stride:
        pixels = torch.cat([pixels, pixels[-1:].expand(stride + 1 - len(pixels), -1, -1, -1)])
    count = len(pixels) - stride
    phases = []
    for phase in range(min(stride, count)):
        clip = pixels[phase::stride][None]  # (1,T,C,h,w)
        valid = torch.ones(1, clip.shape[1] - 1, dtype=torch.bool, device=pixels.device)
        phases.append(network(clip, valid)[0].cpu())  # (H,D)
    rows = phases[0].new_empty(count, phases[0].shape[1])
    for phase, values in enumerate(phases):
        rows[phase::stride] = values
    return rows


def latent_chunks(
    latents: Tensor, first: Tensor, end: Tensor, horizon: int, stride: int
) -> tuple[Tensor, Tensor]:
    """The H latents from a frame on, (B,H,Z), and which of them are of transitions within the episode, (B,H) bool.

    Args:
        latents: (N,Z) z_t of x_t -> x_{t+stride} for every frame of a dataset; any value where there is none.
        first: (B,) frames in which the chunks begin.
        end: (B,) the frames after the last of their episodes.
        horizon: H.
        stride: Dataset frames of a transition.
    """
    steps = first[:, None] + stride * torch.arange(horizon)  # (B,H)
    valid = steps + stride < end[:, None]  # (B,H)
    return latents[steps.clamp_max(len(latents) - 1)] * valid.unsqueeze(-1), valid
