"""Inverse dynamics q(z_k | x_k, x_{k+1}, neighbours): the latent action that led from one frame to the next."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lawm_lerobot.method.configuration import INVERSE_DYNAMICS_SIZES
from lawm_lerobot.method.networks import (
    IMAGE_CHANNELS,
    MINIMUM_MAP,
    NormedLinear,
    as_images,
    channels_of,
    halving_convs,
    init_weights,
)

# Convolutions that see one frame. The rest see a transition: at a quarter of the resolution two frames can still be
# compared place by place, and a small object that moved has not been pooled away.
CONVS_PER_FRAME = 2


def random_shift(frames: Tensor, pixels: int) -> Tensor:
    """Shifts each clip of (B,T,C,h,w) by up to `pixels` either way, the edge repeated.

    One shift per clip: shifts that differed between the frames of a clip would look like motion.
    """
    batch, time, channels, height, width = frames.shape
    shifts = torch.randint(-pixels, pixels + 1, (2, batch, 1), device=frames.device)  # (2,B,1)
    rows = (torch.arange(height, device=frames.device) + shifts[0]).clamp(0, height - 1)  # (B,h)
    columns = (torch.arange(width, device=frames.device) + shifts[1]).clamp(0, width - 1)  # (B,w)
    shifted = frames.flatten(1, 2)  # (B,T*C,h,w)
    shifted = shifted.gather(2, rows[:, None, :, None].expand_as(shifted))
    shifted = shifted.gather(3, columns[:, None, None, :].expand_as(shifted))
    return shifted.unflatten(1, (time, channels))  # (B,T,C,h,w)


class TemporalMixing(nn.Module):
    """Lets every transition see one more neighbour on either side: a residual layer over three of them.

    Where there is no neighbour, the transition stands in for it. Zeros in its place would mark the ends of a clip, and
    the latents would tell first of all their own place in it.
    """

    def __init__(self, hidden: int):
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.mix = nn.Linear(3 * hidden, hidden)

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        """(B,H,hidden), (B,H,1) bool -> (B,H,hidden). Padded transitions go in, and come out, as zeros."""
        normed = self.norm(features)  # (B,H,hidden)
        before, after = normed.roll(1, dims=1), normed.roll(-1, dims=1)  # (B,H,hidden) each
        has_before, has_after = valid.roll(1, dims=1), valid.roll(-1, dims=1)  # (B,H,1) each
        has_before[:, 0], has_after[:, -1] = False, False
        before, after = torch.where(has_before, before, normed), torch.where(has_after, after, normed)
        mixed = self.mix(torch.cat([before, normed, after], 2))  # (B,H,3*hidden) -> (B,H,hidden)
        return (features + F.silu(mixed)) * valid


class InverseDynamics(nn.Module):
    """Frames of a clip -> one raw latent per transition.

    The latents come out unbounded and unnormalised; the constraints that keep them from copying the frames (a low
    dimension and `LatentNorm`) are for the caller to add. The arguments but Z are those of `InverseDynamicsConfig`.
    """

    def __init__(
        self, latent_dim: int, image_size: int, size: str = "1m", random_shift: int = 4, context: int = 1
    ):
        super().__init__()
        widths = INVERSE_DYNAMICS_SIZES[size]
        channels = channels_of(widths.depth, image_size)
        self.random_shift = random_shift
        self.frame_stages = halving_convs([IMAGE_CHANNELS, *channels[:CONVS_PER_FRAME]])
        self.pair_stages = halving_convs([3 * channels[CONVS_PER_FRAME - 1], *channels[CONVS_PER_FRAME:]])
        self.project = NormedLinear(channels[-1] * MINIMUM_MAP**2, widths.hidden)
        self.mixing = nn.ModuleList(TemporalMixing(widths.hidden) for _ in range(context))
        self.head = nn.Sequential(nn.LayerNorm(widths.hidden), nn.Linear(widths.hidden, latent_dim))
        self.apply(init_weights)

    @property
    def shifts(self) -> bool:
        """True while its input is shifted at random."""
        return self.training and self.random_shift > 0

    def forward(self, frames: Tensor, valid: Tensor, shift: bool = True) -> Tensor:
        """(B,T,C,h,w) in [0, 1], (B,H) bool -> (B,H,Z) raw latents in float32, zero at padded transitions.

        With ``shift=False`` the frames are taken as they are, in training too.
        """
        if shift and self.shifts:
            frames = random_shift(frames, self.random_shift)
        batch, time = frames.shape[:2]
        maps = self.frame_stages(as_images(frames)).unflatten(0, (batch, time))  # (B,T,c,h/4,w/4)
        before, after = maps[:, :-1], maps[:, 1:]  # each (B,H,c,h/4,w/4)
        pairs = torch.cat([before, after, after - before], 2).flatten(0, 1)  # (B*H,3*c,h/4,w/4)
        pairs = self.pair_stages(pairs.contiguous(memory_format=torch.channels_last))  # (B*H,8*depth,4,4)
        features = self.project(pairs.flatten(1)).unflatten(0, (batch, time - 1))  # (B,H,hidden)
        mask = valid.unsqueeze(-1)  # (B,H,1)
        features = features * mask
        for mixing in self.mixing:
            features = mixing(features, mask)
        return self.head(features).float() * mask  # (B,H,Z)
