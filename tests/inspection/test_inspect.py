"""`lawm-inspect`: four checkpoints with four fates get four verdicts, and the report shows why."""

from __future__ import annotations

import base64
import copy
import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch
from helpers.datasets_on_the_spot import make_dataset
from helpers.training import TINY_ACT, finetune, lerobot_train, pretrain, run_command
from lerobot.utils import import_utils
from PIL import Image
from torch import Tensor, nn

from lawm_lerobot.inspection import report
from lawm_lerobot.inspection.inspection import (
    Sample,
    check_fit,
    coded_shift,
    explained_variance,
    other_latents,
    probe_actions,
    whole_clips,
)
from lawm_lerobot.inspection.probes import (
    between_frames,
    head_inputs,
    linear_probe,
    principal_components,
    shift_images,
    shift_offsets,
    shift_variance,
)
from lawm_lerobot.method.inverse_dynamics import random_shift
from lawm_lerobot.policies.common.imagination import (
    load_pretraining_checkpoint,
    open_clips,
    preprocessed_batches,
)
from lawm_lerobot.policies.common.policy import LawmPolicy
from lawm_lerobot.scripts import lawm_inspect

TASKS = ("push the square", "pull the square")
STEPS = 120
PICTURES = {"strips.png", "transfer.png", "explained_variance.png", "latents.png", "probes.png"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inspect")


@pytest.fixture(scope="module")
def video(root: Path) -> Path:
    return make_dataset(root / "video", lengths=(20,) * 10, tasks=TASKS)


@pytest.fixture(scope="module")
def fresh(root: Path, video: Path) -> Path:
    """A real checkpoint whose networks have hardly left their random start."""
    return pretrain(video, root / "fresh_run", steps=1).checkpoint()


def learn(policy: LawmPolicy, frames: Tensor, shared_shift: bool) -> LawmPolicy:
    """World model and inverse dynamics alone, on clips (N,T,C,h,w); the wrapped policy stays as it is.

    ``shared_shift`` lets the world model's targets be shifted as the inverse dynamics' input is.
    """
    policy = copy.deepcopy(policy)
    module = policy.pretraining.train()
    optimizer = torch.optim.Adam(module.parameters(), lr=2e-3)
    torch.manual_seed(0)
    for _ in range(STEPS):
        clip = frames[torch.randint(len(frames), (16,))]
        valid = torch.ones(clip.shape[0], clip.shape[1] - 1, dtype=torch.bool)
        if shared_shift:
            module.inverse_dynamics.random_shift = 0
            shifted = random_shift(clip, 4)
            latents = module.infer_latents(shifted, valid)
            clip = torch.cat([clip[:, :1], shifted[:, 1:]], 1)
        else:
            latents = module.infer_latents(clip, valid)
        loss = module.world_model(clip, latents + 0.1 * torch.randn_like(latents), valid).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return policy.eval()


@pytest.fixture(scope="module")
def checkpoints(root: Path, fresh: Path, video: Path) -> dict[str, Path]:
    """By verdict."""
    policy, preprocessor = load_pretraining_checkpoint(fresh)
    dataset = open_clips(policy.config, "test/video", video)
    starts, _ = whole_clips(dataset.meta, policy.config)
    batches = preprocessed_batches(dataset, starts.tolist(), preprocessor)
    frames = torch.cat([policy.clip(batch).frames for batch in batches])

    healthy = learn(policy, frames, shared_shift=False)
    collapsed, ignored = copy.deepcopy(healthy), copy.deepcopy(healthy)
    nn.init.zeros_(collapsed.pretraining.inverse_dynamics.head[1].weight)
    nn.init.zeros_(ignored.pretraining.world_model.latent_in[0].weight)
    policies = {
        "healthy": healthy,
        "collapsed": collapsed,
        "ignored": ignored,
        "codes the augmentation": learn(policy, frames, shared_shift=True),
    }
    for name, trained in policies.items():
        shutil.copytree(fresh, root / name)
        trained.save_pretrained(root / name)
    return {name: root / name for name in policies}


def inspect(checkpoint: Path, dataset: Path, output_dir: Path, *flags: str) -> str:
    return run_command(
        lawm_inspect.main,
        f"--policy.path={checkpoint}",
        f"--dataset.repo_id=test/{dataset.name}",
        f"--dataset.root={dataset}",
        f"--output_dir={output_dir}",
        *flags,
    )


@pytest.fixture(scope="module")
def reports(checkpoints: dict[str, Path], video: Path, root: Path) -> dict[str, Path]:
    directories = {name: root / f"report of {name}" for name in checkpoints}
    for name, checkpoint in checkpoints.items():
        inspect(checkpoint, video, directories[name], "--clips=64")
    return directories


def metrics_of(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "metrics.json").read_text())


