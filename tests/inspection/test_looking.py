"""How much a policy looks: uses and verdicts of policies that look as they were made to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.asked_policies import WrittenPolicy, brightness, frames_of, unprocessed, untrained
from helpers.datasets_on_the_spot import make_dataset
from helpers.inspecting import TASKS
from helpers.tiny_policies import make_diffusion, make_multi_task_dit
from helpers.training import TINY_ACT
from torch import Tensor, nn

from lawm_lerobot.inspection.looking import Looking, Use, judge, measure, partners

STATE = "observation.state"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("looking") / "scenes"
    return make_dataset(root, cameras=("top", "wrist"), lengths=(6,) * 4, tasks=TASKS)


def looking(scenes: Path, act: Any, cameras: tuple[str, ...] = ("top", "wrist"), **options: Any) -> Looking:
    return measure(WrittenPolicy(act, cameras, **options), unprocessed, frames_of(scenes), 16)


def by_state(batch: dict[str, Any]) -> Tensor:
    return batch[STATE][:, None]  # (B,1,S)


def by_task(batch: dict[str, Any]) -> Tensor:
    return torch.tensor([float(text == TASKS[0]) for text in batch["task"]])[:, None, None]


@pytest.mark.parametrize(
    ("act", "verdict", "uses"),
    [
        (brightness, "camera_unused", (1, 0, 1, 0, 0)),
        (lambda b: brightness(b) + brightness(b, "wrist"), "looks", (0.5, 0.5, 1, 0, 0)),
        (by_state, "state_only", (0, 0, 0, 1, 0)),
        (by_task, "blind", (0, 0, 0, 0, 1)),
        (lambda b: torch.ones(len(b["task"]), 2, 3), "constant", (0, 0, 0, 0, 0)),
    ],
    ids=["one camera", "both cameras", "state", "task", "nothing"],
)
def test_what_moves_the_actions_is_used(
    scenes: Path, act: Any, verdict: str, uses: tuple[float, ...]
) -> None:
    found = looking(scenes, lambda batch: 100 * act(batch))
    assert found.verdict == verdict, found
    assert (found.frames, found.episodes) == (16, 4)
    measured = [*found.cameras.values(), found.pictures, found.state, found.task]
    for use, expected in zip(measured, uses, strict=True):
        # What each of two pictures adds is about half of the whole.
        assert use.use == pytest.approx(expected, abs=0.3 if expected == 0.5 else 1e-6)
        assert use.low - 1e-6 <= use.use <= use.high + 1e-6
    if verdict == "camera_unused":
        assert "does not use observation.images.wrist" in found.sentence
        assert "--policy.input_features" in found.sentence
    if verdict == "state_only":
        assert "--policy.state_dropout=0.5" in found.sentence
        assert "--policy.use_state=false" in found.sentence


def test_a_policy_without_state_has_no_use_of_it(scenes: Path) -> None:
    found = looking(scenes, lambda batch: 100 * brightness(batch), ("top",), state=False)
    assert found.verdict == "looks"
    assert found.state is None
    assert found.pictures == found.cameras["observation.images.top"]
    assert found.to_json()["state"] is None


def test_noise_moves_nothing(scenes: Path) -> None:
    """A policy that samples starts every chunk of a pair from the same noise, and another run from the same again."""

    def act(batch: dict[str, Any]) -> Tensor:
        return 100 * by_state(batch) + torch.randn(len(batch["task"]), 1, 2)

    before = torch.random.get_rng_state()
    found = looking(scenes, act)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert found.state.use == pytest.approx(1, abs=1e-6)
    assert found.pictures.use == pytest.approx(0, abs=1e-6)
    assert looking(scenes, act) == found


def test_partners_are_of_another_episode_where_there_is_one() -> None:
    episodes = np.repeat([3, 5, 9], [10, 2, 4])
    chosen = partners(episodes, seed=1)
    assert (episodes[chosen] != episodes).all()
    assert (partners(episodes, seed=1) == chosen).all()
    assert (partners(episodes, seed=2) != chosen).any()
    assert list(partners(np.zeros(6), seed=0)) == [3, 4, 5, 0, 1, 2]


def test_training_mode_comes_back(scenes: Path) -> None:
    policy = WrittenPolicy(brightness)
    policy.train()
    measure(policy, unprocessed, frames_of(scenes, episodes=[1, 2]), 4)
    assert policy.training


def test_cameras_that_tell_the_same_are_used_together() -> None:
    little, much = Use(0.05, 0.04, 0.06), Use(0.4, 0.3, 0.5)
    verdict, _ = judge({"a": little, "b": little}, much, None, 1.0)
    assert verdict == "looks"
    assert judge({"a": little, "b": much}, much, None, 1.0)[0] == "camera_unused"
    assert judge({"a": little}, little, much, 1.0)[0] == "state_only"
    some, most = Use(0.27, 0.22, 0.33), Use(0.8, 0.7, 0.9)
    assert judge({"a": some}, some, most, 1.0)[0] == "state_only"
    assert judge({"a": most}, most, some, 1.0)[0] == judge({"a": some}, some, None, 1.0)[0] == "looks"
    assert judge({"a": little}, little, little, 1.0)[0] == "blind"
    assert judge({"a": much}, much, much, 0.001)[0] == "constant"


def loud(head: nn.Module) -> None:
    """Random weights move the actions too little to count."""
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(30)


@torch.no_grad()
def silence(policy: nn.Module, *patterns: str) -> None:
    """Zero the weights that carry an input into a policy."""
    found = [parameter for name, parameter in policy.named_parameters() if name.startswith(patterns)]
    assert found
    for parameter in found:
        parameter.zero_()


def test_act_blinded_on_purpose(scenes: Path) -> None:
    asked = untrained("act", scenes, *TINY_ACT)
    dataset = frames_of(scenes)
    loud(asked.policy.model.action_head)
    whole = measure(asked.policy, asked.preprocessor, dataset, 8)
    assert whole.pictures.use > 0.01, whole
    silence(asked.policy, "model.encoder_robot_state_input_proj")
    seeing = measure(asked.policy, asked.preprocessor, dataset, 8)
    assert seeing.verdict == "looks", seeing
    assert seeing.state.use == pytest.approx(0, abs=1e-4)
    asked = untrained("act", scenes, *TINY_ACT)
    loud(asked.policy.model.action_head)
    silence(asked.policy, "model.encoder_img_feat_input_proj")
    blind = measure(asked.policy, asked.preprocessor, dataset, 8)
    assert blind.verdict == "state_only", blind
    assert blind.pictures.use == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "make", "eyes"),
    [
        ("diffusion", make_diffusion, "diffusion.rgb_encoder"),
        ("multi_task_dit", make_multi_task_dit, "observation_encoder.vision_encoder"),
    ],
)
def test_policies_with_a_history_and_noise(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, make: Any, eyes: str
) -> None:
    asked = untrained(kind, scenes, *make(tmp_path, monkeypatch), "--policy.num_inference_steps=2")
    assert asked.history == 2
    for parameter in asked.policy.parameters():
        if not parameter.any():  # What is zero before training would hide everything behind it.
            nn.init.normal_(parameter, std=0.3)
    deltas = {key: [-0.1, 0.0] for key in asked.features}
    # Read with the policy's history, or without: then the present stands for it.
    for dataset in (frames_of(scenes), frames_of(scenes, delta_timestamps=deltas)):
        found = measure(asked.policy, asked.preprocessor, dataset, 4)
        assert found.pictures.use > 0.01, found
    silence(asked.policy, eyes)
    blind = measure(asked.policy, asked.preprocessor, dataset, 4)
    # With the noise held fixed, nothing is left of it.
    assert blind.pictures.use == pytest.approx(0, abs=1e-4)
    assert blind.state.use > 0.5


def test_policies_that_cannot_look(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no camera among its inputs \(observation.state\).*--policy.path"):
        looking(scenes, by_state, ())
    single = make_dataset(tmp_path / "single", cameras=("top",), lengths=(1,))
    with pytest.raises(ValueError, match="has 1 frame, expected at least two"):
        looking(single, brightness, ("top",))
    with pytest.raises(ValueError, match="not finite"):
        looking(scenes, lambda batch: brightness(batch) / 0)
