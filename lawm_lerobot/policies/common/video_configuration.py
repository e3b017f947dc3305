"""The configuration of co-training: video that stays in the batch while a policy is finetuned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# Raised for a value out of range. The text of a ValueError would be lost on the command line: draccus puts
# "Couldn't instantiate class" in its place.
from draccus.utils import ParsingError


@dataclass
class VideoConfig:
    """Video beside the demonstrations in finetuning: the policy goes on predicting the latent actions of its frames.

    Args:
        repo_id: The dataset of the video, usually the one of pretraining; None for plain finetuning. Actions that it
            has are not read.
        root: The folder of that dataset; None looks it up as LeRobot does.
        revision: The revision of that dataset on the Hub.
        episodes: The episodes of that dataset to use; None takes all.
        camera: The camera of that dataset that the latents are inferred from, and that the policy sees. None takes the
            one of the policy's camera's name, or the only one.
        shown_as: The policy's camera in whose place the video is seen. None takes the camera of the same name, or the
            policy's first one.
        checkpoint: The pretraining checkpoint whose inverse dynamics infers the latents. None takes the one that the
            policy is finetuned from.
        weight: The weight of the policy's loss on the video's latents; its loss on the demonstrations has weight 1.
        batch_size: Frames of the video in a training step of every process, beside the demonstrations. None takes half
            as many as there are samples of the demonstrations.
        num_workers: Loader processes for the video, beside LeRobot's own; 0 reads in the training process.
        seed: The seed of the draws of frames.
        tolerance_s: Seconds by which a picture's time may differ from its frame's in that dataset.
    """

    repo_id: str | None = None
    root: Path | None = None
    revision: str | None = None
    episodes: list[int] | None = None
    camera: str | None = None
    shown_as: str | None = None
    checkpoint: str | None = None
    weight: float = 1.0
    batch_size: int | None = None
    num_workers: int = 2
    seed: int = 0
    tolerance_s: float = 1e-4

    def __post_init__(self) -> None:
        for name, fits, expected in (
            ("weight", self.weight >= 0, "at least 0"),
            ("batch_size", self.batch_size is None or self.batch_size >= 1, "at least 1"),
            ("num_workers", self.num_workers >= 0, "at least 0"),
            ("seed", self.seed >= 0, "at least 0"),
            ("tolerance_s", self.tolerance_s > 0, "seconds above 0"),
        ):
            if not fits:
                raise ParsingError(
                    f"video.{name} is {getattr(self, name)}, expected {expected}: change --policy.video.{name}."
                )
        if self.repo_id is None:
            for name in ("root", "episodes", "checkpoint"):
                if getattr(self, name) is not None:
                    raise ParsingError(
                        f"video.{name} is given without video.repo_id: add --policy.video.repo_id."
                    )
