"""The pages of the documentation: their commands, run as a user would type them; their tables; their links."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from helpers.datasets_on_the_spot import make_dataset
from helpers.pages import COMMANDS, ROOT, anchors, command, commands, links, table
from helpers.training import TINY_LAWM, entry_point, run_command
from lerobot.configs import PreTrainedConfig
from test_layering import ALLOWED

from lawm_lerobot.statistics.intervals import SuccessRate

README, DOCS = ROOT / "README.md", ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("examples/*/*.md")])
#: Pages whose commands are run or read by tests of their own.
ELSEWHERE = {
    DOCS / "recipes.md": "tests/docs/test_recipes.py",
    DOCS / "scale.md": "tests/tools/test_scale.py",
    **{
        DOCS / f"{name}.md": "tests/docs/test_simulation.py"
        for name in ("simulation", "libero", "so101_simulation")
    },
    ROOT / "examples" / "so101" / "README.md": "tests/arm/test_so101.py",
    ROOT / "examples" / "so101" / "REHEARSAL.md": "tests/docs/test_rehearsal.py",
    ROOT / "examples" / "import_phone_clips" / "README.md": "tests/importing/test_import_videos_examples.py",
    ROOT / "examples" / "slurm_import" / "README.md": "tests/importing/test_import_videos_examples.py",
}
#: Names of the marked commands on every other page. The tests below run them.
RUN = {
    README: ["import", "pretrain", "finetune", "export"],
    DOCS / "training.md": ["install", "cotrain"],
    DOCS / "importing.md": ["dry run"],
    DOCS / "labels.md": ["read-out", "label"],
    DOCS / "inspect.md": ["inspect", "dataset", "looking"],
    DOCS / "benchmark.md": ["dry run", "run"],
}
BIN = Path(sys.executable).parent

#: What is added to a training so that it takes seconds; flags given later win.
SMALL = ["--batch_size=4", "--steps=2", "--num_workers=0", "--policy.device=cpu"]
TINY = [flag for flag in TINY_LAWM if not flag.startswith("--policy.type=")]


def run(words: list[str], cwd: Path) -> str:
    result = subprocess.run([BIN / words[0], *words[1:]], cwd=cwd, capture_output=True, text=True)
    assert result.returncode == 0, (words, result.stdout[-1000:], result.stderr[-3000:])
    return result.stdout


def run_here(words: list[str], cwd: Path) -> str:
    """The same in this process, which has LeRobot imported already."""
    with contextlib.chdir(cwd):
        return run_command(entry_point(words[0]), *words[1:])


def test_every_block_of_commands_is_run_or_says_why_not() -> None:
    marks = defaultdict(list)
    for page in PAGES:
        if page in ELSEWHERE or DOCS / "results" in page.parents:  # Results name the commands that gave them.
            continue
        for mark, text in COMMANDS.findall(page.read_text()):
            assert mark.startswith(("test: ", "not run in the tests: ")), (
                f"{page.name} has a block without a mark:\n{text}"
            )
            if mark.startswith("test: "):
                marks[page].append(mark.removeprefix("test: "))
    assert marks == RUN


# --- commands ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with some clips and demonstrations, after the README's four commands."""
    folder = tmp_path_factory.mktemp("readme")
    make_clips = ROOT / "examples" / "import_phone_clips" / "make_clips.py"
    subprocess.run([sys.executable, make_clips, folder / "clips"], check=True)
    make_dataset(folder / "data" / "demonstrations", cameras=("wrist", "main"), action_dim=6, state_dim=6)
    chunk = ["--policy.chunk_size=10", "--policy.n_action_steps=10"]
    run(command(README, "import"), folder)
    run([*command(README, "pretrain"), *TINY, *SMALL], folder)
    run([*command(README, "finetune"), *chunk, *SMALL], folder)
    run(command(README, "export"), folder)
    return folder


def test_the_four_commands_end_with_a_plain_checkpoint(folder: Path) -> None:
    config = json.loads((folder / "outputs" / "act" / "config.json").read_text())
    assert config["type"] == "act"
    assert (folder / "outputs" / "act" / "model.safetensors").is_file()


