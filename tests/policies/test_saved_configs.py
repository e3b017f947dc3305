"""Whatever a dataset says, what training saves is read again; and what changes when pretraining goes on is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.datasets_on_the_spot import described_otherwise, make_dataset
from helpers.training import TINY_LAWM, Run, assert_same_tensors, finetune, lerobot_train, pretrain, resume
from lerobot.configs import PreTrainedConfig
from safetensors.torch import load_file, save_file

from lawm_lerobot.policies.act.configuration_lawm_act import LawmActConfig
from lawm_lerobot.policies.common.loading import require_readable_config, require_saved
from lawm_lerobot.policies.common.pretraining_checkpoint import load_pretraining_checkpoint

# --- what is saved is read again -----------------------------------------------------------------------------


def test_a_frame_rate_that_is_written_as_a_float(
    short_dataset: Path, pretrained_once: Run, tmp_path: Path
) -> None:
    floats = described_otherwise(short_dataset, tmp_path / "floats", fps=10.0)
    run = pretrain(floats, tmp_path / "run", "--seed=3", "--save_freq=1", steps=2)
    assert repr(run.config()["dataset_fps"]) == "10"
    assert_same_tensors(run.tensors(1), pretrained_once.tensors())
    assert float(finetune(run.checkpoint(), floats, tmp_path / "fine", steps=1).metrics()[0]["loss"]) > 0
    assert [m["step"] for m in resume(run, 1).metrics()] == ["2"]


def test_a_frame_rate_that_is_no_whole_number_is_kept(tmp_path: Path) -> None:
    LawmActConfig(device="cpu", dataset_fps=12.5).save_pretrained(tmp_path)
    assert PreTrainedConfig.from_pretrained(tmp_path).dataset_fps == 12.5


def test_a_config_that_could_not_be_read_again_is_refused_before_training() -> None:
    config = LawmActConfig(device="cpu")
    require_readable_config(config)
    config.labels.action_dims = [2.5]  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"cannot be read again .*action_dims"):
        require_readable_config(config)


def test_a_saved_checkpoint_that_lacks_a_tensor_ends_the_run(pretrained_once: Run, tmp_path: Path) -> None:
    policy, _ = load_pretraining_checkpoint(pretrained_once.checkpoint())
    policy.save_pretrained(tmp_path / "whole")
    require_saved(tmp_path / "whole", policy.state_dict())
    with pytest.raises(ValueError, match=r"lacks model\.action_head\.bias"):
        require_saved(_without(tmp_path / "whole", "model.action_head.bias"), policy.state_dict())


def _without(folder: Path, name: str) -> Path:
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_a_checkpoint_keeps_the_frames_of_a_stride_in_seconds(tmp_path: Path) -> None:
    video = make_dataset(tmp_path / "video", lengths=(20, 20), action_dim=None, fps=30)
    flags = [flag for flag in TINY_LAWM if "stride" not in flag]
    run = lerobot_train(video, tmp_path / "run", *flags, "--save_freq=1", steps=2)
    assert run.config()["latent_action"]["stride"] == 12  # 0.4 s
    assert [m["step"] for m in resume(run, 1).metrics()] == ["2"]
    # Where it goes on at another rate it keeps its frames; seconds are frames of the new dataset.
    path = f"--policy.path={run.checkpoint()}"
    slow = make_dataset(tmp_path / "slow", lengths=(20, 20))
    kept = lerobot_train(slow, tmp_path / "kept", path, steps=1)
    assert kept.config()["latent_action"]["stride"] == 12
    given = lerobot_train(slow, tmp_path / "given", path, "--policy.latent_action.stride=0.3s", steps=1)
    assert given.config()["latent_action"]["stride"] == 3
    # To a finetuned policy they are those of its pretraining.
    flags = ["--policy.latent_action.stride=0.2s"]
    assert (
        finetune(run.checkpoint(), slow, tmp_path / "fine", *flags, steps=1).config()["latent_action"][
            "stride"
        ]
        == 6
    )


# --- pretraining goes on ------------------------------------------------------------------------------------


def warnings(run: Run, of: str) -> list[str]:
    return [line for line in run.log.splitlines() if "WARNING" in line and of in line]


def test_a_forgotten_stage_is_said(short_dataset: Path, pretrained_once: Run, tmp_path: Path) -> None:
    flag = "--policy.stage=finetune"
    assert not warnings(pretrained_once, flag)
    path = f"--policy.path={pretrained_once.checkpoint()}"
    on_actions = lerobot_train(short_dataset, tmp_path / "on_actions", path, steps=1)
    assert on_actions.config()["stage"] == "pretrain"
    assert len(warnings(on_actions, flag)) == 1
    video = make_dataset(tmp_path / "video", lengths=(8, 8), action_dim=None)
    assert not warnings(lerobot_train(video, tmp_path / "on_video", path, steps=1), flag)
    assert not warnings(
        finetune(pretrained_once.checkpoint(), short_dataset, tmp_path / "fine", steps=1), flag
    )


def test_another_frame_rate_is_said_where_the_stride_counts_frames(
    pretrained_once: Run, tmp_path: Path
) -> None:
    quick = make_dataset(tmp_path / "quick", lengths=(12, 12), action_dim=None, fps=20)
    path = f"--policy.path={pretrained_once.checkpoint()}"
    run = lerobot_train(quick, tmp_path / "run", path, steps=1)
    (said,) = warnings(run, "frames per second")
    assert "0.20 s" in said and "0.10 s" in said and "--policy.latent_action.stride=4" in said
    assert run.config()["dataset_fps"] == 20
    same_time = lerobot_train(quick, tmp_path / "same", path, "--policy.latent_action.stride=4", steps=1)
    assert not warnings(same_time, "frames per second")
