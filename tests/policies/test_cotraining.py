"""Co-training through `lerobot-train`: what the two losses train, what is kept, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.datasets_on_the_spot import make_dataset
from helpers.training import (
    DETERMINISTIC,
    TINY_ACT,
    Run,
    assert_same_tensors,
    finetune,
    lerobot_train,
    pretrain,
    resume,
)
from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature, PreTrainedConfig
from lerobot.datasets import lerobot_dataset
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies import make_policy
from lerobot.utils.constants import OBS_STATE
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import default_collate

from lawm_lerobot.policies.act.configuration_lawm_act import LawmActConfig
from lawm_lerobot.policies.act.modeling_lawm_act import LawmActPolicy
from lawm_lerobot.policies.common.checkpointed import COTRAINING_FILE
from lawm_lerobot.policies.common.cotraining import CoTraining
from lawm_lerobot.policies.common.observation_dropout import drop_samples, normalised_mean
from lawm_lerobot.policies.common.policy import LawmPolicy
from lawm_lerobot.policies.common.pretraining_checkpoint import load_pretraining_checkpoint
from lawm_lerobot.policies.common.video import Draws, VideoError, fit_pictures, fitting_size

STATE = "observation.state"
CHUNK = ("--policy.chunk_size=7", "--policy.n_action_steps=3")
HORIZON, STRIDE = 4, 2  # TINY_LAWM's
LENGTHS = (14, 9, 2)  # The last is too short for a transition.


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus") / "video"
    return make_dataset(root, lengths=LENGTHS, state_dim=None, action_dim=None)


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a robot with two cameras, whose pictures are larger than the video's."""
    root = tmp_path_factory.mktemp("robot") / "demonstrations"
    return make_dataset(root, lengths=(14, 14), cameras=("front", "wrist"), size=40, action_dim=3)


