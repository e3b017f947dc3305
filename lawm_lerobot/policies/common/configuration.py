"""The configuration that every ``lawm_*`` policy shares, mixed into the wrapped policy's own.

Light on purpose: LeRobot imports it at the start of each of its commands.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

from draccus.cfgparsing import parse_string
from draccus.utils import ParsingError
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
from lerobot.optim import OptimizerConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_PREFIX, OBS_STATE

from lawm_lerobot.checkpoints.reading import read_policy_config
from lawm_lerobot.labels.cameras import policy_features
from lawm_lerobot.labels.configuration import EMBODIMENT, LabelsConfig
from lawm_lerobot.method.configuration import InverseDynamicsConfig, WorldModelConfig
from lawm_lerobot.method.latent_action import POLICY, LatentActionConfig, stride_frames
from lawm_lerobot.policies.common.video_configuration import VideoConfig

logger = logging.getLogger(__name__)

PRETRAIN = "pretrain"
FINETUNE = "finetune"
STAGES = (PRETRAIN, FINETUNE)
#: LeRobot's VLAs fill the cameras of this name, their ``empty_cameras``, themselves.
EMPTY_CAMERA = f"{OBS_IMAGES}.empty_camera_"


class ChosenFeatures(argparse.Action):
    """Parses ``--policy.input_features`` on top of a checkpoint, so that a transfer can tell what the user chose.

    draccus merges a dictionary into the checkpoint's, after which nothing tells the two apart. A list of pairs takes
    the place of the checkpoint's dictionary instead, and draccus makes an `OrderedDict` of it.
    """

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        chosen = parse_string(values)
        # LeRobot parses a checkpoint's config alone, without a prefix. Where it parses all types of policies at once,
        # the action of one serves all of them, LeRobot's own included, and must change nothing.
        if self.dest == "input_features" and isinstance(chosen, dict):
            values = json.dumps(list(chosen.items()))
        setattr(namespace, self.dest, values)


@dataclass(frozen=True)
class LaterFrame:
    """A frame of a clip, so many strides after x_0, as long as only the seconds of a stride are known.

    LeRobot asks a config for numbers of frames before any dataset is known to it, and divides each by the frame rate of
    the dataset (`resolve_delta_timestamps`): here the rate is learned, and the quotient is the time of a whole frame.

    Args:
        strides: The number of strides.
        stride: Their seconds, such as ``0.4s``.
    """

    strides: int
    stride: str

    def __truediv__(self, fps: float) -> float:
        return self.strides * stride_frames(self.stride, fps) / fps


# The mixin sits in front of a LeRobot config in the method resolution order. It must not inherit from
# PreTrainedConfig at run time: as a dataclass it would then bring PreTrainedConfig's defaults
# (n_obs_steps=1, ...) and overrule those of the wrapped policy.
if TYPE_CHECKING:
    from lerobot.configs import PreTrainedConfig as _Mixin
else:
    _Mixin = object


@dataclass
class LawmConfig(_Mixin):
    """The fields of LAWM pretraining, for a LeRobot policy config: ``class LawmActConfig(LawmConfig, ACTConfig)``.

    In the ``pretrain`` stage the wrapped policy outputs a chunk of H latent actions instead of robot
    actions, and a world model, dropped afterwards, learns to predict the coming frames from them. In the
    ``finetune`` stage the policy *is* the wrapped policy.

    Args:
        stage: The stage, ``pretrain`` or ``finetune``.
        latent_action: The latent actions, see `LatentActionConfig`.
        world_model: The world model p(x_1..x_H | x_0, z_0..z_{H-1}), a registered choice.
        idm: The inverse dynamics q(z_k | x_k, x_{k+1}, neighbours); unused with ``source=policy``.
        labels: True actions that shape the latents, see `LabelsConfig`; none by default.
        video: Video that stays in the batch of finetuning, see `VideoConfig`; none by default.
        state_dropout: The share of the samples, in finetuning, whose ``observation.state`` is replaced by its mean, so
            that the policy has to look at its pictures. At inference nothing is dropped.
        use_state: The policy has ``observation.state`` among its inputs, if the dataset has it.
        pretraining_lr: The learning rate of world model, inverse dynamics and read-out.
        policy_pretraining_lr: The learning rate of the wrapped policy in the ``pretrain`` stage. What the policy
            trains at a multiple of its ``optimizer_lr`` trains at that multiple of this. Finetuning uses the policy's
            own rates, and VLAs pretrain at their own too. Much higher, and a backbone without published weights dies:
            the policy then predicts the same for every frame.
        compile_model: Pretrain with world model and inverse dynamics compiled by `torch.compile`. Where the wrapped
            policy has a flag of this name, it sets that too.
        health_freq: The number of training steps between two measurements of the latents' health.
        picture_freq: The number of training steps from one picture to the next of what is imagined, in ``pictures`` of the
            output folder, and in finetuning from one measurement to the next of how much the policy looks; 0 for
            neither. It changes nothing of the training.
        base_path: The plain checkpoint of the wrapped type (a directory or a Hub id) that pretraining begins with,
            instead of random weights.
        base_revision: The revision of ``base_path`` on the Hub.
        dataset_fps: The frames per second of the pretraining dataset. Written by pretraining, not by hand.
        transferred_from: The pretraining checkpoint that a finetuned policy came from. Written by finetuning:
            after a resumed run LeRobot's own ``pretrained_path`` no longer names it.
        input_features: LeRobot's field, with `ChosenFeatures` to parse it.
    """

    stage: str = PRETRAIN
    latent_action: LatentActionConfig = field(default_factory=LatentActionConfig)
    world_model: WorldModelConfig = field(default_factory=WorldModelConfig.default)
    idm: InverseDynamicsConfig = field(default_factory=InverseDynamicsConfig)
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    video: VideoConfig = field(default_factory=VideoConfig)
    state_dropout: float = 0.0
    use_state: bool = True
    pretraining_lr: float = 3e-4
    policy_pretraining_lr: float = 1e-4
    compile_model: bool = False
    health_freq: int = 25
    picture_freq: int = 500
    base_path: str | None = None
    base_revision: str | None = None
    # An int where it is a whole number, as LeRobot writes it.
    dataset_fps: int | float | None = None
    transferred_from: str | None = None
    input_features: dict[str, PolicyFeature] | None = field(
        default_factory=dict, metadata={"custom_args": {"action": ChosenFeatures}}
    )

    # The LeRobot config that is wrapped.
    plain_class: ClassVar[type[PreTrainedConfig]]
    # The wrapped network cannot be built without ``observation.state``. Pretraining, whose videos often have
    # none, then gives it one of width 0.
    needs_state: ClassVar[bool] = False
    #: The wrapped policy's loss counts padding, so it is given chunks of latents only that lie within their episode.
    whole_chunks: ClassVar[bool] = False
    #: Mean and standard deviation by which the preprocessor itself normalises pictures, whatever LeRobot's mapping says.
    picture_stats: ClassVar[Mapping[str, Any] | None] = None
    #: The preprocessor writes the state into the prompt, before the policy can leave it out.
    state_in_prompt: ClassVar[bool] = False
    #: The extra of this package that installs what the wrapped policy needs, as in ``lerobot_policy_lawm[vla]``.
    package_extra: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stage not in STAGES:
            expected = ", ".join(STAGES)
            raise ParsingError(f"stage is {self.stage!r}, expected one of {expected}: change --policy.stage.")
        if self.health_freq < 1:
            found = f"health_freq is {self.health_freq}"
            raise ParsingError(f"{found}, expected at least 1: change --policy.health_freq.")
        if self.picture_freq < 0:
            found = f"picture_freq is {self.picture_freq}"
            raise ParsingError(f"{found}, expected at least 0, which is none: change --policy.picture_freq.")
        if not 0 <= self.state_dropout < 1:
            raise ParsingError(
                f"state_dropout is {self.state_dropout}, expected at least 0 and below 1: change "
                "--policy.state_dropout, or leave the state out with --policy.use_state=false."
            )
        if self.state_dropout and self.state_in_prompt:
            raise ParsingError(
                f"state_dropout is {self.state_dropout}, but {self.type} reads its state in the prompt, which is "
                "written before the policy can leave it out: leave out --policy.state_dropout."
            )
        if self.labels.grounding_weight > 0 and self.latent_action.source == POLICY:
            raise ParsingError(
                f"labels.grounding_weight is {self.labels.grounding_weight:g}, but with latent_action.source={POLICY!r} no "
                "latents are inferred that those of true actions could be like: change --policy.latent_action.source."
            )
        if not (self.use_state or self.pretraining) and (self.needs_state or self.state_in_prompt):
            raise ParsingError(
                f"use_state is false, but {self.type} cannot act without observation.state: leave out "
                "--policy.use_state=false."
            )

    # --- what a policy's own config adds -------------------------------------------------------------

    def chunk_overrides(self) -> dict[str, Any]:
        """Name the fields of the wrapped config that make its action chunk hold the H latents, and their values.

        A chunk that begins in the past or is longer than H keeps its slots: z_k belongs where an action k steps
        ahead does, and the others are padding, which no loss may count.
        """
        raise NotImplementedError

    # --- the wrapped policy's configs ----------------------------------------------------------------

    @property
    def pretraining(self) -> bool:
        return self.stage == PRETRAIN

    def transfers_from(self, saved: Mapping[str, Any] | None) -> bool:
        """Tell if a checkpoint's weights are transferred: those of a pretraining checkpoint, to finetune a policy.

        ``saved`` is its ``config.json``: command-line flags may have changed the config in memory.
        """
        return saved is not None and saved.get("stage") == PRETRAIN and self.stage == FINETUNE

    def wrapped_config(self) -> PreTrainedConfig:
        """Make the config that the wrapped policy is built from in this stage.

        What the user set for finetuning (a chunk of 100 actions, say) stays in the config and in the checkpoint; only
        the network of the pretraining stage has a chunk of H.
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

    @property
    def shortest_clip(self) -> int:
        """Dataset frames from a clip's first to the last that must lie within the episode, once the stride is settled."""
        action = self.latent_action
        return action.stride * (action.horizon if self.whole_chunks else 1)

    def plain_config(self) -> PreTrainedConfig:
        """Make the wrapped policy's own config, as a LeRobot without this plugin reads it."""
        values = {f.name: getattr(self, f.name) for f in fields(self.plain_class) if f.init}
        return self.plain_class(**copy.deepcopy(values))

    def read_base(self) -> PreTrainedConfig:
        """Read the plain config at ``base_path``; ValueError if the stage or the type is another."""
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
    def observation_delta_indices(self) -> list[Any] | None:
        """In pretraining the policy's own history, then x_1..x_H; x_0 is the last frame of the history."""
        if not self.pretraining:
            return super().observation_delta_indices
        stride, strides = self.latent_action.stride, range(1, self.latent_action.horizon + 1)
        in_seconds = isinstance(stride, str)
        return self.history_deltas + [LaterFrame(k, stride) if in_seconds else k * stride for k in strides]

    @property
    def action_delta_indices(self) -> list[int] | None:
        return None if self.pretraining else super().action_delta_indices

    def wrapped_optimizer_preset(self) -> OptimizerConfig:
        """The wrapped policy's own preset, whatever the stage."""
        return super().get_optimizer_preset()

    def get_optimizer_preset(self) -> OptimizerConfig:
        preset = self.wrapped_optimizer_preset()
        return replace(preset, lr=self.pretraining_lr) if self.pretraining else preset

    def set_dataset_feature_metadata(self, features: dict[str, dict]) -> None:
        """Take the features of a dataset; LeRobot's `make_policy` calls this before it builds the policy.

        Raises:
            ValueError: If the dataset has no camera, or, in finetuning, no action.
        """
        inherited = getattr(super(), "set_dataset_feature_metadata", None)
        if callable(inherited):
            inherited(features)
        self.input_features = _decoded_features(self.input_features or {}, features)
        if not self.use_state:
            self.input_features.pop(OBS_STATE, None)
        if self.pretraining:
            _require_camera(features)
            self.output_features = {
                ACTION: PolicyFeature(type=FeatureType.ACTION, shape=(self.latent_action.dim,))
            }
            return
        _require_demonstrations(self, features)
        # LeRobot counts all that is called action<...>, such as the confidence beside decoded actions.
        self.output_features = {key: ft for key, ft in (self.output_features or {}).items() if key == ACTION}
        saved = read_policy_config(self.pretrained_path, self.pretrained_revision)
        if saved is not None and self.transfers_from(saved):
            self.input_features = _transferred_features(self, saved, features)
            if not self.use_state:
                self.input_features.pop(OBS_STATE, None)


