"""`lawm-label-actions`: actions decoded from video, judged on held-out demonstrations, written as a LeRobotDataset."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.datasets_on_the_spot import (
    add_language,
    change_column,
    column,
    described_otherwise,
    make_dataset,
)
from helpers.training import TINY_ACT, lerobot_train, pretrain, run_command
from lerobot.datasets.dataset_tools import delete_episodes
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lawm_lerobot.labelling import dataset as dataset_module
from lawm_lerobot.labelling.configuration import FINETUNED
from lawm_lerobot.labelling.run import unseen_demonstrations
from lawm_lerobot.labels.configuration import LabelsConfig
from lawm_lerobot.labels.demonstrations import digest
from lawm_lerobot.labels.episodes import EpisodeReader
from lawm_lerobot.scripts.lawm_label_actions import main

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


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean([np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(a.shape[1])]))


def test_the_inverse_model_labels_and_merges(datasets, tmp_path):
    share = ["--merge=true", "--demonstration_share=0.75"]
    log = label(datasets["videos"], datasets["demos"], tmp_path / "out", *share)
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

    # 320 of 420 frames are nearer to three quarters than 160 of 260 or 480 of 580.
    assert report["demonstration_copies"] == 2 and report["demonstration_share"] == 0.7619
    dataset = LeRobotDataset("test/out", root=tmp_path / "out")
    assert dataset.meta.total_episodes == EPISODES + 16 and len(dataset) == frames + 16 * LENGTH
    assert dataset.meta.features["action"]["names"] == ["joint_0", "joint_1"]
    actions, confidence = column(tmp_path / "out", "action"), column(tmp_path / "out", "action_confidence")
    assert correlation(actions[:frames], column(datasets["withheld"], "action")) > 0.5
    true = column(datasets["demos"], "action").reshape(8, LENGTH, 2)
    np.testing.assert_array_equal(actions[frames:], true.repeat(2, 0).reshape(-1, 2))
    assert ((confidence >= 0) & (confidence <= 1)).all() and (confidence[frames:] == 1).all()
    np.testing.assert_allclose(dataset.meta.stats["action"]["mean"], actions.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dataset.meta.stats["action"]["max"], actions.max(0), rtol=1e-5)
    assert dataset.meta.stats["action"]["count"] == len(dataset)

    # The same pictures with the same frames, copied once and not encoded again.
    camera, second = "observation.images.top", LENGTH
    assert len(list((tmp_path / "out" / "videos").rglob("*.mp4"))) == 2
    for ours, theirs in ((0, "videos"), (frames, "demos"), (frames + second, "demos")):
        plain = LeRobotDataset("test/x", root=datasets[theirs])
        for step in (0, 3):
            assert torch.equal(dataset[ours + step][camera], plain[step][camera])
    assert torch.equal(dataset[frames + 3 * LENGTH + 7][camera], plain[LENGTH + 7][camera])

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
    assert report["decoder"] == "inverse_model"
    assert set(report["decoders"]) == {"readout", "inverse_model", FINETUNED}


def test_the_inverse_dynamics_are_finetuned_to_actions(datasets, checkpoint, tmp_path):
    # The checkpoint's are of this size and stride, whatever is asked of the inverse model.
    flags = [f"--policy.path={checkpoint}", f"--decoder={FINETUNED}", "--inverse_model.stride=3"]
    label(datasets["videos"], datasets["demos"], tmp_path / "out", *flags)
    report = json.loads((tmp_path / "out" / "label_report.json").read_text())
    assert report["decoder"] == FINETUNED and report["judged_on"] == 2
    assert report["decoders"][FINETUNED]["held_out_r2"] > 0.2
    actions = column(tmp_path / "out", "action")
    assert correlation(actions, column(datasets["withheld"], "action")) > 0.5


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
        "--decoder=readout uses": "--decoder=readout",
        "--policy.path=<pretraining checkpoint>": f"--decoder={FINETUNED}",
        "--demonstration_share is 1": "--demonstration_share=1",
        "--decoder is 'guess'": "--decoder=guess",
        "--min_confidence is 2": "--min_confidence=2",
        "--inverse_model.steps": "--inverse_model.steps=0",
    }.items():
        assert sentence in refusal(videos, demos, out, flag, code=2)
    assert not out.exists()
