"""Policies that move the arm from elsewhere: LeRobot's policy server, and real-time chunking beside the control loop."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.datasets_on_the_spot import make_dataset
from helpers.so101 import GUIDE, Workplace, assert_goals_follow, commands, emulated_arm, goals, torque
from helpers.tiny_policies import TINY
from helpers.training import TINY_ACT, lerobot_train, run_command
from lerobot.rollout.inference import rtc

from lawm_lerobot.scripts import lawm_export

ROLLOUT = ["lerobot-rollout", "--config_path=examples/so101/rollout.yaml"]
CHUNK = 10
LIMIT = 10  # max_relative_target of the guide's files


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    root = tmp_path_factory.mktemp("serving")
    with emulated_arm(root / "follower.jsonl") as follower:
        place = Workplace(root, follower)
        place.prepare()
        yield place


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "arm"
    return make_dataset(root, cameras=("front", "wrist"), state_dim=6, action_dim=6, lengths=(14, 14))


@pytest.fixture(scope="module")
def act(demonstrations: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lerobot_train(
        demonstrations,
        tmp_path_factory.mktemp("act") / "finetuned",
        *("--policy.type=lawm_act", "--policy.stage=finetune", *TINY_ACT),
        *(f"--policy.chunk_size={CHUNK}", f"--policy.n_action_steps={CHUNK}"),
    ).checkpoint()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# --- LeRobot's policy server ----------------------------------------------------------------------------------


def test_the_policy_server_serves_the_export(
    place: Workplace, act: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server_words, client_words = (words for words, _ in commands(GUIDE / "README.md") if "-m" in words)
    port = free_port()
    server_log = place.root / "server.log"
    with server_log.open("w") as log:
        server = subprocess.Popen(
            [sys.executable, *server_words[1:], f"--port={port}"], cwd=place.root, stdout=log, stderr=log
        )
    try:
        exported = place.root / "outputs" / "so101_act"
        run_command(lawm_export.main, f"--policy.path={act}", f"--output_dir={exported}")

        with monkeypatch.context() as patch:
            patch.chdir(place.root)  # where its import makes a folder for logs
            from lerobot.async_inference.robot_client import RobotClient
        actions: list[np.ndarray] = []
        to_action = RobotClient._action_tensor_to_action_dict

        def noted(client: RobotClient, action: torch.Tensor) -> dict[str, float]:
            actions.append(action.numpy())
            if len(actions) > CHUNK:  # Ctrl-C in the middle of a remote call can leave gRPC locked
                client.shutdown_event.set()
            return to_action(client, action)

        monkeypatch.setattr(RobotClient, "_action_tensor_to_action_dict", noted)
        await_answer(server, port)
        before = len(place.follower.events())
        place.run(client_words, f"--server_address=127.0.0.1:{port}", f"--actions_per_chunk={CHUNK}")
    finally:
        server.terminate()
        server.wait(timeout=120)

    events = place.follower.events(before)
    assert len(goals(events)) > CHUNK, "more than the first chunk"
    assert_goals_follow(actions, goals(events), LIMIT)
    assert torque(events)[-6:] == [(n, 0) for n in range(1, 7)]
    log_text = server_log.read_text()
    assert "Policy type: act" in log_text
    assert "lawm" not in log_text


def await_answer(server: subprocess.Popen, port: int) -> None:
    """Until the server listens; it has LeRobot to import first."""
    while server.poll() is None:
        with contextlib.suppress(OSError):
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        time.sleep(0.2)
    raise AssertionError("the policy server ended before it listened")


# --- real-time chunking ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smolvla(demonstrations: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("smolvla")
    with pytest.MonkeyPatch.context() as patch:
        yield lerobot_train(
            demonstrations,
            root / "finetuned",
            *("--policy.type=lawm_smolvla", "--policy.stage=finetune", "--policy.device=cpu"),
            *TINY["smolvla"].make(root, patch),
            *(f"--policy.chunk_size={CHUNK}", f"--policy.n_action_steps={CHUNK}"),
        ).checkpoint()


RTC = ("--inference.type=rtc", "--inference.queue_threshold=5", "--inference.rtc.execution_horizon=5")
ENDLESS = ("--duration=0", "--device=cpu", "--return_to_initial_position=false")


def test_real_time_chunking_works_through_the_wrapper(place: Workplace, smolvla: Path) -> None:
    log, events = place.run(ROLLOUT, f"--policy.path={smolvla}", *RTC, *ENDLESS, goals=CHUNK + 2)
    assert "RTC inference thread started" in log
    assert "RTC inference error" not in log
    assert len(goals(events)) > CHUNK, "more than the first chunk"


def test_real_time_chunking_drops_a_chunk_that_is_not_finite(
    place: Workplace, smolvla: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lerobot.policies.smolvla.modeling_smolvla import VLAFlowMatching

    monkeypatch.setattr(
        VLAFlowMatching,
        "sample_actions",
        lambda self, images, *args, **kwargs: torch.full((1, CHUNK, 32), torch.nan),
    )
    monkeypatch.setattr(rtc, "_RTC_ERROR_RETRY_DELAY_S", 0.01)
    log, events = place.run(ROLLOUT, f"--policy.path={smolvla}", *RTC, *ENDLESS)  # gives up by itself
    assert "not finite, and none of them was sent to the robot" in log
    assert goals(events) == []
    assert torque(events)[-6:] == [(n, 0) for n in range(1, 7)]


def test_real_time_chunking_is_refused_where_the_wrapped_policy_has_none(place: Workplace, act: Path) -> None:
    before = len(place.follower.events())
    with pytest.raises(ValueError, match="RTC inference is not supported by policy type 'lawm_act'"):
        place.run(ROLLOUT, f"--policy.path={act}", *RTC, *ENDLESS)
    assert place.follower.events(before) == []
