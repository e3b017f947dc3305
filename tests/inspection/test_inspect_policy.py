"""`lawm-inspect` on policies with actions: plain and finetuned, from the disk; its files, exit codes and refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers.asked_policies import frames_of
from helpers.datasets_on_the_spot import make_dataset
from helpers.inspecting import inspect, run_inspect
from helpers.training import TINY_ACT, finetune, lerobot_train
from safetensors.torch import load_file, save_file
from test_inspect_errors import refused

from lawm_lerobot.inspection.looking import measure
from lawm_lerobot.inspection.policy_report import load_policy


@pytest.fixture(scope="module")
def finetuned(fresh: Path, video: Path, root: Path) -> Path:
    return finetune(fresh, video, root / "fine", steps=1).checkpoint()


@pytest.fixture(scope="module")
def plain(video: Path, root: Path) -> Path:
    """An `act` of LeRobot's that looks: its state is cut off, and its actions after one step of training are made to vary."""
    run = lerobot_train(video, root / "plain", "--policy.type=act", *TINY_ACT, steps=1)
    return change(run.checkpoint(), root / "loud", {"model.action_head.weight": 100, STATE: 0})


STATE = "model.encoder_robot_state_input_proj.weight"


def change(checkpoint: Path, target: Path, factors: dict[str, float]) -> Path:
    shutil.copytree(checkpoint, target)
    tensors = load_file(target / "model.safetensors")
    for name, factor in factors.items():
        tensors[name] = tensors[name] * factor
    save_file(tensors, target / "model.safetensors")
    return target


def report_of(directory: Path) -> dict:
    assert {file.name for file in directory.iterdir()} == {"looking.json", "looking.png"}
    return json.loads((directory / "looking.json").read_text())


def test_a_plain_policy_that_looks(plain: Path, video: Path, tmp_path: Path) -> None:
    log = inspect(plain, video, tmp_path / "report", "--frames=12", "--require=looks")
    found = report_of(tmp_path / "report")
    assert found["verdict"] == "looks"
    assert found["frames"] == 12
    assert found["episodes"] == 10
    assert "The policy looks" in found["sentence"]
    assert found["sentence"] in log
    assert "Looking: looks (12 frames of 10 episodes)" in log
    use = found["cameras"]["observation.images.top"]
    assert use == found["pictures"]
    assert use["low"] <= use["use"] <= use["high"]
    assert str(tmp_path) not in (tmp_path / "report" / "looking.json").read_text()
    # Other callers get the same from the function.
    asked = load_policy(str(plain), [])
    again = measure(asked.policy, asked.preprocessor, frames_of(video), 12)
    assert again.pictures.use == pytest.approx(use["use"], rel=1e-4)


def test_a_blinded_policy_fails_what_is_required(plain: Path, video: Path, tmp_path: Path) -> None:
    blind = change(plain, tmp_path / "blind", {"model.encoder_img_feat_input_proj.weight": 0})
    code, log = run_inspect(blind, video, tmp_path / "report", "--frames=12", "--require=camera_unused")
    assert code == 1, log
    assert log.splitlines()[-1] == (
        "error: The verdict is constant, expected camera_unused or better, as --require asks for; the report says why."
    )
    assert report_of(tmp_path / "report")["verdict"] == "constant"


def test_a_finetuned_policy(finetuned: Path, video: Path, tmp_path: Path) -> None:
    inspect(finetuned, video, tmp_path / "report", "--frames=4", "--seed=3")
    found = report_of(tmp_path / "report")
    assert found["about"]["policy"] == "lawm_act"
    assert found["seed"] == 3


def test_pretraining_checkpoints_can_be_required_to_be_healthy(
    checkpoints: dict[str, Path], video: Path, tmp_path: Path
) -> None:
    flags = ("--clips=64", "--require=codes_the_augmentation")
    inspect(checkpoints["codes the augmentation"], video, tmp_path / "good", *flags)
    code, log = run_inspect(
        checkpoints["ignored"], video, tmp_path / "bad", "--clips=64", "--require=healthy"
    )
    assert code == 1
    assert log.splitlines()[-1].startswith("error: The verdict is ignored, expected healthy or better")
    assert (tmp_path / "bad" / "report.html").is_file()


def test_policies_and_datasets_that_do_not_fit(plain: Path, video: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    elsewhere = make_dataset(tmp_path / "elsewhere", cameras=("wrist",), lengths=(4, 4))
    assert "no 'observation.images.top'" in (found := refused(plain, elsewhere, out))
    assert "this checkpoint was trained with" in found
    wide = make_dataset(tmp_path / "wide", state_dim=3, lengths=(4, 4))
    assert "shape (3,), but this checkpoint was trained with shape (2,)" in refused(plain, wide, out)
    single = make_dataset(tmp_path / "single", lengths=(1,))
    assert "has 1 frame, expected at least two" in refused(plain, single, out)
    assert "frames is 1, expected at least 2" in refused(plain, video, out, "--frames=1", code=2)
    for flag in ("--clips=8", "--display=rerun"):
        name = flag.partition("=")[0]
        assert f"is a policy with actions, for which {name} means nothing" in refused(
            plain, video, out, flag, code=2
        )
    assert "expected one of looks, camera_unused, " in refused(plain, video, out, "--require=healthy", code=2)


def test_policies_that_are_broken(plain: Path, video: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    broken = change(plain, tmp_path / "broken", {"model.action_head.weight": float("nan")})
    assert "weights are not finite (model.action_head.weight)" in refused(broken, video, out)
    damaged = shutil.copytree(plain, tmp_path / "damaged")
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "cannot be read as safetensors" in refused(damaged, video, out)
    (shutil.copytree(plain, tmp_path / "old") / "policy_preprocessor.json").unlink()
    assert "--policy.path" in refused(tmp_path / "old", video, out)
