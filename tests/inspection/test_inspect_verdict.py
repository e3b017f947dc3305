"""`lawm-inspect`: four checkpoints with four fates get four verdicts, with the numbers that show why."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from helpers.inspecting import TASKS, inspect, metrics_of
from safetensors.torch import load_file, save_file


@pytest.mark.parametrize("fate", ["healthy", "collapsed", "ignored", "codes the augmentation"])
def test_each_fate_gets_its_verdict_with_the_metric_behind_it(reports: dict[str, Path], fate: str) -> None:
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


def test_healthy_metrics_are_those_of_something_learned(reports: dict[str, Path]) -> None:
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
    looking = metrics["looking"]  # Both inputs tell where the square is.
    assert looking["pictures"]["low"] > 0.1
    assert looking["state"]["low"] > 0.1
    assert any(
        remark.startswith("When it plans, the policy uses its pictures") for remark in metrics["remarks"]
    )
    assert set(metrics["tasks"]) == set(TASKS)


def test_constant_and_ignored_latents_change_nothing(reports: dict[str, Path]) -> None:
    for fate in ("collapsed", "ignored"):
        metrics = metrics_of(reports[fate])
        assert metrics["error_ratio"]["shuffled_batch"] == pytest.approx(1, abs=1e-4)
        assert metrics["augmentation"]["coded_shift"] == pytest.approx(0, abs=1e-4)
    assert metrics_of(reports["collapsed"])["latents"]["std"] < 1e-3
    assert metrics_of(reports["ignored"])["latents"]["std"] > 0.5


def test_same_seed_same_metrics(
    checkpoints: dict[str, Path], reports: dict[str, Path], video: Path, tmp_path: Path
) -> None:
    inspect(checkpoints["healthy"], video, tmp_path / "again", "--clips=64")
    assert metrics_of(tmp_path / "again") == metrics_of(reports["healthy"])


@pytest.mark.parametrize(
    ("broken", "counts"),
    [
        ("pretraining.inverse_dynamics", {"latents": 8, "imagination": 8, "policy's plan": 0}),
        ("pretraining.world_model", {"latents": 0, "imagination": 8, "policy's plan": 0}),
        ("model.action_head", {"latents": 0, "imagination": 0, "policy's plan": 8}),
    ],
)
def test_what_is_not_finite_is_never_healthy(
    fresh: Path, video: Path, tmp_path: Path, broken: str, counts: dict[str, int]
) -> None:
    checkpoint = shutil.copytree(fresh, tmp_path / "checkpoint")
    tensors = load_file(checkpoint / "model.safetensors")
    for name in [name for name in tensors if name.startswith(broken)]:
        tensors[name] = tensors[name].mul(float("nan"))
    save_file(tensors, checkpoint / "model.safetensors")
    inspect(checkpoint, video, tmp_path / "report", "--clips=8")
    metrics = metrics_of(tmp_path / "report")
    assert metrics["verdict"] == "not finite"
    assert metrics["not_finite"] == counts
    for name, count in counts.items():
        assert (f"the {name} of {count} of 8 clips" in metrics["checks"]["not finite"]["sentence"]) == (
            count > 0
        )
    for check, what in (("collapsed", "latents"), ("ignored", "imagination")):
        assert metrics["checks"][check]["failed"] or not counts[what]
        assert ("not finite" in metrics["checks"][check]["sentence"]) == (counts[what] > 0)
    assert "not finite" in (tmp_path / "report" / "report.html").read_text()