# --- verdicts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fate", ["healthy", "collapsed", "ignored", "codes the augmentation"])
def test_each_fate_gets_its_verdict_with_the_figure_behind_it(reports: dict[str, Path], fate: str) -> None:
    metrics = metrics_of(reports[fate])
    assert metrics["verdict"] == fate
    failed = [name for name, check in metrics["checks"].items() if check["failed"]]
    assert fate == "healthy" or fate in failed
    for check in metrics["checks"].values():
        assert check["failed"] is None or re.search(r"\d.*(below|above) \d", check["sentence"])
    page = (reports[fate] / "report.html").read_text()
    assert re.search(r"<h1>.*<span class=\"(\w+)\">(.*)</span></h1>", page).groups() == (
        "healthy" if fate == "healthy" else "failed",
        fate,
    )


def test_healthy_figures_are_those_of_something_learned(reports: dict[str, Path]) -> None:
    metrics = metrics_of(reports["healthy"])
    explained = metrics["explained_variance"]
    assert explained["own"]["all"] > 0.3
    for wrong in ("shuffled_batch", "shuffled_episode", "zeroed"):
        assert len(explained[wrong]["by_horizon"]) == 4
        assert explained[wrong]["all"] < explained["own"]["all"] - 0.1
        assert metrics["error_ratio"][wrong] > 1.1
    latents = metrics["probe"]["targets"]["action"]["latents"]
    baselines = [score["r2"] for name, score in latents.items() if name != "latents"]
    assert len(baselines) == 2
    assert latents["latents"]["r2"] > max(baselines) + 0.1
    assert metrics["probe"]["episodes"] == 10
    assert set(metrics["tasks"]) == set(TASKS)


def test_constant_and_ignored_latents_change_nothing(reports: dict[str, Path]) -> None:
    for fate in ("collapsed", "ignored"):
        metrics = metrics_of(reports[fate])
        assert metrics["error_ratio"]["shuffled_batch"] == pytest.approx(1, abs=1e-4)
        assert metrics["augmentation"]["coded_shift"] == pytest.approx(0, abs=1e-4)
    assert metrics_of(reports["collapsed"])["latents"]["std"] < 1e-3
    assert metrics_of(reports["ignored"])["latents"]["std"] > 0.5


def test_same_seed_same_figures(
    checkpoints: dict[str, Path], reports: dict[str, Path], video: Path, tmp_path: Path
) -> None:
    inspect(checkpoints["healthy"], video, tmp_path / "again", "--clips=64")
    assert metrics_of(tmp_path / "again") == metrics_of(reports["healthy"])


# --- the report ------------------------------------------------------------------------------------------------


def test_page_holds_every_picture_and_asks_nobody_for_anything(reports: dict[str, Path]) -> None:
    directory = reports["healthy"]
    files = {file.name for file in directory.iterdir()}
    assert files == PICTURES | {"imagination.mp4", "report.html", "metrics.json"}
    page = (directory / "report.html").read_text()
    sources = re.findall(r"(?:src|href)=\"([^\"]*)\"", page)
    embedded = {base64.b64decode(source.partition("base64,")[2]) for source in sources}
    assert embedded == {(directory / name).read_bytes() for name in PICTURES | {"imagination.mp4"}}
    assert all(source.startswith("data:") for source in sources)
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)
    assert "url(" not in page
    for name in PICTURES | {"imagination.mp4"}:
        assert f"<b>{name}</b>" in page
    for text in (re.sub(r"base64,[^\"]*", "", page), (directory / "metrics.json").read_text()):
        assert str(directory.parent) not in text
    assert not [file for file in directory.parent.iterdir() if file.name.startswith(".report")]


