"""Layer norm, SiLU and a convolution in one, which on a CPU spares memory and what it costs to get it.

The maps of a clip's frames are large and the arithmetic between two convolutions is little, so on a CPU most of its
time goes into memory that is used for the first time. Here the maps before the norm are all that is kept; what lies
between them and the convolution exists for a few images at a time, and once more on the way back.

Letters: N images, c_in and c_out channels, h w pixels, k the convolution's size.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lawm_lerobot.method import kernels

# The maps of a few images: as many bytes as the allocator hands out again, and a processor's cache holds.
BYTES_AT_ONCE = 8 * 2**20


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of every pixel of a map; permuting is free in channels-last."""

    def forward(self, maps: Tensor) -> Tensor:
        """(N,C,h,w) -> (N,C,h,w)."""
        normed = super().forward(maps.permute(0, 2, 3, 1))  # (N,h,w,C)
        return normed.permute(0, 3, 1, 2)  # (N,C,h,w)


class ChannelNormSiLU(ChannelNorm):
    """`ChannelNorm`, then SiLU."""

    def forward(self, maps: Tensor) -> Tensor:
        """(N,C,h,w) -> (N,C,h,w)."""
        return F.silu(super().forward(maps))


def activated_convs(layers: list[Any], maps: Tensor) -> Tensor:
    """Runs (norm, conv, norm, conv, ...) of `ChannelNormSiLU` and strided convolutions: (N,c_in,h,w) -> (N,c_out,...)."""
    if torch.compiler.is_compiling() or not _gains(maps):
        for layer in layers:
            maps = layer(maps)
        return maps
    for norm, conv in zip(layers[::2], layers[1::2], strict=True):
        geometry = (
            conv.stride,
            conv.padding,
            conv.dilation,
            conv.transposed,
            conv.output_padding,
            conv.groups,
        )
        weights = norm.weight, norm.bias, conv.weight, conv.bias
        maps = _ActivatedConv.apply(maps, *weights, norm.eps, geometry)
    return maps


def _gains(maps: Tensor) -> bool:
    return maps.device.type == "cpu" and not torch.is_autocast_enabled("cpu") and kernels.are_enabled()


def _normed(maps: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """(N,C,h,w), (C), (C) -> the layer norm over the channels (N,h,w,C), its mean and 1/std (N,h,w,1) each."""
    return torch.native_layer_norm(maps.permute(0, 2, 3, 1), weight.shape, weight, bias, eps)


class _ActivatedConv(torch.autograd.Function):
    """conv(silu(layer_norm(maps))), which keeps the maps alone."""

    @staticmethod
    def forward(
        ctx: Any,
        maps: Tensor,
        scale: Tensor,
        shift: Tensor,
        kernel: Tensor,
        bias: Tensor | None,
        eps: float,
        geometry: tuple,
    ) -> Tensor:
        """Maps (N,c_in,h,w) to the convolution's (N,c_out,h_out,w_out).

        `scale` and `shift` (c_in) are the norm's, `bias` (c_out) and `kernel` (c_out,c_in,k,k), or (c_in,c_out,k,k) if
        transposed, the convolution's; `geometry` has the arguments of `torch.convolution` after the bias.
        """
        ctx.save_for_backward(maps, scale, shift, kernel)
        ctx.eps, ctx.geometry = eps, geometry
        ctx.at_once = max(1, BYTES_AT_ONCE // (maps[0].numel() * maps.element_size()))
        outputs = maps.new_empty(0)
        for start in range(0, len(maps), ctx.at_once):
            part = slice(start, start + ctx.at_once)
            normed, _, _ = _normed(maps[part], scale, shift, eps)
            activated = F.silu(normed, inplace=True).permute(0, 3, 1, 2)  # (n,c_in,side,side)
            output = torch.convolution(activated, kernel, bias, *geometry)
            if start == 0:
                shape = (len(maps), *output.shape[1:])
                outputs = torch.empty(shape, dtype=output.dtype, memory_format=torch.channels_last)
            outputs[part] = output
        return outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """dL/d(outputs) (N,c_out,h_out,w_out) -> dL/dmaps (N,c_in,h,w), then those of the weights, in their shapes."""
        maps, scale, shift, kernel = ctx.saved_tensors
        needs = ctx.needs_input_grad
        biases = [gradients[0].shape[1]] if needs[4] else None
        of_maps = torch.empty_like(maps)
        sums: list[Tensor | None] = [None] * 4
        for start in range(0, len(maps), ctx.at_once):
            part = slice(start, start + ctx.at_once)
            pixels = maps[part].permute(0, 2, 3, 1)  # (n,side,side,c_in)
            normed, mean, rstd = _normed(maps[part], scale, shift, ctx.eps)
            activated = F.silu(normed).permute(0, 3, 1, 2)  # (n,c_in,side,side)
            of_activated, *of_conv = torch.ops.aten.convolution_backward(
                gradients[0][part], activated, kernel, biases, *ctx.geometry, (True, needs[3], needs[4])
            )
            of_normed = torch.ops.aten.silu_backward.grad_input(
                of_activated.permute(0, 2, 3, 1), normed, grad_input=normed
            )
            of_part, *of_norm = torch.ops.aten.native_layer_norm_backward(
                of_normed, pixels, scale.shape, mean, rstd, scale, shift, (True, needs[1], needs[2])
            )
            of_maps[part] = of_part.permute(0, 3, 1, 2)
            sums = [
                new if old is None else old.add_(new)
                for old, new in zip(sums, of_norm + of_conv, strict=True)
            ]
        return of_maps, *sums, None, None
