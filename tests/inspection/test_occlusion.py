"""Where a policy looks: painting over a patch tells, and the picture shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.asked_policies import WrittenPolicy, frames_of, unprocessed
from helpers.datasets_on_the_spot import make_dataset
from PIL import Image
from torch import Tensor

from lawm_lerobot.inspection.looking import measure_pairs, take_pairs
from lawm_lerobot.inspection.occlusion import occlude, paint_over, shown_frames
from lawm_lerobot.inspection.plots import draw_looking
from lawm_lerobot.policies.common.asking import AskedPolicy

CORNER = "observation.images.top"


def by_corner(batch: dict[str, Any]) -> Tensor:
    """The mean of the lower right corner of one camera: 2 x 2 of the 8 x 8 patches."""
    return 100 * batch[CORNER][..., 24:, 24:].mean((1, 2, 3))[:, None, None]


def test_heat_lies_where_the_policy_looks(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "scenes", cameras=("top", "wrist"), lengths=(6,) * 4)
    asked = AskedPolicy(WrittenPolicy(by_corner, ("top", "wrist")).eval(), unprocessed)
    pairs = take_pairs(asked, frames_of(root), 16, 0)
    looking = measure_pairs(asked, pairs, 0)
    occlusions = occlude(asked, pairs, looking.distance, 0)
    change = occlusions.changes[CORNER]
    assert change.shape == (6, 8, 8)
    assert set(occlusions.episodes) == {0, 1, 2, 3}
    assert (change[:, 6:, 6:].mean((1, 2)) > 0.01).all()
    change[:, 6:, 6:] = 0
    assert np.abs(change).max() < 1e-4
    assert np.abs(occlusions.changes["observation.images.wrist"]).max() < 1e-4

    file = draw_looking(looking, occlude(asked, pairs, looking.distance, 0), tmp_path / "looking.png")
    image = np.asarray(Image.open(file).convert("RGB")).astype(int)
    assert image.std() > 5
    # Only heat has colour in the panels, which are left of the colour bar and of the uses.
    panels = image[:, : int(image.shape[1] * 0.7)]
    coloured = np.argwhere((panels.max(-1) - panels.min(-1)) > 60)
    assert len(coloured) > 100
    # All of it lies in one row of panels, the upper one.
    assert coloured[:, 0].max() < image.shape[0] / 2 + 20


def test_a_patch_is_painted_in_the_pictures_mean() -> None:
    picture = torch.arange(2 * 1 * 3 * 16 * 16, dtype=torch.float32).view(2, 1, 3, 16, 16)
    painted = paint_over(picture, 0, 7)
    assert torch.equal(painted[..., 2:, :], picture[..., 2:, :])
    assert torch.equal(painted[..., :14], picture[..., :14])
    assert torch.allclose(painted[..., :2, 14:], picture.mean((-2, -1), keepdim=True))


@pytest.mark.parametrize(("episodes", "expected"), [(1, 1), (3, 3), (40, 6)])
def test_shown_frames_are_of_several_episodes_and_moments(episodes: int, expected: int) -> None:
    owners = np.repeat(np.arange(episodes), 12)
    chosen = shown_frames(owners)
    assert len(chosen) == len(set(chosen)) == 6
    assert len(set(owners[chosen])) == expected
    assert len({index % 12 for index in chosen}) > 3
