"""The configuration that every ``lawm_*`` policy shares, mixed into the wrapped policy's own.

Light on purpose: LeRobot imports it at the start of each of its commands.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import yaml
from draccus.utils import ParsingError
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig, parser
from lerobot.optim import OptimizerConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES
from lerobot.utils.feature_utils import dataset_to_policy_features

from lawm_lerobot.pretraining.checkpoints import read_policy_config
from lawm_lerobot.pretraining.latent_action import LatentActionConfig
from lawm_lerobot.world_models.configuration import InverseDynamicsConfig, WorldModelConfig

PRETRAIN = "pretrain"
FINETUNE = "finetune"
STAGES = (PRETRAIN, FINETUNE)

# The mixin sits in front of a LeRobot config in the method resolution order. It must not inherit from
# PreTrainedConfig at run time: as a dataclass it would then bring PreTrainedConfig's defaults
# (n_obs_steps=1, ...) and overrule those of the wrapped policy.
if TYPE_CHECKING:
    from lerobot.configs import PreTrainedConfig as _Mixin
else:
    _Mixin = object


@dataclass
class LawmConfig(_Mixin):
    """Mixed into a LeRobot policy config: ``class LawmActConfig(LawmConfig, ACTConfig)``.

    In the ``pretrain`` stage the wrapped policy outputs a chunk of H latent actions instead of robot
    actions, and a world model, dropped afterwards, learns to predict the coming frames from them. In the
    ``finetune`` stage the policy *is* the wrapped policy.

    Args:
        stage: ``pretrain`` or ``finetune``.
        latent_action: The latents, see `LatentActionConfig`.
        world_model: p(x_1..x_H | x_0, z_0..z_{H-1}), a registered choice.
        idm: The inverse dynamics q(z_k | x_k, x_{k+1}, neighbours); unused with ``source=policy``.
        pretraining_lr: Learning rate of everything trained in the ``pretrain`` stage. Finetuning uses the
            wrapped policy's own.
        health_freq: Training steps between two measurements of the latents' health.
        dataset_fps: Frames per second of the pretraining dataset. Written by pretraining, not by hand.
        transferred_from: The pretraining checkpoint a finetuned policy came from. Written by finetuning:
            after a resumed run LeRobot's own ``pretrained_path`` no longer says it.
    """

    stage: str = PRETRAIN
    latent_action: LatentActionConfig = field(default_factory=LatentActionConfig)
    world_model: WorldModelConfig = field(default_factory=WorldModelConfig.default)
    idm: InverseDynamicsConfig = field(default_factory=InverseDynamicsConfig)
    pretraining_lr: float = 3e-4
    health_freq: int = 25
    dataset_fps: int | None = None
    transferred_from: str | None = None

    #: The LeRobot config that is wrapped.
    plain_class: ClassVar[type[PreTrainedConfig]]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stage not in STAGES:
            raise ParsingError(
                f"stage is {self.stage!r}, expected one of {', '.join(STAGES)}: change --policy.stage."
            )
        if self.health_freq < 1:
            raise ParsingError(
                f"health_freq is {self.health_freq}, expected at least 1: change --policy.health_freq."
            )

    # --- what a policy's own config adds -------------------------------------------------------------

    def chunk_overrides(self) -> dict[str, Any]:
        """Fields of the wrapped config that make its action chunk the H latents, and their values."""
        raise NotImplementedError

    # --- the wrapped policy's configs ----------------------------------------------------------------

    @property
    def pretraining(self) -> bool:
        return self.stage == PRETRAIN

    def wrapped_config(self) -> PreTrainedConfig:
        """The config that the wrapped policy is built from in this stage.

        What the user set for finetuning (a chunk of 100 actions, say) stays in the config and in the
        checkpoint; only the network of the pretraining stage has a chunk of H.
        """
        if not self.pretraining:
            return self
        view = copy.copy(self)
        for name, value in self.chunk_overrides().items():
            setattr(view, name, value)
        return view

    def plain_config(self) -> PreTrainedConfig:
        """The wrapped policy's own config, as a LeRobot without this plugin reads it."""
        values = {f.name: getattr(self, f.name) for f in fields(self.plain_class) if f.init}
        return self.plain_class(**copy.deepcopy(values))

    # --- what LeRobot asks a config for --------------------------------------------------------------

    @property
    def wrapped_history(self) -> list[int] | None:
        """The wrapped policy's own observation deltas; None if it takes one observation without a time axis."""
        return super().observation_delta_indices

    @property
    def history_deltas(self) -> list[int]:
        """Frames of the past and present that the wrapped policy sees, ending at 0 (``[0]`` for ACT)."""
        return self.wrapped_history or [0]

    @property
    def observation_delta_indices(self) -> list[int] | None:
        """In pretraining the policy's own history, then x_1..x_H; x_0 is the last frame of the history."""
        if not self.pretraining:
            return super().observation_delta_indices
        stride = self.latent_action.stride
        return self.history_deltas + [stride * (k + 1) for k in range(self.latent_action.horizon)]

    @property
    def action_delta_indices(self) -> list[int] | None:
        return None if self.pretraining else super().action_delta_indices

    def get_optimizer_preset(self) -> OptimizerConfig:
        preset = super().get_optimizer_preset()
        return replace(preset, lr=self.pretraining_lr) if self.pretraining else preset

    def set_dataset_feature_metadata(self, features: dict[str, dict]) -> None:
        """LeRobot's hook between reading the dataset's features and building the policy (`make_policy`).

        Raises:
            ValueError: If the dataset has no camera, or, in finetuning, no action.
        """
        inherited = getattr(super(), "set_dataset_feature_metadata", None)
        if callable(inherited):
            inherited(features)
        offered = dataset_to_policy_features(features)
        observations = {key: ft for key, ft in offered.items() if ft.type is not FeatureType.ACTION}

        if self.pretraining:
            if not any(ft.type is FeatureType.VISUAL for ft in observations.values()):
                raise ValueError(
                    f"The dataset has no camera (its features are {', '.join(sorted(features))}), but latent "
                    f"actions are learned from frames: expected a feature '{OBS_IMAGES}.<camera>', choose "
                    "another --dataset.repo_id."
                )
            self.output_features = {
                ACTION: PolicyFeature(type=FeatureType.ACTION, shape=(self.latent_action.dim,))
            }
            return

        if ACTION not in offered:
            raise ValueError(
                f"The dataset has no 'action' (its features are {', '.join(sorted(features))}), but "
                "finetuning imitates actions: choose a labelled --dataset.repo_id, or pretrain on this one "
                "with --policy.stage=pretrain."
            )
        source = read_policy_config(self.pretrained_path, self.pretrained_revision)
        if source is not None and source.get("stage") == PRETRAIN:
            # The pretraining corpus's cameras and state mean nothing to this robot: take the dataset's,
            # unless the user chose some on the command line.
            wanted: dict[str, PolicyFeature] = self.input_features or {}  # type: ignore[has-type]
            given = {key: ft.type.value for key, ft in wanted.items()}
            saved = {key: ft["type"] for key, ft in (source.get("input_features") or {}).items()}
            # The parser merges a dictionary from the command line into the checkpoint's, so only the
            # argument itself tells what was chosen.
            chosen = parser.parse_arg("policy.input_features")
            if chosen is not None:
                self.input_features = {key: wanted[key] for key in yaml.safe_load(chosen) or {}}
            elif given == saved:
                self.input_features = observations
