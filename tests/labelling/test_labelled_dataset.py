"""The dataset that `lawm-label-actions` writes: LeRobot reads it, and its numbers and statistics are those of its rows."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from helpers.datasets_on_the_spot import add_language, column, make_dataset
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lawm_lerobot.labelling.dataset import CONFIDENCE, CONFIDENCE_FEATURE, copies_for_share, copy_with, merge
from lawm_lerobot.labelling.recordings import features_to_drop


def test_episodes_whose_statistics_differ_in_precision_stand_in_one_column(tmp_path):
    # LeRobot gives the quantiles of constant values in double precision, others of 20 frames in single.
    lengths = (20, 20, 120)
    source = make_dataset(tmp_path / "videos", lengths=lengths, action_dim=None)
    dataset = LeRobotDataset("test/videos", root=source)
    actions = np.random.default_rng(0).normal(size=(sum(lengths), 2)).astype(np.float32)
    actions[:20] = 0.5
    feature = {"dtype": "float32", "shape": (2,), "names": None}
    root, confidence = tmp_path / "labelled", np.linspace(0, 1, len(actions), dtype=np.float32)
    added = {"action": (actions, feature), CONFIDENCE: (confidence[:, None], CONFIDENCE_FEATURE)}
    copy_with(dataset, added, [0, 1, 2], [], "arm", root)
    labelled = LeRobotDataset("test/videos", root=root)
    np.testing.assert_allclose(labelled.meta.stats["action"]["max"], actions.max(0), rtol=1e-6)
    np.testing.assert_array_equal(column(root, "action"), actions)


def test_language_columns_stay_as_they_are(tmp_path):
    videos = add_language(make_dataset(tmp_path / "videos", lengths=(12, 9, 10), action_dim=None))
    dataset = LeRobotDataset("test/videos", root=videos)
    actions = np.arange(62, dtype=np.float32).reshape(31, 2)
    added = {"action": (actions, {"dtype": "float32", "shape": (2,), "names": None})}
    copy_with(dataset, added, [1, 2], [], "arm", tmp_path / "copy")
    copied = LeRobotDataset("test/copy", root=tmp_path / "copy")
    assert copied.meta.total_frames == len(copied) == 19
    np.testing.assert_array_equal(column(tmp_path / "copy", "action"), actions[12:])
    for key in ("language_persistent", "language_events"):
        assert key in copied.meta.features
        ours, theirs = (
            pq.read_table(root / "data", columns=[key])[key] for root in (tmp_path / "copy", videos)
        )
        assert ours.to_pylist() == theirs.to_pylist()[12:] and ours.type == theirs.type
    for step in (0, 18):
        assert torch.equal(
            copied[step]["observation.images.top"], dataset[12 + step]["observation.images.top"]
        )
        assert int(copied[step]["index"]) == step
    stats = [LeRobotDataset("test/copy", root=root).meta.stats for root in (tmp_path / "copy", videos)]
    assert (
        stats[0]["observation.images.top"]["mean"].shape == stats[1]["observation.images.top"]["mean"].shape
    )
    np.testing.assert_allclose(stats[0]["action"]["mean"], actions[12:].mean(0))
    # LeRobot's aggregation cannot keep them, so a merged dataset does without.
    features = LeRobotDataset("test/videos", root=videos).meta.features
    dropped, theirs = features_to_drop(features, copied.meta.features)
    assert dropped == theirs == ["language_events", "language_persistent"]


@pytest.mark.parametrize(
    ("share", "demonstrations", "corpus", "copies"),
    [
        (0.5, 100, 1000, 10),
        (0.5, 300, 1000, 3),
        (0.75, 100, 1000, 30),
        (0.5, 2000, 1000, 1),
        (0.0, 100, 1000, 1),
        (None, 100, 1000, 1),
    ],
)
def test_the_copies_that_a_share_needs(share, demonstrations, corpus, copies):
    assert copies_for_share(share, demonstrations, corpus) == copies


@pytest.mark.parametrize("video", [True, False], ids=["video", "pictures"])
def test_copies_have_numbers_and_statistics_of_their_own_and_share_pictures(tmp_path, video):
    lengths = (12, 9, 10, 11)
    source = make_dataset(tmp_path / "demos", lengths=lengths, video=video)
    plain = LeRobotDataset("test/demos", root=source)
    info = json.loads((source / "meta" / "info.json").read_text())
    info["data_files_size_in_mb"] = 0.02  # so that the copies take several files
    (source / "meta" / "info.json").write_text(json.dumps(info))
    certain = {CONFIDENCE: (np.ones((sum(lengths), 1), np.float32), CONFIDENCE_FEATURE)}
    # As they are merged, after a dataset of another length.
    one, other = tmp_path / "one", tmp_path / "other"
    copy_with(plain, certain, [3], [], "arm", one)
    copy_with(LeRobotDataset("test/demos", root=source), certain, [0, 2], [], "arm", other, copies=3)
    for root in (one, other):
        assert LeRobotDataset("test/copy", root=root).meta.robot_type == "arm"
    assert (len(list((other / "data").rglob("*.parquet"))) > 1) is not video
    merge("test/merged", [one, other], tmp_path / "merged")

    dataset = LeRobotDataset("test/merged", root=tmp_path / "merged")
    old = [3, 0, 0, 0, 2, 2, 2]
    assert dataset.meta.total_episodes == len(old) and len(dataset) == 11 + 3 * 22
    starts = np.cumsum([0, *(lengths[episode] for episode in old)])
    for new, episode in enumerate(old):
        item, first = dataset[int(starts[new]) + 5], sum(lengths[:episode])
        assert int(item["episode_index"]) == new and int(item["index"]) == starts[new] + 5
        for key in ("observation.images.top", "observation.state", "action", "timestamp"):
            assert torch.equal(item[key], plain[first + 5][key]), key
    only = LeRobotDataset("test/merged", root=tmp_path / "merged", episodes=[2, 5])
    assert len(only) == 22 and torch.equal(only[0]["action"], plain[0]["action"])
    assert len(list((tmp_path / "merged").rglob("*.mp4"))) == (2 if video else 0)

    actions, stats = column(tmp_path / "merged", "action"), dataset.meta.stats
    for name in ("mean", "std", "min", "max"):
        np.testing.assert_allclose(stats["action"][name], getattr(actions, name)(0), rtol=1e-5, atol=1e-6)
    assert stats["action"]["count"] == len(dataset)
    once = LeRobotDataset("test/demos", root=source).meta.stats["observation.images.top"]
    assert np.abs(stats["observation.images.top"]["mean"] - once["mean"]).max() < 0.05
    (file,) = (tmp_path / "merged" / "meta" / "episodes").rglob("*.parquet")
    rows = pq.read_table(file).to_pylist()
    assert [row["stats/index/min"][0] for row in rows] == starts[:-1].tolist()
    assert [row["stats/episode_index/max"][0] for row in rows] == list(range(len(old)))


def test_the_statistics_of_a_whole_dataset_count_its_copies(tmp_path):
    source = make_dataset(tmp_path / "demos", lengths=(12, 9))
    dataset = LeRobotDataset("test/demos", root=source)
    copy_with(dataset, {}, [0, 1], [], "arm", tmp_path / "copy", copies=4)
    found, once = LeRobotDataset("test/copy", root=tmp_path / "copy").meta.stats, dataset.meta.stats
    for key in ("action", "observation.images.top"):
        assert found[key]["count"] == 4 * once[key]["count"]
        np.testing.assert_allclose(found[key]["q01"], once[key]["q01"])
    assert found["index"]["max"] == 4 * 21 - 1