def test_film_plays_the_real_clip_above_its_imagination_and_x_0(reports: dict[str, Path]) -> None:
    with av.open(str(reports["healthy"] / "imagination.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 5  # 10 frames a second, every second one
    assert len(frames) == 3 * (5 + 2)
    first, last = frames[0], frames[4]
    side = 32 * 4 + 4
    real, copied = slice(0, side), slice(3 * side, 4 * side)
    assert np.abs(last[real] - first[real]).mean() > 3
    assert np.abs(last[copied] - first[copied]).mean() < 1
    assert np.abs(last[real, 220:] - last[copied, 220:]).mean() > 3


def test_pictures_are_not_blank(reports: dict[str, Path]) -> None:
    for name in PICTURES:
        image = np.asarray(Image.open(reports["healthy"] / name).convert("RGB")).astype(int)
        assert image.std() > 5, name
    strips = np.asarray(Image.open(reports["healthy"] / "strips.png").convert("RGB")).astype(int)
    # The square of `make_dataset` is the only yellow there is; 4 clips in 4 strips of 5 frames.
    yellow = (strips[..., 0] > 170) & (strips[..., 1] > 140) & (strips[..., 2] < 120)
    columns = np.flatnonzero(np.diff(np.concatenate([[0], yellow.any(0).astype(int)])) == 1)
    assert len(columns) >= 5
    assert yellow.sum() > 4000


def test_no_actions_one_task_and_a_posterior(root: Path, tmp_path: Path) -> None:
    bare = make_dataset(tmp_path / "bare", lengths=(14, 14), action_dim=None, state_dim=None)
    flags = ("--policy.latent_action.source=policy", "--policy.world_model.type=rssm")
    checkpoint = pretrain(bare, tmp_path / "run", *flags, steps=1).checkpoint()
    log = inspect(checkpoint, bare, tmp_path / "report", "--clips=64")
    assert "there is nothing to probe" in log
    assert "12 whole clips, fewer than the 64 asked for" in log
    metrics = metrics_of(tmp_path / "report")
    assert metrics["clips"] == 12
    assert "there is nothing to probe" in metrics["probe"]["skipped"]
    assert "policy_plan" not in metrics["explained_variance"]
    page = (tmp_path / "report" / "report.html").read_text()
    assert "one task" in page
    assert "reconstructed by the world model" in page
    assert "probes.png" not in page


def test_another_frame_rate_is_worth_a_warning(fresh: Path, video: Path, tmp_path: Path) -> None:
    shutil.copytree(fresh, tmp_path / "checkpoint")
    file = tmp_path / "checkpoint" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"dataset_fps": 30}))
    inspect(tmp_path / "checkpoint", video, tmp_path / "report", "--clips=4")
    (warning,) = metrics_of(tmp_path / "report")["warnings"]
    assert warning.startswith("The dataset has 10 frames per second, the pretraining dataset had 30")
    assert warning in (tmp_path / "report" / "report.html").read_text()


class FakeRerun(ModuleType):
    """Stands for the viewer, which needs a screen: remembers what it was asked to show."""

    def __init__(self) -> None:
        super().__init__("rerun")
        self.logged: list[str] = []

    def log(self, entity: str | list[str], *what: Any, **how: Any) -> None:
        self.logged.append(entity if isinstance(entity, str) else "/".join(entity))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: None


