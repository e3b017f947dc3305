"""The sentence that a user reads after a mistake: what was found, what was expected, and the flag to change."""

from __future__ import annotations

import json
import math
import shutil
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from helpers.datasets_on_the_spot import make_dataset
from helpers.training import TINY_ACT, finetune, lerobot_train, pretrain, run_command
from lerobot.configs import PreTrainedConfig
from lerobot.policies import make_policy

from lawm_lerobot.checkpoints.reading import read_policy_config
from lawm_lerobot.envs import LawmMetaworldEnvConfig
from lawm_lerobot.policies.act.modeling_lawm_act import LawmActPolicy
from lawm_lerobot.policies.common.loading import PretrainingCheckpointError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("errors")


@pytest.fixture(scope="module")
def dataset(root: Path) -> Path:
    return make_dataset(root / "dataset", lengths=(8, 8), cameras=("corner2",), state_dim=4, action_dim=4)


@pytest.fixture(scope="module")
def unlabelled(root: Path) -> Path:
    return make_dataset(
        root / "unlabelled", lengths=(8, 8), cameras=("corner2",), state_dim=4, action_dim=None
    )


@pytest.fixture(scope="module")
def pretrained(root: Path, unlabelled: Path) -> Path:
    return pretrain(unlabelled, root / "pretrained", steps=1).checkpoint()


@pytest.fixture(scope="module")
def finetuned(root: Path, pretrained: Path, dataset: Path) -> Path:
    return finetune(pretrained, dataset, root / "finetuned", steps=1).checkpoint()


@pytest.fixture(scope="module")
def plain_act(root: Path, dataset: Path) -> Path:
    return lerobot_train(dataset, root / "plain_act", "--policy.type=act", *TINY_ACT, steps=1).checkpoint()


def says(action: Callable[[], Any], *parts: str, kind: type[Exception] = Exception) -> str:
    """The one sentence that ``action`` fails with, which must contain all of ``parts``."""
    with pytest.raises(kind) as raised:
        action()
    message = str(raised.value)
    missing = [part for part in parts if part not in message]
    assert not missing, f"not in: {message}"
    assert "\n" not in message
    return message


# --- flags ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "found", "expected"),
    [
        ("--policy.stage", "finetuning", "pretrain, finetune"),
        ("--policy.health_freq", "0", "at least 1"),
        ("--policy.picture_freq", "-1", "at least 0"),
        ("--policy.latent_action.source", "inverse", "inverse_dynamics, policy, both"),
        ("--policy.latent_action.dim", "0", "at least 1"),
        ("--policy.latent_action.horizon", "0", "at least 1"),
        ("--policy.latent_action.stride", "-3", "at least 1"),
        ("--policy.latent_action.stride", "0.4", "seconds with an s behind (0.4s)"),
        ("--policy.latent_action.stride", "-0.4s", "seconds with an s behind"),
        ("--policy.latent_action.noise", "-0.5", "at least 0"),
        ("--policy.world_model.size", "13m", "must be one of test, "),
        ("--policy.world_model.image_size", "48", "32, 64, 128, 256"),
        ("--policy.idm.size", "tiny", "test, 1m, 3m"),
    ],
)
def test_flag_out_of_range(
    flag: str, found: str, expected: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        pretrain(dataset, tmp_path / "run", f"{flag}={found}")
    assert stopped.value.code
    # The parser prints what a config raises, and nothing of the traceback.
    printed = capsys.readouterr().out
    assert all(part in printed for part in (flag, found, expected)), printed
    assert "Traceback" not in printed
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "flag", ["--policy.latent_action.dim", "--policy.world_model.size", "--policy.stage"]
)
def test_flag_out_of_range_on_top_of_a_checkpoint(
    flag: str, pretrained: Path, dataset: Path, tmp_path: Path
) -> None:
    says(lambda: finetune(pretrained, dataset, tmp_path / "run", f"{flag}=0"), flag, "0")
    assert not (tmp_path / "run").exists()


def test_unknown_camera(dataset: Path, tmp_path: Path) -> None:
    flag = "--policy.world_model.camera"
    says(
        lambda: pretrain(dataset, tmp_path / "run", f"{flag}=wirst"),
        flag,
        "'wirst'",
        "observation.images.corner2",
        kind=ValueError,
    )


