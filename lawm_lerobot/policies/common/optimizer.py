"""The parameter groups that an optimizer is given."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn


def trainable(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def pretraining_groups(
    wrapped_groups: Iterable[Any], policy: nn.Module, beside: nn.Module, wrapped_lr: float, policy_lr: float
) -> list[dict[str, Any]]:
    """Group the parameters for pretraining.

    What the wrapped policy trains at a multiple of its learning rate (an image encoder's tenth, say) keeps the
    multiple.

    Args:
        wrapped_groups: The wrapped policy's own groups or parameters.
        policy: The whole policy, ``beside`` included.
        beside: World model, inverse dynamics and read-out, which train at the optimizer's own rate.
        wrapped_lr: The learning rate of the wrapped policy's own preset.
        policy_lr: The learning rate of the wrapped policy in pretraining.
    """
    multiples = [
        {
            "params": [p for p in group["params"] if p.requires_grad],
            "lr": group["lr"] / wrapped_lr * policy_lr,
        }
        for group in wrapped_groups
        if isinstance(group, dict) and group.get("lr", wrapped_lr) != wrapped_lr
    ]
    elsewhere = {id(p) for group in multiples for p in group["params"]} | {id(p) for p in trainable(beside)}
    rest = [p for p in trainable(policy) if id(p) not in elsewhere]
    return fused([{"params": trainable(beside)}, {"params": rest, "lr": policy_lr}, *multiples])


def including(groups: Iterable[Any], parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    """Add parameters to the first group, unless some group has them already."""
    first, *others = _as_groups(groups)
    held = {id(p) for group in (first, *others) for p in group["params"]}
    missing = [p for p in parameters if id(p) not in held]
    return [{**first, "params": [*first["params"], *missing]}, *others]


def fused(groups: Iterable[Any]) -> list[dict[str, Any]]:
    """Let torch's Adam, AdamW and SGD update the groups in a single pass over memory; others ignore the key.

    The arithmetic is the same. On a CPU the default is a loop of some ten small passes for every tensor.
    """
    return [{**group, "fused": True} for group in _as_groups(groups)]


def _as_groups(groups: Iterable[Any]) -> list[dict[str, Any]]:
    groups = list(groups)
    if groups and not isinstance(groups[0], dict):
        return [{"params": groups}]
    return [{**group, "params": list(group["params"])} for group in groups]
