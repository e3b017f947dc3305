"""The SO-101 guide, run as written on an emulated arm: real drivers, real commands, servos made up on the wire."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from helpers.so101 import GUIDE, Workplace, assert_goals_follow, commands, emulated_arm, goals, torque
from helpers.so101_emulator import HEIGHT, JOINTS, WIDTH
from helpers.training import TINY_LAWM, assert_same_tensors, run_command
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.act.modeling_act import ACT, ACTPolicy
from lerobot.rollout.inference.sync import SyncInferenceEngine
from safetensors.torch import load_file, save_file

from lawm_lerobot.policies.act.modeling_lawm_act import LawmActPolicy
from lawm_lerobot.policies.common.finite_actions import NonFiniteActionError
from lawm_lerobot.policies.common.loading import PretrainingCheckpointError
from lawm_lerobot.scripts import lawm_export

TINY = [flag for flag in TINY_LAWM if not flag.startswith("--policy.type=")]
#: What is added to a command of the guide so that it takes seconds, by the configuration file it names.
SMALL = {
    "record": [
        *("--dataset.num_episodes=2", "--dataset.episode_time_s=1.5", "--dataset.reset_time_s=0.1"),
        "--dataset.rgb_encoder.vcodec=h264",
    ],
    "pretrain": [*TINY, "--steps=2", "--batch_size=4", "--num_workers=0"],
    "finetune": ["--steps=3", "--batch_size=4", "--num_workers=0"],
    "rollout": ["--duration=0", "--device=cpu"],
}
FINETUNING = {"chunk_size": 12, "n_action_steps": 12, "device": "cpu", "optimizer_lr": 1e-3}
CONFIG = "--config_path=examples/so101/rollout.yaml"
ROLLOUT = ["lerobot-rollout"]
CHECK = ["python", "examples/so101/check_setup.py"]
FINETUNED = "outputs/so101_finetune/checkpoints/last/pretrained_model"
STEPS = 15  # after which a rollout is ended by Ctrl-C
LIMIT = 10  # rollout.yaml's max_relative_target


@pytest.fixture(scope="module")
def actions() -> Iterator[list[np.ndarray]]:
    """Every action that the rollouts' inference engine hands out, in the robot's units, in order."""
    handed_out: list[np.ndarray] = []
    get_action = SyncInferenceEngine.get_action

    def noted(engine: SyncInferenceEngine, frame: dict | None) -> torch.Tensor | None:
        action = get_action(engine, frame)
        handed_out.append(action.numpy())
        return action

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SyncInferenceEngine, "get_action", noted)
        yield handed_out


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory, actions: list[np.ndarray]) -> Iterator[dict[str, Any]]:
    """All commands of the guide, one after the other: the workplace they leave, and what the rollouts did."""
    root = tmp_path_factory.mktemp("so101")
    with (
        emulated_arm(root / "follower.jsonl") as follower,
        emulated_arm(root / "leader.jsonl", "--hand") as leader,
    ):
        place = Workplace(root, follower)
        place.prepare(leader, finetune=FINETUNING)
        rollouts = []
        for words, to_run in commands(GUIDE / "README.md"):
            if not to_run:
                continue
            small = next((flags for name, flags in SMALL.items() if f"/{name}.yaml" in " ".join(words)), [])
            actions.clear()
            if words[0] == "python":
                follower.rest()
            rolls_out = words[0] == "lerobot-rollout"
            _, events = place.run(words, *small, goals=STEPS if rolls_out else None)
            if rolls_out:
                rollouts.append({"events": events, "actions": list(actions)})
            elif words[0] == "python":
                check = events
        yield {"place": place, "rollouts": rollouts, "check": check}


@pytest.fixture(scope="module")
def place(guide: dict[str, Any]) -> Workplace:
    return guide["place"]


def test_every_command_of_the_guide_is_run_or_says_why_not(place: Workplace) -> None:
    assert [line.split()[0] for line in place.ran[:7]] == [
        *("lerobot-record", "lerobot-train", "lerobot-train", "python", "lerobot-rollout"),
        *("lawm-export", "lerobot-rollout"),
    ]


def test_demonstrations_hold_what_the_hand_did(place: Workplace) -> None:
    dataset = LeRobotDataset("you/so101_demonstrations", root=place.root / "data" / "so101_demonstrations")
    names = [f"{joint}.pos" for joint in JOINTS]
    assert dataset.meta.features["action"]["names"] == names
    assert dataset.meta.features["observation.images.front"]["shape"] == (HEIGHT, WIDTH, 3)
    assert dataset.meta.total_episodes == 2
    actions = torch.stack([torch.as_tensor(row) for row in dataset.hf_dataset["action"]])  # (frames,A)
    assert (actions.std(0) > 5).all()


# --- what reaches the servos ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rollout", [0, 1], ids=["lawm_act", "exported act"])
def test_goals_follow_the_actions_within_max_relative_target(guide: dict[str, Any], rollout: int) -> None:
    ran = guide["rollouts"][rollout]
    written = goals(ran["events"])
    assert len(ran["actions"]) >= STEPS
    clamped = assert_goals_follow(ran["actions"], written, LIMIT)
    assert 0 < clamped < len(ran["actions"]) * len(JOINTS)
    # Afterwards LeRobot drives the arm back to where it was before.
    assert len(written) > len(ran["actions"])
    for joint, (goal, _) in written[-1].items():
        assert goal == pytest.approx(written[0][joint][1], abs=2)


def test_torque_is_off_after_a_rollout(guide: dict[str, Any]) -> None:
    for ran in guide["rollouts"]:
        assert torque(ran["events"])[-12:] == [(n, 1) for n in range(1, 7)] + [(n, 0) for n in range(1, 7)]


def test_the_export_is_as_large_as_the_finetuned_checkpoint(place: Workplace) -> None:
    finetuned, exported = (
        place.root / folder / "model.safetensors" for folder in (FINETUNED, "outputs/so101_act")
    )
    assert finetuned.stat().st_size <= exported.stat().st_size + 1000  # names and header only
    assert_same_tensors(load_file(finetuned), load_file(exported))


# --- what does not --------------------------------------------------------------------------------------------


def test_pretraining_checkpoint_is_refused_before_the_bus_is_opened(place: Workplace) -> None:
    before = len(place.follower.events())
    pretrained = "outputs/so101_pretrain/checkpoints/last/pretrained_model"
    with pytest.raises(PretrainingCheckpointError, match="Finetune it first"):
        place.run(ROLLOUT, CONFIG, f"--policy.path={pretrained}", *SMALL["rollout"])
    assert place.follower.events(before) == []


def test_nothing_is_written_from_the_first_non_finite_action_on(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, forward = [], ACT.forward

    def broken_from_the_tenth_step(*args: Any, **kwargs: Any) -> Any:
        chunk, rest = forward(*args, **kwargs)
        calls.append(len(calls))
        return (chunk if len(calls) < 10 else chunk * float("nan")), rest

    monkeypatch.setattr(ACT, "forward", broken_from_the_tenth_step)
    before = len(place.follower.events())
    with pytest.raises(NonFiniteActionError, match="not finite, and none of them was sent to the robot"):
        place.run(
            ROLLOUT,
            *(CONFIG, f"--policy.path={FINETUNED}", "--policy.n_action_steps=1"),
            *("--return_to_initial_position=false", *SMALL["rollout"]),
        )
    events = place.follower.events(before)
    assert len(calls) == 10
    assert len(goals(events)) == 9
    assert torque(events)[-6:] == [(n, 0) for n in range(1, 7)]


def test_a_broken_sensor_is_told_from_a_broken_policy(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = LawmActPolicy.from_pretrained(place.root / FINETUNED)
    batch = {key: torch.zeros(1, *feature.shape) for key, feature in policy.config.input_features.items()}
    assert torch.isfinite(policy.select_action(batch)).all()
    policy.reset()
    with pytest.raises(NonFiniteActionError, match=r"observation\.state was not finite already"):
        policy.select_action({**batch, "observation.state": torch.full((1, 6), float("nan"))})
    # A policy that does not go through predict_action_chunk to select an action.
    monkeypatch.setattr(ACTPolicy, "select_action", lambda self, batch: torch.full((1, 6), float("inf")))
    with pytest.raises(NonFiniteActionError, match=r"6 of the 6 .* choose another checkpoint"):
        policy.select_action(batch)


@pytest.mark.parametrize(
    ("file", "tensor", "what"),
    [
        ("model.safetensors", "model.action_head.weight", "weights"),
        ("policy_postprocessor_step_0_unnormalizer_processor.safetensors", "action.std", "statistics"),
    ],
)
def test_export_refuses_what_is_not_finite(
    place: Workplace, tmp_path: Path, file: str, tensor: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = shutil.copytree(place.root / FINETUNED, tmp_path / "broken")
    tensors = load_file(broken / file)
    tensors[tensor].view(-1)[0] = float("nan")
    save_file(tensors, broken / file)
    with pytest.raises(SystemExit, match="1"):
        run_command(lawm_export.main, f"--policy.path={broken}", f"--output_dir={tmp_path / 'plain'}")
    assert f"{what} are not finite ({tensor})" in capsys.readouterr().out
    assert not (tmp_path / "plain").exists()


# --- an arm that differs from the demonstrations' -------------------------------------------------------------


def differences(place: Workplace, capsys: pytest.CaptureFixture[str], *flags: str) -> list[str]:
    """What check_setup.py says; it must not write to the servos."""
    before = len(place.follower.events())
    with pytest.raises(SystemExit, match="differences, see above"):
        place.run(CHECK, *flags)
    assert {event["event"] for event in place.follower.events(before)} <= {"ping"}
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("- ")]


def test_check_passes_on_the_arm_of_the_demonstrations_and_writes_nothing(guide: dict[str, Any]) -> None:
    assert guide["check"]
    assert {event["event"] for event in guide["check"]} == {"ping"}
    picture = cv2.imread(str(guide["place"].root / "check_setup.png"))
    assert picture.shape == (2 * (HEIGHT + 4), 2 * WIDTH, 3)


def test_check_finds_joints_units_and_rate(place: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    other = place.root / "data" / "other"
    shutil.copytree(place.root / "data" / "so101_demonstrations", other)
    info, stats = (json.loads((other / "meta" / f"{name}.json").read_text()) for name in ("info", "stats"))
    info["features"]["action"]["names"].reverse()
    info["features"]["observation.state"]["names"][0] = "waist.pos"
    stats["observation.state"]["min"][4] = -179  # the wrist's degrees; normalised it ends at -100
    stats["observation.state"]["max"][1] = stats["observation.state"]["min"][1] = 90
    for name, content in (("info", info), ("stats", stats)):
        (other / "meta" / f"{name}.json").write_text(json.dumps(content))
    found = differences(
        place,
        capsys,
        CONFIG,
        *("--demonstrations.repo_id=you/other", f"--demonstrations.root={other}"),
        *("--robot.use_degrees=false", "--fps=15"),
    )
    expected = [
        "action: the robot's joints are in another order",
        "observation.state: the robot's joints are named differently",
        "The demonstrations have 30 frames per second, --fps is 15",
        "shoulder_lift stands at",
        "wrist_roll: the demonstrations reach from -179",
    ]
    assert len(found) == len(expected)
    assert all(text in line for text, line in zip(expected, found, strict=True)), found


@pytest.mark.parametrize(
    ("streams", "changes", "expected"),
    [
        ({"front": "wrist", "wrist": "front"}, {}, ["front sees what", "wrist sees what"]),
        ({"front": "front", "hand": "wrist"}, {"width": 32}, ["pictures are (48, 32, 3)", "no such camera"]),
    ],
    ids=["swapped", "named and sized otherwise"],
)
def test_check_finds_cameras(
    place: Workplace,
    capsys: pytest.CaptureFixture[str],
    streams: dict[str, str],
    changes: dict[str, int],
    expected: list[str],
) -> None:
    cameras = {name: camera | changes for name, camera in place.follower.cameras(**streams).items()}
    found = differences(place, capsys, place.other_cameras(cameras))
    assert len(found) == len(expected)
    assert all(text in line for text, line in zip(expected, found, strict=True)), found


def test_lerobot_refuses_other_cameras_before_it_moves(place: Workplace) -> None:
    cameras = place.follower.cameras(left="front", right="wrist")
    before = len(place.follower.events())
    with pytest.raises(ValueError, match="Visual feature mismatch"):
        place.run(ROLLOUT, place.other_cameras(cameras), *SMALL["rollout"])
    assert goals(place.follower.events(before)) == []
