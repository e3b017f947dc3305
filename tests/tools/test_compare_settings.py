"""tools/settings: a few steps on two tasks, and the tables."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.datasets_on_the_spot import make_dataset

from tools.settings.compare_settings import Video, imitation_error, main
from tools.settings.configuration import CompareConfig, Setting
from tools.settings.tables import against_table, imitation_table, settings_table

RSSM = "world_model.type=rssm world_model.size=3m"
RESULTS = Path(__file__).parents[2] / "docs" / "results"
SMALL = "world_model.size=test world_model.image_size=32 idm.size=test latent_action.horizon=3 latent_action.stride=1"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("data") / "two_tasks"
    return make_dataset(place, lengths=[14] * 20, tasks=("push the square", "pull the square"))


def test_every_source_and_new_tasks_are_compared(root: Path, tmp_path: Path) -> None:
    settings = [
        SMALL,
        f"{SMALL} latent_action.source=policy",
        f"{SMALL} latent_action.source=both new_tasks=[1]",
    ]
    cfg = CompareConfig(
        root,
        tmp_path / "figures.json",
        settings=settings,
        seeds=[0],
        steps=2,
        finetuning_steps=2,
        batch_size=4,
    )
    main.__wrapped__(cfg)
    rows = json.loads(cfg.output.read_text())["rows"]
    assert [row["setting"] for row in rows] == settings
    assert [row["policy_r2"] is None for row in rows] == [False, True, False]
    for row in rows:
        assert row["imitation_error"] > 0 and row["imitation_error_from_scratch"] > 0
    # From scratch, the settings are one and the same, unless the task is another; after pretraining they are not.
    scratch = [row["imitation_error_from_scratch"] for row in rows]
    assert scratch[0] == scratch[1] != scratch[2]
    assert rows[0]["imitation_error"] != rows[1]["imitation_error"]
    assert all(setting in settings_table(rows) for setting in settings)


def test_a_new_task_is_not_pretrained_on(root: Path) -> None:
    video = Video(CompareConfig(root, Path("unused")))
    video.use(Setting.parse(f"{SMALL} new_tasks=[1]"))
    episodes = {name: set(video.episode[getattr(video, name)].tolist()) for name in ("train", "few", "test")}
    task = {int(e): int(t) for e, t in zip(video.episode, video.task, strict=True)}
    new = {e for e, t in task.items() if t == 1}
    assert episodes["train"] == set(task) - new
    assert episodes["few"] == set(sorted(new)[:2]) and episodes["test"] == new - episodes["few"]

    video.use(Setting.parse(SMALL))
    assert set(np.unique(video.episode[video.test]).tolist()) == {9, 19}
    assert not set(video.test.tolist()) & set(video.train.tolist())
    for wrong in ([7], [0, 1]):
        with pytest.raises(SystemExit, match="new_tasks"):
            video.use(Setting(new_tasks=wrong))


def test_from_scratch_gets_the_steps_of_pretraining_too(root: Path) -> None:
    config = partial(CompareConfig, root, Path("unused"), batch_size=4)
    video = Video(config())
    video.use(Setting.parse(SMALL))
    errors = [
        imitation_error(config(steps=steps, finetuning_steps=finetuning), video, None, 0)
        for steps, finetuning in ((0, 3), (2, 1), (0, 1))
    ]
    assert errors[0] == errors[1] != errors[2]


def row(setting: str, seed: int, error: float, over_copy: float = 0.5) -> dict[str, Any]:
    return {
        "setting": setting,
        "seed": seed,
        "imitation_error": error,
        "imitation_error_from_scratch": 0.5,
        "over_copy": over_copy,
    }


def test_tables_of_the_worth_of_pretraining() -> None:
    rows = [row("default", seed, error) for seed, error in enumerate((0.4, 0.3, 0.2))]
    rows += [row("new_tasks=[0]", 0, 0.45), row("new_tasks=[1]", 0, 0.35), row("idm.context=0", 1, 0.2, 0.6)]
    rows.append({"setting": "measured before there was an imitation error", "seed": 0})
    lines = imitation_table(rows).splitlines()
    # Differences of 0.1, 0.2 and 0.3: t(0.975, 2) = 4.3027, standard error 0.1 / sqrt(3).
    assert "| -0.200 (-0.448 to +0.048) | -40% |" in lines[2]
    assert "| -0.050 | -10% |" in lines[3]
    # -0.05 and -0.15: t(0.975, 1) = 12.706, standard error 0.05.
    assert lines[-1].startswith("| the 2 with new tasks |") and "-0.100 (-0.735 to +0.535)" in lines[-1]
    assert len(lines) == 2 + 4 + 1
    (*_, only) = against_table(rows, "default").splitlines()
    assert only == "| `idm.context=0` | +0.100 | -0.100 |"
    with pytest.raises(SystemExit, match="--against=other: choose from default, "):
        against_table(rows, "other")


def marked(page: str, name: str) -> str:
    """The table of a page between two comments."""
    found = re.search(
        rf"<!-- {name} -->\n(.*?)\n<!-- end of {name} -->", (RESULTS / page).read_text(), re.DOTALL
    )
    assert found, f"{page} has no table {name}"
    return found[1].strip()


def test_the_pages_have_the_tools_figures() -> None:
    rows = json.loads((RESULTS / "imitator.json").read_text())["rows"]
    assert marked("imitator.md", "imitation_table") == imitation_table(rows)
    for source, setting in (("inverse_dynamics", RSSM), ("policy", f"latent_action.source=policy {RSSM}")):
        head, rule, *lines = against_table(rows, f"{setting} world_model.decoded_frames=0").splitlines()
        stated = [line for line in lines if line.startswith(f"| `{setting}")]
        found = marked("rssm_speed.md", f"against_table {source}").splitlines()
        assert stated and found == [head, rule, *stated]