def test_video_stays_in_the_batch(folder: Path) -> None:
    chunk = ["--policy.chunk_size=10", "--policy.n_action_steps=10"]
    run_here(
        [*command(DOCS / "training.md", "cotrain"), *chunk, *SMALL, "--policy.video.num_workers=1"], folder
    )
    checkpoint = folder / "outputs" / "cotrain" / "checkpoints" / "last" / "pretrained_model"
    assert json.loads((checkpoint / "config.json").read_text())["video"]["repo_id"] == "me/video"


def test_an_import_can_be_tried(folder: Path) -> None:
    words = [word.replace("data/video", "data/tried") for word in command(DOCS / "importing.md", "dry run")]
    assert words != command(DOCS / "importing.md", "dry run")
    run(words, folder)
    assert not (folder / "data" / "tried").exists()


def test_a_dataset_is_looked_at(folder: Path) -> None:
    run(command(DOCS / "inspect.md", "dataset"), folder)
    assert (folder / "outputs" / "dataset" / "dataset.md").is_file()


def test_a_checkpoint_is_inspected(folder: Path) -> None:
    run_here([*command(DOCS / "inspect.md", "inspect"), "--clips=8"], folder)
    assert (folder / "outputs" / "inspection" / "report.html").is_file()


def test_a_finetuned_policy_is_asked_whether_it_looks(folder: Path) -> None:
    words = command(DOCS / "inspect.md", "looking")
    # Two steps of training may leave it constant.
    run_here([*(word for word in words if not word.startswith("--require")), "--frames=4"], folder)
    assert (folder / "outputs" / "looking" / "looking.png").is_file()


def test_labels_shape_the_latent_actions(folder: Path) -> None:
    run_here([*command(DOCS / "labels.md", "read-out"), *TINY, *SMALL], folder)
    checkpoint = folder / "outputs" / "pretrain_labelled" / "checkpoints" / "last" / "pretrained_model"
    assert json.loads((checkpoint / "config.json").read_text())["labels"]["action_dims"] == [6]


