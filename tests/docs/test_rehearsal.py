"""examples/so101/REHEARSAL.md: its commands, run one after the other with fewer steps."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from helpers.pages import COMMANDS, ROOT, commands, table
from helpers.training import TINY_LAWM, assert_same_tensors, entry_point, run_command
from safetensors.torch import load_file

from lawm_lerobot.statistics.intervals import SuccessRate

PAGE = ROOT / "examples" / "so101" / "REHEARSAL.md"
STEPS = ["record", "train", "evaluate", "replay"]
TINY = [flag for flag in TINY_LAWM if not flag.startswith("--policy.type=")]
#: What is added to a command so that it takes seconds, by a word of it.
SHORT = {
    "examples/make_so101_dataset.py": ["--episodes=2", "--max_steps=20", "--success_only=false", "--size=32"],
    "lawm-inspect": ["--frames=20"],
    "--config_path=examples/so101/rehearsal/pretrain.yaml": [*TINY, "--steps=1", "--batch_size=2"],
    "--config_path=examples/so101/rehearsal/finetune.yaml": ["--steps=1", "--batch_size=2"],
    "lerobot-eval": ["--env.size=32", "--env.episode_length=3", "--eval.n_episodes=1", "--eval.batch_size=1"],
    "examples/replay_blindly.py": ["--episodes=1"],
}


def test_every_block_is_run_or_says_why_not() -> None:
    marks = [mark for mark, _ in COMMANDS.findall(PAGE.read_text())]
    assert [mark.removeprefix("test: ") for mark in marks if mark.startswith("test: ")] == STEPS
    assert all(mark.startswith(("test: ", "not run in the tests: ")) for mark in marks)


def test_the_numbers_are_those_of_the_run() -> None:
    measured = json.loads((ROOT / "docs" / "results" / "so101_rehearsal.json").read_text())
    expected = {name: [str(SuccessRate(row["successes"], row["episodes"]))] for name, row in measured.items()}
    assert table(PAGE, "results") == expected


@pytest.mark.slow
def test_from_video_to_a_success_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    for words in (words for step in STEPS for words in commands(PAGE, step)):
        short = [flag for word, flags in SHORT.items() if word in words for flag in flags]
        if words[0] == "python":
            run_command(runpy.run_path(words[1])["main"], *words[2:], *short)
        else:
            run_command(entry_point(words[0]), *words[1:], *short)
    outputs = tmp_path / "outputs" / "so101_sim"
    for evaluated in ("evaluated", "act_evaluated"):
        assert json.loads((outputs / evaluated / "eval_info.json").read_text())["overall"]["n_episodes"] == 1
    assert json.loads((outputs / "replay.json").read_text())["overall"]["n_episodes"] == 1
    assert (outputs / "video" / "dataset.md").is_file()
    finetuned = outputs / "finetune" / "checkpoints" / "last" / "pretrained_model"
    assert_same_tensors(
        load_file(finetuned / "model.safetensors"), load_file(outputs / "act" / "model.safetensors")
    )
    config = json.loads((outputs / "act" / "config.json").read_text())
    assert config["type"] == "act"
    assert config["output_features"]["action"]["shape"] == [6]
