"""`lawm-label-actions`: actions decoded from video, judged on held-out demonstrations, written as a LeRobotDataset."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from helpers.datasets_on_the_spot import add_language, change_column, described_otherwise, make_dataset
from helpers.training import TINY_ACT, lerobot_train, pretrain, run_command
from lerobot.datasets.dataset_tools import delete_episodes
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lawm_lerobot.labelling import dataset as dataset_module
from lawm_lerobot.labelling.configuration import READOUT
from lawm_lerobot.labelling.dataset import CONFIDENCE, CONFIDENCE_FEATURE, copy_with
from lawm_lerobot.labelling.decoders import (
    Confidence,
    Decoded,
    Demonstration,
    FittedDecoder,
    HeldOut,
    over_transitions,
)
from lawm_lerobot.labelling.latent_readout import fit_latent_readout, latent_features
from lawm_lerobot.labelling.recordings import features_to_drop
from lawm_lerobot.labelling.run import judge, unseen_demonstrations
from lawm_lerobot.labels.configuration import LabelsConfig
from lawm_lerobot.labels.demonstrations import digest
from lawm_lerobot.labels.episodes import EpisodeReader
from lawm_lerobot.scripts.lawm_label_actions import main
from lawm_lerobot.statistics.ridge import overall_r2

EPISODES, LENGTH = 5, 20
#: Enough for a square that moves by the action, and quick.
QUICK = (
    "--image_size=32",
    "--folds=2",
    "--inverse_model.size=test",
    "--inverse_model.stride=1",
    "--inverse_model.steps=90",
    "--inverse_model.eval_freq=45",
    "--inverse_model.lr=3e-3",
    "--device=cpu",
)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Videos without actions, the same with the actions that were withheld, and demonstrations with a camera more."""
    root = tmp_path_factory.mktemp("datasets")
    lengths = (LENGTH,) * EPISODES
    return {
        "videos": make_dataset(root / "videos", lengths=lengths, action_dim=None),
        "withheld": make_dataset(root / "withheld", lengths=lengths),
        "demos": make_dataset(root / "demos", cameras=("top", "wrist"), lengths=(LENGTH,) * 8, seed=5),
        "scrambled": make_dataset(root / "scrambled", lengths=(LENGTH,) * 4, seed=5, scrambled_actions=True),
    }


@pytest.fixture(scope="module")
def checkpoint(datasets, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pretrained with the actions of six of the eight demonstrations."""
    flags = [
        "--policy.latent_action.stride=1",
        "--policy.pretraining_lr=2e-3",
        "--policy.labels.repo_id=test/demos",
        f"--policy.labels.root={datasets['demos']}",
        "--policy.labels.episodes=[0,1,2,3,4,5]",
        "--policy.labels.weight=10",
    ]
    return pretrain(datasets["videos"], tmp_path_factory.mktemp("run") / "run", *flags, steps=30).checkpoint()


def run_label_actions(videos: Path, demos: Path, output: Path, *flags: str | Path) -> tuple[int, str]:
    """The command's exit code and its log."""
    codes: list[int] = []
    log = run_command(
        lambda: codes.append(main()),
        f"--dataset.repo_id=test/{videos.name}",
        f"--dataset.root={videos}",
        f"--labels.repo_id=test/{demos.name}",
        f"--labels.root={demos}",
        "--output_repo_id=test/labelled",
        f"--output_root={output}",
        *QUICK,
        *flags,
    )
    return codes[0], log


def label(videos: Path, demos: Path, output: Path, *flags: str | Path) -> str:
    code, log = run_label_actions(videos, demos, output, *flags)
    assert code == 0, log
    return log


def refusal(*arguments: str | Path, code: int = 1) -> str:
    """The one sentence with which the command refuses."""
    found, log = run_label_actions(*arguments)
    errors = [line for line in log.splitlines() if line.startswith("error: ")]
    assert found == code and len(errors) == 1 and log.splitlines()[-1] == errors[0], log
    return errors[0]


def column(root: Path, key: str) -> np.ndarray:
    return EpisodeReader(f"test/{root.name}", root).column(key)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean([np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(a.shape[1])]))


