r"""Linear layers inside a recurrence, with one weight gradient for all steps.

Autograd writes a gradient as large as the weight at every step and adds it to the sum so far. For a wide state that
traffic costs more than the products do. Here a step computes

    y_k = x_k W + b_k      with W taken as a constant and b_k = b (0 without a bias),

so what comes back along the b_k is dL/dy_k of every step, and

    dL/dW = sum_k x_k^T dL/dy_k,      dL/db = sum_k dL/dy_k

is one product over the steps and one sum.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lawm_lerobot.method.kernels.linear import Product, is_faster, weight_gradient
from lawm_lerobot.method.networks import BlockLinear, Linear


class _Offsets(torch.autograd.Function):
    """The b_k of all steps. `inputs` fills up with the x_k while the recurrence runs."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, bias: Tensor, inputs: list[Tensor], steps: int, rows: int
    ) -> Tensor:
        """(blocks,in,out), (blocks,1,out) -> (blocks,steps,rows,out)."""
        ctx.inputs = inputs
        ctx.save_for_backward(weight)
        return bias.unsqueeze(1).expand(-1, steps, rows, -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight = bias = None
        inputs = torch.cat(ctx.inputs, 1)  # (blocks,calls*rows,in)
        outputs = gradients[0].flatten(1, 2)[:, : inputs.shape[1]]  # (blocks,calls*rows,out)
        if ctx.needs_input_grad[0]:
            weight = weight_gradient(inputs, outputs, *ctx.saved_tensors)  # (blocks,in,out)
        if ctx.needs_input_grad[1]:
            bias = outputs.sum(1, keepdim=True)  # (blocks,1,out)
        return weight, bias, None, None, None


@dataclass
class _Layer:
    weight: Tensor
    """(blocks,in,out), without gradient."""
    offsets: Iterator[Tensor]
    """(blocks,rows,out), one for every step."""
    inputs: list[Tensor] = field(default_factory=list)
    """(blocks,rows,in), one for every step so far."""


class Unrolled:
    """Calls layers in one run of a recurrence, each at most `steps` times and on equally many rows.

    The results are those of calling the layers themselves. What it does not know, an adapter around a linear layer
    say, it calls as it is, and so it does with all layers where there is nothing to gain.
    """

    def __init__(self, steps: int):
        self.steps = steps
        self.layers: dict[nn.Module, _Layer] = {}

    def __call__(self, layer: nn.Module, inputs: Tensor) -> Tensor:
        if isinstance(layer, nn.Sequential):
            for part in layer:
                inputs = self(part, inputs)
            return inputs
        if not isinstance(layer, Linear | BlockLinear) or not self.gains(layer):
            return layer(inputs)
        blocks = layer.blocks if isinstance(layer, BlockLinear) else 1
        if layer not in self.layers:
            self.layers[layer] = self.enter(layer, len(inputs))
        entered = self.layers[layer]
        inputs = inputs.to(entered.weight.dtype).unflatten(-1, (blocks, -1))  # (N,blocks,in)
        by_block = inputs.transpose(0, 1)  # (blocks,N,in)
        # Detached, or the graph would hold itself alive.
        entered.inputs.append(by_block.detach())
        if is_faster(by_block):
            outputs = Product.apply(by_block, entered.weight) + next(entered.offsets)  # (blocks,N,out)
        else:
            outputs = torch.baddbmm(next(entered.offsets), by_block, entered.weight)  # (blocks,N,out)
        return outputs.transpose(0, 1) if isinstance(layer, BlockLinear) else outputs.squeeze(0)

    def gains(self, layer: Linear | BlockLinear) -> bool:
        # A compiler sees the whole recurrence and cannot trace a list that fills up on the side.
        return torch.is_grad_enabled() and layer.weight.requires_grad and not torch.compiler.is_compiling()

    def enter(self, layer: Linear | BlockLinear, rows: int) -> _Layer:
        weight: Tensor = layer.weight
        bias: Tensor | None = layer.bias
        device = weight.device.type
        if torch.is_autocast_enabled(device):
            # Once, and not at every step: autocast remembers what it has cast for parameters only.
            dtype = torch.get_autocast_dtype(device)
            weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
        if isinstance(layer, Linear):
            weight = weight.t().unsqueeze(0)  # (1,in,out)
            bias = weight.new_zeros(1, 1, layer.out_features) if bias is None else bias.view(1, 1, -1)
        inputs: list[Tensor] = []
        offsets = _Offsets.apply(weight, bias, inputs, self.steps, rows)  # (blocks,steps,rows,out)
        return _Layer(weight.detach(), iter(offsets.unbind(1)), inputs)
