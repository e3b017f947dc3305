"""The guard between a policy and the robot it moves."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor


class NonFiniteActionError(ValueError):
    """A policy's actions are not all numbers; LeRobot ends a rollout on it as on any other end."""


def require_finite(actions: Tensor, batch: dict[str, Any]) -> Tensor:
    """Return the actions (...,A) as they are, or refuse them whole.

    Costs one sum and its way to the CPU, where the actions are about to go anyway. The observation that they came from
    tells a broken sensor from a broken policy.
    """
    # A sum is finite only if every term is, and takes a fraction of the time; the exact test then has the last word.
    if math.isfinite(actions.sum(dtype=torch.float32).item()) or torch.isfinite(actions).all():
        return actions
    broken = int((~torch.isfinite(actions)).sum())
    inputs = [
        key
        for key, value in batch.items()
        if isinstance(value, Tensor) and value.is_floating_point() and not torch.isfinite(value).all()
    ]
    raise NonFiniteActionError(
        f"{broken} of the {actions.numel()} action values are not finite, and none of them was sent to the robot: "
        + (
            f"{', '.join(inputs)} was not finite already, so look at the robot's sensors and calibration."
            if inputs
            else "the observation was finite, so the policy is broken; choose another checkpoint as --policy.path."
        )
    )


def require_finite_tensors(kind: str, tensors: dict[str, Tensor]) -> None:
    """Raise ValueError if a checkpoint's weights or statistics are not all numbers."""
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ValueError(
            f"The checkpoint's {kind} are not finite ({', '.join(broken[:3])}{', ...' if broken[3:] else ''}), "
            "expected numbers: nothing that it predicts could be used; choose an earlier checkpoint as --policy.path."
        )


def require_finite_statistics(statistics: dict[str, dict[str, Any]] | None, keys: Iterable[str]) -> None:
    """Raise ValueError if LeRobot's statistics of one of these features are not all numbers.

    They are of all values that the dataset has, so one value that is NaN or infinite shows in them.
    """
    for key in keys:
        values = (statistics or {}).get(key, {}).values()
        if not all(np.isfinite(np.asarray(value, np.float64)).all() for value in values):
            raise ValueError(
                f"The dataset's statistics of '{key}' are not finite, so it has values that are NaN or infinite, expected "
                "finite numbers only: repair it, or remove those episodes with LeRobot's lerobot-edit-dataset."
            )
