"""The benchmark's quicker reading gives LeRobot's own items."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.datasets_on_the_spot import make_dataset
from lerobot.datasets import LeRobotDataset, lerobot_dataset
from lerobot.datasets.dataset_reader import DatasetReader
from PIL import PngImagePlugin

from lawm_lerobot.benchmark.reading import read_by_column


@pytest.mark.parametrize("video", [False, True])
def test_items_are_the_same_and_fewer_pictures_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, video: bool
) -> None:
    root = make_dataset(tmp_path / "data", video=video)
    decoded = []
    opened = PngImagePlugin.PngImageFile._open
    monkeypatch.setattr(
        PngImagePlugin.PngImageFile, "_open", lambda picture: (decoded.append(1), opened(picture))[1]
    )

    def items(episodes: list[int] | None) -> tuple[list[dict], int]:
        fps = LeRobotDataset("test/data", root=root).fps
        ahead = [k / fps for k in range(6)]
        deltas = {"action": ahead, "observation.state": [-1 / fps, 0.0], "observation.images.top": ahead[:2]}
        dataset = LeRobotDataset("test/data", root=root, episodes=episodes, delta_timestamps=deltas)
        decoded.clear()
        return [dataset[k] for k in (0, 5, 12, 13, len(dataset) - 1)], len(decoded)

    monkeypatch.setattr(lerobot_dataset, "DatasetReader", DatasetReader)  # put back afterwards
    plain = [items(episodes) for episodes in (None, [1, 3])]
    read_by_column()
    quick = [items(episodes) for episodes in (None, [1, 3])]
    for (theirs, before), (ours, after) in zip(plain, quick, strict=True):
        for one, other in zip(theirs, ours, strict=True):
            assert one.keys() == other.keys()
            for key, value in one.items():
                assert torch.equal(value, other[key]) if torch.is_tensor(value) else value == other[key]
        # Of each of 5 items: the row itself and 2 frames, where LeRobot decodes 6 + 2 more.
        assert (before, after) == ((0, 0) if video else (5 * 11, 5 * 3))
