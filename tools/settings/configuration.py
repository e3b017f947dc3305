"""Flags of the comparison, and the settings that it compares."""

from dataclasses import dataclass, field
from pathlib import Path

import draccus

from lawm_lerobot.method.configuration import InverseDynamicsConfig, WorldModelConfig
from lawm_lerobot.method.latent_action import LatentActionConfig

DEFAULT = "default"
STRIDE = "latent_action.stride=4"  # of every setting without another: 0.05 s, because Meta-World's tasks take one second
SETTINGS = (
    DEFAULT,
    "latent_action.dim=4",
    "latent_action.dim=16",
    "latent_action.horizon=4",
    "latent_action.stride=2",
    "latent_action.stride=8",
    "latent_action.noise=0",
    "latent_action.noise=0.3",
    "idm.random_shift=0",
    "latent_action.unshifted_targets=false",
    "idm.context=0",
    "world_model.image_size=32",
    "world_model.motion_weight=0",
    "world_model.type=rssm world_model.size=3m",
)


@dataclass
class CompareConfig:
    """Flags of the comparison.

    Args:
        root: The folder of a LeRobotDataset with actions.
        output: The JSON file for the results, and of those that are there already.
        repo_id: The name of the dataset.
        settings: The settings to compare, each as the flags that differ from the defaults.
        seeds: The seeds of each setting.
        steps: The number of pretraining steps.
        finetuning_steps: The number of steps of imitation.
        batch_size: The batch size of both.
        lr: The learning rate of both.
        threads: The number of threads.
        against: The setting that the last table compares with; None leaves that table out.
    """

    root: Path
    output: Path
    repo_id: str = "local/probe"
    settings: list[str] = field(default_factory=lambda: list(SETTINGS))
    seeds: list[int] = field(default_factory=lambda: [0, 1])
    steps: int = 400
    finetuning_steps: int = 300
    batch_size: int = 8
    lr: float = 3e-4
    threads: int = 1
    against: str | None = None


@dataclass
class Setting:
    """The part of a policy's configuration that latent learning depends on, and tasks that are new after it.

    Args:
        latent_action: The latents.
        world_model: The world model that predicts from them.
        idm: The inverse dynamics that infers them.
        new_tasks: Tasks of which there is no video in pretraining, and which alone are imitated.
    """

    latent_action: LatentActionConfig = field(default_factory=LatentActionConfig)
    world_model: WorldModelConfig = field(default_factory=WorldModelConfig.default)
    idm: InverseDynamicsConfig = field(default_factory=InverseDynamicsConfig)
    new_tasks: list[int] = field(default_factory=list)

    @classmethod
    def parse(cls, text: str) -> "Setting":
        """``latent_action.dim=4 idm.context=0``, or ``default``."""
        flags = [f"--{flag}" for flag in (STRIDE, *text.split()) if flag != DEFAULT]
        return draccus.parse(cls, args=flags)
