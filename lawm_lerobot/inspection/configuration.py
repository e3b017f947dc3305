"""Flags of ``lawm-inspect``."""

from dataclasses import dataclass, field
from pathlib import Path

from draccus.utils import ParsingError

from lawm_lerobot.policy_flags import PolicyFlags

RERUN = "rerun"


@dataclass
class InspectedDataset:
    """The dataset to look at.

    Args:
        repo_id: A LeRobotDataset with the cameras, and the state if any, of the checkpoint. Actions are compared, if any.
        root: The dataset's directory, if it is not in LeRobot's own cache.
    """

    repo_id: str
    root: Path | None = None


@dataclass
class InspectConfig:
    """Flags of ``lawm-inspect``.

    Args:
        dataset: The dataset to look at; best one that was not pretrained on.
        output_dir: The directory of the report; it must not exist yet, or be empty.
        policy: Give ``--policy.path=<directory or Hub id>``, a ``lawm_*`` pretraining checkpoint or any LeRobot policy
            with actions. Without it the report is on the dataset itself.
        clips: The number of clips, spaced evenly over the dataset, of a pretraining checkpoint's report; 256 by default.
        frames: The number of frames, spaced evenly over the dataset, of the report on a policy with actions, 64 by
            default; of all cameras together in the report on a dataset, 4000 by default.
        require: The verdict that must be reached, or a better one, for the exit code to be 0.
        seed: The seed of the shuffles, of the baselines with random weights, and of the probes' splits; of a policy
            with actions that of the pairs of frames and of its noise.
        display: ``rerun`` opens the Rerun viewer besides, for a pretraining checkpoint.
        tolerance_s: Seconds by which a picture's time may differ from its frame's, as LeRobot's ``--tolerance_s``.
    """

    dataset: InspectedDataset
    output_dir: Path
    policy: PolicyFlags = field(default_factory=PolicyFlags)
    clips: int | None = None
    frames: int | None = None
    require: str | None = None
    seed: int = 0
    display: str | None = None
    tolerance_s: float = 1e-4

    def __post_init__(self) -> None:
        for name in ("clips", "frames"):
            number = getattr(self, name)
            if number is not None and number < 2:
                raise ParsingError(f"{name} is {number}, expected at least 2: change --{name}.")
        if self.display not in (None, RERUN):
            raise ParsingError(f"display is {self.display!r}, expected {RERUN!r}: change --display.")
