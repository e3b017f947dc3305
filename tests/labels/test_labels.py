"""True actions in pretraining: the joint read-out, a second dataset of demonstrations, corpora pooled from sources."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from draccus.utils import ParsingError
from helpers.datasets_on_the_spot import (
    FPS,
    add_language,
    change_column,
    delay_pictures,
    described_otherwise,
    make_dataset,
)
from helpers.toy_policy import pretraining_loss
from helpers.training import DETERMINISTIC, assert_same_tensors, finetune, pretrain, resume
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lawm_lerobot.labels import demonstrations as demonstrations_module
from lawm_lerobot.labels.configuration import EMBODIMENT, LabelsConfig
from lawm_lerobot.labels.demonstrations import Demonstrations, labelled_camera
from lawm_lerobot.labels.episodes import EpisodeReader, episodes_in_use
from lawm_lerobot.labels.training import CorpusLabels, TrainingLabels
from lawm_lerobot.method.clip import Clip
from lawm_lerobot.method.configuration import InverseDynamicsConfig, RecurrentConfig
from lawm_lerobot.method.latent_action import LatentActionConfig
from lawm_lerobot.method.objective import LatentActionPretraining
from lawm_lerobot.method.readout import ActionReadout, ActionTargets, LabelBatch
from lawm_lerobot.policies.act.configuration_lawm_act import LawmActConfig
from lawm_lerobot.policies.common.clips import policy_views
from lawm_lerobot.policies.common.pretraining_checkpoint import load_pretraining_checkpoint
from lawm_lerobot.scripts.lawm_import_videos import main as import_videos

CAMERA = "observation.images.top"
HORIZON, STRIDE, Z, SIZE = 3, 2, 4, 32


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A corpus without actions, labelled demonstrations, and ones of another view and width."""
    root = tmp_path_factory.mktemp("datasets")
    return {
        "corpus": make_dataset(root / "corpus", action_dim=None),
        "demos": make_dataset(root / "demos", lengths=(14, 9), seed=5),
        "wide": make_dataset(root / "wide", cameras=("left", "right"), action_dim=3, state_dim=None, seed=6),
        "scrambled": make_dataset(root / "scrambled", lengths=(14, 9), seed=5, scrambled_actions=True),
    }


def demonstrations(root: Path, **labels: Any) -> LabelsConfig:
    return LabelsConfig(repo_id=f"test/{root.name}", root=root, **labels)


