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
from datasets_on_the_spot import make_dataset
from lerobot.configs import parser
from lerobot.configs.eval import EvalPipelineConfig
from lerobot.configs.train import TrainPipelineConfig
from training import run_command

from lawm_lerobot.datasets.importer import ImportConfig
from lawm_lerobot.policies.multi_task_dit.configuration_lawm_multi_task_dit import LawmMultiTaskDiTConfig
from lawm_lerobot.scripts.lawm_export import ExportConfig

REPOSITORY = Path(__file__).parent.parent
RECIPES = REPOSITORY / "configs" / "recipes"
PAGE = (REPOSITORY / "docs" / "recipes.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
(SUITE_SCRIPT,) = re.findall(r"<<'EOF'\n(.*?)EOF\n", PAGE, flags=re.DOTALL)
#: Install, set up or look, and read no configuration.
SHELL = {"pip", "export", "echo", "python", "hf"}


def commands() -> list[list[str]]:
    text = "\n".join(BLOCKS).replace(SUITE_SCRIPT + "EOF\n", "\n")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


def parsed(kind: type, flags: list[str]) -> Any:
    """The configuration that a LeRobot command would start from."""
    found = []

    def command(cfg: Any) -> None:
        if isinstance(cfg, TrainPipelineConfig):
            cfg.validate()
        found.append(cfg)

    command.__annotations__["cfg"] = kind
    run_command(parser.wrap()(command), *flags)
    return found[0]


def leave_checkpoint(cfg: TrainPipelineConfig) -> None:
    """What a later command reads of a run: its configuration where LeRobot puts it."""
    assert cfg.policy is not None and cfg.output_dir is not None
    checkpoint = Path(cfg.output_dir) / "checkpoints" / "last" / "pretrained_model"
    checkpoint.mkdir(parents=True)
    cfg.policy._save_pretrained(checkpoint)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory that sees the repository's files and nothing else."""
    for name in ("configs", "examples"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_suite_flags(folder: Path, monkeypatch: pytest.MonkeyPatch, sentences: list[str]) -> None:
    """Run the page's script on a small dataset of two tasks and a LIBERO whose suite has `sentences`."""
    root = folder / "libero"
    if not root.exists():
        make_dataset(root, tasks=("push the square", "lift the square"), lengths=(256, 5, 512), size=16)
    metadata = lerobot.datasets.LeRobotDatasetMetadata
    suite = SimpleNamespace(
        n_tasks=len(sentences), get_task=lambda task: SimpleNamespace(language=sentences[task])
    )
    benchmark = SimpleNamespace(get_benchmark_dict=lambda: {"libero_spatial": lambda: suite})
    libero = ModuleType("libero.libero")
    libero.benchmark = benchmark  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "libero", ModuleType("libero"))
        patch.setitem(sys.modules, "libero.libero", libero)
        patch.setattr(
            lerobot.datasets, "LeRobotDatasetMetadata", lambda repo_id: metadata(repo_id, root=root)
        )
        patch.setattr(sys, "argv", ["-", "libero_spatial"])
        exec(SUITE_SCRIPT, {})


def test_every_command_is_accepted_and_reads_what_an_earlier_one_wrote(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_suite_flags(folder, monkeypatch, ["push the square"])
    datasets, counts = set(), dict.fromkeys(("train", "eval", "import", "export"), 0)
    for words in commands():
        if words[0] == "xargs":
            words = [*words[3:], *Path(words[2]).read_text().split()]
        name, flags = words[0], words[1:]
        if name == "lerobot-train":
            counts["train"] += 1
            cfg = parsed(TrainPipelineConfig, flags)
            if cfg.dataset.root is not None and cfg.dataset.root.startswith("data/recipes"):
                assert any(cfg.dataset.root.startswith(root) for root in datasets), words
            leave_checkpoint(cfg)
        elif name == "lerobot-eval":
            counts["eval"] += 1
            assert parsed(EvalPipelineConfig, flags).policy.stage == "finetune", words
        elif name == "lawm-import-videos":
            counts["import"] += 1
            config = draccus.parse(ImportConfig, args=flags)
            config.check()
            datasets.add(str(config.root))
        elif name == "lawm-export":
            counts["export"] += 1
            assert parsed(ExportConfig, flags).output_dir == Path("outputs/so101_act")
            assert Path(flags[0].removeprefix("--policy.path=")).is_dir()
        else:
            assert name in SHELL, words
            if name == "hf":
                datasets.add(words[-1].removeprefix("--local-dir="))
    assert counts == {"train": 12, "eval": 5, "import": 3, "export": 1}


def test_suite_script_chooses_the_suites_episodes_and_counts_their_epochs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_suite_flags(folder, monkeypatch, ["push the square"])
    # Episodes 0 and 2 of 256 and 512 frames: three batches an epoch.
    assert Path("libero_spatial.flags").read_text() == "--dataset.episodes=[0,2] --steps=315\n"
    with pytest.raises(SystemExit, match="No episode of the dataset says: fold the square"):
        write_suite_flags(folder, monkeypatch, ["push the square", "fold the square"])


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


def test_from_scratch_differs_in_the_weights_only(folder: Path) -> None:
    pretraining = parsed(TrainPipelineConfig, ["--config_path=configs/recipes/pretrain_bridge_v2.yaml"])
    leave_checkpoint(pretraining)
    finetuned, scratch = (
        parsed(TrainPipelineConfig, [f"--config_path=configs/recipes/{name}_libero.yaml"])
        for name in ("finetune", "scratch")
    )
    for cfg in (finetuned, scratch):
        assert isinstance(cfg.policy, LawmMultiTaskDiTConfig)
    plain = [draccus.encode(cfg.policy.plain_config()) for cfg in (finetuned, scratch)]
    for config in plain:
        config.pop("pretrained_path")
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
