"""tools/settings/compare_settings.py, a few steps on two tasks."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.datasets_on_the_spot import make_dataset

TOOL = Path(__file__).parents[2] / "tools" / "settings" / "compare_settings.py"
SMALL = "world_model.size=test world_model.image_size=32 idm.size=test latent_action.horizon=3 latent_action.stride=1"


@pytest.fixture(scope="module")
def tool() -> dict[str, Any]:
    return runpy.run_path(str(TOOL))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("data") / "two_tasks"
    return make_dataset(place, lengths=[14] * 20, tasks=("push the square", "pull the square"))


def test_every_source_and_new_tasks_are_compared(tool: dict[str, Any], root: Path, tmp_path: Path) -> None:
    settings = [
        SMALL,
        f"{SMALL} latent_action.source=policy",
        f"{SMALL} latent_action.source=both new_tasks=[1]",
    ]
    cfg = tool["CompareConfig"](
        root,
        tmp_path / "figures.json",
        settings=settings,
        seeds=[0],
        steps=2,
        finetuning_steps=2,
        batch_size=4,
    )
    tool["main"].__wrapped__(cfg)
    rows = json.loads(cfg.output.read_text())["rows"]
    assert [row["setting"] for row in rows] == settings
    assert [row["policy_r2"] is None for row in rows] == [False, True, False]
    for row in rows:
        assert row["imitation_error"] > 0 and row["imitation_error_from_scratch"] > 0
    # From scratch, the settings are one and the same, unless the task is another.
    scratch = [row["imitation_error_from_scratch"] for row in rows]
    assert scratch[0] == scratch[1] != scratch[2]
    assert all(setting in tool["table"](rows) for setting in settings)


def test_a_new_task_is_not_pretrained_on(tool: dict[str, Any], root: Path) -> None:
    video = tool["Video"](tool["CompareConfig"](root, Path("unused")))
    video.use(tool["Setting"].parse(f"{SMALL} new_tasks=[1]"))
    episodes = {name: set(video.episode[getattr(video, name)].tolist()) for name in ("train", "few", "test")}
    task = {int(e): int(t) for e, t in zip(video.episode, video.task, strict=True)}
    new = {e for e, t in task.items() if t == 1}
    assert episodes["train"] == set(task) - new
    assert episodes["few"] == set(sorted(new)[:2]) and episodes["test"] == new - episodes["few"]

    video.use(tool["Setting"].parse(SMALL))
    assert set(np.unique(video.episode[video.test]).tolist()) == {9, 19}
    assert not set(video.test.tolist()) & set(video.train.tolist())
    for wrong in ([7], [0, 1]):
        with pytest.raises(SystemExit, match="new_tasks"):
            video.use(tool["Setting"](new_tasks=wrong))