def test_rerun_shows_the_strips_and_the_latents(
    fresh: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rerun = FakeRerun()
    monkeypatch.setitem(sys.modules, "rerun", rerun)
    monkeypatch.setitem(import_utils._require_package_cache, "rerun", True)
    inspect(fresh, video, tmp_path / "report", "--clips=8", "--display=rerun")
    assert rerun.logged.count("clip 0/real") == 5
    assert "clip 3/transfer/B, imagined, A's latents" in rerun.logged
    assert "latents" in rerun.logged


# --- what can go wrong -----------------------------------------------------------------------------------------


def refused(checkpoint: Path | str, dataset: Path, output_dir: Path, *flags: str) -> str:
    """The one sentence that the command ends with."""
    with pytest.raises(SystemExit) as failure:
        inspect(checkpoint, dataset, output_dir, *flags)
    message = str(failure.value)
    assert message.startswith("lawm-inspect: ")
    assert "\n" not in message
    assert not output_dir.exists() or list(output_dir.iterdir()) == [output_dir / "mine.txt"]
    assert not list(output_dir.parent.glob(f".{output_dir.name}-*"))
    return message


def test_checkpoint_and_dataset_that_do_not_fit(fresh: Path, video: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    elsewhere = make_dataset(tmp_path / "elsewhere", cameras=("wrist",), lengths=(10,))
    assert "no 'observation.images.top'" in refused(fresh, elsewhere, out)
    stateless = make_dataset(tmp_path / "stateless", state_dim=None, lengths=(10,))
    assert "no 'observation.state'" in refused(fresh, stateless, out)
    wide = make_dataset(tmp_path / "wide", state_dim=3, lengths=(10,))
    assert "shape (3,), but this checkpoint was pretrained with shape (2,)" in refused(fresh, wide, out)
    short = make_dataset(tmp_path / "short", lengths=(8, 5))
    found = refused(fresh, short, out)
    assert "0 whole clips" in found
    assert "a clip spans 9 frames" in found
    assert "the longest episode has 8" in found
    for gone in (tmp_path / "gone", video / "data"):
        assert "--dataset.root" in refused(fresh, gone, out)


def test_colour_is_asked_of_a_grey_camera(fresh: Path, video: Path) -> None:
    policy, _ = load_pretraining_checkpoint(fresh)
    features = copy.deepcopy(open_clips(policy.config, "test/video", video).meta.features)
    features["observation.images.top"]["shape"] = (32, 32, 1)
    with pytest.raises(ValueError, match="channels 1, but .* channels 3: choose another --dataset.repo_id"):
        check_fit(policy, SimpleNamespace(features=features, fps=10), "test/grey")


def test_checkpoints_that_are_not_of_pretraining(fresh: Path, video: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    finetuned = finetune(fresh, video, tmp_path / "fine", steps=1).checkpoint()
    assert "stage finetune, expected a lawm_* pretraining checkpoint" in refused(finetuned, video, out)
    plain = lerobot_train(video, tmp_path / "plain", "--policy.type=act", *TINY_ACT, steps=1).checkpoint()
    assert "holds a act policy of stage none" in refused(plain, video, out)
    for nowhere in (tmp_path / "nowhere", "a/b/c"):
        assert f"There is no directory {nowhere}" in refused(nowhere, video, out)
    shutil.copytree(fresh, tmp_path / "damaged")
    weights = tmp_path / "damaged" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "cannot be read as safetensors" in refused(tmp_path / "damaged", video, out)
    (tmp_path / "damaged" / "config.json").unlink()
    assert "config.json" in refused(tmp_path / "damaged", video, out)


def test_flags_out_of_range(
    fresh: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report"
    assert "clips is 1, expected at least 2: change --clips" in refused(fresh, video, out, "--clips=1")
    assert "change --display" in refused(fresh, video, out, "--display=television")
    monkeypatch.setitem(import_utils._require_package_cache, "rerun", False)
    assert "pip install 'lerobot[viz]'" in refused(fresh, video, out, "--display=rerun")
    out.mkdir()
    (out / "mine.txt").write_text("work of days")
    assert "exists and is not empty" in refused(fresh, video, out)


def test_interrupted_report_leaves_nothing(
    fresh: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "write_video", interrupt)
    assert "interrupted, no report was written" in refused(
        fresh, video, tmp_path / "out" / "report", "--clips=4"
    )
    assert not list((tmp_path / "out").iterdir())


# --- the measurements, on data whose answer is known -----------------------------------------------------------


def test_probe_finds_a_linear_map_and_nothing_in_noise() -> None:
    torch.manual_seed(0)
    features, episodes = torch.randn(200, 5), torch.arange(200) // 20
    targets = features @ torch.randn(5, 3) + 7
    targets[:, 2] = 3  # constant, so that nothing of it can be explained
    score = linear_probe(features, targets, episodes)
    assert score.r2 > 0.999
    assert np.isnan(score.per_dimension).tolist() == [False, False, True]
    noise = linear_probe(torch.randn(200, 5), targets, episodes)
    assert noise.r2 < 0.05


def test_probe_is_split_by_episode() -> None:
    # What only tells which episode it is explains everything within the episodes and nothing of a new one.
    torch.manual_seed(0)
    episodes = torch.arange(200) // 20
    features = torch.eye(10)[episodes] + 0.01 * torch.randn(200, 10)
    targets = torch.randn(10, 2)[episodes]
    within = torch.linalg.lstsq(features, targets).solution
    assert (features @ within - targets).square().mean() < 0.01
    assert linear_probe(features, targets, episodes).r2 < 0


def some_sample(**changes: Any) -> Sample:
    torch.manual_seed(0)
    sample = Sample(
        frames=torch.randint(0, 255, (6, 4, 3, 16, 16), dtype=torch.uint8),
        inferred=torch.randn(6, 3, 2),
        planned=torch.randn(6, 3, 2),
        features=torch.randn(6, 5),
        untrained_latents=torch.randn(6, 3, 2),
        untrained_features=torch.randn(6, 5),
        offsets=shift_offsets(1 / 8),
        shifted_clips=torch.tensor([0, 2, 4]),
        shifted=torch.randn(9, 3, 3, 2),
        episodes=torch.tensor([0, 0, 0, 1, 1, 1]),
        tasks=["push"] * 6,
        targets={},
    )
    return replace(sample, **changes)


def policy_imagining(imagine: Callable[[Tensor, Tensor], Tensor]) -> Any:
    """Stands for a policy of which only the world model's imagination is asked."""
    world_model = SimpleNamespace(imagine=imagine)
    config = SimpleNamespace(device="cpu")
    return SimpleNamespace(config=config, pretraining=SimpleNamespace(world_model=world_model))


def test_explained_variance_of_truth_copy_and_the_middle() -> None:
    frames = torch.full((6, 4, 3, 16, 16), 100, dtype=torch.uint8)
    frames[:, 2:, :, :4] = 200  # moves from x_2 on, a quarter of the picture
    frames[:, 1:, :, 8:] += 5  # too little to count as moving
    sample = some_sample(frames=frames)
    truth = sample.pixels()[:, 1:]

    def imagine(first: Tensor, share: Tensor) -> Tensor:
        return torch.lerp(first[:, None].expand_as(truth), truth, share[:, :, :1, None, None])

    drives = {
        name: torch.full((6, 3, 2), share) for name, share in (("own", 1.0), ("half", 0.5), ("no", 0.0))
    }
    found = explained_variance(policy_imagining(imagine), sample, drives)
    assert found["moving_share"] == pytest.approx(2 / 3 / 4)
    assert found["own"]["by_horizon"] == [None, pytest.approx(1), pytest.approx(1)]
    assert found["half"]["all"] == pytest.approx(0.75)
    assert found["half"]["mse_over_copy"] == pytest.approx(0.25)
    assert found["no"]["all"] == pytest.approx(0)


def test_a_shift_that_the_latents_tell_is_found() -> None:
    offsets = shift_offsets(1 / 8)
    told = torch.tensor(offsets)[:, None, None].expand(9, 3, 3, 2)  # the latents are the offset
    still = torch.randint(0, 255, (6, 1, 3, 16, 16), dtype=torch.uint8).expand(6, 4, 3, 16, 16)
    sample = some_sample(frames=still, shifted=told)

    def obey(first: Tensor, latents: Tensor) -> Tensor:
        rows = [shift_images(f, tuple(z[0].tolist())) for f, z in zip(first, latents, strict=True)]
        return torch.stack(rows)[:, None].expand(-1, 3, -1, -1, -1)

    def ignore(first: Tensor, latents: Tensor) -> Tensor:
        return first[:, None].expand(-1, 3, -1, -1, -1)

    assert coded_shift(policy_imagining(obey), sample) == pytest.approx(1)
    assert coded_shift(policy_imagining(ignore), sample) == 0
    blank = replace(sample, frames=torch.zeros_like(still))
    assert coded_shift(policy_imagining(obey), blank) is None


def test_shift_repeats_the_edge() -> None:
    image = torch.arange(4.0).repeat(4, 1)  # columns 0 1 2 3
    assert shift_images(image, (0.0, 0.25))[0].tolist() == [0, 0, 1, 2]
    assert shift_images(image, (0.0, -0.25))[0].tolist() == [1, 2, 3, 3]
    assert shift_images(image.T, (0.25, 0.0))[:, 0].tolist() == [0, 0, 1, 2]


def test_variance_is_divided_between_shift_and_content() -> None:
    torch.manual_seed(0)
    shift, content = torch.randn(9, 1, 1, 2), torch.randn(1, 50, 4, 2)
    only_content = shift_variance(content.expand(9, 50, 4, 2))
    assert only_content["content"] == pytest.approx(1)
    assert only_content["total_std"] == pytest.approx(1, abs=0.1)
    both = shift_variance(shift + content)
    expected = float(shift.var((0, 1, 2), unbiased=False).sum())
    expected /= expected + float(content.var((0, 1, 2), unbiased=False).sum())
    assert both["shift"] == pytest.approx(expected, abs=1e-5)
    assert both["interaction"] == pytest.approx(0, abs=1e-5)


def test_wrong_latents_are_wrong_in_their_own_ways() -> None:
    latents, episodes = torch.arange(24.0).reshape(6, 4, 1), torch.tensor([0, 0, 1, 1, 1, 2])
    wrong = other_latents(latents, episodes, seed=0)
    batch = wrong["shuffled_batch"]
    assert sorted(batch.flatten().tolist()) == latents.flatten().tolist()
    assert all(not torch.equal(a, b) for a, b in zip(batch, latents, strict=True))
    assert {tuple(clip.flatten().tolist()) for clip in batch} == {
        tuple(clip.flatten().tolist()) for clip in latents
    }
    within = wrong["shuffled_episode"]
    assert not torch.equal(within, latents)
    for episode in (0, 1, 2):
        mine = episodes == episode
        assert sorted(within[mine].flatten().tolist()) == latents[mine].flatten().tolist()
    assert not wrong["zeroed"].any()


def test_actions_between_frames() -> None:
    rows = np.arange(5, dtype=np.float32).reshape(1, 5, 1) ** 2  # 0 1 4 9 16; frames at 0, 2, 4
    targets = between_frames(rows, horizon=2, stride=2)
    assert targets["action"].flatten().tolist() == [0.5, 6.5]
    assert targets["action_change"].flatten().tolist() == [4, 12]


def test_probe_needs_episodes_with_actions() -> None:
    targets = {"action": torch.randn(6, 3, 2)}
    assert "2 episodes with actions" in probe_actions(some_sample(targets=targets), 0)["skipped"]
    episodes = torch.arange(6) // 2
    found = probe_actions(some_sample(targets=targets, episodes=episodes), 0)
    assert found["episodes"] == 3
    targets["action"][4:] = torch.nan  # an episode without labels
    found = probe_actions(some_sample(targets=targets, episodes=episodes), 0)
    assert "2 episodes with actions" in found["skipped"]


def test_principal_components_are_ordered_and_few_enough() -> None:
    torch.manual_seed(0)
    rows = torch.randn(50, 6) * torch.tensor([10.0, 5, 1, 0.1, 0.1, 0.1])
    found = principal_components(rows, 2)
    assert found.shape == (50, 2)
    np.testing.assert_allclose(found.std(0), rows.std(0)[:2], rtol=0.05)
    assert principal_components(rows[:3], 6).shape == (3, 2)


def test_features_are_what_enters_the_output_layer_of_any_policy() -> None:
    torch.manual_seed(0)
    linear, conv = nn.Linear(4, 2), nn.Conv1d(4, 2, 1)
    x = torch.randn(3, 5, 4)  # (B,chunk,D)
    for policy, head, inputs in ((nn.Sequential(linear), linear.weight, x), (conv, conv.weight, x.mT)):
        with head_inputs(policy, head) as features:
            policy(torch.zeros_like(inputs))
            policy(inputs)  # the last of several denoising steps counts
        assert torch.allclose(features(), x.mean(1))
        with torch.no_grad():
            policy(torch.zeros_like(inputs))  # heard no more
        assert torch.allclose(features(), x.mean(1))
