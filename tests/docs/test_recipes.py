"""docs/recipes.md: its files and commands are read by the commands' own parsers, in order, but not run."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import draccus
import lerobot.datasets
import pytest
import yaml
from helpers.datasets_on_the_spot import make_dataset
from helpers.training import leave_checkpoint, parsed
from lerobot.configs.eval import EvalPipelineConfig
from lerobot.configs.train import TrainPipelineConfig

from lawm_lerobot.importing.config import ImportConfig
from lawm_lerobot.scripts.command import parse
from lawm_lerobot.scripts.lawm_export import ExportConfig

REPOSITORY = Path(__file__).parents[2]
RECIPES = REPOSITORY / "configs" / "recipes"
PAGE = (REPOSITORY / "docs" / "recipes.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
(SUITE_SCRIPT,) = re.findall(r"<<'EOF'\n(.*?)EOF\n", PAGE, flags=re.DOTALL)
#: Install, set up or look, and read no configuration.
SHELL = {"pip", "export", "echo", "python", "hf", "lawm-libero-setup"}


def commands() -> list[list[str]]:
    text = "\n".join(BLOCKS).replace(SUITE_SCRIPT + "EOF\n", "\n")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


def write_suite_flags(folder: Path, sentences: list[str]) -> None:
    """Run the page's script on a small dataset of two tasks and a LIBERO whose suite has `sentences`."""
    root = folder / "libero"
    if not root.exists():
        make_dataset(root, cameras=(), tasks=("push the square", "lift the square"), lengths=(100, 5, 92))
    metadata = lerobot.datasets.LeRobotDatasetMetadata
    suite = SimpleNamespace(
        n_tasks=len(sentences), get_task=lambda task: SimpleNamespace(language=sentences[task])
    )
    libero = ModuleType("libero.libero")
    libero.benchmark = SimpleNamespace(  # type: ignore[attr-defined]
        get_benchmark_dict=lambda: {"libero_spatial": lambda: suite}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "libero", ModuleType("libero"))
        patch.setitem(sys.modules, "libero.libero", libero)
        patch.setattr(
            lerobot.datasets, "LeRobotDatasetMetadata", lambda repo_id: metadata(repo_id, root=root)
        )
        patch.setattr(sys, "argv", ["-", "libero_spatial"])
        patch.chdir(folder)
        exec(SUITE_SCRIPT, {})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory that sees the repository's files and nothing else."""
    folder = tmp_path_factory.mktemp("recipes")
    for name in ("configs", "examples"):
        (folder / name).symlink_to(REPOSITORY / name)
    return folder


@pytest.fixture(scope="module")
def configs(folder: Path) -> dict[str, list[Any]]:
    """By command, the configurations of the whole page, each read after what the commands before it left."""
    write_suite_flags(folder, ["push the square"])
    kinds = {
        "lerobot-train": TrainPipelineConfig,
        "lerobot-eval": EvalPipelineConfig,
    }
    found: dict[str, list[Any]] = {name: [] for name in (*kinds, "lawm-export", "lawm-import-videos")}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for words in commands():
            if words[0] == "xargs":
                words = [*words[3:], *Path(words[2]).read_text().split()]
            name, flags = words[0], words[1:]
            if name in kinds:
                found[name].append(parsed(kinds[name], flags))
                if name == "lerobot-train":
                    leave_checkpoint(found[name][-1])
            elif name == "lawm-export":
                found[name].append(parse(ExportConfig, flags))
            elif name == "lawm-import-videos":
                found[name].append(draccus.parse(ImportConfig, args=flags))
            else:
                assert name in SHELL, words
    return found


def test_every_command_is_accepted(configs: dict[str, list[Any]]) -> None:
    assert {name: len(found) for name, found in configs.items()} == {
        "lerobot-train": 12,
        "lerobot-eval": 5,
        "lawm-export": 1,
        "lawm-import-videos": 3,
    }
    for config in configs["lawm-import-videos"]:
        config.check()


