"""Looking at what a pretraining checkpoint imagines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.datasets_on_the_spot import make_dataset
from helpers.training import finetune, pretrain
from PIL import Image

from lawm_lerobot.policies.common.imagination import latent_health, save_imagination_strip, telling_clips
from lawm_lerobot.policies.common.pretraining_checkpoint import (
    load_pretraining_checkpoint,
    pretraining_batches,
)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("imagination") / "video"
    return make_dataset(root, lengths=(14, 14), action_dim=None, state_dim=None)


@pytest.fixture(scope="module", params=["inverse_dynamics", "policy"])
def checkpoint(request: pytest.FixtureRequest, video: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    flag = f"--policy.latent_action.source={request.param}"
    return pretrain(video, tmp_path_factory.mktemp("run") / "pre", flag).checkpoint()


def test_picture_has_a_panel_for_every_frame(checkpoint: Path, video: Path, tmp_path: Path) -> None:
    policy, preprocessor = load_pretraining_checkpoint(checkpoint)
    batch = next(pretraining_batches(policy, preprocessor, "test/video", video, clips=12))
    file = save_imagination_strip(policy, batch, tmp_path / "strip.png", rows=2)
    image = np.asarray(Image.open(file).convert("RGB")).astype(int)
    # The square of `make_dataset` is the only yellow there is: it stands in each of the 5 real frames of
    # both clips, and in x_0 of every imagined strip.
    yellow = (image[..., 0] > 180) & (image[..., 1] > 150) & (image[..., 2] < 110)
    columns = np.flatnonzero(np.diff(np.concatenate([[0], yellow.any(0).astype(int)])) == 1)
    assert len(columns) >= 5
    assert yellow.sum() > 1000


def test_health_of_a_checkpoint_is_finite(checkpoint: Path, video: Path) -> None:
    policy, preprocessor = load_pretraining_checkpoint(checkpoint)
    batches = pretraining_batches(policy, preprocessor, "test/video", video, clips=8, batch_size=4)
    health = latent_health(policy, batches)
    assert set(health) == {"latent_std", "latent_rank", "shuffle_ratio", "mse_over_copy"}
    assert all(np.isfinite(value) for value in health.values())


def test_clips_are_the_same_from_video_and_from_pictures(
    checkpoint: Path, video: Path, tmp_path: Path
) -> None:
    policy, preprocessor = load_pretraining_checkpoint(checkpoint)
    pictures = make_dataset(tmp_path / "p", lengths=(14, 14), action_dim=None, state_dim=None, video=False)
    frames = [
        policy.clip(next(pretraining_batches(policy, preprocessor, "test/video", root, clips=4))).frames
        for root in (video, pictures)
    ]
    assert (frames[0] - frames[1]).abs().mean() < 0.05  # what the compression of the noisy table changes


def test_a_finetuned_checkpoint_imagines_nothing(checkpoint: Path, tmp_path: Path) -> None:
    labelled = make_dataset(tmp_path / "labelled")
    finetuned = finetune(checkpoint, labelled, tmp_path / "fine", steps=1).checkpoint()
    with pytest.raises(
        ValueError, match="of stage finetune, expected a lawm_\\* pretraining checkpoint.*--policy.path"
    ):
        load_pretraining_checkpoint(finetuned)


def test_shown_clips_move_are_whole_and_differ() -> None:
    frames = torch.zeros(6, 3, 3, 8, 8)
    frames[:4, 1:] += torch.tensor([0.9, 0.8, 0.7, 0.6])[:, None, None, None, None]
    valid = torch.ones(6, 2, dtype=torch.bool)
    valid[0, 1] = False  # moves most, but runs past the end of its episode
    latents = torch.tensor([9.0, 0.0, 0.1, 1.0, 5.0, 7.0])[:, None, None].expand(6, 2, 1)
    chosen, other = telling_clips(frames, valid, latents, 2)
    assert chosen.tolist() == [1, 3]  # of the movers 1, 2, 3: the first, and the one least like it
    assert other.tolist() == [3, 1]
