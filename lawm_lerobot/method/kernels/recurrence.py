r"""Linear layers inside a recurrence, with one weight gradient for all steps.

Autograd writes a gradient as large as the weight at every step and adds it to the sum so far. For a wide state that
traffic costs more than the products do. Here a step computes

    y_k = x_k W + b_k      with W taken as a constant and b_k = b (0 without a bias),

so what comes back along the b_k is dL/dy_k of every step, and

    dL/dW = sum_k x_k^T dL/dy_k,      dL/db = sum_k dL/dy_k

is one product over the steps and one sum.

Letters as in linear.py.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from lawm_lerobot.method import kernels
from lawm_lerobot.method.kernels.linear import affine, weight_gradient


class LinearLayer(Protocol):
    """A linear layer as the recurrence sees it."""

    @property
    def weight(self) -> Tensor:
        """The parameter, in whatever shape."""

    def matrix(self) -> tuple[Tensor, Tensor | None]:
        """Its weight (blocks,in,out) and bias (blocks,1,out)."""


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
        """dL/dy_k of all steps (blocks,steps,rows,out) -> dL/dW (blocks,in,out), dL/db (blocks,1,out)."""
        weight = bias = None
        inputs = torch.cat(ctx.inputs, 1)  # (blocks,calls*rows,in)
        outputs = gradients[0].flatten(1, 2)[:, : inputs.shape[1]]  # (blocks,calls*rows,out)
        if ctx.needs_input_grad[0]:
            weight = weight_gradient(inputs, outputs, *ctx.saved_tensors)  # (blocks,in,out)
        if ctx.needs_input_grad[1]:
            bias = outputs.sum(1, keepdim=True)  # (blocks,1,out)
        return weight, bias, None, None, None


@dataclass
class UnrolledLayer:
    """A linear layer in one run of a recurrence.

    Args:
        weight: W (blocks,in,out), without gradient.
        offsets: The b_k (blocks,rows,out), one for every step.
        inputs: The x_k (blocks,rows,in) of the steps so far.
    """

    weight: Tensor
    offsets: Iterator[Tensor]
    inputs: list[Tensor]

    @classmethod
    def enter(cls, weight: Tensor, bias: Tensor | None, steps: int, rows: int) -> Self:
        """(blocks,in,out), (blocks,1,out) -> the layer, ready for `steps` calls on `rows` rows each."""
        device = weight.device.type
        if torch.is_autocast_enabled(device):
            # Once, and not at every step: autocast remembers what it has cast for parameters only.
            dtype = torch.get_autocast_dtype(device)
            weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
        if bias is None:
            bias = weight.new_zeros(len(weight), 1, weight.shape[-1])
        inputs: list[Tensor] = []
        offsets = _Offsets.apply(weight, bias, inputs, steps, rows)  # (blocks,steps,rows,out)
        return cls(weight.detach(), iter(offsets.unbind(1)), inputs)

    def __call__(self, inputs: Tensor) -> Tensor:
        """x_k (blocks,rows,in) -> y_k (blocks,rows,out)."""
        inputs = inputs.to(self.weight.dtype)
        # Detached, or the graph would hold itself alive.
        self.inputs.append(inputs.detach())
        return affine(inputs, self.weight, next(self.offsets))


class _Active(threading.local):
    """The innermost context of this thread."""

    context: one_weight_gradient | None = None


_active = _Active()


class one_weight_gradient:  # noqa: N801  reads as a statement: `with one_weight_gradient(steps):`
    """A run of a recurrence, whose linear layers make one weight gradient for all of their calls.

    The results are those of the layers themselves. Each layer may be called at most `steps` times, and every time on
    equally many rows. The layers ask for their part in it by `unrolled`; an adapter around one of them notices nothing.
    """

    def __init__(self, steps: int):
        self.steps = steps
        self.layers: dict[LinearLayer, UnrolledLayer] = {}
        self.outer: one_weight_gradient | None = None

    def __enter__(self) -> None:
        # A compiler sees the whole recurrence, and cannot trace a list that fills up on the side.
        if not torch.compiler.is_compiling():
            self.outer, _active.context = _active.context, self

    def __exit__(self, *error: object) -> None:
        if not torch.compiler.is_compiling():
            _active.context = self.outer


def unrolled(layer: LinearLayer, rows: int) -> UnrolledLayer | None:
    """The layer's part in the active `one_weight_gradient`; None outside of one, or where there is nothing to gain."""
    if torch.compiler.is_compiling() or _active.context is None:
        return None
    if not (kernels.are_enabled() and torch.is_grad_enabled() and layer.weight.requires_grad):
        return None
    context = _active.context
    if layer not in context.layers:
        context.layers[layer] = UnrolledLayer.enter(*layer.matrix(), context.steps, rows)
    return context.layers[layer]