@pytest.fixture(scope="module")
def pretrained(video: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain(video, tmp_path_factory.mktemp("pretrained") / "run", *DETERMINISTIC).checkpoint()


def flags_of(video: Path, *more: str) -> tuple[str, ...]:
    return (
        "--policy.video.repo_id=test/video",
        f"--policy.video.root={video}",
        "--policy.video.num_workers=0",
        "--policy.video.batch_size=3",
        *more,
    )


@pytest.fixture(scope="module")
def cotrained(
    pretrained: Path, video: Path, demonstrations: Path, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """Three steps with a checkpoint after each."""
    run = tmp_path_factory.mktemp("cotrained") / "run"
    return finetune(pretrained, demonstrations, run, *CHUNK, *flags_of(video), "--save_freq=1", steps=3)


@pytest.fixture(scope="module")
def dataset(demonstrations: Path) -> LeRobotDataset:
    return LeRobotDataset("test/demonstrations", root=demonstrations, return_uint8=True)


def load(pretrained: Path | None, dataset: LeRobotDataset, *flags: str) -> LawmPolicy:
    """The policy as `lerobot-train` makes it."""
    overrides = [flag.replace("--policy.", "--") for flag in (*CHUNK, *flags)]
    if pretrained is None:
        known = {
            flag.partition("=")[0].removeprefix("--policy."): flag.partition("=")[2] for flag in TINY_ACT
        }
        del known["push_to_hub"], known["device"], known["pretrained_backbone_weights"]
        config: Any = LawmActConfig(
            stage="finetune",
            device="cpu",
            pretrained_backbone_weights=None,
            **{name: int(value) for name, value in known.items()},
        )
        for flag in overrides:
            name, _, value = flag.removeprefix("--").partition("=")
            if name.startswith("video."):
                setattr(config.video, name.removeprefix("video."), int(value) if value.isdigit() else value)
    else:
        config = PreTrainedConfig.from_pretrained(pretrained, cli_overrides=["--stage=finetune", *overrides])
        config.pretrained_path = pretrained
    return make_policy(config, ds_meta=dataset.meta)


def a_batch(policy: LawmPolicy, size: int = 4) -> dict[str, Any]:
    features = {**policy.config.input_features, **policy.config.output_features}
    batch: dict[str, Any] = {key: torch.rand(size, *ft.shape) for key, ft in features.items()}
    chunk = policy.config.chunk_size
    batch["action"] = torch.rand(size, chunk, *policy.config.output_features["action"].shape)
    batch["action_is_pad"] = torch.zeros(size, chunk, dtype=torch.bool)
    return batch


def gradients(policy: LawmPolicy, loss: Tensor) -> set[str]:
    """Names of the parameters that a loss moves."""
    policy.zero_grad()
    loss.backward()
    return {name for name, p in policy.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


# --- what is trained -----------------------------------------------------------------------------------------


def test_the_loss_is_of_the_policy_plus_the_weighted_one_on_the_video(
    pretrained: Path, video: Path, dataset: LeRobotDataset
) -> None:
    policy = load(pretrained, dataset, *flags_of(video, "--policy.video.weight=0.25"))
    assert policy.cotraining is not None
    batch = a_batch(policy)
    policy.eval()
    plain, metrics = policy.forward(batch)
    assert "video_loss" not in metrics
    policy.train()  # DETERMINISTIC: without dropout and VAE the modes agree.
    loss, metrics = policy.forward(batch)
    assert metrics["video_loss"] > 0
    torch.testing.assert_close(loss, plain + 0.25 * metrics["video_loss"])
    assert policy.cotraining.steps == 1


def test_both_losses_train_the_shared_part_and_neither_the_others_head(
    pretrained: Path, video: Path, dataset: LeRobotDataset
) -> None:
    policy = load(pretrained, dataset, *flags_of(video)).train()
    assert policy.cotraining is not None
    own = {f"latents_own.{i}" for i in range(len(policy.cotraining.own))}
    assert set(policy.cotraining.own) == {
        "model.action_head.weight",
        "model.action_head.bias",
        "model.decoder_pos_embed.weight",
    }
    theirs = {"model.action_head.weight", "model.action_head.bias", "model.decoder_pos_embed.weight"}
    policy.config.video.weight = 0.0
    of_demonstrations = gradients(policy, policy.forward(a_batch(policy))[0])
    of_video = gradients(policy, policy.cotraining.loss(4))
    shared = {"model.backbone.conv1.weight", "model.encoder.layers.0.self_attn.in_proj_weight"}
    assert theirs | shared <= of_demonstrations
    assert own | shared <= of_video
    assert not own & of_demonstrations
    assert not theirs & of_video


def test_the_optimizer_moves_the_latents_own_part_too(cotrained: Run) -> None:
    before, after = (load_file(cotrained.checkpoint(step) / COTRAINING_FILE) for step in (1, 3))
    assert not torch.equal(before["own.model.action_head.weight"], after["own.model.action_head.weight"])
    assert torch.equal(before["latents"], after["latents"])
    assert (int(before["steps"]), int(after["steps"])) == (1, 3)


def test_the_latents_own_part_starts_from_the_pretraining(
    pretrained: Path, video: Path, dataset: LeRobotDataset
) -> None:
    policy = load(pretrained, dataset, *flags_of(video))
    assert policy.cotraining is not None
    weights = load_file(pretrained / "model.safetensors")
    for name, parameter in policy.cotraining.own.items():
        assert torch.equal(parameter, weights[name]), name


# --- what is kept --------------------------------------------------------------------------------------------


def test_a_checkpoint_holds_the_policy_alone_and_the_rest_beside_it(
    cotrained: Run, pretrained: Path, demonstrations: Path, tmp_path: Path
) -> None:
    plain = finetune(pretrained, demonstrations, tmp_path / "plain", *CHUNK, steps=1)
    assert cotrained.tensors().keys() == plain.tensors().keys()
    assert not (plain.checkpoint() / COTRAINING_FILE).exists()
    assert cotrained.config()["video"]["repo_id"] == "test/video"
    assert LawmActPolicy.from_pretrained(cotrained.checkpoint()).cotraining is None


def test_resumed_it_ends_where_an_uninterrupted_run_does(
    cotrained: Run, pretrained: Path, video: Path, demonstrations: Path, tmp_path: Path
) -> None:
    interrupted = finetune(pretrained, demonstrations, tmp_path / "run", *CHUNK, *flags_of(video), steps=1)
    resumed = resume(interrupted, 1, "--steps=3")
    assert_same_tensors(resumed.tensors(3), cotrained.tensors(3))
    beside = [load_file(run.checkpoint(3) / COTRAINING_FILE) for run in (resumed, cotrained)]
    assert_same_tensors(*beside)


# --- the video's samples -------------------------------------------------------------------------------------


def test_samples_carry_the_latents_of_the_frames_that_follow(
    pretrained: Path, video: Path, dataset: LeRobotDataset
) -> None:
    policy = load(pretrained, dataset, *flags_of(video))
    assert policy.cotraining is not None
    samples = policy.cotraining.samples
    teacher, _ = load_pretraining_checkpoint(pretrained)
    corpus = LeRobotDataset("test/video", root=video)
    # Every second frame of the second episode, from its second frame on: 1, 3, 5, 7.
    frames = torch.stack([corpus[LENGTHS[0] + t]["observation.images.top"] for t in (1, 3, 5, 7)])
    with torch.no_grad():
        expected = teacher.pretraining.infer_latents(frames[None], torch.ones(1, 3, dtype=torch.bool))[0]
    sample = samples[LENGTHS[0] + 1]
    assert sample["valid"].tolist() == [True, True, True, False]
    torch.testing.assert_close(sample["latents"][:3], expected, atol=2e-3, rtol=0)  # H.264 pictures as bytes
    assert not sample["latents"][3].any()
    # No frame is drawn whose episode ends before a transition is over.
    assert samples.starts.tolist() == [*range(12), *(14 + t for t in range(7))]


def test_the_video_is_seen_as_the_demonstrations_are(
    pretrained: Path, video: Path, demonstrations: Path
) -> None:
    grey = LeRobotDataset(
        "test/demonstrations",
        root=demonstrations,
        return_uint8=True,
        image_transforms=lambda image: torch.full_like(image, 51),
    )
    policy = load(pretrained, grey, *flags_of(video))
    assert policy.cotraining is not None
    cotraining = policy.cotraining
    sample = default_collate([cotraining.samples[0]])
    front, wrist = "observation.images.front", "observation.images.wrist"
    assert sample[front].shape == (1, 3, 40, 40)
    torch.testing.assert_close(sample[front], torch.full((1, 3, 40, 40), 0.2))
    stats = grey.meta.stats[front]
    seen = cotraining._completed(cotraining.preprocess({front: sample[front], "task": sample["task"]}), 1)
    mean, std = (torch.as_tensor(stats[name], dtype=torch.float32) for name in ("mean", "std"))
    torch.testing.assert_close(seen[front][0, :, 0, 0], ((0.2 - mean) / std).flatten())
    # What the video lacks is at its mean, which is zero after this policy's normalisation.
    assert torch.equal(seen[wrist], torch.zeros(1, 3, 40, 40))
    assert torch.equal(seen[STATE], torch.zeros(1, 2))


@pytest.mark.parametrize("state_dim", [2, 5])
def test_the_robots_own_state_is_seen_and_another_ones_is_not(
    state_dim: int, pretrained: Path, dataset: LeRobotDataset, tmp_path: Path
) -> None:
    video = make_dataset(tmp_path / "video", lengths=(8,), state_dim=state_dim, action_dim=None)
    policy = load(pretrained, dataset, *flags_of(video))
    assert policy.cotraining is not None
    assert policy.cotraining.video.has_state == (state_dim == 2)
    lacking = policy.cotraining.video.lacks(policy.config)
    assert lacking == ["observation.images.wrist", *([] if state_dim == 2 else [STATE])]
    assert policy.cotraining.loss(4) > 0


def test_every_step_and_process_draws_frames_of_its_own() -> None:
    def drawn(seed: list[int], first: int) -> list[list[int]]:
        batches = iter(Draws(np.arange(100, 200), 5, seed, first))
        return [next(batches) for _ in range(3)]

    whole = drawn([7, 0], 0)
    assert whole[0] != whole[1] != whole[2]
    assert drawn([7, 0], 1)[:2] == whole[1:]
    assert drawn([7, 1], 0) != whole
    assert {index for batch in whole for index in batch} <= set(range(100, 200))


def test_latents_by_a_checkpoint_that_the_policy_does_not_come_from(
    pretrained: Path, video: Path, dataset: LeRobotDataset
) -> None:
    flags = flags_of(video, f"--policy.video.checkpoint={pretrained}")
    policy = load(None, dataset, *flags).train()
    assert policy.cotraining is not None
    assert policy.config.latent_action.horizon == HORIZON
    assert policy.config.latent_action.stride == STRIDE
    weights = load_file(pretrained / "model.safetensors")
    own = policy.cotraining.own["model.action_head.weight"]
    assert not torch.equal(own, weights["model.action_head.weight"])
    assert policy.forward(a_batch(policy))[1]["video_loss"] > 0


# --- the state -----------------------------------------------------------------------------------------------


def test_dropped_states_are_at_their_mean_and_only_in_training(
    pretrained: Path, dataset: LeRobotDataset
) -> None:
    policy = load(pretrained, dataset, "--policy.state_dropout=0.5")
    seen: list[Tensor] = []
    policy.model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][STATE]))
    batch = {**a_batch(policy, 64), STATE: torch.full((64, 2), 3.0)}
    policy.train().forward(batch)
    dropped = (seen[0] == 0).all(1)
    assert ((seen[0] == 3).all(1) | dropped).all()
    assert 16 < dropped.sum() < 48
    policy.eval().forward(batch)
    assert torch.equal(seen[1], batch[STATE])


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (NormalizationMode.MEAN_STD, [0.0, 0.0]),
        (NormalizationMode.MIN_MAX, [-0.5, 0.0]),
        (NormalizationMode.IDENTITY, [1.0, 4.0]),
    ],
)
def test_the_mean_goes_the_way_of_every_state(mode: NormalizationMode, expected: list[float]) -> None:
    config = LawmActConfig(normalization_mapping={"STATE": mode})
    config.input_features = {OBS_STATE: PolicyFeature(FeatureType.STATE, (2,))}
    stats = {OBS_STATE: {"mean": [1.0, 4.0], "std": [2.0, 2.0], "min": [0.0, 0.0], "max": [4.0, 8.0]}}
    as_arrays = {OBS_STATE: {name: np.array(value, np.float32) for name, value in stats[OBS_STATE].items()}}
    mean = normalised_mean(config, OBS_STATE, as_arrays)
    torch.testing.assert_close(mean, torch.tensor(expected), atol=1e-5, rtol=0)
    history = torch.ones(3, 2, 2)
    assert torch.equal(drop_samples(history, mean, 1.0), mean.expand(3, 2, 2))
    assert torch.equal(drop_samples(history, mean, 0.0), history)


