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
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE
from lerobot.utils.feature_utils import dataset_to_policy_features

from lawm_lerobot.checkpoints.reading import read_policy_config
from lawm_lerobot.labels.configuration import EMBODIMENT, LabelsConfig
from lawm_lerobot.method.configuration import InverseDynamicsConfig, WorldModelConfig
from lawm_lerobot.method.latent_action import LatentActionConfig

PRETRAIN = "pretrain"
FINETUNE = "finetune"
STAGES = (PRETRAIN, FINETUNE)
#: LeRobot's VLAs fill the cameras of this name, their ``empty_cameras``, themselves.
EMPTY_CAMERA = f"{OBS_IMAGES}.empty_camera_"

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
        labels: True actions that shape the latents, see `LabelsConfig`; none by default.
        pretraining_lr: Learning rate of world model, inverse dynamics and read-out.
        policy_pretraining_lr: Of the wrapped policy in the ``pretrain`` stage; of what it trains at a multiple of its
            ``optimizer_lr``, that multiple of this. Finetuning uses the policy's own rates. VLAs pretrain at their
            own too. Much higher, and a backbone without published weights dies: the policy then says the same to
            every frame.
        compile_model: Pretrain with world model and inverse dynamics compiled by `torch.compile`. Where the wrapped policy
            has a flag of this name, it sets that too.
        health_freq: Training steps between two measurements of the latents' health.
        base_path: Where pretraining begins: a plain checkpoint of the wrapped type (a directory or a Hub id),
            instead of random weights.
        base_revision: Of ``base_path`` on the Hub.
        dataset_fps: Frames per second of the pretraining dataset. Written by pretraining, not by hand.
        transferred_from: The pretraining checkpoint a finetuned policy came from. Written by finetuning:
            after a resumed run LeRobot's own ``pretrained_path`` no longer says it.
    """

    stage: str = PRETRAIN
    latent_action: LatentActionConfig = field(default_factory=LatentActionConfig)
    world_model: WorldModelConfig = field(default_factory=WorldModelConfig.default)
    idm: InverseDynamicsConfig = field(default_factory=InverseDynamicsConfig)
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    pretraining_lr: float = 3e-4
    policy_pretraining_lr: float = 1e-4
    compile_model: bool = False
    health_freq: int = 25
    base_path: str | None = None
    base_revision: str | None = None
    dataset_fps: int | None = None
    transferred_from: str | None = None

    #: The LeRobot config that is wrapped.
    plain_class: ClassVar[type[PreTrainedConfig]]
    #: The wrapped network cannot be built without ``observation.state``. Pretraining, whose videos often have
    #: none, then gives it one of width 0.
    needs_state: ClassVar[bool] = False
    #: The extra of this package that installs what the wrapped policy needs, as in ``lerobot_policy_lawm[vla]``.
    package_extra: ClassVar[str | None] = None

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
        """Fields of the wrapped config that make its action chunk hold the H latents, and their values.

        A chunk that begins in the past or is longer than H keeps its slots: z_k belongs where an action k steps
        ahead does, and the others are padding, which no loss may count.
        """
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
        if self.needs_state and self.robot_state_feature is None:
            nothing = PolicyFeature(type=FeatureType.STATE, shape=(0,))
            view.input_features = {**(self.input_features or {}), OBS_STATE: nothing}
        return view

    @property
    def latent_slots(self) -> tuple[int, int]:
        """Slots of the wrapped policy's chunk before z_0 and after z_{H-1} (none for ACT)."""
        deltas = super(LawmConfig, self.wrapped_config()).action_delta_indices or []
        before = deltas.index(0)
        return before, len(deltas) - before - self.latent_action.horizon

    def plain_config(self) -> PreTrainedConfig:
        """The wrapped policy's own config, as a LeRobot without this plugin reads it."""
        values = {f.name: getattr(self, f.name) for f in fields(self.plain_class) if f.init}
        return self.plain_class(**copy.deepcopy(values))

    def read_base(self) -> PreTrainedConfig:
        """The plain config at ``base_path``.

        Raises:
            ValueError: If the stage is not ``pretrain``, or the checkpoint not a plain one of the wrapped type.
        """
        flag, plain = "--policy.base_path", PreTrainedConfig.get_choice_name(self.plain_class)
        if not self.pretraining:
            raise ValueError(
                f"{flag} begins a pretraining, but --policy.stage is {self.stage!r}: to finetune a plain policy as it "
                f"is, use LeRobot's own --policy.path={self.base_path}."
            )
        found = (read_policy_config(self.base_path, self.base_revision, flag) or {}).get("type")
        if found != plain:
            further = (
                f" (go on from a {self.type} checkpoint with --policy.path)" if found == self.type else ""
            )
            raise ValueError(
                f"{self.base_path} holds a policy of type {found!r}, expected {plain!r}: change {flag}{further}."
            )
        return PreTrainedConfig.from_pretrained(str(self.base_path), revision=self.base_revision)

    # --- what LeRobot asks a config for --------------------------------------------------------------

    @property
    def wrapped_history(self) -> list[int] | None:
        """The wrapped policy's own observation deltas; None if it takes one observation without a time axis."""
        return super(LawmConfig, self.wrapped_config()).observation_delta_indices

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

    def wrapped_optimizer_preset(self) -> OptimizerConfig:
        """The wrapped policy's own, whatever the stage."""
        return super().get_optimizer_preset()

    def get_optimizer_preset(self) -> OptimizerConfig:
        preset = self.wrapped_optimizer_preset()
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

        if EMBODIMENT in features:
            raise ValueError(
                f"The dataset pools actions of several embodiments (it has '{EMBODIMENT}'), which no single policy "
                "can imitate: finetune on one robot's own --dataset.repo_id."
            )
        if ACTION not in offered:
            raise ValueError(
                f"The dataset has no 'action' (its features are {', '.join(sorted(features))}), but "
                "finetuning imitates actions: choose a labelled --dataset.repo_id, or pretrain on this one "
                "with --policy.stage=pretrain."
            )
        if self.needs_state and OBS_STATE not in offered:
            raise ValueError(
                f"The dataset has no '{OBS_STATE}' (its features are {', '.join(sorted(features))}), which "
                f"{self.type} cannot act without: choose another --dataset.repo_id or --policy.type."
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
