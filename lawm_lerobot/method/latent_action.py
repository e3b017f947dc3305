"""The configuration of latent actions: their size, their place in time, and where they come from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
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
NONE = "none"
VQ = "vq"
FSQ = "fsq"
QUANTIZERS = (NONE, VQ, FSQ)
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
        quantizer: How the inverse dynamics' latents are made discrete, the family of LAPA: ``vq`` by codes from a learned
            codebook, ``fsq`` by rounding every number to a few levels. ``none`` leaves them continuous.
        codes: Codes that a latent is put together from, of ``quantizer=vq``; ``dim`` must be a multiple.
        codebook_size: Codes to choose from, of ``quantizer=vq``.
        commitment_weight: Weight of the loss that keeps latents near their codes, of ``quantizer=vq``.
        levels: Levels of each number of a latent, of ``quantizer=fsq``: one count for all, or ``dim`` of them.
        proprio_weight: Weight of the loss by which the inverse dynamics' latents must foretell the change of
            ``observation.state``, the family of villa-X; 0 turns it off.
        proprio_dim: S, the numbers in the state that the latents foretell. Written by pretraining, not by hand.
    """

    source: str = INVERSE_DYNAMICS
    dim: int = 8
    horizon: int = 8
    stride: Stride = DEFAULT_STRIDE
    noise: float = 0.1
    imitation_weight: float = 1.0
    unshifted_targets: bool = True
    quantizer: str = NONE
    codes: int = 4
    codebook_size: int = 8
    commitment_weight: float = 0.25
    levels: list[int] = field(default_factory=lambda: [5])
    proprio_weight: float = 0.0
    proprio_dim: int | None = None

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
        lowest_values = {"dim": 1, "horizon": 1, "noise": 0, "imitation_weight": 0, "codes": 1}
        lowest_values |= {"codebook_size": 2, "commitment_weight": 0, "proprio_weight": 0}
        if not isinstance(self.stride, str):
            lowest_values["stride"] = 1
        for name, lowest in lowest_values.items():
            value = getattr(self, name)
            if not value >= lowest:  # Written so that NaN is refused too.
                raise ParsingError(
                    f"latent_action.{name} is {value}, expected at least {lowest}: "
                    f"change --policy.latent_action.{name}."
                )
        self._check_quantizer()
        if self.source == POLICY and (self.quantizer != NONE or self.proprio_weight > 0):
            raise ParsingError(
                f"latent_action.quantizer is {self.quantizer!r} and latent_action.proprio_weight {self.proprio_weight:g}, "
                f"but with latent_action.source={POLICY!r} there is no inverse dynamics whose latents they could shape: "
                f"change --policy.latent_action.source to {INVERSE_DYNAMICS} or {BOTH}."
            )

    def _check_quantizer(self) -> None:
        if self.quantizer not in QUANTIZERS:
            raise ParsingError(
                f"latent_action.quantizer is {self.quantizer!r}, expected one of {', '.join(QUANTIZERS)}: "
                "change --policy.latent_action.quantizer."
            )
        if self.quantizer == VQ and self.dim % self.codes:
            raise ParsingError(
                f"latent_action.dim is {self.dim}, expected a multiple of the {self.codes} codes that a latent is put "
                "together from: change --policy.latent_action.dim or --policy.latent_action.codes."
            )
        # Two levels would be 0 and -1, and nearly every latent 0.
        if self.quantizer == FSQ and (len(self.levels) not in (1, self.dim) or min(self.levels) < 3):
            raise ParsingError(
                f"latent_action.levels is {self.levels}, expected one number of levels, or latent_action.dim={self.dim} of "
                "them, all at least 3: change --policy.latent_action.levels."
            )

    @property
    def levels_of_each(self) -> list[int]:
        """The levels of each of the Z numbers."""
        return self.levels * self.dim if len(self.levels) == 1 else self.levels

    def settle(self, fps: float) -> None:
        """Write a stride in seconds as the frames that it is at a dataset's rate."""
        self.stride = stride_frames(self.stride, fps)