def test_commands_read_what_earlier_ones_wrote(configs: dict[str, list[Any]], folder: Path) -> None:
    # A --policy.path that nothing had written would have stopped lerobot-train and lerobot-eval while parsing.
    assert all(config.policy.stage == "finetune" for config in configs["lerobot-eval"])
    assert (folder / re.findall(r"lawm-export --policy.path=(\S+)", PAGE)[0]).is_dir()
    written = {str(config.root) for config in configs["lawm-import-videos"]}
    written |= set(re.findall(r"--local-dir=(\S+)", PAGE))
    roots = [config.dataset.root or "" for config in configs["lerobot-train"]]
    recipes = [root for root in roots if root.startswith("data/recipes/")]
    assert len(recipes) == 6
    assert all(any(Path(root).is_relative_to(place) for place in written) for root in recipes)


def test_suite_script_chooses_the_suites_episodes_and_counts_their_epochs(folder: Path) -> None:
    write_suite_flags(folder, ["push the square"])
    # Episodes 0 and 2 of 100 and 92 frames: 105 * 192 / 256 steps.
    assert (folder / "libero_spatial.flags").read_text() == "--dataset.episodes=[0,2] --steps=79\n"
    with pytest.raises(SystemExit, match="No episode of the dataset says: fold the square"):
        write_suite_flags(folder, ["push the square", "fold the square"])


def test_every_file_is_on_the_page() -> None:
    files = {file.name for file in RECIPES.glob("*.yaml")}
    assert set(re.findall(r"configs/recipes/(\w+\.yaml)", "\n".join(BLOCKS))) == files


def test_steps_are_the_epochs_they_claim() -> None:
    rows = re.findall(r"^\| `(\w+)\.yaml` \| (\d+) \| ([\d,]+) \| ([\d,]+) \|$", PAGE, flags=re.MULTILINE)
    trained = {file.stem for file in RECIPES.glob("*.yaml") if not re.match("import|eval", file.stem)}
    assert {name for name, *_ in rows} == trained
    for name, *figures in rows:
        epochs, frames, steps = (int(figure.replace(",", "")) for figure in figures)
        recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
        assert round(epochs * frames / recipe["batch_size"]) == steps == recipe["steps"], name
    assert f"--steps={round(105 * 573_708 / 256)} " in PAGE


def test_from_scratch_differs_in_the_weights_only(configs: dict[str, list[Any]]) -> None:
    runs = {config.output_dir.name: config for config in configs["lerobot-train"]}
    finetuned, scratch = runs["libero"], runs["libero_scratch"]
    assert finetuned.policy.pretrained_path is not None
    assert scratch.policy.pretrained_path is None
    plain = [draccus.encode(config.policy.plain_config()) for config in (finetuned, scratch)]
    for config in plain:
        del config["pretrained_path"]
    assert plain[0] == plain[1]
    for field in ("optimizer", "scheduler", "steps", "batch_size", "dataset", "seed"):
        assert getattr(finetuned, field) == getattr(scratch, field)


@pytest.mark.parametrize("file", sorted(RECIPES.glob("*.yaml")), ids=lambda file: file.stem)
def test_nothing_that_lerobot_would_drop_is_set_over_a_checkpoint(file: Path) -> None:
    policy = yaml.safe_load(file.read_text()).get("policy", {})
    if "path" in policy:  # LeRobot hands only scalars of a file on to the checkpoint's configuration
        assert not [name for name, value in policy.items() if value is None or isinstance(value, list)]


def test_mujoco_is_pinned_and_printed_before_every_evaluation() -> None:
    for block in BLOCKS:
        if "pip install" in block:
            assert re.search(r"'mujoco==\d+\.\d+\.\d+'", block)
        lines = block.splitlines()
        first = next((n for n, line in enumerate(lines) if line.startswith("lerobot-eval")), None)
        if first is not None:
            assert any("mujoco.__version__" in line for line in lines[:first]), block


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#:]+)\)", PAGE))
def test_links_lead_somewhere(path: str) -> None:
    assert (REPOSITORY / "docs" / path).exists()