def _transferred_features(
    config: LawmConfig, saved: Mapping[str, Any], features: dict[str, dict]
) -> dict[str, PolicyFeature]:
    """Choose the dataset's observations, unless the user chose some on the command line or in Python.

    The cameras and the state of the pretraining dataset mean nothing to this robot.
    """
    wanted: dict[str, PolicyFeature] = config.input_features or {}
    types = {key: ft.type.value for key, ft in wanted.items()}
    saved_types = {key: ft["type"] for key, ft in (saved.get("input_features") or {}).items()}
    if isinstance(wanted, OrderedDict) or types != saved_types:
        return dict(wanted)
    offered = policy_features(features)
    return {key: ft for key, ft in offered.items() if ft.type is not FeatureType.ACTION}


def _decoded_features(
    wanted: dict[str, PolicyFeature], features: dict[str, dict]
) -> dict[str, PolicyFeature]:
    """The wanted features with the cameras' shapes in the order of decoding, without cameras that reach no policy."""
    offered = policy_features(features)
    decoded = type(wanted)()  # An OrderedDict stays one, see `ChosenFeatures`.
    for key, feature in wanted.items():
        same_sizes = key in offered and sorted(feature.shape) == sorted(offered[key].shape)
        if feature.type is FeatureType.VISUAL and same_sizes:
            decoded[key] = offered[key]
        elif feature.type is FeatureType.VISUAL and key in features and key not in offered:
            logger.warning(
                f"The dataset's camera '{key}' is left out, because LeRobot hands a policy only what is called "
                f"'{OBS_PREFIX}<...>': import the dataset again with lawm-import-videos --source.type=lerobot."
            )
        else:
            decoded[key] = feature
    return decoded


