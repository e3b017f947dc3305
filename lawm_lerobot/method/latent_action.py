"""The configuration of latent actions: their size, their place in time, and where they come from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

# Raised for a value out of range. The text of a ValueError would be lost on the command line: draccus puts
# "Couldn't instantiate class" in its place.
from draccus.utils import ParsingError

INVERSE_DYNAMICS = "inverse_dynamics"
POLICY = "policy"
BOTH = "both"
# For each source, the models whose latents drive the world model, in this order, and the prefix of their metrics.
LATENT_MODELS = {
    INVERSE_DYNAMICS: {INVERSE_DYNAMICS: ""},
    POLICY: {POLICY: ""},
    BOTH: {INVERSE_DYNAMICS: "", POLICY: "policy_"},
}
SOURCES = tuple(LATENT_MODELS)
#: The shortest time between two frames of a clip that is common in the literature on latent actions.
DEFAULT_STRIDE = "0.4s"

# Whole frames, as soon as a dataset is known: whoever computes with it comes after `LatentActionConfig.settle`.
if TYPE_CHECKING:
    Stride = Any
else:
    Stride = int | str


def stride_frames(stride: int | str, fps: float) -> int:
    """Count the dataset frames of a stride: those nearest to its seconds at this frame rate, at least one."""
    return stride if isinstance(stride, int) else max(1, round(_seconds(stride) * fps))


def _seconds(stride: str) -> float:
    """Read the seconds of ``0.4s``; NaN if it is something else."""
    try:
        return float(stride.removesuffix("s")) if stride.endswith("s") else math.nan
    except ValueError:
        return math.nan


@dataclass
class LatentActionConfig:
    """The latent actions z (B,H,Z) and what drives the world model during pretraining.

    Args:
        source: Which latents drive the world model. ``inverse_dynamics``: q(z_k | x_k, x_{k+1}, neighbours),
            which the policy learns with its own training loss, as if they were actions. ``policy``: the
            policy's own latents, trained end to end through the world model (LAWM as published).
            ``both``: the sum of the two.
        dim: Z. Small on purpose: the latent must not be able to copy the frame.
        horizon: H, the latent actions in a chunk. A clip has T = H + 1 frames.
        stride: Dataset frames between two frames of a clip, or the seconds between them with an ``s`` behind, which
            pretraining turns into the nearest number of frames at its dataset's rate.
        noise: Standard deviation of the Gaussian noise added to the (unit-variance) latents on their way
            into the world model, in training only. It limits what a latent can carry to
            0.5 * log(1 + 1 / noise^2) nats per dimension.
        imitation_weight: Weight of the policy's own training loss on the latents; the world model's is
            its ``loss_weight``.
        unshifted_targets: The policy imitates latents of the frames as they are, although the inverse dynamics learns
            from randomly shifted ones (``idm.random_shift``). The policy cannot see the shift, and learned less
            from shifted targets (docs/results/settings.md).
    """

    source: str = INVERSE_DYNAMICS
    dim: int = 8
    horizon: int = 8
    stride: Stride = DEFAULT_STRIDE
    noise: float = 0.1
    imitation_weight: float = 1.0
    unshifted_targets: bool = True

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise ParsingError(
                f"latent_action.source is {self.source!r}, expected one of {', '.join(SOURCES)}: "
                "change --policy.latent_action.source."
            )
        if isinstance(self.stride, str) and not 0 < _seconds(self.stride) < math.inf:
            raise ParsingError(
                f"latent_action.stride is {self.stride!r}, expected a whole number of frames, or seconds with an s behind "
                f"({DEFAULT_STRIDE}): change --policy.latent_action.stride."
            )
        lowest_values = {"dim": 1, "horizon": 1, "noise": 0, "imitation_weight": 0}
        if not isinstance(self.stride, str):
            lowest_values["stride"] = 1
        for name, lowest in lowest_values.items():
            value = getattr(self, name)
            if value < lowest:
                raise ParsingError(
                    f"latent_action.{name} is {value}, expected at least {lowest}: "
                    f"change --policy.latent_action.{name}."
                )

    def settle(self, fps: float) -> None:
        """Write a stride in seconds as the frames that it is at a dataset's rate."""
        self.stride = stride_frames(self.stride, fps)