def test_normalisation_that_cannot_be_undone(dataset: Path, tmp_path: Path) -> None:
    mapping = json.dumps({"VISUAL": "QUANTILES", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"})
    flag = "--policy.normalization_mapping"
    says(lambda: pretrain(dataset, tmp_path / "run", f"{flag}={mapping}"), flag, "QUANTILES", "MEAN_STD")


# --- datasets ------------------------------------------------------------------------------------------------


def test_finetuning_without_actions(pretrained: Path, unlabelled: Path, tmp_path: Path) -> None:
    says(
        lambda: finetune(pretrained, unlabelled, tmp_path / "run"),
        *("no 'action'", "observation.images.corner2", "--dataset.repo_id", "--policy.stage=pretrain"),
        kind=ValueError,
    )


def test_pretraining_without_a_camera(tmp_path: Path) -> None:
    blind = make_dataset(tmp_path / "blind", cameras=(), lengths=(8, 8))
    says(
        lambda: pretrain(blind, tmp_path / "run"),
        *("no camera", "observation.state", "observation.images.<camera>", "--dataset.repo_id"),
        kind=ValueError,
    )


@pytest.mark.parametrize("source", ["inverse_dynamics", "policy", "both"])
def test_episodes_shorter_than_a_clip_are_padded(source: str, tmp_path: Path) -> None:
    # A clip spans 4 * 2 frames; here the longest episode gives one transition, and the shortest none.
    short = make_dataset(tmp_path / "short", lengths=(3, 3, 1, 4))
    run = pretrain(
        short, tmp_path / "run", f"--policy.latent_action.source={source}", "--batch_size=3", steps=4
    )
    assert len(run.metrics()) == 4
    for figures in run.metrics():
        assert math.isfinite(float(figures["loss"]))
        assert math.isfinite(float(figures["shuffle_ratio"]))


def test_episodes_no_longer_than_the_stride(tmp_path: Path) -> None:
    short = make_dataset(tmp_path / "short", lengths=(2, 2))
    says(
        lambda: pretrain(short, tmp_path / "run"),
        *("stride is 2 frames (0.20 s)", "longest episode has 2", "--policy.latent_action.stride"),
        kind=ValueError,
    )


# --- pretraining checkpoints are not for control -------------------------------------------------------------


@pytest.mark.parametrize("flags", [(), ("--policy.stage=finetune",)])
def test_lerobot_eval_refuses_a_pretraining_checkpoint(
    flags: tuple[str, ...], pretrained: Path, tmp_path: Path
) -> None:
    pytest.importorskip("metaworld")
    from lerobot.scripts.lerobot_eval import main

    says(
        lambda: run_command(
            main,
            *(f"--policy.path={pretrained}", "--policy.device=cpu", *flags),
            *("--env.type=lawm_metaworld", "--env.size=32", "--eval.n_episodes=1", "--eval.batch_size=1"),
            f"--output_dir={tmp_path}",
        ),
        *("is a LAWM pretraining checkpoint", str(pretrained), "--policy.stage=finetune", "lerobot-train"),
        kind=PretrainingCheckpointError,
    )


@pytest.mark.parametrize("overrides", [[], ["--stage=finetune"]])
def test_policy_for_an_environment_refuses_a_pretraining_checkpoint(
    overrides: list[str], pretrained: Path
) -> None:
    config = PreTrainedConfig.from_pretrained(pretrained, cli_overrides=overrides)
    config.pretrained_path = pretrained
    env = LawmMetaworldEnvConfig(size=32)
    says(lambda: make_policy(config, env_cfg=env), str(pretrained), kind=PretrainingCheckpointError)


def test_from_pretrained_refuses_a_pretraining_checkpoint(pretrained: Path) -> None:
    says(lambda: LawmActPolicy.from_pretrained(pretrained), str(pretrained), kind=PretrainingCheckpointError)


def test_a_pretraining_checkpoint_that_is_only_looked_at_gives_no_action(pretrained: Path) -> None:
    policy = LawmActPolicy.from_pretrained(pretrained, allow_pretraining=True)
    observation = {
        "observation.images.corner2": torch.zeros(1, 3, 32, 32),
        "observation.state": torch.zeros(1, 4),
    }
    for ask in (policy.select_action, policy.predict_action_chunk):
        says(lambda ask=ask: ask(observation), "--policy.stage=finetune", kind=PretrainingCheckpointError)


# --- checkpoints that do not fit -----------------------------------------------------------------------------


def test_checkpoint_of_another_policy(plain_act: Path) -> None:
    says(
        lambda: LawmActPolicy.from_pretrained(plain_act),
        *(str(plain_act), "'act'", "'lawm_act'", "--policy.path", "--policy.type"),
        kind=ValueError,
    )


def test_checkpoint_of_another_policy_in_training(plain_act: Path, dataset: Path, tmp_path: Path) -> None:
    says(
        lambda: pretrain(dataset, tmp_path / "run", f"--policy.pretrained_path={plain_act}"),
        *(str(plain_act), "'act'", "'lawm_act'", "--policy.path"),
        kind=ValueError,
    )


def test_pretraining_cannot_go_on_from_a_finetuned_checkpoint(
    finetuned: Path, unlabelled: Path, tmp_path: Path
) -> None:
    says(
        lambda: lerobot_train(
            unlabelled, tmp_path / "run", f"--policy.path={finetuned}", "--policy.stage=pretrain"
        ),
        *(str(finetuned), "no world model", "--policy.stage=pretrain", "--policy.path"),
        kind=ValueError,
    )


def test_other_architecture(pretrained: Path, dataset: Path, tmp_path: Path) -> None:
    says(
        lambda: finetune(pretrained, dataset, tmp_path / "run", "--policy.dim_model=64"),
        *(str(pretrained), "does not fit", "(32, ", "(64, ", "--policy.*"),
        kind=ValueError,
    )


def test_a_finetuned_checkpoint_is_never_adapted(finetuned: Path, tmp_path: Path) -> None:
    arm = {"cameras": ("corner2",), "state_dim": 4, "action_dim": 6}
    other = make_dataset(tmp_path / "other", lengths=(8, 8), **arm)
    with pytest.raises(ValueError, match="does not fit the policy") as raised:
        finetune(finetuned, other, tmp_path / "run")
    assert "action_head" in str(raised.value)
    assert "--policy." in str(raised.value)


def test_rename_map_at_the_transfer(pretrained: Path, tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "dataset", lengths=(8, 8), cameras=("front",))
    renamed = json.dumps({"observation.images.front": "observation.images.corner2"})
    says(
        lambda: finetune(pretrained, dataset, tmp_path / "run", f"--rename_map={renamed}"),
        *("observation.images.front", "observation.images.corner2", "--rename_map"),
        kind=ValueError,
    )


# --- damaged checkpoints -------------------------------------------------------------------------------------


@pytest.fixture
def damaged(finetuned: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finetuned, tmp_path / "damaged")


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", None])
@pytest.mark.parametrize("stage", ["finetuned", "pretrained"])
def test_damaged_weights(
    stage: str, content: bytes | None, request: pytest.FixtureRequest, dataset: Path, tmp_path: Path
) -> None:
    checkpoint = shutil.copytree(request.getfixturevalue(stage), tmp_path / "damaged")
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000] if content is None else content)
    says(
        lambda: finetune(checkpoint, dataset, tmp_path / "run"),
        *(str(weights), "damaged", "--policy.path"),
        kind=ValueError,
    )