def _require_camera(features: dict[str, dict]) -> None:
    unreached = [
        key
        for key, ft in features.items()
        if ft["dtype"] in ("image", "video") and not key.startswith(OBS_PREFIX)
    ]
    if any(ft.type is FeatureType.VISUAL for ft in policy_features(features).values()):
        return
    if unreached:
        raise ValueError(
            f"The dataset's only cameras are called {', '.join(map(repr, unreached))}, but LeRobot hands a policy only "
            f"features whose names begin with '{OBS_PREFIX}': write it again under such a name with "
            "lawm-import-videos --source.type=lerobot --source.path=<its folder>, or choose another "
            "--dataset.repo_id."
        )
    raise ValueError(
        f"The dataset has no camera (its features are {', '.join(sorted(features))}), but latent "
        f"actions are learned from frames: expected a feature '{OBS_IMAGES}.<camera>', choose "
        "another --dataset.repo_id."
    )


def _require_demonstrations(config: LawmConfig, features: Iterable[str]) -> None:
    if EMBODIMENT in features:
        raise ValueError(
            f"The dataset pools actions of several embodiments (it has '{EMBODIMENT}'), which no single policy "
            "can imitate: finetune on one robot's own --dataset.repo_id."
        )
    if ACTION not in features:
        raise ValueError(
            f"The dataset has no 'action' (its features are {', '.join(sorted(features))}), but "
            "finetuning imitates actions: choose a labelled --dataset.repo_id, or pretrain on this one "
            "with --policy.stage=pretrain."
        )
    if config.needs_state and OBS_STATE not in features:
        raise ValueError(
            f"The dataset has no '{OBS_STATE}' (its features are {', '.join(sorted(features))}), which "
            f"{config.type} cannot act without: choose another --dataset.repo_id or --policy.type."
        )
