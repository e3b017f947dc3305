"""The configuration: what is saved, what the command line can change, and what LeRobot reads from it."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import SimpleNamespace

import draccus
import pytest
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets.factory import resolve_delta_timestamps
from lerobot.policies.act.configuration_act import ACTConfig

from lawm_lerobot.labels.configuration import LabelsConfig
from lawm_lerobot.method.configuration import (
    InverseDynamicsConfig,
    RecurrentConfig,
    RSSMConfig,
    WorldModelConfig,
)
from lawm_lerobot.method.latent_action import LatentActionConfig
from lawm_lerobot.policies.act.configuration_lawm_act import LawmActConfig
from lawm_lerobot.policies.common.video_configuration import VideoConfig

FEATURES = {
    "observation.images.top": PolicyFeature(FeatureType.VISUAL, (3, 32, 32)),
    "observation.state": PolicyFeature(FeatureType.STATE, (2,)),
}


def example(**changes: object) -> LawmActConfig:
    """A config with no field of its own at its default."""
    values = {
        "device": "cpu",
        "stage": "finetune",
        "chunk_size": 20,
        "n_action_steps": 10,
        "input_features": dict(FEATURES),
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (5,))},
        "latent_action": LatentActionConfig(source="both", dim=5, horizon=6, stride=3, noise=0.3),
        "world_model": RSSMConfig(size="test", image_size=32, camera="top", unimix=0.02),
        "idm": InverseDynamicsConfig(type="principal_components", size="test", random_shift=1, context=2),
        "labels": LabelsConfig(repo_id="me/demonstrations", root=Path("data"), episodes=[1], action_dims=[5]),
        "video": VideoConfig(repo_id="me/video", root=Path("video"), episodes=[2], batch_size=3),
        "state_dropout": 0.25,
        "use_state": False,
        "pretraining_lr": 1e-3,
        "policy_pretraining_lr": 1e-3,
        "compile_model": True,
        "health_freq": 7,
        "picture_freq": 8,
        "base_path": "plain",
        "base_revision": "v1",
        "dataset_fps": 12,
        "transferred_from": "somewhere",
    }
    return LawmActConfig(**{**values, **changes})


def test_saved_config_comes_back_as_it_was(tmp_path: Path) -> None:
    config = example()
    config.save_pretrained(tmp_path)
    loaded = PreTrainedConfig.from_pretrained(tmp_path)
    assert loaded == config
    assert type(loaded.world_model) is RSSMConfig


def test_defaults_come_back_as_they_were(tmp_path: Path) -> None:
    config = LawmActConfig(device="cpu")
    config.save_pretrained(tmp_path)
    assert PreTrainedConfig.from_pretrained(tmp_path) == config


def test_example_has_no_field_of_lawm_at_its_default() -> None:
    # Or the round trip above would not notice a field that is lost.
    default, config = LawmActConfig(device="cpu"), example()
    own = {f.name for f in fields(LawmActConfig)} - {f.name for f in fields(ACTConfig)}
    assert own == {
        *("stage", "latent_action", "world_model", "idm", "labels", "video", "state_dropout", "use_state"),
        *(
            "pretraining_lr",
            "policy_pretraining_lr",
            "compile_model",
            "health_freq",
            "picture_freq",
            "base_path",
            "base_revision",
            "dataset_fps",
            "transferred_from",
        ),
    }
    assert not [name for name in own if getattr(config, name) == getattr(default, name)]


OVERRIDES = {
    "--stage=pretrain": ("stage", "pretrain"),
    "--pretraining_lr=0.01": ("pretraining_lr", 0.01),
    "--latent_action.dim=3": ("latent_action.dim", 3),
    "--latent_action.source=policy": ("latent_action.source", "policy"),
    "--world_model.image_size=64": ("world_model.image_size", 64),
    "--world_model.camera=null": ("world_model.camera", None),
    "--world_model.size=3m": ("world_model.size", "3m"),
    "--idm.context=0": ("idm.context", 0),
    "--chunk_size=130": ("chunk_size", 130),
}


def flat(config: LawmActConfig) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, value in asdict(config).items():
        if name in ("latent_action", "world_model", "idm"):
            values |= {f"{name}.{inner}": v for inner, v in value.items()}
        else:
            values[name] = value
    return values


@pytest.mark.parametrize("flag", OVERRIDES)
def test_one_flag_on_top_of_a_checkpoint_changes_one_field(flag: str, tmp_path: Path) -> None:
    example().save_pretrained(tmp_path)
    changed = PreTrainedConfig.from_pretrained(tmp_path, cli_overrides=[flag])
    name, value = OVERRIDES[flag]
    assert flat(changed) == {**flat(example()), name: value}


@pytest.mark.parametrize("flag", OVERRIDES)
def test_one_flag_on_a_fresh_config_changes_one_field(flag: str) -> None:
    name, value = OVERRIDES[flag]
    arguments = ["--device=cpu", "--world_model.type=rssm", flag]
    base = draccus.parse(LawmActConfig, args=arguments[:2])
    assert flat(draccus.parse(LawmActConfig, args=arguments)) == {**flat(base), name: value}


@pytest.mark.parametrize(("name", "kind"), [("rssm", RSSMConfig), ("recurrent", RecurrentConfig)])
def test_world_model_is_chosen_by_its_type(name: str, kind: type) -> None:
    arguments = ["--device=cpu", f"--world_model.type={name}", "--world_model.size=test"]
    chosen = draccus.parse(LawmActConfig, args=arguments).world_model
    assert chosen == kind(size="test")


def test_a_nested_flag_without_a_type_keeps_the_default_world_model() -> None:
    chosen = draccus.parse(LawmActConfig, args=["--device=cpu", "--world_model.image_size=32"]).world_model
    assert chosen == replace(WorldModelConfig.default(), image_size=32)


def test_wrapped_defaults_are_acts_own() -> None:
    ours, acts = LawmActConfig(device="cpu"), ACTConfig(device="cpu")
    assert {f.name: getattr(ours, f.name) for f in fields(ACTConfig)} == {
        f.name: getattr(acts, f.name) for f in fields(ACTConfig)
    }


# --- the wrapped policy's configs ----------------------------------------------------------------------------


def test_pretraining_network_has_a_chunk_of_latents_and_the_config_keeps_the_users() -> None:
    config = example(stage="pretrain", temporal_ensemble_coeff=0.01, n_action_steps=1)
    wrapped = config.wrapped_config()
    assert (wrapped.chunk_size, wrapped.n_action_steps, wrapped.temporal_ensemble_coeff) == (6, 6, None)
    assert (config.chunk_size, config.n_action_steps, config.temporal_ensemble_coeff) == (20, 1, 0.01)


@pytest.mark.parametrize(
    ("source", "use_vae"), [("inverse_dynamics", True), ("both", True), ("policy", False)]
)
def test_vae_is_off_where_there_is_nothing_to_encode(source: str, use_vae: bool) -> None:
    config = example(stage="pretrain", latent_action=LatentActionConfig(source=source))
    assert config.use_vae
    assert config.wrapped_config().use_vae == use_vae


def test_finetuning_network_is_the_configs_own() -> None:
    config = example()
    assert config.wrapped_config() is config


def test_plain_config_is_acts(tmp_path: Path) -> None:
    config = example()
    plain = config.plain_config()
    assert type(plain) is ACTConfig
    assert {f.name: getattr(plain, f.name) for f in fields(ACTConfig)} == {
        f.name: getattr(config, f.name) for f in fields(ACTConfig)
    }
    plain.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()).keys() == {
        f.name for f in fields(ACTConfig)
    } | {"type"}


def test_plain_config_shares_nothing_with_its_source() -> None:
    config = example()
    config.plain_config().input_features.clear()
    assert config.input_features == FEATURES


# --- what LeRobot asks ---------------------------------------------------------------------------------------


def test_pretraining_reads_h_future_frames_and_no_action() -> None:
    config = example(stage="pretrain", latent_action=LatentActionConfig(horizon=3, stride=5))
    assert config.observation_delta_indices == [0, 5, 10, 15]
    assert config.action_delta_indices is None


@pytest.mark.parametrize(
    ("stride", "fps", "frames"),
    [
        *((LatentActionConfig().stride, fps, frames) for fps, frames in ((10, 4), (30, 12), (80, 32))),
        ("0.2s", 29.97, 6),
        ("0.05s", 10, 1),  # at least one
        (4, 80, 4),
    ],
)
def test_seconds_are_whole_frames_of_the_dataset(stride: int | str, fps: float, frames: int) -> None:
    config = example(stage="pretrain", latent_action=LatentActionConfig(horizon=2, stride=stride))
    dataset = SimpleNamespace(fps=fps, features=["observation.images.top", "action"])
    deltas = resolve_delta_timestamps(config, dataset)
    assert deltas == {"observation.images.top": [0, frames / fps, 2 * frames / fps]}
    config.latent_action.settle(fps)
    assert config.latent_action.stride == frames
    assert config.observation_delta_indices == [0, frames, 2 * frames]


def test_finetuning_reads_what_act_reads() -> None:
    config = example()
    assert config.observation_delta_indices is None
    assert config.action_delta_indices == list(range(20))


@pytest.mark.parametrize(("stage", "lr"), [("pretrain", 1e-3), ("finetune", 1e-5)])
def test_learning_rate_is_the_stages(stage: str, lr: float) -> None:
    preset = example(stage=stage).get_optimizer_preset()
    assert preset.lr == lr
    assert preset.weight_decay == ACTConfig(device="cpu").optimizer_weight_decay


def test_pretrained_policy_outputs_latents_whatever_the_dataset_holds() -> None:
    config = example(stage="pretrain")
    image = {"dtype": "video", "shape": (32, 32, 3), "names": ["height", "width", "channels"]}
    config.set_dataset_feature_metadata(
        {"observation.images.top": image, "action": {"dtype": "float32", "shape": (7,), "names": None}}
    )
    assert config.output_features["action"].shape == (5,)


# --- input features at the transfer ------------------------------------------------------------------------

IMAGE = {"dtype": "video", "shape": (32, 32, 3), "names": ["height", "width", "channels"]}
DEMONSTRATIONS = {
    "observation.images.top": IMAGE,
    "observation.images.wrist": IMAGE,
    "observation.state": {"dtype": "float32", "shape": (2,), "names": None},
    "action": {"dtype": "float32", "shape": (7,), "names": None},
}
TOP = {"observation.images.top": {"type": "VISUAL", "shape": [3, 32, 32]}}
WRIST = {"observation.images.wrist": {"type": "VISUAL", "shape": [3, 32, 32]}}
STATE = {"observation.state": {"type": "STATE", "shape": [2]}}


@pytest.mark.parametrize(
    ("chosen", "taken"),
    [
        (None, {*TOP, *WRIST, *STATE}),
        (TOP, {*TOP}),
        (WRIST, {*WRIST}),
        (TOP | STATE, {*TOP, *STATE}),  # all that the checkpoint has, word for word
    ],
)
def test_features_are_the_datasets_unless_the_user_chose_some(
    chosen: dict | None, taken: set[str], tmp_path: Path
) -> None:
    example(stage="pretrain", use_state=True).save_pretrained(tmp_path)
    flags = [] if chosen is None else [f"--input_features={json.dumps(chosen)}"]
    config = PreTrainedConfig.from_pretrained(tmp_path, cli_overrides=["--stage=finetune", *flags])
    config.pretrained_path = tmp_path
    config.set_dataset_feature_metadata(DEMONSTRATIONS)
    assert config.input_features is not None
    assert config.input_features.keys() == taken
    assert type(config.input_features) is dict


def test_features_of_plain_policies_are_parsed_as_ever() -> None:
    flags = ["--dataset.repo_id=a/b", "--policy.type=act", "--policy.device=cpu"]
    features = f"--policy.input_features={json.dumps(TOP)}"
    config = draccus.parse(TrainPipelineConfig, args=[*flags, features])
    assert type(config.policy.input_features) is dict
    assert config.policy.input_features.keys() == TOP.keys()