def test_video_is_labelled(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Untrained latents tell nothing of random actions, and the command refuses to label by them.
    with pytest.raises(SystemExit, match="1"):
        quick = ["--inverse_model.steps=20", "--inverse_model.eval_freq=10"]
        run_here([*command(DOCS / "labels.md", "label"), *quick], folder)
    assert "no better than" in capsys.readouterr().out


def test_a_benchmark_is_tried_and_run(tmp_path: Path) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    assert "none_equal_compute" in run(command(DOCS / "benchmark.md", "dry run"), tmp_path)
    # test_benchmark.py runs this file.
    program, *flags = command(DOCS / "benchmark.md", "run")
    assert program == "lawm-benchmark"
    assert flags == ["--config_path=configs/benchmark/smoke.yaml", "--output_dir=outputs/benchmark/smoke"]


def test_lerobot_finds_the_plugin_by_itself(tmp_path: Path) -> None:
    installing, asking = commands(DOCS / "training.md", "install")
    assert installing == ["pip", "install", "lerobot_policy_lawm"]  # test_packaging.py installs the wheel
    assert "lawm_act" in run(asking, tmp_path)


# --- tables -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [README, DOCS / "policies.md"], ids=lambda page: page.name)
def test_every_policy_has_a_row(page: Path) -> None:
    """tests/policies/test_every_policy.py checks what the rows of docs/policies.md say."""
    choices = PreTrainedConfig.get_known_choices().items()
    ours = {name for name, kind in choices if kind.__module__.startswith("lawm_lerobot.")}
    assert {cell.strip("`") for cell in table(page, "policies")} == ours


def test_the_readme_and_the_page_agree_on_language() -> None:
    language = {name: cells[3] for name, cells in table(DOCS / "policies.md", "policies").items()}
    assert {name: cells[-1] for name, cells in table(README, "policies").items()} == language


def test_costs_are_those_of_the_report() -> None:
    sections = json.loads((DOCS / "results" / "speed.json").read_text())["sections"]
    measured = {row["what"]: row["value"] for section in sections.values() for row in section["ratios"]}
    default = "lawm_act, inverse_dynamics, recurrent 2m"
    stated = {
        "pretraining step of `lawm_act`": [f"{default}: pretraining step over imitation step"],
        "the same, where `act` too": [
            f"{default}, chunk_size 8, n_action_steps 8: pretraining step over imitation step"
        ],
        "pretraining step of a `lawm_smolvla`": [
            "lawm_smolvla, inverse_dynamics, recurrent 2m: pretraining step over imitation step"
        ],
        "`rssm` of 106m": ["rssm 106m: forward and backward"],
        "`rssm` of 27m": ["rssm 27m: forward and backward"],
        "clips per second that one worker reads from an imported dataset, divided by those from": [
            "clips/s of an imported dataset over a stock recording, 480x640, workers: 1"
        ],
        "clips per second that one worker reads from an imported dataset, divided by those that": [
            "clips/s of an imported dataset over those a lawm_act step on cpu consumes, workers: 1"
        ],
        "speed of `lawm-import-videos`": [
            f"{kind}: times as fast as LeRobot's loop" for kind in ("short_webm", "camera_480p", "phone_720p")
        ],
        "control step of": ["step with the network: lawm_act over act, median"],
        "time that the plugin adds": ["lerobot-train --help: what the plugin adds, after LeRobot's imports"],
    }
    cells = {label: row[0] for label, row in table(DOCS / "costs.md", "costs").items()}
    assert len(cells) == len(stated)
    for start, names in stated.items():
        (cell,) = [cell for label, cell in cells.items() if label.startswith(start)]
        assert cell.startswith(" / ".join(f"{measured[name]:.2f}" for name in names)), (start, cell)


def test_hours_are_those_of_the_report() -> None:
    report = json.loads((DOCS / "results" / "runs.json").read_text())
    runs = report["sections"]["runs"]["ratios"]
    stated = [cell for row in table(README, "hours").values() for cell in row[:2]]
    assert stated == [f"{row['value']:.0f} h" for row in runs]
    assert report["machine"]["processor"].replace("(R)", "").removesuffix(" Processor") in README.read_text()


def test_the_demos_numbers_are_those_of_its_run() -> None:
    found = json.loads((DOCS / "results" / "demo.json").read_text())
    rows = table(DOCS / "demo.md", "demo").values()
    for name, (success, loss) in zip(("scratch", "lawm", "exported"), rows, strict=True):
        assert success == str(SuccessRate(*found["success"][name][:2]))
        assert loss == (f"{found['held_out_loss'][name]:.3f}" if name != "exported" else "same weights")
    health = [
        found["latent_health"][name]
        for name in ("latent_std", "latent_rank", "mse_over_copy", "shuffle_ratio")
    ]
    stated = [row[0] for row in table(DOCS / "demo.md", "demo health").values()]
    assert stated == [
        f"{value:.{len(cell.partition('.')[2])}f}" for value, cell in zip(health, stated, strict=True)
    ]


def test_the_benchmarks_numbers_are_those_of_its_run() -> None:
    cells = [
        json.loads(line)
        for line in (DOCS / "results" / "cpu_benchmark" / "results.jsonl").read_text().splitlines()
    ]
    outcomes, errors = defaultdict(list), defaultdict(list)
    for cell in cells:
        outcomes[f"`{cell['arm']}`"] += cell["successes"]
        errors[f"`{cell['arm']}`"].append(cell["imitation_error"]["errors"][-1])
    stated = table(DOCS / "benchmark.md", "results")
    assert stated.keys() == outcomes.keys()
    for arm, (success, _, error) in stated.items():
        assert success == str(SuccessRate(sum(outcomes[arm]), len(outcomes[arm]))).replace("95% ", "", 1)
        assert error == f"{sum(errors[arm]) / len(errors[arm]):.4f}"


def test_the_architecture_page_has_the_allowed_arrows() -> None:
    rooms = table(DOCS / "architecture.md", "rooms")
    stated = {
        room.strip("`"): {name.strip("` ") for name in cells[-1].split(",")} - {"-"}
        for room, cells in rooms.items()
    }
    assert stated == ALLOWED


@pytest.mark.parametrize("page", [ROOT / "CONTRIBUTING.md", *DOCS.glob("*.md")], ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page: Path) -> None:
    for path in re.findall(r"`((?:\w+/)+\w+\.\w+)`", page.read_text()):
        if path.endswith((".py", ".yaml")):
            assert (ROOT / path).is_file() or (ROOT / "lawm_lerobot" / path).is_file(), path


# --- links ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
