"""Matrix products in float32 on a CPU through oneDNN, which PyTorch itself uses for convolutions only.

PyTorch gives matrix products to MKL, which on processors of another maker than its own leaves half of their speed
unused. Anywhere else, and in any other precision, these are PyTorch's own products.

Letters: N rows; the matrices come in blocks, of which an ordinary linear layer has one.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from lawm_lerobot.method import kernels


def is_faster(inputs: Tensor) -> bool:
    """Returns True if oneDNN would take these inputs of a layer, of any shape."""
    return (
        not torch.compiler.is_compiling()
        and inputs.device.type == "cpu"
        and inputs.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and kernels.are_enabled()
        and _available()
    )


@cache
def _available() -> bool:
    # Where the products are not MKL's, PyTorch's choice stands.
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()):
        return False
    try:  # The operation is PyTorch's own, not its public interface: another release may lack or change it.
        return torch.equal(_onednn(torch.ones(2, 3), torch.ones(3, 2)), torch.full((2, 2), 3.0))
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False


def _onednn(left: Tensor, right: Tensor) -> Tensor:
    """(m,k), (k,n) -> (m,n)."""
    # What `torch.compile` turns a linear layer into.
    return torch.ops.mkldnn._linear_pointwise(left, right.t(), None, "none", [], "")


def _product(left: Tensor, right: Tensor) -> Tensor:
    """(blocks,m,k), (blocks,k,n) -> (blocks,m,n), without gradient."""
    if not is_faster(left):
        return torch.bmm(left, right)
    if len(left) == 1:
        return _onednn(left[0], right[0]).unsqueeze(0)
    # Not stacked: all blocks twice would be much memory where the outcome is a weight's gradient.
    outputs = left.new_empty(len(left), left.shape[1], right.shape[2])
    for output, a, b in zip(outputs, left, right, strict=True):
        output.copy_(_onednn(a, b))
    return outputs


def weight_gradient(inputs: Tensor, outputs: Tensor, weight: Tensor) -> Tensor:
    """(blocks,N,in), dL/d(inputs weight) (blocks,N,out) -> (blocks,in,out), in memory as the weight lies.

    Autograd copies a gradient that lies otherwise.
    """
    if weight.stride(-1) == 1:
        return _product(inputs.transpose(1, 2), outputs)
    return _product(outputs.transpose(1, 2), inputs).transpose(1, 2)


class BlockProduct(torch.autograd.Function):
    """inputs weight: (blocks,N,in), (blocks,in,out) -> (blocks,N,out)."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(inputs if ctx.needs_input_grad[1] else None, weight)
        return _product(inputs, weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """dL/d(inputs weight) (blocks,N,out) -> dL/dinputs (blocks,N,in), dL/dweight (blocks,in,out)."""
        inputs, weight = ctx.saved_tensors
        return (
            _product(gradients[0], weight.transpose(1, 2)) if ctx.needs_input_grad[0] else None,
            weight_gradient(inputs, gradients[0], weight) if ctx.needs_input_grad[1] else None,
        )


def affine(inputs: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
    """inputs weight + offset: (blocks,N,in), (blocks,in,out), (blocks,1 or N,out) -> (blocks,N,out)."""
    if is_faster(inputs):
        return BlockProduct.apply(inputs, weight) + offset
    return torch.baddbmm(offset, inputs, weight)
