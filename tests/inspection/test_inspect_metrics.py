"""The metrics of an inspection, on samples whose answer is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lawm_lerobot.inspection.metrics import coded_shift, explained_variance, other_latents, probe_actions
from lawm_lerobot.inspection.probes import shift_images, shift_offsets
from lawm_lerobot.inspection.sample import Sample


def some_sample(**changes: Any) -> Sample:
    torch.manual_seed(0)
    sample = Sample(
        frames=torch.randint(0, 255, (6, 4, 3, 16, 16), dtype=torch.uint8),
        inferred=torch.randn(6, 3, 2),
        predicted=torch.randn(6, 3, 2),
        features=torch.randn(6, 5),
        untrained_latents=torch.randn(6, 3, 2),
        untrained_features=torch.randn(6, 5),
        offsets=shift_offsets(1 / 8),
        shifted_clips=torch.tensor([0, 2, 4]),
        shifted=torch.randn(9, 3, 3, 2),
        episodes=torch.tensor([0, 0, 0, 1, 1, 1]),
        tasks=["push"] * 6,
        targets={},
    )
    return replace(sample, **changes)


def policy_imagining(imagine: Callable[[Tensor, Tensor], Tensor]) -> Any:
    """Stands for a policy of which only the world model's imagination is asked."""
    world_model = SimpleNamespace(imagine=imagine)
    config = SimpleNamespace(device="cpu")
    return SimpleNamespace(config=config, pretraining=SimpleNamespace(world_model=world_model))


def test_explained_variance_of_truth_copy_and_the_middle() -> None:
    frames = torch.full((6, 4, 3, 16, 16), 100, dtype=torch.uint8)
    frames[:, 2:, :, :4] = 200  # moves from x_2 on, a quarter of the picture
    frames[:, 1:, :, 8:] += 5  # too little to count as moving
    sample = some_sample(frames=frames)
    truth = sample.pixels()[:, 1:]

    def imagine(first: Tensor, share: Tensor) -> Tensor:
        return torch.lerp(first[:, None].expand_as(truth), truth, share[:, :, :1, None, None])

    drives = {
        name: torch.full((6, 3, 2), share) for name, share in (("own", 1.0), ("half", 0.5), ("no", 0.0))
    }
    moving_share, found = explained_variance(policy_imagining(imagine), sample, drives)
    assert moving_share == pytest.approx(2 / 3 / 4)
    assert found["own"].by_horizon == [None, pytest.approx(1), pytest.approx(1)]
    assert found["half"].all == pytest.approx(0.75)
    assert found["half"].mse_over_copy == pytest.approx(0.25)
    assert found["no"].all == pytest.approx(0)


def test_a_shift_that_the_latents_tell_is_found() -> None:
    offsets = shift_offsets(1 / 8)
    shifts = torch.tensor(offsets)[:, None, None].expand(9, 3, 3, 2)  # the latents are the offset
    still = torch.randint(0, 255, (6, 1, 3, 16, 16), dtype=torch.uint8).expand(6, 4, 3, 16, 16)
    sample = some_sample(frames=still, shifted=shifts)

    def obey(first: Tensor, latents: Tensor) -> Tensor:
        rows = [shift_images(f, tuple(z[0].tolist())) for f, z in zip(first, latents, strict=True)]
        return torch.stack(rows)[:, None].expand(-1, 3, -1, -1, -1)

    def ignore(first: Tensor, latents: Tensor) -> Tensor:
        return first[:, None].expand(-1, 3, -1, -1, -1)

    assert coded_shift(policy_imagining(obey), sample) == pytest.approx(1)
    assert coded_shift(policy_imagining(ignore), sample) == 0
    blank = replace(sample, frames=torch.zeros_like(still))
    assert coded_shift(policy_imagining(obey), blank) is None


def test_wrong_latents_are_wrong_in_their_own_ways() -> None:
    latents, episodes = torch.arange(24.0).reshape(6, 4, 1), torch.tensor([0, 0, 1, 1, 1, 2])
    wrong = other_latents(latents, episodes, seed=0)
    batch = wrong["shuffled_batch"]
    assert sorted(batch.flatten().tolist()) == latents.flatten().tolist()
    assert all(not torch.equal(a, b) for a, b in zip(batch, latents, strict=True))
    assert {tuple(clip.flatten().tolist()) for clip in batch} == {
        tuple(clip.flatten().tolist()) for clip in latents
    }
    within = wrong["shuffled_episode"]
    assert not torch.equal(within, latents)
    for episode in (0, 1, 2):
        mine = episodes == episode
        assert sorted(within[mine].flatten().tolist()) == latents[mine].flatten().tolist()
    assert not wrong["zeroed"].any()


def test_probe_needs_episodes_with_actions() -> None:
    targets = {"action": torch.randn(6, 3, 2)}
    assert "2 episodes with actions" in probe_actions(some_sample(targets=targets), 0)["skipped"]
    episodes = torch.arange(6) // 2
    found = probe_actions(some_sample(targets=targets, episodes=episodes), 0)
    assert found["episodes"] == 3
    targets["action"][4:] = torch.nan  # an episode without labels
    found = probe_actions(some_sample(targets=targets, episodes=episodes), 0)
    assert "2 episodes with actions" in found["skipped"]
