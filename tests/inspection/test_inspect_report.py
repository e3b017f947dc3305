"""The report of `lawm-inspect`: its page, its pictures, its film, and the same in Rerun."""

from __future__ import annotations

import base64
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest
from helpers.datasets_on_the_spot import make_dataset
from helpers.inspecting import inspect, metrics_of
from helpers.training import pretrain
from lerobot.utils import import_utils
from PIL import Image

PICTURES = {
    "strips.png",
    "transfer.png",
    "explained_variance.png",
    "latents.png",
    "probes.png",
    "looking.png",
}


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
