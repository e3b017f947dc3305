"""What a latent action is: its size, its place in time, where it comes from, and which labels shape it.

Knows nothing of LeRobot.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

# Raised for a value out of range. The text of a ValueError would be lost on the command line: draccus puts
# "Couldn't instantiate class" in its place.
from draccus.utils import ParsingError

INVERSE_DYNAMICS = "inverse_dynamics"
POLICY = "policy"
BOTH = "both"
SOURCES = (INVERSE_DYNAMICS, POLICY, BOTH)

#: In a dataset pooled from sources whose actions differ: which embodiment's `action` a frame has, -1 for none.
EMBODIMENT = "labels.embodiment"
#: Names and dimensions of those embodiments' actions, beside the dataset's own metadata.
LABELS_PATH = "meta/lawm_labels.json"


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
        stride: Dataset frames between two frames of a clip.
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
    stride: int = 4
    noise: float = 0.1
    imitation_weight: float = 1.0
    unshifted_targets: bool = True

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise ParsingError(
                f"latent_action.source is {self.source!r}, expected one of {', '.join(SOURCES)}: "
                "change --policy.latent_action.source."
            )
        lowest_values = {"dim": 1, "horizon": 1, "stride": 1, "noise": 0, "imitation_weight": 0}
        for name, lowest in lowest_values.items():
            value = getattr(self, name)
            if value < lowest:
                raise ParsingError(
                    f"latent_action.{name} is {value}, expected at least {lowest}: "
                    f"change --policy.latent_action.{name}."
                )


@dataclass
class LabelsConfig:
    """A few true actions during pretraining: a linear read-out of them from the latents shapes the latents.

    Args:
        repo_id: A second dataset, of labelled demonstrations, beside the corpus; None for none. Its frames are
            held in memory, as bytes at the world model's size, in every process.
        root: Its folder; None looks it up as LeRobot does.
        revision: On the Hub.
        episodes: Only these of its episodes; None takes all.
        camera: The camera of it that the inverse dynamics sees. None takes the one of the corpus's name, or
            the only one.
        fraction: Share of the corpus's own labelled episodes whose actions are used, at least one if above 0.
            At 0 the corpus's `action` has no influence.
        seed: Of the choice of those episodes.
        weight: Of the read-out's loss.
        batch_size: Labelled clips of the second dataset in a training step, beside the corpus's.
        action_dims: Action dimension of every embodiment the checkpoint can read out: the corpus's, then the
            second dataset's. Written by pretraining, not by hand.
    """

    repo_id: str | None = None
    root: Path | None = None
    revision: str | None = None
    episodes: list[int] | None = None
    camera: str | None = None
    fraction: float = 0.0
    seed: int = 0
    weight: float = 1.0
    batch_size: int = 16
    action_dims: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise ParsingError(
                f"labels.fraction is {self.fraction}, expected from 0 to 1: change --policy.labels.fraction."
            )
        if not self.weight >= 0:
            raise ParsingError(
                f"labels.weight is {self.weight}, expected at least 0: change --policy.labels.weight."
            )
        if self.batch_size < 1:
            raise ParsingError(
                f"labels.batch_size is {self.batch_size}, expected at least 1: "
                "change --policy.labels.batch_size."
            )
        if self.root is not None and self.repo_id is None:
            raise ParsingError("labels.root is given without labels.repo_id: add --policy.labels.repo_id.")