def test_a_policy_without_state_sees_none_and_exports(
    pretrained: Path, demonstrations: Path, tmp_path: Path
) -> None:
    run = finetune(pretrained, demonstrations, tmp_path / "run", *CHUNK, "--policy.use_state=false", steps=1)
    assert STATE not in run.config()["input_features"]
    policy = LawmActPolicy.from_pretrained(run.checkpoint())
    observation = {key: torch.rand(1, *ft.shape) for key, ft in policy.config.input_features.items()}
    with_state = {**observation, STATE: torch.rand(1, 2)}
    assert torch.equal(policy.predict_action_chunk(observation), policy.predict_action_chunk(with_state))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--policy.type=lawm_act", "--policy.state_dropout=1"], "below 1: change --policy.state_dropout"),
        (["--policy.type=lawm_diffusion", "--policy.use_state=false"], "leave out --policy.use_state=false"),
        (
            ["--policy.type=lawm_multi_task_dit", "--policy.use_state=false"],
            "cannot act without observation.state",
        ),
        (["--policy.type=lawm_pi05", "--policy.state_dropout=0.5"], "leave out --policy.state_dropout"),
        (["--policy.type=lawm_act", "--policy.video.root=x"], "add --policy.video.repo_id"),
        (
            ["--policy.type=lawm_act", "--policy.video.repo_id=x", "--policy.video.batch_size=0"],
            "change --policy.video.batch_size",
        ),
    ],
)
def test_flags_that_cannot_work_are_refused(
    flags: list[str], sentence: str, demonstrations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        lerobot_train(demonstrations, tmp_path / "run", "--policy.stage=finetune", *flags)
    assert sentence in capsys.readouterr().out


# --- bad input -----------------------------------------------------------------------------------------------


def refused(sentence: str, load_policy: Callable[[], LawmPolicy]) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        load_policy()
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("changes", "flags", "sentence"),
    [
        ({"fps": 20}, (), "expected the 10 of pretraining"),
        ({"lengths": (2, 2)}, (), "has no episode of more than 2 frames"),
        ({"cameras": ("left", "right")}, (), "change --policy.video.camera"),
        ({}, ("--policy.video.camera=top", "--policy.video.shown_as=nose"), "change --policy.video.shown_as"),
        ({}, ("--policy.video.episodes=[7]",), "change --policy.video.episodes"),
    ],
)
def test_a_video_that_does_not_fit_is_refused(
    changes: dict[str, Any],
    flags: tuple[str, ...],
    sentence: str,
    pretrained: Path,
    dataset: LeRobotDataset,
    tmp_path: Path,
) -> None:
    made = {"lengths": (8,), "state_dim": None, "action_dim": None} | changes
    video = make_dataset(tmp_path / "video", **made)
    refused(sentence, lambda: load(pretrained, dataset, *flags_of(video, *flags)))