def test_missing_weights(damaged: Path, dataset: Path, tmp_path: Path) -> None:
    (damaged / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model.safetensors"):
        finetune(damaged, dataset, tmp_path / "run")


def test_missing_config(damaged: Path) -> None:
    (damaged / "config.json").unlink()
    says(
        lambda: LawmActPolicy.from_pretrained(damaged),
        *(str(damaged), "config.json", "--policy.path"),
        kind=FileNotFoundError,
    )


def test_missing_config_on_the_command_line(damaged: Path, dataset: Path, tmp_path: Path) -> None:
    (damaged / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="config.json"):  # LeRobot's own words
        finetune(damaged, dataset, tmp_path / "run")


@pytest.mark.parametrize("content", [b'{"type": "lawm_act", "sta', b"", b"\xff\xfe\x00"])
def test_damaged_config(content: bytes, damaged: Path) -> None:
    (damaged / "config.json").write_bytes(content)
    for read in (read_policy_config, LawmActPolicy.from_pretrained):
        says(
            lambda read=read: read(damaged),
            *(str(damaged / "config.json"), "damaged", "--policy.path"),
            kind=ValueError,
        )


# --- weights from the internet -------------------------------------------------------------------------------

IMAGENET = "--policy.pretrained_backbone_weights=ResNet18_Weights.IMAGENET1K_V1"


@pytest.fixture
def no_internet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise URLError("Temporary failure in name resolution")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setattr(torch.hub, "urlopen", unreachable)


@pytest.mark.usefixtures("no_internet")
def test_backbone_weights_that_cannot_be_downloaded(dataset: Path, tmp_path: Path) -> None:
    says(
        lambda: pretrain(dataset, tmp_path / "run", IMAGENET),
        *("ResNet18_Weights.IMAGENET1K_V1", "name resolution", "--policy.pretrained_backbone_weights=null"),
        kind=ConnectionError,
    )


@pytest.mark.usefixtures("no_internet")
def test_finetuning_downloads_no_backbone_weights(pretrained: Path, dataset: Path, tmp_path: Path) -> None:
    run = finetune(pretrained, dataset, tmp_path / "run", IMAGENET, steps=1)
    assert run.tensors()
