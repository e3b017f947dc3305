"""The probes of an inspection, on data whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lawm_lerobot.inspection.probes import (
    between_frames,
    head_inputs,
    linear_probe,
    principal_components,
    shift_images,
    shift_variance,
)
from lawm_lerobot.inspection.verdict import _probe_remark


def test_probe_finds_a_linear_map_and_nothing_in_noise() -> None:
    torch.manual_seed(0)
    features, episodes = torch.randn(200, 5), torch.arange(200) // 20
    targets = features @ torch.randn(5, 3) + 7
    targets[:, 2] = 3  # constant, so that nothing of it can be explained
    score = linear_probe(features, targets, episodes)
    assert score.r2 > 0.999
    assert np.isnan(score.per_dimension).tolist() == [False, False, True]
    noise = linear_probe(torch.randn(200, 5), targets, episodes)
    assert noise.r2 < 0.05


def test_few_episodes_do_not_show_who_tells_more() -> None:
    torch.manual_seed(0)
    weights = torch.randn(5, 2)
    scores = {}
    for count in (4, 40):
        features, episodes = torch.randn(20 * count, 5), torch.arange(20 * count) // 20
        # Each episode is decoded well or badly as a whole, as one with another view or another load is.
        noise = 0.2 + 2.5 * (episodes % 2 == 0)[:, None]
        targets = features @ weights + noise * torch.randn(20 * count, 2)
        scores[count] = linear_probe(features, targets, episodes)
    few, many = scores[4].interval, scores[40].interval
    assert few[1] - few[0] > 2 * (many[1] - many[0])
    assert many[0] < scores[40].r2 < many[1] < scores[40].r2 + 0.15
    remarks = {}
    for count, score in scores.items():
        ours = {"r2": score.r2, "r2_interval": score.interval}
        baseline = {"r2": score.r2 - 0.2, "r2_interval": (0.0, 1.0)}
        remarks[count] = _probe_remark("action", {"latents": ours, "untrained": baseline}, count)
    assert "latents are not shown by 4 episodes to tell more or less than the best baseline" in remarks[4]
    assert "latents tell more than the best baseline" in remarks[40]
    assert f"(95% {many[0]:.2f} to {many[1]:.2f})" in remarks[40]


def test_probe_is_split_by_episode() -> None:
    # What only tells which episode it is explains everything within the episodes and nothing of a new one.
    torch.manual_seed(0)
    episodes = torch.arange(200) // 20
    features = torch.eye(10)[episodes] + 0.01 * torch.randn(200, 10)
    targets = torch.randn(10, 2)[episodes]
    within = torch.linalg.lstsq(features, targets).solution
    assert (features @ within - targets).square().mean() < 0.01
    assert linear_probe(features, targets, episodes).r2 < 0


def test_shift_repeats_the_edge() -> None:
    image = torch.arange(4.0).repeat(4, 1)  # columns 0 1 2 3
    assert shift_images(image, (0.0, 0.25))[0].tolist() == [0, 0, 1, 2]
    assert shift_images(image, (0.0, -0.25))[0].tolist() == [1, 2, 3, 3]
    assert shift_images(image.T, (0.25, 0.0))[:, 0].tolist() == [0, 0, 1, 2]


def test_variance_is_divided_between_shift_and_content() -> None:
    torch.manual_seed(0)
    shift, content = torch.randn(9, 1, 1, 2), torch.randn(1, 50, 4, 2)
    only_content = shift_variance(content.expand(9, 50, 4, 2))
    assert only_content["content"] == pytest.approx(1)
    assert only_content["total_std"] == pytest.approx(1, abs=0.1)
    both = shift_variance(shift + content)
    expected = float(shift.var((0, 1, 2), unbiased=False).sum())
    expected /= expected + float(content.var((0, 1, 2), unbiased=False).sum())
    assert both["shift"] == pytest.approx(expected, abs=1e-5)
    assert both["interaction"] == pytest.approx(0, abs=1e-5)


def test_actions_between_frames() -> None:
    rows = np.arange(5, dtype=np.float32).reshape(1, 5, 1) ** 2  # 0 1 4 9 16; frames at 0, 2, 4
    targets = between_frames(rows, horizon=2, stride=2)
    assert targets["action"].flatten().tolist() == [0.5, 6.5]
    assert targets["action_change"].flatten().tolist() == [4, 12]


def test_principal_components_are_ordered_and_few_enough() -> None:
    torch.manual_seed(0)
    rows = torch.randn(50, 6) * torch.tensor([10.0, 5, 1, 0.1, 0.1, 0.1])
    found = principal_components(rows, 2)
    assert found.shape == (50, 2)
    np.testing.assert_allclose(found.std(0), rows.std(0)[:2], rtol=0.05)
    assert principal_components(rows[:3], 6).shape == (3, 2)


def test_features_are_what_enters_the_output_layer_of_any_policy() -> None:
    torch.manual_seed(0)
    linear, conv = nn.Linear(4, 2), nn.Conv1d(4, 2, 1)
    x = torch.randn(3, 5, 4)  # (B,chunk,D)
    for policy, head, inputs in ((nn.Sequential(linear), linear.weight, x), (conv, conv.weight, x.mT)):
        with head_inputs(policy, head) as features:
            policy(torch.zeros_like(inputs))
            policy(inputs)  # the last of several denoising steps counts
        assert torch.allclose(features(), x.mean(1))
        with torch.no_grad():
            policy(torch.zeros_like(inputs))  # heard no more
        assert torch.allclose(features(), x.mean(1))
