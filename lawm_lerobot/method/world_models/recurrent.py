"""A cheap sibling of the recurrent state-space model: deterministic, and it looks at x_0 only.

    x_0 -> convolutions -> maps at every scale --------------------------------------.
              |                                                                      | added at their scale
              v                                                                      v
    h_0 -> GRU(z_0..z_{H-1}) -> h_1..h_H -> 4x4 map -> transposed convolutions, FiLM by h_{k+1} -> rgb, mask
                                                        x_{k+1} = mask * rgb + (1 - mask) * x_0

x_0 is encoded once per clip rather than once per frame, all H frames are decoded in one pass, and a static
background costs no capacity, since a closed mask copies it. There is no posterior.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lawm_lerobot.method.configuration import RECURRENT_SIZES, RecurrentConfig
from lawm_lerobot.method.kernels.conv import ChannelNorm
from lawm_lerobot.method.networks import (
    HEAD_SCALE,
    IMAGE_CHANNELS,
    MINIMUM_MAP,
    PIXELS,
    ConvEncoder,
    NormedLinear,
    as_images,
    channels_of,
    init_weights,
    masked_mean,
    prediction_metrics,
)
from lawm_lerobot.method.world_models.base import WorldModel, WorldModelOutput

# A pixel that differs from x_0 by this much, on the scale of [0, 1], counts as wholly moved.
MOVED = 0.1
# The mask starts almost closed (12% open): copying x_0 is a good first guess.
MASK_BIAS = -2.0


class RecurrentWorldModel(WorldModel):
    """The recurrent model of a size in `RECURRENT_SIZES`."""

    def __init__(self, config: RecurrentConfig, latent_dim: int):
        super().__init__()
        size = RECURRENT_SIZES[config.size]
        channels = channels_of(size.depth, config.image_size)  # finest first
        self.config = config
        self.latent_dim = latent_dim
        self.image_size = config.image_size
        self.channels = channels[::-1]  # coarsest first, the order of decoding
        self.encoder = ConvEncoder(size.depth, config.image_size)
        self.initial = NormedLinear(self.encoder.features, size.hidden)
        self.latent_in = NormedLinear(latent_dim, size.hidden)
        self.gru = nn.GRU(size.hidden, size.hidden, batch_first=True)
        self.start = nn.Linear(size.hidden, self.channels[0] * MINIMUM_MAP**2)
        self.film = nn.Linear(size.hidden, 2 * sum(channels))
        self.skips = nn.ModuleList(nn.Conv2d(c, c, 1) for c in self.channels)
        self.norms = nn.ModuleList(ChannelNorm(c, elementwise_affine=False) for c in self.channels)
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(c_in, c_out, 4, 2, 1)
            for c_in, c_out in pairwise([*self.channels, IMAGE_CHANNELS + 1])
        )
        self.apply(init_weights)
        with torch.no_grad():
            weight, bias = self.ups[-1].parameters()
            weight.mul_(HEAD_SCALE)
            bias[-1] = MASK_BIAS

    def imagine(self, first_frame: Tensor, latents: Tensor) -> Tensor:
        batch, horizon = latents.shape[:2]
        maps = self.encoder.maps(as_images(first_frame.unsqueeze(1)))[::-1]  # each (B,c,side,side), 4x4 first
        initial = self.initial(maps[0].flatten(1))  # (B,hidden)
        driven = self.latent_in(latents)  # (B,H,hidden)
        # Not in autocast: it is small, and rounding would add up over the steps.
        with torch.autocast(latents.device.type, enabled=False):
            states, _ = self.gru(driven.float(), initial.float().unsqueeze(0))  # (B,H,hidden)
        states = states.flatten(0, 1)  # (B*H,hidden)

        film = self.film(states)[..., None, None]  # (B*H,2*sum(channels),1,1)
        films = film.split([2 * c for c in self.channels], 1)
        x = self.start(states).unflatten(-1, (MINIMUM_MAP, MINIMUM_MAP, -1))  # (B*H,4,4,channels[0])
        x = x.permute(0, 3, 1, 2)  # (B*H,channels[0],4,4), channels-last in memory
        for skip, norm, film, up, seen in zip(self.skips, self.norms, films, self.ups, maps, strict=True):
            # x_0's maps are convolved once per clip, and only then spread over the H frames.
            x = x.unflatten(0, (batch, horizon)) + skip(seen).unsqueeze(1)  # (B,H,c,side,side)
            scale, shift = film.chunk(2, 1)  # each (B*H,c,1,1)
            x = torch.addcmul(shift, norm(x.flatten(0, 1)), 1 + scale)  # (B*H,c,side,side)
            x = up(F.silu(x))  # (B*H,c_next,2*side,2*side)
        x = x.float().unflatten(0, (batch, horizon))  # (B,H,C+1,h,w)
        rgb, mask = x.split([IMAGE_CHANNELS, 1], 2)  # (B,H,C,h,w), (B,H,1,h,w)
        return torch.lerp(first_frame.float().unsqueeze(1), rgb + 0.5, torch.sigmoid(mask))  # (B,H,C,h,w)

    def forward(self, frames: Tensor, latents: Tensor, valid: Tensor) -> WorldModelOutput:
        self.check_shapes(frames, latents)
        first, targets = frames[:, 0].float(), frames[:, 1:].float()  # (B,C,h,w), (B,H,C,h,w)
        prediction = self.imagine(frames[:, 0], latents)  # (B,H,C,h,w)
        squared = (prediction - targets).square()  # (B,H,C,h,w)
        weighted = errors = squared.mean((-3, -2, -1))  # (B,H)
        if self.config.motion_weight > 0:
            moved = ((targets - first.unsqueeze(1)).abs().amax(2, keepdim=True) / MOVED).clamp_max(
                1.0
            )  # (B,H,1,h,w)
            extra = (moved * squared).mean((-3, -2, -1))  # (B,H)
            weighted = errors + self.config.motion_weight * extra  # (B,H)
        loss = self.config.loss_weight * PIXELS * masked_mean(weighted, valid)
        metrics = {"loss": loss.detach(), **prediction_metrics(errors, first, targets, valid)}
        return WorldModelOutput(loss, metrics)
