"""What one sees of a training while it runs, and that the training does not mind: pictures, curves, uses and pace."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from helpers.asked_policies import WrittenPolicy, brightness
from helpers.datasets_on_the_spot import make_dataset
from helpers.training import Run, assert_same_tensors, finetune, pretrain, resume
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from lawm_lerobot.policies.common import pace, watching
from lawm_lerobot.policies.common.curves import CURVES_FILE, Curves
from lawm_lerobot.policies.common.imagination import TILE, imagine_clip
from lawm_lerobot.policies.common.pace import Pace
from lawm_lerobot.policies.common.pretraining_checkpoint import load_pretraining_policy
from lawm_lerobot.policies.common.uses import Uses

CAMERA = "observation.images.top"
SIZE, FRAMES = 32, 5  # of TINY_LAWM's world model
HEALTH = ["mse_over_copy", "shuffle_ratio", "latent_std", "latent_rank", "policy_std"]


@dataclass(frozen=True)
class Trained:
    """The same training with and without pictures."""

    watched: Run
    unwatched: Run


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("dataset") / "video", lengths=(30, 30), state_dim=None)


@pytest.fixture(scope="module")
def pretrained(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    root = tmp_path_factory.mktemp("pretrained")
    # A rate at which few steps leave a world model that does something.
    flags = ("--policy.health_freq=1", "--policy.pretraining_lr=0.01")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pace, "MEASURED", 3)
        watched = pretrain(
            dataset, root / "watched", "--policy.picture_freq=2", "--save_freq=1", *flags, steps=4
        )
        unwatched = pretrain(dataset, root / "unwatched", "--policy.picture_freq=0", *flags, steps=4)
    yield Trained(watched, unwatched)


@pytest.fixture(scope="module")
def finetuned(pretrained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("finetuned")
    labelled = make_dataset(root / "labelled", lengths=(30, 30))
    video = root / "video"
    make_dataset(video, lengths=(14,), state_dim=None, action_dim=None)
    flags = (
        *("--policy.chunk_size=7", "--policy.n_action_steps=3", "--policy.use_amp=true"),
        *("--policy.state_dropout=0.5", "--policy.video.repo_id=test/video", f"--policy.video.root={video}"),
        "--policy.video.num_workers=0",
    )
    checkpoint = pretrained.watched.checkpoint()
    return Trained(
        finetune(checkpoint, labelled, root / "watched", "--policy.picture_freq=1", *flags),
        finetune(checkpoint, labelled, root / "unwatched", "--policy.picture_freq=0", *flags),
    )


def random_state(run: Run) -> dict[str, Tensor]:
    return load_file(run.checkpoint().parent / "training_state" / "rng_state.safetensors")


def rows_of(run: Run, step: int | None = None) -> list[dict[str, Any]]:
    return json.loads((run.checkpoint(step) / CURVES_FILE).read_text())


def tiles_of(file: Path) -> np.ndarray:
    """The frames of a picture as they were before they were enlarged, line by line: (lines,T,h,w,C) uint8."""
    picture = np.asarray(Image.open(file))
    side = TILE // SIZE * SIZE
    filled = (picture != 255).any(-1)
    # The frames end at the right border and hold no white; the titles beside them are letters on white.
    rows = np.flatnonzero(filled[:, -4 - side : -4].all(1))
    tops = rows[np.r_[True, np.diff(rows) > 1]]
    lefts = picture.shape[1] - (side + 4) * np.arange(FRAMES, 0, -1)
    tiles = [[picture[top : top + side, left : left + side] for left in lefts] for top in tops]
    return np.asarray(tiles)[:, :, :: side // SIZE, :: side // SIZE]


# --- the training does not mind --------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["pretrained", "finetuned"])
def test_pictures_and_uses_change_no_weight_and_no_random_number(
    stage: str, request: pytest.FixtureRequest
) -> None:
    trained = request.getfixturevalue(stage)
    assert_same_tensors(trained.watched.tensors(), trained.unwatched.tensors())
    assert_same_tensors(trained.watched.optimizer(), trained.unwatched.optimizer())
    assert_same_tensors(random_state(trained.watched), random_state(trained.unwatched))
    assert "without pictures" not in trained.watched.log
    assert not (trained.unwatched.directory / "pictures").exists()
    assert not (trained.unwatched.checkpoint() / CURVES_FILE).exists()


def test_a_picture_that_fails_ends_no_training(pretrained: Trained, tmp_path: Path) -> None:
    run = Run(shutil.copytree(pretrained.watched.directory, tmp_path / "run", symlinks=True), "")
    shutil.rmtree(run.directory / "pictures")
    (run.directory / "pictures").write_text("a file in the place of the folder")
    log = resume(run, 3, f"--output_dir={run.directory}", "--policy.picture_freq=1").log
    assert log.count("goes on without pictures") == 1
    assert "Checkpoint policy after step 4" in log


# --- pictures --------------------------------------------------------------------------------------------------


def test_a_picture_shows_what_the_world_model_decodes(pretrained: Trained) -> None:
    pictures = pretrained.watched.directory / "pictures"
    assert sorted(file.name for file in pictures.iterdir()) == [
        "curves.png",
        "step_000002.png",
        "step_000004.png",
    ]
    tiles = tiles_of(pictures / "step_000004.png")
    assert tiles.shape == (3 * 4, FRAMES, SIZE, SIZE, 3)
    frames = torch.from_numpy(tiles).permute(0, 1, 4, 2, 3).float().unflatten(0, (3, 4)) / 255
    real, inferred, planned, others = frames.unbind(1)  # (3,T,C,h,w) each
    assert torch.equal(
        real, torch.from_numpy(tiles_of(pictures / "step_000002.png"))[::4].permute(0, 1, 4, 2, 3) / 255
    )

    # The picture of the fourth step was drawn with the weights after the third.
    policy = load_pretraining_policy(pretrained.watched.checkpoint(3))
    valid = torch.ones(3, FRAMES - 1, dtype=torch.bool)
    mean, scale = map(policy.pretraining.get_buffer, ("pixel_mean", "pixel_scale"))
    with torch.no_grad():
        own = policy.pretraining.infer_latents(real, valid)
        plan = policy.latents_without_gradient(policy.prepare_batch({CAMERA: (real[:, 0] - mean) / scale}))
    expected = {"inferred": (inferred, own), "planned": (planned, plan)}
    for name, (shown, latents) in expected.items():
        decoded = imagine_clip(policy, real[:, 0], latents).clamp(0, 1)
        # The networks saw the frames before they were rounded to bytes.
        assert (shown - decoded).abs().max() < 3 / 255, name
    for other in (planned, others):
        assert (inferred - other).abs().max() > 6 / 255


def test_wandb_gets_the_picture_at_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged = []
    run = SimpleNamespace(log=lambda data, step: logged.append((data, step)))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=run, Image=lambda path: f"image {path}"))
    watching._log_to_wandb(tmp_path / "a.png", 7)
    assert logged == [({"train/pictures": f"image {tmp_path / 'a.png'}"}, 7)]
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=None))
    watching._log_to_wandb(tmp_path / "a.png", 8)
    assert len(logged) == 1


# --- curves ----------------------------------------------------------------------------------------------------


def test_curves_go_on_where_a_resumed_run_does(pretrained: Trained, tmp_path: Path) -> None:
    rows = rows_of(pretrained.watched)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(row.keys() >= {"step", *HEALTH} for row in rows)
    logged = pretrained.watched.metrics()[2]
    assert rows[2]["mse_over_copy"] == pytest.approx(float(logged["mse_over_copy"]), abs=1e-3)

    run = Run(shutil.copytree(pretrained.watched.directory, tmp_path / "run", symlinks=True), "")
    shutil.rmtree(run.directory / "pictures")
    resume(run, 2, f"--output_dir={run.directory}")
    resumed = rows_of(run)
    assert resumed[:2] == rows[:2]
    assert [row["step"] for row in resumed] == [1, 2, 3, 4]
    assert {file.name for file in (run.directory / "pictures").iterdir()} == {"curves.png", "step_000004.png"}


def test_a_drawn_curve_has_a_point_for_every_record(tmp_path: Path) -> None:
    curves = Curves()
    for step in range(6):
        curves.record(25 * step, {"latent_std": (-1.0) ** step, **({"kl": float("nan")} if step else {})})
    curves.save(tmp_path)
    loaded = Curves()
    loaded.load(tmp_path)
    assert loaded.rows == curves.rows
    steps, values = loaded.curve("kl")
    assert steps == [25, 50, 75, 100, 125]
    assert np.isnan(values).all()

    picture = np.asarray(Image.open(loaded.draw(tmp_path / "curves.png")).convert("RGB")).astype(int)
    blue = (picture[..., 2] - picture[..., 0] > 90).astype(np.uint8)
    # Points are thicker than the lines between them; what is not finite is not drawn.
    points = cv2.connectedComponents(cv2.erode(blue, np.ones((3, 3), np.uint8)))[0] - 1
    assert points == 6
    assert blue[:, picture.shape[1] // 2 :].sum() == 0


# --- uses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("picture", "expected"), [(1.0, (1, 0)), (0.0, (0, 1)), (0.5, (0.5, 0.5))])
def test_uses_tell_by_what_a_policy_acts(picture: float, expected: tuple[float, float]) -> None:
    def act(batch: dict[str, Any]) -> Tensor:
        return picture * brightness(batch) + (1 - picture) * batch["observation.state"][:, :1, None]

    policy: Any = WrittenPolicy(act).eval()
    policy.estimate_chunk = policy.predict_action_chunk
    # Both inputs of a sample are the same number, so that each moves the chunk by as much.
    numbers = torch.arange(4.0)
    batch = {
        CAMERA: numbers[:, None, None, None].expand(4, 3, 32, 32),
        "observation.state": numbers[:, None].expand(4, 2),
        "action": torch.zeros(4, 1, 1),
    }
    uses = Uses()
    for seed in range(2):
        uses.add(policy, batch, seed)
    assert uses.metrics() == pytest.approx(dict(zip(("use_top", "use_state"), expected, strict=True)))


def test_uses_of_a_broken_policy_and_of_a_single_sample_end_nothing() -> None:
    policy: Any = WrittenPolicy(lambda batch: brightness(batch) * float("nan"), state=False).eval()
    policy.estimate_chunk = policy.predict_action_chunk
    uses = Uses()
    uses.add(policy, {CAMERA: torch.rand(1, 3, 32, 32)}, 0)
    assert uses.metrics() == {}
    uses.add(policy, {CAMERA: torch.rand(2, 3, 32, 32)}, 0)
    assert np.isnan(uses.metrics()["use_top"])


def test_finetuning_logs_the_uses_and_keeps_them_as_curves(finetuned: Trained) -> None:
    lines = finetuned.watched.metrics()
    rows = rows_of(finetuned.watched)
    assert [row["step"] for row in rows] == [1, 2]
    for row, line in zip(rows, lines, strict=True):
        assert row["use_state"] == pytest.approx(float(line["use_state"]), abs=1e-3)
        assert row["use_top"] > 0
    assert (finetuned.watched.directory / "pictures" / "curves.png").is_file()


# --- pace ------------------------------------------------------------------------------------------------------


def test_the_log_says_what_is_trained_and_how_long_it_takes(pretrained: Trained) -> None:
    log = pretrained.watched.log
    found = re.search(
        r"Parameters: policy ([\d.]+)M, world model ([\d.]+)K, inverse dynamics ([\d.]+)K\.", log
    )
    assert found
    tensors = load_pretraining_policy(pretrained.watched.checkpoint()).named_parameters()
    counts = {"world_model": 0, "inverse_dynamics": 0}
    for name, parameter in tensors:
        for part in counts:
            counts[part] += parameter.numel() if name.startswith(f"pretraining.{part}.") else 0
    assert [float(text) for text in found.groups()[1:]] == [
        round(count / 1000, 1) for count in counts.values()
    ]
    (sentence,) = re.findall(
        r"Pretraining takes [\d.e-]+ s a step, \d+:\d+:\d+ for the 1 steps to come\..*", log
    )
    assert re.search(r"Peak memory \d+\.\d of \d+\.\d GB", sentence)


@pytest.mark.parametrize(
    ("loading", "computing", "said"),
    [
        (3, 1, "raise --num_workers (2;"),
        (1, 3, "a lower --batch_size (8) or --policy.world_model.image_size (64)"),
    ],
)
def test_pace_tells_loading_from_computing(loading: float, computing: float, said: str) -> None:
    now = [0.0]
    measured = Pace(torch.device("cpu"), clock=lambda: now[0])
    now[0] = 100  # the first batch, for which the loaders start
    while measured.measuring:
        measured.begin()
        now[0] += computing
        measured.end()
        now[0] += loading
    assert measured.step_s == loading + computing
    assert measured.loading_share == loading / (loading + computing)
    run = SimpleNamespace(steps=920, num_workers=2, batch_size=8)
    sentence = measured.sentence(run, 20, 64)
    assert sentence.startswith("Pretraining takes 4 s a step, 1:00:00 for the 900 steps to come. ")
    assert said in sentence
    assert f"{loading / (loading + computing):.0%} of a step" in sentence