def test_the_inverse_model_labels_and_merges(datasets, tmp_path):
    log = label(datasets["videos"], datasets["demos"], tmp_path / "out", "--merge=true")
    frames = EPISODES * LENGTH
    report = json.loads((tmp_path / "out" / "label_report.json").read_text())
    assert report["decoder"] == "inverse_model" and list(report["decoders"]) == ["inverse_model"]
    metrics = report["decoders"]["inverse_model"]
    assert metrics["held_out_r2"] > 0.2 and list(metrics["held_out_r2_per_dimension"]) == [
        "joint_0",
        "joint_1",
    ]
    assert (tmp_path / "out" / "label_report.png").stat().st_size > 0
    assert "observation.images.wrist is in one of the two datasets only" in log

    dataset = LeRobotDataset("test/out", root=tmp_path / "out")
    assert dataset.meta.total_episodes == EPISODES + 8 and len(dataset) == frames + 8 * LENGTH
    assert dataset.meta.features["action"]["names"] == ["joint_0", "joint_1"]
    actions, confidence = column(tmp_path / "out", "action"), column(tmp_path / "out", "action_confidence")
    assert correlation(actions[:frames], column(datasets["withheld"], "action")) > 0.5
    np.testing.assert_array_equal(actions[frames:], column(datasets["demos"], "action"))
    assert ((confidence >= 0) & (confidence <= 1)).all() and (confidence[frames:] == 1).all()
    np.testing.assert_allclose(dataset.meta.stats["action"]["mean"], actions.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dataset.meta.stats["action"]["max"], actions.max(0), rtol=1e-5)

    # The same pictures with the same frames, copied and not encoded again.
    camera = "observation.images.top"
    for ours, theirs in ((0, "videos"), (frames, "demos")):
        plain = LeRobotDataset("test/x", root=datasets[theirs])
        for step in (0, LENGTH + 3):
            assert torch.equal(dataset[ours + step][camera], plain[step][camera])

    act = ["--policy.type=act", *TINY_ACT, "--policy.chunk_size=4", "--policy.n_action_steps=4"]
    (metrics,) = lerobot_train(tmp_path / "out", tmp_path / "act", *act, steps=1).metrics()
    assert np.isfinite(float(metrics["loss"]))


def test_the_readout_is_judged_on_demonstrations_that_did_not_shape_the_latents(
    datasets, checkpoint, tmp_path
):
    flags = [f"--policy.path={checkpoint}", "--decoder=readout"]
    label(datasets["videos"], datasets["demos"], tmp_path / "all", *flags)
    report = json.loads((tmp_path / "all" / "label_report.json").read_text())
    assert report["decoder"] == "readout" and report["demonstrations"] == 8 and report["judged_on"] == 2
    actions = column(tmp_path / "all", "action")
    assert correlation(actions, column(datasets["withheld"], "action")) > 0.3

    # Between the second and the third in confidence: two episodes stay, with their own frames and numbers.
    confidences = np.array(report["episode_confidence"])
    keep = sorted(np.argsort(-confidences)[:2])
    threshold = float(np.sort(confidences)[-3:-1].mean())
    log = label(
        datasets["videos"], datasets["demos"], tmp_path / "sure", *flags, f"--min_confidence={threshold}"
    )
    assert f"{EPISODES - 2} left out" in log
    dataset = LeRobotDataset("test/sure", root=tmp_path / "sure")
    assert dataset.meta.total_episodes == 2 and len(dataset) == 2 * LENGTH
    whole = LeRobotDataset("test/all", root=tmp_path / "all")
    for new, old in enumerate(keep):
        ours, theirs = dataset[new * LENGTH + 7], whole[int(old) * LENGTH + 7]
        for key in ("observation.images.top", "action", "action_confidence", "frame_index"):
            assert torch.equal(ours[key], theirs[key])
        assert int(ours["index"]) == new * LENGTH + 7 and int(ours["episode_index"]) == new
    kept = column(tmp_path / "sure", "action")
    np.testing.assert_allclose(dataset.meta.stats["action"]["mean"], kept.mean(0), rtol=1e-4, atol=1e-5)