def make_config(labels: LabelsConfig, source: str = "inverse_dynamics") -> LawmActConfig:
    return LawmActConfig(
        device="cpu",
        pretrained_backbone_weights=None,
        input_features={
            CAMERA: PolicyFeature(FeatureType.VISUAL, (3, SIZE, SIZE)),
            "observation.state": PolicyFeature(FeatureType.STATE, (2,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (Z,))},
        latent_action=LatentActionConfig(source=source, dim=Z, horizon=HORIZON, stride=STRIDE),
        world_model=RecurrentConfig(size="test", image_size=SIZE),
        labels=labels,
    )


def load_demonstrations(
    labels: LabelsConfig, source: str = "inverse_dynamics", fps: int = FPS, stats: dict | None = None
) -> Demonstrations:
    config = make_config(labels, source)
    views = policy_views(config, [CAMERA], stats)
    return Demonstrations(labels, config.latent_action, CAMERA, SIZE, fps, views)


def actions_of(root: Path) -> np.ndarray:
    return EpisodeReader(f"test/{root.name}", root).column("action")


# --- the loss -----------------------------------------------------------------------------------------


def pretraining_module() -> LatentActionPretraining:
    torch.manual_seed(0)
    return LatentActionPretraining(
        LatentActionConfig(dim=Z, horizon=HORIZON, stride=STRIDE, noise=0),
        RecurrentConfig(size="test", image_size=SIZE, loss_weight=0).build(Z, HORIZON),
        InverseDynamicsConfig(size="test", random_shift=0).build(Z, SIZE),
        ActionReadout(Z, STRIDE, [2, 3]),
    )


def labelled_batch(rows: list[int]) -> tuple[Clip, LabelBatch]:
    """Two clips of a corpus and two labelled ones, of noise; the actions of clips `rows` are known."""
    generator = torch.Generator().manual_seed(1)
    frames = torch.rand(4, HORIZON + 1, 3, SIZE, SIZE, generator=generator)
    valid = torch.ones(4, HORIZON, dtype=torch.bool)
    valid[3, 1:] = False
    actions = torch.randn(len(rows), HORIZON, STRIDE, 2, generator=generator)
    targets = [ActionTargets(0, torch.tensor(rows), actions)]
    return Clip(frames[:2], valid[:2]), LabelBatch(targets, frames[2:], valid[2:])


def test_the_readout_shapes_the_inverse_dynamics_and_nothing_else_does_here():
    module = pretraining_module()
    clip, labels = labelled_batch([2, 3])
    for given, moved in ((None, False), (labels, True)):
        module.zero_grad()
        loss, metrics = pretraining_loss(module, None, clip, given)
        loss.backward()
        gradients = [p.grad for p in module.inverse_dynamics.parameters()]
        assert all((g is not None and g.abs().sum() > 0) == moved for g in gradients)
    assert module.readout.heads[0].weight.grad.abs().sum() > 0
    assert module.readout.heads[1].weight.grad is None  # nobody of the other embodiment was there
    assert metrics["readout_loss"] > 0 and metrics["readout_r2"] < 1


def test_padded_actions_do_not_count():
    module = pretraining_module()
    clip, labels = labelled_batch([3])
    _, before = pretraining_loss(module, None, clip, labels)
    labels.targets[0].actions[:, 1:] += 100
    _, after = pretraining_loss(module, None, clip, labels)
    assert after["readout_loss"] == before["readout_loss"]
    labels.targets[0].actions[:, :1] += 100
    _, changed = pretraining_loss(module, None, clip, labels)
    assert changed["readout_loss"] > 2 * before["readout_loss"]


def test_an_action_that_never_moves_does_not_count_in_r2():
    """Told by its mean alone it has no error, and nothing of the others is explained by that."""
    module = pretraining_module()
    clip, labels = labelled_batch([2, 3])
    (target,) = labels.targets
    target.actions[..., 1] = 7.0
    known = target.actions.flatten(0, 2)
    module.readout.set_statistics(0, known.mean(0), known.std(0, correction=0))
    torch.nn.init.zeros_(module.readout.heads[0].weight)
    torch.nn.init.zeros_(module.readout.heads[0].bias)
    _, metrics = pretraining_loss(module, None, clip, labels)
    assert float(metrics["readout_r2"]) == pytest.approx(0, abs=1e-4)


def test_the_readout_standardises_the_actions():
    readout = ActionReadout(Z, STRIDE, [2])
    actions = torch.randn(50, 2) * torch.tensor([10.0, 0.0]) + torch.tensor([5.0, 3.0])
    readout.set_statistics(0, actions.mean(0), actions.std(0))
    torch.nn.init.zeros_(readout.heads[0].weight)
    torch.nn.init.zeros_(readout.heads[0].bias)
    told = readout.predict(torch.randn(1, HORIZON, Z), 0)
    assert told.shape == (1, HORIZON, STRIDE, 2)
    torch.testing.assert_close(told, actions.mean(0).expand_as(told))


# --- which actions ------------------------------------------------------------------------------------


def test_demonstrations_give_frames_with_the_actions_between_them(datasets):
    demos = load_demonstrations(demonstrations(datasets["demos"]))
    actions = actions_of(datasets["demos"])
    assert len(demos.first_frames) == (14 - STRIDE) + (9 - STRIDE)
    frames, valid, found = demos.clips(torch.tensor([0, 14 + 4]))
    assert frames.shape == (2, HORIZON + 1, 3, SIZE, SIZE) and frames.dtype == torch.uint8
    np.testing.assert_array_equal(found[0].flatten(0, 1), actions[: HORIZON * STRIDE])
    assert valid.tolist() == [[True] * 3, [True, True, False]]  # frames 4, 6, 8 of an episode of 9
    np.testing.assert_array_equal(found[1, :2].flatten(0, 1), actions[18:22])
    torch.testing.assert_close(frames[0, 1], demos.frames[STRIDE])
    assert load_demonstrations(demonstrations(datasets["demos"], episodes=[1])).actions.shape == (9, 2)


def test_draws_differ_by_step_and_process_and_repeat_by_seed(datasets):
    demos = load_demonstrations(demonstrations(datasets["demos"]))
    draws = [demos.draw(8, [0, step, rank]).tolist() for step, rank in ((0, 0), (1, 0), (0, 1), (0, 0))]
    assert draws[0] == draws[3] and draws[0] != draws[1] and draws[0] != draws[2]


def test_a_share_of_the_corpus_own_labels(datasets):
    meta = LeRobotDatasetMetadata("test/wide", root=datasets["wide"])
    corpus = CorpusLabels.load(LabelsConfig(fraction=0.5), meta)
    used = (corpus.embodiment == 0).reshape(4, 14)
    assert used.all(1).sum() == 2 and not used[~used.all(1)].any()
    other = CorpusLabels.load(LabelsConfig(fraction=0.5, seed=1), meta)
    assert not torch.equal(corpus.embodiment, other.embodiment)
    everything = CorpusLabels.load(LabelsConfig(fraction=1), meta)
    (target,) = everything.targets(torch.tensor([0, 20]), HORIZON, STRIDE)
    np.testing.assert_array_equal(target.actions[1].flatten(0, 1), actions_of(datasets["wide"])[20:26])


@pytest.fixture(scope="module")
def pooled(datasets, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Episodes with actions of two and of three dimensions, and some without."""
    root = tmp_path_factory.mktemp("pooled")
    config = root / "mixture.yaml"
    config.write_text(
        f"repo_id: test/pool\nworkers: 0\nfps: {FPS}\nsize: {SIZE}\nmin_episode_s: 0\nsources:\n"
        f"  - {{type: lerobot, path: {datasets['demos']}, keep_actions: true}}\n"
        f"  - {{type: lerobot, path: {datasets['corpus']}, episodes: [0]}}\n"
        f"  - {{type: lerobot, path: {datasets['wide']}, cameras: [observation.images.left], keep_actions: true}}\n"
    )
    assert import_videos([f"--config_path={config}", f"--root={root / 'pool'}"]) == 0
    return root / "pool"


def test_a_pool_keeps_the_labels_of_each_source(pooled, datasets):
    meta = LeRobotDatasetMetadata("test/pool", root=pooled)
    embodiments = json.loads((pooled / "meta" / "lawm_labels.json").read_text())["embodiments"]
    assert [(e["dim"], e["names"][0]) for e in embodiments] == [(2, "joint_0"), (3, "joint_0")]
    assert meta.features["action"]["shape"] == (3,)
    reader = EpisodeReader("test/pool", pooled)
    assert [int(reader.numbers(e, EMBODIMENT)[0, 0]) for e in reader.episodes] == [0, 0, -1, 1, 1, 1, 1]
    np.testing.assert_array_equal(reader.numbers(1, "action")[:, :2], actions_of(datasets["demos"])[14:])
    np.testing.assert_array_equal(reader.numbers(3, "action"), actions_of(datasets["wide"])[:14])
    assert not reader.numbers(2, "action").any()
    corpus = CorpusLabels.load(LabelsConfig(fraction=1), meta)
    targets = corpus.targets(torch.tensor([25, 0, 40]), HORIZON, STRIDE)
    assert [(t.head, t.rows.tolist(), t.actions.shape[-1]) for t in targets] == [(0, [1], 2), (1, [2], 3)]


def test_a_pool_pretrains_with_a_head_per_embodiment_and_refuses_to_finetune(pooled, datasets, tmp_path):
    run = pretrain(pooled, tmp_path / "run", "--policy.labels.fraction=1", steps=1)
    assert run.tensors()["pretraining.readout.heads.1.weight"].shape == (2 * 3, 8)
    with pytest.raises(ValueError, match="pools actions of several embodiments"):
        finetune(run.checkpoint(), pooled, tmp_path / "finetuned")
    with pytest.raises(ValueError, match="expected the demonstrations of one"):
        load_demonstrations(demonstrations(pooled))


def test_only_episodes_that_are_trained_on_give_labels(datasets):
    for chosen in ([2, 3], [1], None):
        dataset = LeRobotDataset("test/wide", root=datasets["wide"], episodes=chosen)
        assert episodes_in_use(dataset.meta) == (chosen or [0, 1, 2, 3])
        for fraction in (0.5, 1):
            corpus = CorpusLabels.load(LabelsConfig(fraction=fraction), dataset.meta)
            used = (corpus.embodiment == 0).reshape(4, 14).all(1).nonzero()[:, 0].tolist()
            assert set(used) <= set(chosen or range(4))
            assert len(used) == max(1, int(fraction * len(chosen or range(4))))


def test_metrics_of_no_label_are_missing_and_not_perfect():
    module = pretraining_module()
    clip, labels = labelled_batch([2, 3])
    nobody = LabelBatch([], labels.frames, labels.valid)
    _, metrics = pretraining_loss(module, None, clip, nobody)
    assert np.isnan(float(metrics["readout_r2"])) and np.isnan(float(metrics["readout_loss"]))
    _, known = pretraining_loss(module, None, clip, labels)
    _, metrics = pretraining_loss(module, None, clip, nobody)
    assert float(metrics["readout_loss"]) == float(known["readout_loss"]) > 0
    assert float(metrics["readout_r2"]) == pytest.approx(float(known["readout_r2"]))


# --- through lerobot-train ----------------------------------------------------------------------------


def labels_flags(root: Path) -> list[str]:
    return [
        f"--policy.labels.repo_id=test/{root.name}",
        f"--policy.labels.root={root}",
        "--policy.labels.batch_size=4",
    ]


def test_a_second_dataset_is_read_out_saved_resumed_and_dropped(datasets, tmp_path):
    demos = shutil.copytree(datasets["demos"], tmp_path / "demos")
    flags = [*DETERMINISTIC, *labels_flags(demos)]
    whole = pretrain(datasets["corpus"], tmp_path / "whole", *flags, "--save_freq=1", steps=2)
    metrics = whole.metrics()
    assert all(float(m["readout_loss"]) > 0 and float(m["readout_r2"]) < 1 for m in metrics)
    tensors = whole.tensors(2)
    assert tensors["pretraining.readout.heads.0.weight"].shape == (2 * 2, 8)
    np.testing.assert_allclose(
        tensors["pretraining.readout.action_mean_0"], actions_of(demos).mean(0), rtol=1e-4, atol=1e-6
    )

    # Other actions beside the same pictures make other latents.
    other = pretrain(
        datasets["corpus"], tmp_path / "other", *DETERMINISTIC, *labels_flags(datasets["scrambled"])
    )
    name = "pretraining.inverse_dynamics.head.1.weight"
    assert not torch.equal(tensors[name], other.tensors()[name])

    again = resume(whole, 1)
    assert_same_tensors(tensors, again.tensors(2))
    assert int(again.tensors(2)["pretraining.readout.steps"]) == 2

    # Whoever looks into the checkpoint, or finetunes it, needs no demonstrations.
    shutil.rmtree(demos)
    policy, _ = load_pretraining_checkpoint(whole.checkpoint())
    assert policy.config.labels.action_dims == [2]
    finetuned = finetune(whole.checkpoint(), datasets["wide"], tmp_path / "finetuned", steps=1)
    assert not any("readout" in name for name in finetuned.tensors())


def test_labels_and_the_longest_episode_are_those_of_the_chosen_episodes(tmp_path):
    corpus = make_dataset(tmp_path / "corpus", lengths=(9, 9, 4, 9))
    labelled = ["--policy.labels.fraction=0.25", "--batch_size=4"]
    for seed in (0, 1):
        flags = [*labelled, "--dataset.episodes=[1]", f"--policy.labels.seed={seed}"]
        (metrics,) = pretrain(corpus, tmp_path / f"one{seed}", *flags, steps=1).metrics()
        assert float(metrics["readout_loss"]) > 0 and float(metrics["readout_r2"]) < 1
    with pytest.raises(ValueError, match="longest episode has 4"):
        pretrain(
            corpus, tmp_path / "short", "--dataset.episodes=[2]", "--policy.latent_action.stride=5", steps=1
        )
    with pytest.raises(ValueError, match="longest episode has 4"):  # 0 of [0, 2] is held out for evaluation
        flags = ["--dataset.episodes=[2,0]", "--dataset.eval_split=0.5", "--policy.latent_action.stride=5"]
        pretrain(corpus, tmp_path / "split", *flags, steps=1)


def test_latents_of_the_policy_are_read_out_too(datasets, tmp_path):
    flags = [*labels_flags(datasets["demos"]), "--policy.latent_action.source=both"]
    (metrics,) = pretrain(datasets["corpus"], tmp_path / "both", *flags, steps=1).metrics()
    assert float(metrics["policy_readout_loss"]) > 0 and float(metrics["readout_loss"]) > 0


def test_the_policy_sees_the_first_frame_of_a_labelled_clip_as_in_the_corpus(datasets):
    stats = LeRobotDatasetMetadata("test/corpus", root=datasets["corpus"]).stats
    demos = load_demonstrations(demonstrations(datasets["demos"]), "policy", stats=stats)
    first = torch.tensor([3, 15])
    batch = demos.policy_batch(first)
    mean, std = (torch.as_tensor(stats[CAMERA][name], dtype=torch.float32) for name in ("mean", "std"))
    wanted = (demos.frames[first].float() / 255 - mean) / (std + 1e-8)
    torch.testing.assert_close(batch[CAMERA], wanted, rtol=1e-3, atol=1e-3)
    state = EpisodeReader("test/demos", datasets["demos"]).column("observation.state")
    wanted = torch.from_numpy(((state - state.mean(0)) / state.std(0))[first])
    torch.testing.assert_close(batch["observation.state"], wanted, rtol=1e-2, atol=1e-2)
    assert batch["task"] == ["push the square"] * 2


# --- bad input ----------------------------------------------------------------------------------------


def test_labels_that_do_not_fit_are_refused_in_one_sentence(datasets, tmp_path, monkeypatch):
    def refused(match: str, labels: LabelsConfig, source: str = "inverse_dynamics", fps: int = FPS) -> None:
        with pytest.raises(ValueError, match=match):
            load_demonstrations(labels, source, fps)

    refused("no 'action'.*--policy.labels.repo_id", demonstrations(datasets["corpus"]))
    refused("resample.*lawm-import-videos --fps", demonstrations(datasets["demos"]), fps=FPS + 1)
    refused("no meta/info.json.*--policy.labels.root", demonstrations(tmp_path))
    refused("--policy.labels.camera", demonstrations(datasets["wide"]))
    refused("--policy.labels.camera", demonstrations(datasets["demos"], camera="front"))
    refused("--policy.labels.episodes", demonstrations(datasets["demos"], episodes=[7]))
    refused("has no observation.images.top", demonstrations(datasets["wide"], camera="left"), source="policy")
    meta = LeRobotDatasetMetadata("test/corpus", root=datasets["corpus"])
    with pytest.raises(ValueError, match="--policy.labels.fraction"):
        TrainingLabels.load(LabelsConfig(fraction=0.1), LatentActionConfig(), CAMERA, SIZE, meta)
    monkeypatch.setattr(demonstrations_module, "MEMORY_LIMIT_GIB", 1e-6)
    refused("--policy.labels.episodes", demonstrations(datasets["demos"]))
    for wrong in ({"fraction": 1.5}, {"weight": -1}, {"batch_size": 0}, {"root": tmp_path}):
        with pytest.raises(ParsingError, match="--policy.labels"):
            LabelsConfig(**wrong)


def test_demonstrations_as_other_people_write_them(datasets, tmp_path):
    camera = {"shape": [3, SIZE, SIZE], "names": ["channels", "height", "width"]}
    other = add_language(described_otherwise(datasets["demos"], tmp_path / "other", camera, fps=10.0))
    found = load_demonstrations(demonstrations(other))
    plain = load_demonstrations(demonstrations(datasets["demos"]))
    assert torch.equal(found.frames, plain.frames) and torch.equal(found.actions, plain.actions)
    assert found.tasks == plain.tasks and found.digests == plain.digests


def test_depth_is_the_labels_camera_only_by_name(tmp_path):
    root = make_dataset(tmp_path / "front", cameras=("depth", "front"), lengths=(9,), size=16)
    reader = EpisodeReader("test/front", root)
    flag = "--policy.labels.camera"
    assert labelled_camera(reader, None, "observation.images.top", flag) == "observation.images.front"
    assert labelled_camera(reader, "depth", "observation.images.top", flag) == "observation.images.depth"


def test_values_that_are_not_finite_are_refused_with_episode_and_frame(tmp_path):
    def breaks(values: np.ndarray) -> None:
        values[14 + 5, 1], values[14 + 7] = np.nan, np.inf

    where = "not finite .* episode 1, frame 5, and in 1 more"
    demos = change_column(make_dataset(tmp_path / "demos", lengths=(14, 9)), "action", breaks)
    with pytest.raises(ValueError, match=f"'action'.*{where}.*--policy.labels.episodes"):
        load_demonstrations(demonstrations(demos))
    assert load_demonstrations(demonstrations(demos, episodes=[0])).actions.isfinite().all()
    whole = LeRobotDataset("test/demos", root=demos)
    with pytest.raises(ValueError, match=f"'action'.*{where}.*--dataset.episodes"):
        CorpusLabels.load(LabelsConfig(fraction=1), whole.meta)
    chosen = LeRobotDataset("test/demos", root=demos, episodes=[0])
    assert len(CorpusLabels.load(LabelsConfig(fraction=1), chosen.meta).digests) == 1

    state = "observation.state"
    seen = change_column(make_dataset(tmp_path / "seen", lengths=(14, 9)), state, breaks)
    stats = json.loads((seen / "meta" / "stats.json").read_text())
    stats[state]["mean"] = [float("nan")] * 2
    (seen / "meta" / "stats.json").write_text(json.dumps(stats))
    load_demonstrations(demonstrations(seen))  # the inverse dynamics does not look at the state
    with pytest.raises(ValueError, match=f"'{state}'.*{where}"):
        load_demonstrations(demonstrations(seen), "policy")
    batch = load_demonstrations(demonstrations(seen, episodes=[0]), "policy").policy_batch(torch.tensor([3]))
    assert batch[state].isfinite().all()


# --- whole episodes -----------------------------------------------------------------------------------


def test_episodes_of_pictures_and_of_video_are_read_alike(datasets, tmp_path):
    video = EpisodeReader("test/demos", datasets["demos"])
    frames = video.frames(1, CAMERA)
    assert frames.shape == (9, 3, SIZE, SIZE) and video.task(1) == "push the square"
    pictures = LeRobotDataset.create(
        "test/pictures",
        FPS,
        {CAMERA: {"dtype": "image", "shape": (SIZE, SIZE, 3), "names": ["height", "width", "channels"]}},
        root=tmp_path / "pictures",
        use_videos=False,
    )
    for episode in (0, 1):
        for frame in video.frames(episode, CAMERA):
            pictures.add_frame({CAMERA: frame.permute(1, 2, 0).numpy(), "task": "push"})
        pictures.save_episode()
    pictures.finalize()
    reader = EpisodeReader("test/pictures", tmp_path / "pictures", episodes=[1])
    assert torch.equal(reader.frames(1, CAMERA), frames)
    assert reader.frames(1, CAMERA, (16, 16)).shape == (9, 3, 16, 16)
    for step in (0, 8):
        item = LeRobotDataset("test/demos", root=datasets["demos"], return_uint8=True)[14 + step]
        assert torch.equal(item[CAMERA], frames[step])


def test_pictures_beside_their_frames_times_are_read_within_the_tolerance(datasets, tmp_path):
    late = delay_pictures(shutil.copytree(datasets["demos"], tmp_path / "late"), 0.004)
    with pytest.raises(ValueError, match="not within 0.0001 s.*--policy.labels.tolerance_s"):
        load_demonstrations(demonstrations(late))
    found = load_demonstrations(demonstrations(late, tolerance_s=0.01))
    assert torch.equal(found.frames, load_demonstrations(demonstrations(datasets["demos"])).frames)
    with pytest.raises(ValueError, match="raise --tolerance_s"):
        EpisodeReader("test/late", late).frames(1, CAMERA)
