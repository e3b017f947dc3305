"""The README's commands, run as a user would type them, on small data and for a few steps."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.datasets_on_the_spot import make_dataset
from helpers.training import TINY_LAWM

README_FILE = Path(__file__).parents[2] / "README.md"
README = README_FILE.read_text()
BIN = Path(sys.executable).parent

#: What is added to a command so that it takes seconds; flags given later win.
SMALL = ["--batch_size=4", "--steps=2", "--num_workers=0", "--policy.device=cpu"]
#: Commands that cannot run here, and why.
NOT_RUN = {
    "pip": "installs; test_packaging.py installs the wheel",
    "make": "test_packaging.py and CI use it",
    "lerobot-rollout": "moves a real arm; test_so101.py runs it on an emulated one",
}


def commands(section: str) -> list[list[str]]:
    """The words of each command in a section's bash blocks, comments left out."""
    text = README[README.index(f"\n## {section}\n") + 1 :]
    text = text[: text.find("\n## ", 1)]
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def run(words: list[str], cwd: Path) -> None:
    result = subprocess.run([BIN / words[0], *words[1:]], cwd=cwd, capture_output=True, text=True)
    assert result.returncode == 0, (words, result.stdout[-1000:], result.stderr[-3000:])


def test_every_command_is_run_or_has_a_reason_not_to_be() -> None:
    found = {
        words[0] for section in re.findall(r"^## (.+)$", README, re.MULTILINE) for words in commands(section)
    }
    ours = {"lawm-export", "lawm-import-videos", "lawm-inspect", "lawm-label-actions", "lawm-benchmark"}
    assert found == {"lerobot-train"} | ours | set(NOT_RUN)


def test_the_three_steps_of_use(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data" / "video", action_dim=None)
    make_dataset(tmp_path / "data" / "demonstrations", cameras=("wrist", "top"), action_dim=6, state_dim=6)
    tiny = [flag for flag in TINY_LAWM if not flag.startswith("--policy.type=")]
    ran = []
    for words in commands("Use"):
        if words[0] in NOT_RUN:
            continue
        if words[0] == "lerobot-train":
            pretraining = "--policy.type=lawm_act" in words
            small = tiny if pretraining else ["--policy.chunk_size=10", "--policy.n_action_steps=10"]
            words = [*words, *small, *SMALL]
        ran.append(words[0])
        run(words, tmp_path)
    assert ran == ["lerobot-train", "lerobot-train", "lawm-export"]
    assert (tmp_path / "outputs" / "act" / "model.safetensors").is_file()

    inspecting, labelling, comparing = commands("See, label, compare")
    run([*inspecting, "--clips=8"], tmp_path)
    assert (tmp_path / "outputs" / "inspection" / "report.html").is_file()
    # Untrained latents tell nothing of random actions, and the command refuses to label by them.
    refusal = subprocess.run(
        [BIN / labelling[0], *labelling[1:]], cwd=tmp_path, capture_output=True, text=True
    )
    assert refusal.returncode != 0
    assert "no better than" in refusal.stderr
    # test_benchmark.py runs this file.
    assert comparing == ["lawm-benchmark", "--config_path=configs/benchmark/smoke.yaml"]


def test_lerobot_finds_the_plugin_by_itself() -> None:
    assert ["lerobot-train", "--help"] in commands("Install")
    help_text = subprocess.run([BIN / "lerobot-train", "--help"], capture_output=True, text=True, check=True)
    assert "lawm_act" in help_text.stdout


def test_own_videos_are_imported_as_in_the_example_that_is_run() -> None:
    # examples/import_phone_clips makes the clips and runs the same two commands with few steps.
    example = (Path(__file__).parents[2] / "examples" / "import_phone_clips" / "README.md").read_text()
    (importing, training) = commands("Your own videos")
    assert shlex.join(importing) in example
    assert [flag for flag in training if flag not in example] == ["--output_dir=outputs/pretrain"]


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#:]+)\)", README))
def test_links_lead_somewhere(path: str) -> None:
    assert (Path(__file__).parents[2] / path).exists()


def test_the_figures_of_what_it_costs_are_those_of_the_report() -> None:
    sections = json.loads((README_FILE.parent / "docs" / "results" / "speed.json").read_text())["sections"]
    measured = {row["what"]: row["value"] for section in sections.values() for row in section["ratios"]}
    default = "lawm_act, inverse_dynamics, recurrent 2m"
    stated = {
        "pretraining step of `lawm_act` over": [f"{default}: pretraining step over imitation step"],
        "the same, where `act` too": [
            f"{default}, chunk_size 8, n_action_steps 8: pretraining step over imitation step"
        ],
        "pretraining step of a `lawm_smolvla`": [
            "lawm_smolvla, inverse_dynamics, recurrent 2m: pretraining step over imitation step"
        ],
        "`rssm` of 106m": ["rssm 106m: forward and backward"],
        "`rssm` of 27m": ["rssm 27m: forward and backward"],
        "clips/s from an imported": [
            "clips/s of an imported dataset over a stock recording, 480x640, workers: 1"
        ],
        "clips/s that one worker": [
            "clips/s of an imported dataset over those a lawm_act step on cpu consumes, workers: 1"
        ],
        "`lawm-import-videos` over": [
            f"{kind}: times as fast as LeRobot's loop" for kind in ("short_webm", "camera_480p", "phone_720p")
        ],
        "control step of": ["step with the network: lawm_act over act, median"],
        "what the plugin adds": ["lerobot-train --help: what the plugin adds, after LeRobot's imports"],
    }
    text = README[README.index("\n## What it costs\n") :]
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| [^|]*\|$", text[: text.index("\n## ", 1)], re.MULTILINE)
    cells = {label: cell for label, cell in rows if not label.startswith("-")}
    assert len(cells) == len(stated)
    for start, names in stated.items():
        (cell,) = [cell for label, cell in cells.items() if label.startswith(start)]
        assert cell.startswith(" / ".join(f"{measured[name]:.2f}" for name in names)), (start, cell)