def test_latents_that_know_all_demonstrations_are_no_judge_of_themselves(datasets, checkpoint, tmp_path):
    flags = [f"--policy.path={checkpoint}", "--labels.episodes=[0,1,2,3]"]
    renamed = shutil.copytree(datasets["demos"], tmp_path / "renamed")
    log = label(datasets["videos"], renamed, tmp_path / "out", *flags)
    assert "shaped by these very demonstrations" in log
    report = json.loads((tmp_path / "out" / "label_report.json").read_text())
    assert report["decoder"] == "inverse_model" and set(report["decoders"]) == {"readout", "inverse_model"}


def test_demonstrations_are_known_by_their_content(datasets, tmp_path):
    reader = EpisodeReader("test/demos", datasets["demos"])
    seen = [digest(reader.numbers(episode, "action")) for episode in (0, 2, 5)]
    policy = SimpleNamespace(config=SimpleNamespace(labels=LabelsConfig(digests=seen, action_dims=[2])))

    def unseen(root: Path, episodes: list[int]) -> list[int]:
        recordings = SimpleNamespace(demos=EpisodeReader("test/demos", root), episodes=episodes)
        return unseen_demonstrations(recordings, policy)  # type: ignore[arg-type]

    assert unseen(datasets["demos"], list(range(8))) == [1, 3, 4, 6, 7]
    dataset = LeRobotDataset("test/demos", root=datasets["demos"])
    cut = delete_episodes(dataset, [0, 1], output_dir=tmp_path / "cut", repo_id="test/cut")
    assert unseen(cut.root, list(range(6))) == [1, 2, 4, 5]  # episodes 2 and 5 are 0 and 3 there
    assert unseen(datasets["scrambled"], [0, 1, 2, 3]) == [0, 1, 2, 3]  # others under the same name


def test_a_dimension_that_never_moves_is_written_as_it_is(datasets, tmp_path):
    def hold(values: np.ndarray) -> None:
        values[:, 1] = 0.1

    demos = make_dataset(tmp_path / "demos", lengths=(LENGTH,) * 4, action_dim=3, seed=5)
    videos = add_language(described_otherwise(datasets["videos"], tmp_path / "videos", fps=10.0))
    log = label(videos, change_column(demos, "action", hold), tmp_path / "out", "--inverse_model.stride=2")
    assert "joint_1 never moves" in log
    actions = column(tmp_path / "out", "action")
    assert (actions[:, 1] == np.float32(0.1)).all() and (actions[:, [0, 2]].std(0) > 0.01).all()
    report = json.loads((tmp_path / "out" / "label_report.json").read_text())
    metrics = report["decoders"]["inverse_model"]
    assert metrics["held_out_r2_per_dimension"]["joint_1"] is None
    assert metrics["held_out_r2_95"][0] < metrics["held_out_r2"] < metrics["held_out_r2_95"][1]
    stats = LeRobotDataset("test/out", root=tmp_path / "out").meta.stats["action"]
    assert stats["mean"][1] == pytest.approx(0.1) and stats["std"][1] < 1e-3 < stats["std"][0]


def test_values_that_are_not_finite_are_refused_with_episode_and_frame(datasets, tmp_path):
    def breaks(values: np.ndarray) -> None:
        values[2 * LENGTH + 5, 1] = np.nan

    demos = change_column(shutil.copytree(datasets["demos"], tmp_path / "demos"), "action", breaks)
    sentence = refusal(datasets["videos"], demos, tmp_path / "out")
    assert "'action'" in sentence and "episode 2, frame 5" in sentence and "--labels.episodes" in sentence


