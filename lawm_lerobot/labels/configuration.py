"""The configuration of labels: true actions that shape the latent actions during pretraining."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

# Raised for a value out of range. The text of a ValueError would be lost on the command line: draccus puts
# "Couldn't instantiate class" in its place.
from draccus.utils import ParsingError

# Feature of a dataset pooled from sources whose actions differ: the number of the embodiment that acts in a frame,
# -1 for none.
EMBODIMENT = "labels.embodiment"
# Names and dimensions of those embodiments' actions, beside the dataset's own metadata.
LABELS_PATH = "meta/lawm_labels.json"


@dataclass
class LabelsConfig:
    """A few true actions during pretraining: a linear read-out of them from the latents shapes the latents.

    Args:
        repo_id: A second dataset, of labelled demonstrations, beside the corpus; None for none. Its frames are held in
            memory, as bytes at the world model's size, in every process.
        root: The folder of that dataset; None looks it up as LeRobot does.
        revision: The revision of that dataset on the Hub.
        episodes: The episodes of that dataset to use; None takes all.
        camera: The camera of that dataset that the inverse dynamics sees. None takes the one of the corpus's name, or
            the only one.
        fraction: Share of the corpus's own labelled episodes whose actions are used, at least one if above 0. At 0 the
            corpus's `action` has no influence.
        seed: Seed of the choice of those episodes.
        weight: Weight of the read-out's loss.
        grounding_weight: Weight of the losses by which an encoder learns to make latents of true actions that predict the
            same frames as the inferred ones, the family of GLAM; 0 turns it off.
        batch_size: Labelled clips of the second dataset in a training step, beside the corpus's.
        tolerance_s: Seconds by which a picture's time may differ from its frame's in the second dataset. For the corpus
            it is LeRobot's own ``--tolerance_s``.
        action_dims: Action dimension of every embodiment the checkpoint can read out: the corpus's, then the second
            dataset's. Written by pretraining, not by hand.
        digests: A digest of the actions of every episode that shaped the latents, by which it is known again under any
            name. Written by pretraining, not by hand.
    """

    repo_id: str | None = None
    root: Path | None = None
    revision: str | None = None
    episodes: list[int] | None = None
    camera: str | None = None
    fraction: float = 0.0
    seed: int = 0
    weight: float = 1.0
    grounding_weight: float = 0.0
    batch_size: int = 16
    tolerance_s: float = 1e-4
    action_dims: list[int] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, fits, expected in (
            ("fraction", 0 <= self.fraction <= 1, "from 0 to 1"),
            ("weight", self.weight >= 0, "at least 0"),
            ("grounding_weight", self.grounding_weight >= 0, "at least 0"),
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("tolerance_s", self.tolerance_s > 0, "seconds above 0"),
        ):
            if not fits:
                raise ParsingError(
                    f"labels.{name} is {getattr(self, name)}, expected {expected}: change --policy.labels.{name}."
                )
        if self.root is not None and self.repo_id is None:
            raise ParsingError("labels.root is given without labels.repo_id: add --policy.labels.repo_id.")
        if self.grounding_weight > 0 and self.repo_id is None and not self.fraction:
            raise ParsingError(
                f"labels.grounding_weight is {self.grounding_weight:g}, but there are no true actions to make latents of: "
                "add --policy.labels.repo_id or --policy.labels.fraction."
            )