def test_what_latents_cannot_come_from_is_refused(
    pretrained: Path, video: Path, dataset: LeRobotDataset, cotrained: Run, tmp_path: Path
) -> None:
    refused(
        "starts from random weights: name one with --policy.video.checkpoint",
        lambda: load(None, dataset, *flags_of(video)),
    )
    source = "--policy.latent_action.source=policy"
    own = pretrain(video, tmp_path / "own", source, *DETERMINISTIC, steps=1).checkpoint()
    refused("has no inverse dynamics", lambda: load(own, dataset, *flags_of(video)))
    chosen = f"--policy.video.checkpoint={cotrained.checkpoint()}"
    refused("change --policy.video.checkpoint", lambda: load(pretrained, dataset, *flags_of(video, chosen)))
    finetuned = tmp_path / "finetuned"
    shutil.copytree(cotrained.checkpoint(), finetuned)
    (finetuned / COTRAINING_FILE).unlink()  # As it is published.
    refused("starts from the finetuned checkpoint", lambda: load(finetuned, dataset, *flags_of(video)))
    pretraining = flags_of(video, "--policy.stage=pretrain")
    refused("leave it out with --policy.video.repo_id=null", lambda: load(pretrained, dataset, *pretraining))
    refused("leave out --peft", lambda: load_with_adapters(pretrained, dataset, flags_of(video)))


