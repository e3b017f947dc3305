"""Layers that the world models and the inverse dynamics share.

Letters as in base.py, and N any number of images or rows that are processed alike.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lawm_lerobot.method.kernels.conv import ChannelNormSiLU, activated_convs
from lawm_lerobot.method.kernels.linear import BlockProduct, affine, is_faster
from lawm_lerobot.method.kernels.recurrence import unrolled

IMAGE_CHANNELS = 3
# Side of the smallest feature map: DreamerV3's encoder stops, and its decoder starts, at 4x4.
MINIMUM_MAP = 4
# DreamerV3 sums the squared error over a frame of 64x64. The mean error times this number is that sum, and it keeps
# the balance with the other loss terms when frames are larger or smaller.
PIXELS = 64 * 64 * IMAGE_CHANNELS
# Factor on the initial weights of a head that emits pixels: the first predictions lie within the range of images
# instead of spending hundreds of steps on coming back to it.
HEAD_SCALE = 0.1


def init_weights(module: nn.Module) -> None:
    """Truncated normal scaled by the fan-in, biases zero, as DreamerV3 initialises. Use with `Module.apply`.

    No output head is zero: DreamerV3 zeroes only its reward and value heads, and behind a zero head the
    latents would get no gradient on the first step. Heads that emit pixels are shrunk instead, see
    `HEAD_SCALE`.
    """
    if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d):
        fan_in = module.weight[0].numel()
        if isinstance(module, nn.ConvTranspose2d):
            # (in,out,kernel,kernel), and each output pixel is reached by 1/stride^2 of the kernel only.
            fan_in = module.in_channels * module.weight[0, 0].numel() // math.prod(module.stride)
        trunc_normal_(module.weight, fan_in)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def trunc_normal_(weight: Tensor, fan_in: int) -> None:
    """Variance 1/fan_in after cutting at two standard deviations, which alone would leave 0.774 of it."""
    std = 1.0 / math.sqrt(fan_in) / 0.87962566
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def channels_of(depth: int, image_size: int) -> list[int]:
    """Channels of the maps of side image_size/2, image_size/4, ..., 4."""
    halvings = int(math.log2(image_size // MINIMUM_MAP))
    return [depth * min(2**halving, 8) for halving in range(halvings)]


def as_images(frames: Tensor) -> Tensor:
    """(B,T,C,h,w) in [0, 1] -> (B*T,C,h,w) centred, in the memory format that suits convolutions."""
    images = frames.flatten(0, 1) - 0.5  # (B*T,C,h,w)
    # Only the images change layout. Parameters stay contiguous: LeRobot saves the optimizer's state, which
    # copies their layout, as safetensors, and those refuse any other. Convolutions convert the small weights
    # themselves.
    return images.contiguous(memory_format=torch.channels_last)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean () of `values` (B,n) where `mask` (B,n) is true, or by the weights in it; 0 where it is true nowhere."""
    mask = mask.to(values.dtype)
    return (values * mask).sum() / mask.sum().clamp_min(1.0)


class Linear(nn.Linear):
    """A linear layer that uses the kernels where they gain."""

    def matrix(self) -> tuple[Tensor, Tensor | None]:
        """Its weight (1,inputs,outputs) and bias (1,1,outputs), as `unrolled` takes them."""
        return self.weight.t().unsqueeze(0), None if self.bias is None else self.bias.view(1, 1, -1)

    def forward(self, inputs: Tensor) -> Tensor:
        """(N,inputs) -> (N,outputs); outside of a recurrence also (B,n,inputs) -> (B,n,outputs)."""
        if (in_recurrence := unrolled(self, len(inputs))) is not None:
            return in_recurrence(inputs.unsqueeze(0)).squeeze(0)  # (N,outputs)
        if not is_faster(inputs):
            return super().forward(inputs)
        rows = inputs.reshape(1, -1, self.in_features)  # (1,N,inputs)
        outputs = BlockProduct.apply(rows, self.weight.t().unsqueeze(0)).view(*inputs.shape[:-1], -1)
        return outputs if self.bias is None else outputs + self.bias


class NormedLinear(nn.Sequential):
    """Linear, layer norm, SiLU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(Linear(inputs, outputs, bias=False), nn.LayerNorm(outputs), nn.SiLU())


def perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """A hidden layer without a norm, which would take away how large a handful of inputs is."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs)).apply(init_weights)


