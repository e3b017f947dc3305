"""Pretraining through `lerobot-train`, as a user starts it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.datasets_on_the_spot import make_dataset
from helpers.training import (
    DETERMINISTIC,
    TINY_LAWM,
    Run,
    assert_same_tensors,
    lerobot_train,
    pretrain,
    resume,
)
from lerobot.configs.train import TrainPipelineConfig
from safetensors.torch import load_file

CAMERAS = ("top", "wrist")
SOURCES = ("inverse_dynamics", "policy", "both")
WORLD_MODELS = ("rssm", "recurrent")


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("datasets")
    one_camera = {"state_dim": None, "action_dim": None}
    return {
        "video_only": make_dataset(root / "video_only", **one_camera),
        "with_state": make_dataset(root / "with_state", state_dim=3, action_dim=None),
        "with_actions": make_dataset(root / "with_actions"),
        "scrambled_actions": make_dataset(root / "scrambled_actions", scrambled_actions=True),
        "two_cameras": make_dataset(root / "two_cameras", cameras=CAMERAS, **one_camera),
    }


def finite_losses(run: Run, steps: int = 2) -> list[float]:
    losses = [float(figures["loss"]) for figures in run.metrics()]
    assert len(losses) == steps
    assert all(math.isfinite(loss) for loss in losses)
    return losses


@pytest.mark.parametrize("name", ["video_only", "with_state", "with_actions", "two_cameras"])
def test_every_kind_of_dataset_trains(datasets: dict[str, Path], name: str, tmp_path: Path) -> None:
    run = pretrain(datasets[name], tmp_path / "run")
    finite_losses(run)
    tensors = run.tensors()
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert ("model.encoder_robot_state_input_proj.weight" in tensors) == (
        name in ("with_state", "with_actions")
    )


@pytest.mark.parametrize("source", SOURCES)
def test_actions_are_ignored(datasets: dict[str, Path], source: str, tmp_path: Path) -> None:
    flags = (f"--policy.latent_action.source={source}", "--seed=7")
    true = pretrain(datasets["with_actions"], tmp_path / "true", *flags)
    scrambled = pretrain(datasets["scrambled_actions"], tmp_path / "scrambled", *flags)
    assert finite_losses(true) == finite_losses(scrambled)
    assert_same_tensors(true.tensors(), scrambled.tensors())


def test_world_model_takes_the_first_camera_unless_told(datasets: dict[str, Path], tmp_path: Path) -> None:
    def world_model(name: str, *flags: str) -> dict[str, torch.Tensor]:
        tensors = pretrain(datasets["two_cameras"], tmp_path / name, *flags).tensors()
        return {name: tensor for name, tensor in tensors.items() if name.startswith("pretraining.")}

    first, last = CAMERAS
    by_default = world_model("default")
    short = world_model("short", f"--policy.world_model.camera={last}")
    assert_same_tensors(by_default, world_model("first", f"--policy.world_model.camera={first}"))
    assert_same_tensors(short, world_model("long", f"--policy.world_model.camera=observation.images.{last}"))
    name = "pretraining.inverse_dynamics.head.1.weight"
    assert not torch.equal(by_default[name], short[name])


@pytest.mark.parametrize("world_model", WORLD_MODELS)
@pytest.mark.parametrize("source", SOURCES)
def test_log_shows_the_health_of_the_latents(
    datasets: dict[str, Path], source: str, world_model: str, tmp_path: Path
) -> None:
    run = pretrain(
        datasets["with_state"],
        tmp_path / "run",
        f"--policy.latent_action.source={source}",
        f"--policy.world_model.type={world_model}",
        steps=3,
    )
    finite_losses(run, steps=3)
    expected = {"world_model_loss", "mse_over_copy", "latent_std", "latent_rank", "shuffle_ratio"}
    expected |= {"kl"} if world_model == "rssm" else set()
    expected |= {"imitation_loss", "l1_loss"} if source != "policy" else set()
    expected |= {"policy_world_model_loss", "policy_mse_over_copy"} if source == "both" else set()
    for figures in run.metrics():
        assert expected <= figures.keys()
        assert all(math.isfinite(float(figures[name])) for name in expected)
    assert float(run.metrics()[-1]["policy_grad_norm"]) > 0


def test_health_is_in_every_log_line_however_rare(datasets: dict[str, Path], tmp_path: Path) -> None:
    run = pretrain(
        datasets["with_state"], tmp_path / "run", "--log_freq=2", "--policy.health_freq=100", steps=4
    )
    assert [figures["step"] for figures in run.metrics()] == ["2", "4"]
    assert all(float(figures["latent_std"]) > 0 for figures in run.metrics())


@pytest.mark.parametrize("source", SOURCES)
def test_held_out_episodes_are_evaluated(datasets: dict[str, Path], source: str, tmp_path: Path) -> None:
    run = pretrain(
        datasets["with_state"],
        tmp_path / "run",
        "--dataset.eval_split=0.25",
        "--eval_steps=1",
        f"--policy.latent_action.source={source}",
    )
    losses = [
        float(line.rpartition("eval_loss=")[2]) for line in run.log.splitlines() if "eval_loss=" in line
    ]
    assert len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses)
    finite_losses(run)


def test_going_on_undoes_the_normalisation_of_the_new_run(datasets: dict[str, Path], tmp_path: Path) -> None:
    first = pretrain(datasets["with_state"], tmp_path / "first")
    second = lerobot_train(
        datasets["with_state"],
        tmp_path / "second",
        f"--policy.path={first.checkpoint()}",
        "--dataset.use_imagenet_stats=false",
    )
    statistics = json.loads((datasets["with_state"] / "meta" / "stats.json").read_text())
    for ours, theirs, imagenet in (
        ("mean", "pixel_mean", (0.485, 0.456, 0.406)),
        ("std", "pixel_scale", (0.229, 0.224, 0.225)),
    ):
        before, after = (run.tensors()[f"pretraining.{theirs}"].flatten() for run in (first, second))
        own = torch.tensor(statistics["observation.images.top"][ours]).flatten()
        assert torch.allclose(before, torch.tensor(imagenet))
        assert torch.allclose(after, own) and not torch.allclose(after, before)


def test_image_transforms_reach_the_clips(datasets: dict[str, Path], tmp_path: Path) -> None:
    plain = pretrain(datasets["video_only"], tmp_path / "plain")
    transformed = pretrain(
        datasets["video_only"], tmp_path / "transformed", "--dataset.image_transforms.enable=true"
    )
    assert finite_losses(plain) != finite_losses(transformed)


def test_mixed_precision_trains(datasets: dict[str, Path], tmp_path: Path) -> None:
    # LeRobot after 0.6.1 trains in the accelerator's precision and leaves the policy's flag to evaluation.
    accelerated = "accelerator" in TrainPipelineConfig.__dataclass_fields__
    flag = "--accelerator.mixed_precision=bf16" if accelerated else "--policy.use_amp=true"
    run = pretrain(datasets["with_state"], tmp_path / "run", flag)
    full = pretrain(datasets["with_state"], tmp_path / "full")
    assert finite_losses(run) == pytest.approx(finite_losses(full), rel=0.1)
    assert {tensor.dtype for tensor in run.tensors().values()} == {torch.float32}
    assert not torch.equal(
        run.tensors()["model.action_head.weight"], full.tensors()["model.action_head.weight"]
    ), "bfloat16 was not used"


@pytest.mark.parametrize("source", SOURCES)
def test_resumed_run_ends_where_an_uninterrupted_one_does(
    datasets: dict[str, Path], source: str, tmp_path: Path
) -> None:
    # Random numbers of a step are off: LeRobot's data loader draws one more of them after every start.
    flags = (*DETERMINISTIC, f"--policy.latent_action.source={source}")
    straight = pretrain(datasets["with_state"], tmp_path / "straight", *flags, steps=4)
    interrupted = pretrain(datasets["with_state"], tmp_path / "interrupted", *flags, steps=2)
    resumed = resume(interrupted, 2, "--steps=4")
    assert [figures["loss"] for figures in resumed.metrics()] == [
        figures["loss"] for figures in straight.metrics()[2:]
    ]
    assert_same_tensors(resumed.tensors(4), straight.tensors(4))
    assert_same_tensors(resumed.optimizer(4), straight.optimizer(4))


def test_resumed_run_keeps_the_order_of_the_data_and_the_dataset_rate(
    datasets: dict[str, Path], tmp_path: Path
) -> None:
    interrupted = pretrain(datasets["with_state"], tmp_path / "run", steps=2)
    resumed = resume(interrupted, 2, "--steps=3")
    assert "Resuming data order at epoch 0, sample 8" in resumed.log
    assert '"dataset_fps": 10' in (resumed.checkpoint(3) / "config.json").read_text()


@pytest.mark.slow
def test_two_processes_train_together(datasets: dict[str, Path], tmp_path: Path) -> None:
    dataset, output_dir = datasets["with_state"], tmp_path / "run"
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
        *("-m", "lerobot.scripts.lerobot_train"),
        f"--dataset.repo_id=test/{dataset.name}",
        f"--dataset.root={dataset}",
        f"--output_dir={output_dir}",
        *("--batch_size=2", "--num_workers=0", "--steps=2", "--log_freq=1"),
        *TINY_LAWM,
    ]
    root = Path(__file__).resolve().parents[2]
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    finished = subprocess.run(
        command,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "Effective batch size: 2 x 2 = 4" in finished.stderr
    assert "shuffle_ratio:" in finished.stderr
    tensors = load_file(output_dir / "checkpoints" / "last" / "pretrained_model" / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in tensors.values())