def test_actions_that_have_nothing_to_do_with_the_video_are_refused(datasets, checkpoint, tmp_path):
    flags = [f"--policy.path={checkpoint}", "--decoder=readout"]
    assert "no better than their mean" in refusal(
        datasets["videos"], datasets["scrambled"], tmp_path / "out", *flags
    )
    assert list(tmp_path.iterdir()) == []


def test_killed_half_way_leaves_nothing(datasets, checkpoint, tmp_path, monkeypatch):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset_module, "merge", killed)
    flags = [f"--policy.path={checkpoint}", "--decoder=readout", "--merge=true"]
    code, log = run_label_actions(datasets["videos"], datasets["demos"], tmp_path / "out", *flags)
    assert code == 130 and "interrupted, nothing was written" in log
    assert list(tmp_path.iterdir()) == []


def test_bad_input_is_refused_in_one_sentence(datasets, checkpoint, tmp_path):
    videos, demos = datasets["videos"], datasets["demos"]
    other = make_dataset(tmp_path / "other", cameras=("wrist",), lengths=(LENGTH, LENGTH))
    quick = make_dataset(tmp_path / "quick", lengths=(LENGTH,), action_dim=None, fps=20)
    (tmp_path / "there").mkdir()
    out = tmp_path / "out"
    for sentence, arguments in {
        "--output_root": (videos, demos, tmp_path / "there"),
        "has an 'action' already": (demos, demos, out),
        "has no 'action'": (videos, videos, out),
        "change --labels.episodes": (videos, demos, out, "--labels.episodes=[3]"),
        "no camera in common": (videos, other, out, "--merge=true"),
        "lawm-import-videos --fps": (quick, demos, out),
    }.items():
        assert sentence in refusal(*arguments)
    for sentence, flag in {
        "--policy.path=<pretraining checkpoint>": "--decoder=readout",
        "--decoder is 'guess'": "--decoder=guess",
        "--min_confidence is 2": "--min_confidence=2",
        "--inverse_model.steps": "--inverse_model.steps=0",
    }.items():
        assert sentence in refusal(videos, demos, out, flag, code=2)
    assert not out.exists()


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


def test_confidence_is_the_variance_expected_to_be_explained():
    rng = np.random.default_rng(0)
    deviation = rng.uniform(0, 1, 4000)
    true = rng.normal(size=(4000, 2))
    decoded = true + deviation[:, None] * rng.normal(size=(4000, 2))
    episode = np.arange(4000) // 40
    confidence = Confidence(HeldOut(true, Decoded(decoded, deviation), episode, episode))
    found = confidence(np.array([0.05, 0.5, 0.95, 3.0]))
    np.testing.assert_allclose(found, [1.0, 0.75, 0.1, 0.0], atol=0.08)


def test_confidence_is_of_the_dimensions_that_count_in_r2():
    rng = np.random.default_rng(0)
    true = np.c_[rng.normal(size=(2000, 2)), np.full(2000, 0.1)]
    decoded = true + np.array([0.7, 0.7, 0.0]) * rng.normal(size=(2000, 3))
    episode = np.arange(2000) // 40
    held_out = HeldOut(true, Decoded(decoded, rng.uniform(0, 1, 2000)), episode, episode)
    assert held_out.r2 == pytest.approx(0.51, abs=0.03)
    assert Confidence(held_out)(held_out.decoded.deviation).mean() == pytest.approx(held_out.r2, abs=0.02)