def load_with_adapters(pretrained: Path, dataset: LeRobotDataset, flags: tuple[str, ...]) -> LawmPolicy:
    policy = load(pretrained, dataset)
    for flag in flags:
        name, _, value = flag.removeprefix("--policy.video.").partition("=")
        setattr(policy.config.video, name, value)
    policy.config.use_peft = True
    CoTraining(policy, None, dataset.meta.stats, dataset.meta)
    return policy


def test_pictures_are_fitted_without_distortion() -> None:
    half = torch.zeros(3, 2, 1, 8, 8)  # A white right half.
    half[..., 4:] = 1
    fitted = fit_pictures(half, (12, 24))
    assert fitted.shape == (3, 2, 1, 12, 24)
    assert (fitted[..., :6] == 0).all()
    assert (fitted[..., -6:] == 0).all()
    assert (fitted[..., 14:18] > 0.9).all()
    assert fitting_size((240, 320), (480, 640)) == (480, 640)
    assert fitting_size((36, 64), (480, 854)) == (480, 854)
    assert fitting_size((64, 64), (480, 640)) == (480, 480)


def test_another_video_than_the_checkpoints_is_refused(
    cotrained: Run, dataset: LeRobotDataset, tmp_path: Path
) -> None:
    # As many frames, but in other episodes: the saved latents would belong to other frames.
    other = make_dataset(tmp_path / "video", lengths=LENGTHS[::-1], state_dim=None, action_dim=None)
    refused(
        "that the checkpoint was trained on", lambda: load(cotrained.checkpoint(), dataset, *flags_of(other))
    )


def test_a_video_that_vanishes_is_said_and_nothing_is_lost(
    pretrained: Path, video: Path, demonstrations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "video"
    shutil.copytree(video, copy)
    whole = LeRobotDataset.__getitem__
    seen = []

    def vanishing(dataset: LeRobotDataset, index: int) -> dict[str, Any]:
        if Path(dataset.root) == copy:
            seen.append(index)
            if len(seen) == 4:  # The second step's first frame.
                shutil.rmtree(copy / "videos")
        return whole(dataset, index)

    monkeypatch.setattr(LeRobotDataset, "__getitem__", vanishing)
    # torchcodec keeps its files open, and so can read on.
    monkeypatch.setattr(lerobot_dataset, "get_safe_default_video_backend", lambda: "pyav")
    with pytest.raises(
        VideoError, match=r"can no longer be read .*--resume=true, or change --policy.video.root"
    ):
        finetune(
            pretrained, demonstrations, tmp_path / "run", *CHUNK, *flags_of(copy), "--save_freq=1", steps=3
        )
    assert_same_tensors(
        load_file(tmp_path / "run/checkpoints/000001/pretrained_model/model.safetensors"),
        LawmActPolicy.from_pretrained(Run(tmp_path / "run", "").checkpoint()).state_dict(),
    )
