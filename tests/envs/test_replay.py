"""The demonstrations that a blind replay takes from a dataset; test_so101_simulated.py replays them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.datasets_on_the_spot import column, make_dataset
from lerobot.utils.constants import ACTION

from lawm_lerobot.envs.replay import demonstrated_actions


def test_demonstrations_are_whole_episodes_of_one_task(tmp_path: Path) -> None:
    root = tmp_path / "two_tasks"
    make_dataset(root, tasks=("push", "pull"), video=False)
    with pytest.raises(ValueError, match=r"several tasks \(pull; push\): choose .* --dataset.episodes"):
        demonstrated_actions("test/two", root)
    chosen = demonstrated_actions("test/two", root, [0, 2])
    actions, episodes = column(root, ACTION), column(root, "episode_index").ravel()
    for taken, episode in zip(chosen, (0, 2), strict=True):
        np.testing.assert_array_equal(taken, np.stack(actions[episodes == episode]))
    with pytest.raises(ValueError, match=r"has 4 episodes, not all of \[4\]: change --dataset.episodes"):
        demonstrated_actions("test/two", root, [4])


def test_video_has_nothing_to_replay(tmp_path: Path) -> None:
    root = tmp_path / "video"
    make_dataset(root, action_dim=None, video=False)
    with pytest.raises(
        ValueError, match=r"no actions to replay: choose demonstrations with --dataset.repo_id"
    ):
        demonstrated_actions("test/video", root)
