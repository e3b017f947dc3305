"""Flags of ``lawm-label-actions``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

# Raised for a value out of range. The text of a ValueError would be lost on the command line: draccus puts
# "Couldn't instantiate class" in its place.
from draccus.utils import ParsingError

from lawm_lerobot.method.configuration import IMAGE_SIZES, InverseDynamicsConfig
from lawm_lerobot.policy_flags import PolicyFlags

AUTO, READOUT, INVERSE_MODEL = "auto", "readout", "inverse_model"
FINETUNED = "finetuned_inverse_dynamics"


@dataclass
class RecordingsConfig:
    """A dataset that is decoded, or learned from.

    Args:
        repo_id: The name of the dataset.
        root: The folder of the dataset; None looks it up as LeRobot does.
        revision: The revision of the dataset on the Hub.
        camera: The camera that the decoder sees; None takes the checkpoint's, or the only one.
    """

    repo_id: str = ""
    root: Path | None = None
    revision: str | None = None
    camera: str | None = None


@dataclass
class DemonstrationsConfig(RecordingsConfig):
    """The labelled demonstrations.

    Args:
        episodes: The demonstrations to use; None takes all.
    """

    episodes: list[int] | None = None


@dataclass
class InverseModelConfig:
    """The inverse model that learns from the demonstrations alone, and the training of ``finetuned_inverse_dynamics``.

    Args:
        size: Size of the network, one of those of ``--policy.idm.size``. Finetuned inverse dynamics have this, the stride
            and the context of the checkpoint instead.
        stride: Dataset frames between the frames it compares; it decodes the actions in between.
        context: Transitions on either side that it also sees.
        random_shift: Largest shift, in pixels, of its input while training.
        transitions: Transitions in a training clip.
        batch_size: Clips in a training step.
        steps: The largest number of training steps; the number that decodes held-out demonstrations best is taken.
        eval_freq: Steps between two evaluations on the held-out demonstrations.
        patience: Evaluations without an improvement after which a fold is left.
        lr: Learning rate.
    """

    size: str = "1m"
    stride: int = 2
    context: int = 1
    random_shift: int = 4
    transitions: int = 4
    batch_size: int = 16
    steps: int = 400
    eval_freq: int = 40
    patience: int = 4
    lr: float = 1e-3

    def __post_init__(self) -> None:
        for name in ("stride", "transitions", "batch_size", "steps", "eval_freq", "patience"):
            if getattr(self, name) < 1:
                raise ParsingError(
                    f"inverse_model.{name} is {getattr(self, name)}, expected at least 1: "
                    f"change --inverse_model.{name}."
                )
        InverseDynamicsConfig(size=self.size, random_shift=self.random_shift, context=self.context)


@dataclass
class LabelActionsConfig:
    """Flags of ``lawm-label-actions``.

    Args:
        dataset: The unlabelled dataset.
        labels: A few labelled demonstrations of the same robot's frame rate and view.
        output_repo_id: Name of the result.
        output_root: The result's folder, which must not exist; None takes LeRobot's home and the name.
        policy: The pretraining checkpoint, by ``--policy.path``; without it only ``inverse_model`` can decode.
        decoder: ``readout``, a ridge on the checkpoint's frozen latents; ``inverse_model``, a small network trained on
            the demonstrations alone; ``finetuned_inverse_dynamics``, the same but for its convolutions, which begin as
            those of the checkpoint's inverse dynamics; ``auto``, the one with the best R2 on held-out demonstrations.
            Those whose actions shaped the checkpoint's latents (its ``--policy.labels.*``) flatter the decoders that use
            the checkpoint, so others decide; without any, it is the inverse model.
        inverse_model: The network and the training of the inverse model.
        image_size: Pixels of the square frames the inverse model sees; beside a read-out it sees the checkpoint's.
        min_confidence: Leave out episodes whose mean confidence is below this, from 0 to 1.
        merge: Put the demonstrations in as well, with a confidence of 1.
        demonstration_share: The share of all frames that the demonstrations have with ``--merge=true``, from 0 to below
            1. Each is put in as often as that needs, at least once; with 0 or null it is put in once.
        folds: Groups of demonstrations that are held out in turn.
        seed: Seed of folds, bootstraps and the inverse model.
        device: The device of the networks; None takes the best there is.
        tolerance_s: Seconds by which a picture's time may differ from its frame's, in both datasets.
    """

    dataset: RecordingsConfig = field(default_factory=RecordingsConfig)
    labels: DemonstrationsConfig = field(default_factory=DemonstrationsConfig)
    output_repo_id: str = ""
    output_root: Path | None = None
    policy: PolicyFlags = field(default_factory=PolicyFlags)
    decoder: str = AUTO
    inverse_model: InverseModelConfig = field(default_factory=InverseModelConfig)
    image_size: int = 64
    min_confidence: float = 0.0
    merge: bool = False
    demonstration_share: float | None = 0.5
    folds: int = 4
    seed: int = 0
    device: str | None = None
    tolerance_s: float = 1e-4

    def check(self) -> None:
        """Raises ParsingError for flags that cannot work, before anything is read."""
        for flag, value in {
            "--dataset.repo_id": self.dataset.repo_id,
            "--labels.repo_id": self.labels.repo_id,
            "--output_repo_id": self.output_repo_id,
        }.items():
            if not value:
                raise ParsingError(f"{flag} is missing: it names a dataset, as user/name.")
        if self.decoder not in (AUTO, READOUT, FINETUNED, INVERSE_MODEL):
            raise ParsingError(
                f"--decoder is {self.decoder!r}, expected {AUTO}, {READOUT}, {FINETUNED} or {INVERSE_MODEL}."
            )
        if self.policy.path is None and self.decoder in (READOUT, FINETUNED):
            raise ParsingError(
                f"--decoder={self.decoder} uses the inverse dynamics of a checkpoint: add --policy.path=<pretraining "
                "checkpoint>, or choose --decoder=inverse_model."
            )
        for name, fits, expected in (
            ("min_confidence", 0 <= self.min_confidence <= 1, "from 0 to 1"),
            ("demonstration_share", 0 <= (self.demonstration_share or 0) < 1, "from 0 to below 1"),
            ("folds", self.folds >= 2, "at least 2"),
            ("tolerance_s", self.tolerance_s > 0, "seconds above 0"),
            ("image_size", self.image_size in IMAGE_SIZES, f"one of {', '.join(map(str, IMAGE_SIZES))}"),
        ):
            if not fits:
                raise ParsingError(f"--{name} is {getattr(self, name)}, expected {expected}.")
