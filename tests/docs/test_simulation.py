"""The pages on simulation: Meta-World's three commands, run one after the other, and the tables of options."""

from __future__ import annotations

import json
import runpy
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
import yaml

pytest.importorskip("metaworld", reason='needs pip install "lerobot_policy_lawm[metaworld]"')

from helpers.pages import ROOT, commands, table
from helpers.training import TINY_ACT, run_command
from lerobot.datasets import LeRobotDataset
from lerobot.envs.configs import LiberoEnv

from lawm_lerobot.envs import LawmLiberoEnvConfig, LawmMetaworldEnvConfig, LawmSo101EnvConfig
from lawm_lerobot.statistics.intervals import SuccessRate

pytestmark = pytest.mark.filterwarnings("ignore:Constant")

PAGE = ROOT / "docs" / "simulation.md"
LIBERO, SO101 = ROOT / "docs" / "libero.md", ROOT / "docs" / "so101_simulation.md"
SHORT = ("--env.episode_length=4", "--eval.n_episodes=1", "--eval.batch_size=1")


def test_a_varied_scene_is_recorded_trained_on_and_evaluated(tmp_path, monkeypatch) -> None:
    from lerobot.scripts import lerobot_eval, lerobot_train

    record, train, evaluate = commands(PAGE, "three commands")
    monkeypatch.chdir(tmp_path)
    maker = runpy.run_path(str(ROOT / record[1]))["main"]
    run_command(maker, *record[2:], "--episodes=1", "--workers=0")
    dataset = LeRobotDataset("local/drawer", root=tmp_path / "data" / "drawer")
    assert dataset.meta.features["observation.images.corner2"]["shape"][0] == 64

    steps = ("--steps=1", "--batch_size=2", "--num_workers=0", "--env_eval_freq=1")
    log = run_command(lerobot_train.main, *train[1:], *TINY_ACT, *SHORT, *steps)
    assert "pc_success" in log
    run_command(lerobot_eval.main, *evaluate[1:], "--policy.device=cpu", *SHORT)
    info = json.loads((tmp_path / "outputs" / "drawer_evaluated" / "eval_info.json").read_text())
    assert info["overall"]["n_episodes"] == 1

    flags = {flag for flag in record if flag.startswith(("--size", "--variation", "--camera_zoom"))}
    for words in (train, evaluate):
        assert {f"--{word.removeprefix('--env.')}" for word in words} >= flags


def _shown(page: Path, name: str) -> dict[str, object]:
    """The defaults in a table of a page, by the names of the flags."""
    rows = {flag.strip("`").removeprefix("--env."): cells[0] for flag, cells in table(page, name).items()}
    return {flag: yaml.safe_load(default) for flag, default in rows.items()}


@pytest.mark.parametrize(
    ("config", "page", "name"),
    [(LawmMetaworldEnvConfig, PAGE, "options"), (LawmSo101EnvConfig, SO101, "SO-101 options")],
)
def test_every_option_has_a_row(config: type, page: Path, name: str) -> None:
    inherited = {"max_parallel_tasks", "disable_env_checker"}
    assert _shown(page, name) == {
        field.name: field.default
        for field in fields(config)
        if isinstance(field.default, str | int | float) and field.name not in inherited
    }


def test_every_option_that_is_not_lerobots_has_a_row() -> None:
    lerobots = {field.name: field.default for field in fields(LiberoEnv)}
    assert _shown(LIBERO, "libero options") == {
        field.name: field.default
        for field in fields(LawmLiberoEnvConfig)
        if field.name not in lerobots or field.default != lerobots[field.name]
        if not isinstance(field.default, type(MISSING))
    }


@pytest.mark.parametrize("run", ["expert", "replay_stored", "replay_spread"])
def test_successes_in_libero_are_those_of_the_run(run: str) -> None:
    tasks = json.loads((ROOT / "docs" / "results" / "libero.json").read_text())[run]
    rows = table(ROOT / "docs" / "results" / "libero.md", run)
    for task, found in tasks.items():
        assert rows[task] == [f"{found['successes']} of {found['episodes']}"]
    total = [sum(found[name] for found in tasks.values()) for name in ("successes", "episodes")]
    assert rows["all"] == [str(SuccessRate(*total))]
    assert len(rows) == len(tasks) + 1