def demonstrations_of_a_linear_map(count: int, length: int = 40) -> list[Demonstration]:
    """Frames of six bytes that tell two actions, but for a fifth of noise."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(6, 2))
    made = []
    for number in range(count):
        frames = rng.integers(0, 256, (length, 1, 1, 6))
        actions = (frames[:, 0, 0] - 128) / 74 @ weights + 0.8 * rng.normal(size=(length, 2))
        made.append(Demonstration(torch.from_numpy(frames.astype(np.uint8)), actions, number))
    return made


def bytes_of(frames: torch.Tensor) -> np.ndarray:
    return frames[:, 0, 0].numpy().astype(float)


def test_of_few_demonstrations_blocks_of_time_are_held_out():
    demonstrations = demonstrations_of_a_linear_map(2)
    fitted = fit_latent_readout(demonstrations, bytes_of, stride=2, folds=4, seed=0)
    held_out = fitted.held_out
    assert held_out.unit == "blocks of time" and np.bincount(held_out.part).tolist() == [10] * 8
    np.testing.assert_array_equal(held_out.episode, np.repeat([0, 1], 40))
    np.testing.assert_array_equal(held_out.true, np.concatenate([d.actions for d in demonstrations]))
    # The decoder's R2 on new recordings of the same kind.
    fresh = demonstrations_of_a_linear_map(60)[2:]
    true = np.concatenate([demo.actions for demo in fresh])
    decoded = np.concatenate([fitted.decode(demo.frames).actions for demo in fresh])
    real = overall_r2(true, decoded)
    assert real > 0.7
    low, high = held_out.r2_interval
    assert low < held_out.r2 < high and low < real < high and held_out.r2 == pytest.approx(real, abs=0.1)
    many = fit_latent_readout(
        demonstrations_of_a_linear_map(12), bytes_of, stride=2, folds=4, seed=0
    ).held_out
    assert many.unit == "demonstrations"
    assert np.diff(many.r2_interval) < high - low  # more is known of more


def judged(error: float, frames: int) -> FittedDecoder:
    """A decoder whose decoded actions are the true ones and an error of so many standard deviations."""
    rng = np.random.default_rng(3)
    true = rng.normal(size=(frames, 2))
    decoded = Decoded(true + error * rng.normal(size=true.shape), np.ones(frames))
    episode = np.arange(frames) * 4 // frames
    return FittedDecoder(READOUT, lambda _: decoded, HeldOut(true, decoded, episode, episode))


def test_a_refusal_needs_evidence_and_a_doubt_is_said(caplog):
    unsure = judged(1.0, 8)
    assert unsure.held_out.r2_interval[0] < 0 < 0.1 < unsure.held_out.r2_interval[1]
    assert judge({READOUT: unsure}, [0, 1, 2, 3])[1].name == READOUT
    assert "too few to say" in caplog.text and "--labels.repo_id" in caplog.text
    caplog.clear()
    judge({READOUT: judged(0.5, 400)}, [0, 1, 2, 3])
    assert "too few" not in caplog.text
    with pytest.raises(ValueError, match=r"no better than their mean.*R2 -0\.\d+ \(95% -0\.\d+ to "):
        judge({READOUT: judged(1.1, 400)}, [0, 1, 2, 3])


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


def test_every_frame_has_the_latents_around_it():
    latents = np.arange(8.0)[:, None]  # z_t = t, of an episode of 10 frames at stride 2
    features = latent_features(latents, 10, 2)
    assert features.shape == (10, 5)
    assert features[4].tolist() == [2, 3, 4, 5, 6]
    assert features[0].tolist() == [0, 0, 0, 1, 2] and features[9].tolist() == [7, 7, 7, 7, 7]


def test_every_transition_is_seen_once_and_a_short_episode_stands_still():
    frames = torch.arange(7.0)[:, None, None, None]  # the frame t has the one pixel t

    def ends_of(clip: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        assert valid.shape == (1, clip.shape[1] - 1) and valid.all()
        return torch.cat([clip[:, :-1], clip[:, 1:]], 2).flatten(2)  # (1,H,2)

    for length, stride in ((7, 1), (7, 3), (4, 3)):
        expected = [[t, t + stride] for t in range(length - stride)]
        assert over_transitions(frames[:length], stride, ends_of).tolist() == expected
    assert over_transitions(frames[:2], 3, ends_of).tolist() == [[0, 1]]
