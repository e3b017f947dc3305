"""Numbers that are none: health, its metrics and a checkpoint that holds them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from helpers.datasets_on_the_spot import make_dataset
from helpers.training import Run, finetune, pretrain
from safetensors.torch import load_file, save_file

from lawm_lerobot.method.latent import effective_rank
from lawm_lerobot.policies.common.health import HealthMonitor
from lawm_lerobot.policies.common.pretraining_checkpoint import load_pretraining_checkpoint

HEALTHY = {"latent_std": 1.0, "latent_rank": 4.0, "shuffle_ratio": 2.0, "policy_std": 1.0}


@pytest.mark.parametrize("name", HEALTHY)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_health_says_that_it_is_not_finite(name: str, value: float, caplog: pytest.LogCaptureFixture) -> None:
    monitor = HealthMonitor(1)
    monitor.judge(HEALTHY, 8)
    assert not caplog.records
    monitor.judge(HEALTHY | {name: value}, 8)
    (record,) = caplog.records
    assert re.search(rf"not finite \({name} .*--policy\.policy_pretraining_lr", record.message)


def test_the_rank_of_latents_that_are_not_finite_is_not_finite() -> None:
    z, valid = torch.randn(4, 3, 2), torch.ones(4, 3, dtype=torch.bool)
    assert effective_rank(z, valid) > 1
    z[0, 0, 0] = float("nan")
    assert effective_rank(z, valid).isnan()


def test_a_dataset_whose_numbers_are_not_finite_is_refused_before_training(
    short_dataset: Path, pretrained_once: Run, tmp_path: Path
) -> None:
    broken = shutil.copytree(short_dataset, tmp_path / "broken")
    file = broken / "meta" / "stats.json"
    for key in ("action", "observation.state"):
        statistics = json.loads((short_dataset / "meta" / "stats.json").read_text())
        statistics[key]["mean"][1] = float("nan")
        file.write_text(json.dumps(statistics))
        with pytest.raises(ValueError, match=f"statistics of '{key}' are not finite.*lerobot-edit-dataset"):
            finetune(pretrained_once.checkpoint(), broken, tmp_path / key, steps=1)
    with pytest.raises(ValueError, match="statistics of 'observation.state' are not finite"):
        pretrain(broken, tmp_path / "state", steps=1)


def test_a_pretraining_checkpoint_that_is_not_finite_is_not_looked_into(tmp_path: Path) -> None:
    broken = pretrain(
        make_dataset(tmp_path / "dataset", lengths=(8, 8)), tmp_path / "run", steps=1
    ).checkpoint()
    tensors = load_file(broken / "model.safetensors")
    tensors["model.action_head.bias"][0] = float("nan")
    save_file(tensors, broken / "model.safetensors")
    with pytest.raises(ValueError, match=r"weights are not finite \(model\.action_head\.bias\)"):
        load_pretraining_checkpoint(broken)