class BlockLinear(nn.Module):
    """A linear layer whose matrix is block-diagonal: block g of the outputs sees block g of the inputs only.

    DreamerV3 makes its recurrent weights block-diagonal, so that a wide state costs little.
    """

    def __init__(self, inputs: int, outputs: int, blocks: int):
        super().__init__()
        self.blocks = blocks
        self.weight = nn.Parameter(torch.empty(blocks, inputs // blocks, outputs // blocks))
        self.bias = nn.Parameter(torch.zeros(blocks, 1, outputs // blocks))
        trunc_normal_(self.weight, inputs // blocks)

    def matrix(self) -> tuple[Tensor, Tensor | None]:
        """Its weight (blocks,inputs/blocks,outputs/blocks) and bias (blocks,1,outputs/blocks), for `unrolled`."""
        return self.weight, self.bias

    def forward(self, inputs: Tensor) -> Tensor:
        """(N,inputs) -> (N,blocks,outputs/blocks)."""
        by_block = inputs.unflatten(-1, (self.blocks, -1)).transpose(0, 1)  # (blocks,N,inputs/blocks)
        if (in_recurrence := unrolled(self, len(inputs))) is not None:
            outputs = in_recurrence(by_block)  # (blocks,N,outputs/blocks)
        else:
            outputs = affine(by_block, self.weight, self.bias)  # (blocks,N,outputs/blocks)
        return outputs.transpose(0, 1)


def halving_convs(channels: list[int]) -> nn.Sequential:
    """One strided convolution from each number of channels to the next, halving h and w."""
    return nn.Sequential(
        *(
            nn.Sequential(nn.Conv2d(c_in, c_out, 4, 2, 1, bias=False), ChannelNormSiLU(c_out))
            for c_in, c_out in pairwise(channels)
        )
    )


class ConvEncoder(nn.Module):
    """Strided convolutions down to a 4x4 map (DreamerV3, section on the networks)."""

    def __init__(self, depth: int, image_size: int):
        super().__init__()
        channels = channels_of(depth, image_size)
        self.stages = halving_convs([IMAGE_CHANNELS, *channels])
        self.features = channels[-1] * MINIMUM_MAP**2

    def maps(self, images: Tensor) -> list[Tensor]:
        """(N,C,h,w) -> the maps of every size, finest first: (N,depth,h/2,w/2), ..., (N,8*depth,4,4)."""
        maps = []
        for halve in self.stages:
            images = halve(images)  # (N,2*c,h/2,w/2)
            maps.append(images)
        return maps

    def forward(self, images: Tensor) -> Tensor:
        """(N,C,h,w) -> (N,features)."""
        first, *between, last = (layer for convolution in self.stages for layer in convolution.children())
        maps = activated_convs(between, first(images))  # (N,8*depth,4,4)
        return last(maps).flatten(1)  # (N,8*depth*4*4)


class ConvDecoder(nn.Module):
    """Transposed convolutions from a 4x4 map to an image: the encoder's mirror."""

    def __init__(self, inputs: int, depth: int, image_size: int):
        super().__init__()
        channels = channels_of(depth, image_size)[::-1]
        self.start = Linear(inputs, channels[0] * MINIMUM_MAP**2, bias=False)
        self.start_norm = nn.Sequential(ChannelNormSiLU(channels[0]))
        self.stages = nn.Sequential(
            *(
                nn.Sequential(nn.ConvTranspose2d(c_in, c_out, 4, 2, 1, bias=False), ChannelNormSiLU(c_out))
                for c_in, c_out in pairwise(channels)
            )
        )
        self.head = nn.ConvTranspose2d(channels[-1], IMAGE_CHANNELS, 4, 2, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(N,inputs) -> (N,C,h,w), the mean of the pixels' distribution, centred on mid-grey, not clamped."""
        maps = self.start(features).unflatten(-1, (MINIMUM_MAP, MINIMUM_MAP, -1))  # (N,4,4,8*depth)
        maps = maps.permute(0, 3, 1, 2)  # (N,8*depth,4,4), channels-last in memory
        layers = [
            *self.start_norm,
            *(layer for convolution in self.stages for layer in convolution.children()),
            self.head,
        ]
        return activated_convs(layers, maps).float() + 0.5  # (N,C,h,w)


def frame_errors(prediction: Tensor, target: Tensor) -> Tensor:
    """(B,T,C,h,w) twice -> (B,T) mean squared error over the pixels of each frame, in float32."""
    return F.mse_loss(prediction.float(), target.float(), reduction="none").mean((-3, -2, -1))  # (B,T)


def prediction_metrics(errors: Tensor, first: Tensor, targets: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """The metrics () that every world model reports, given the errors (B,n) of its open-loop prediction.

    It predicts targets (B,n,C,h,w) from x_0 (B,C,h,w); the mask (B,n) is that of `masked_mean`.
    """
    with torch.no_grad():
        mse = masked_mean(errors.detach(), mask)
        copy_mse = masked_mean(frame_errors(first.unsqueeze(1).expand_as(targets), targets), mask)
        # A clip in which nothing moves has no error to compare with; the floor is that of 8-bit rounding.
        ratio = mse / copy_mse.clamp_min(1.0 / 255**2 / 12)
    return {"mse": mse, "copy_mse": copy_mse, "mse_over_copy": ratio}
