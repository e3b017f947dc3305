"""Errors of `lawm-inspect`: one sentence, an exit code, and nothing half-written."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.datasets_on_the_spot import delay_pictures, make_dataset
from helpers.inspecting import run_inspect
from lerobot.utils import import_utils

from lawm_lerobot.inspection import report
from lawm_lerobot.inspection.sample import check_fit
from lawm_lerobot.policies.common.pretraining_checkpoint import load_pretraining_checkpoint, open_clips


def refused(checkpoint: Path | str, dataset: Path, output_dir: Path, *flags: str, code: int = 1) -> str:
    """The one sentence that the command ends with."""
    found, log = run_inspect(checkpoint, dataset, output_dir, *flags)
    assert found == code, log
    before, _, message = log.rpartition("error: ")
    assert not before or before.endswith(("\n", "\r"))
    assert "\n" not in message.removesuffix("\n")
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


def test_checkpoints_that_are_none(fresh: Path, video: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
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
    assert "clips is 1, expected at least 2: change --clips" in refused(
        fresh, video, out, "--clips=1", code=2
    )
    assert "--frames means nothing" in refused(fresh, video, out, "--frames=8", code=2)
    assert "expected one of healthy, ignored, " in refused(fresh, video, out, "--require=looks", code=2)
    assert "require is 'good'" in refused(fresh, video, out, "--require=good", code=2)
    assert "change --display" in refused(fresh, video, out, "--display=television", code=2)
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
        fresh, video, tmp_path / "out" / "report", "--clips=4", code=130
    )
    assert not list((tmp_path / "out").iterdir())


def test_pictures_beside_their_frames_times_need_a_tolerance(
    fresh: Path, video: Path, tmp_path: Path
) -> None:
    late = delay_pictures(shutil.copytree(video, tmp_path / "late"), 0.004)
    out = tmp_path / "report"
    assert "not within 0.0001 s of their frames' times, " in (found := refused(fresh, late, out, "--clips=4"))
    assert "--tolerance_s" in found
    code, log = run_inspect(fresh, late, out, "--clips=4", "--tolerance_s=0.01")
    assert code == 0 and (out / "report.html").is_file(), log
