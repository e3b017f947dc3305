"""What every `lawm-*` command shares: a help that is there at once, and `--policy.path` with the flags beside it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from lawm_lerobot.scripts.command import parse, run_command
from lawm_lerobot.scripts.lawm_export import ExportConfig

SCRIPTS = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]["scripts"]

HELP = """
import importlib, sys
module, function = sys.argv[1].split(":")
sys.argv = ["command", "--help"]
try:
    getattr(importlib.import_module(module), function)()
except SystemExit as stop:
    assert stop.code == 0, stop.code
heavy = {"torch", "lerobot", "transformers", "pandas", "scipy", "matplotlib"} & sys.modules.keys()
assert not heavy, heavy
"""


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_does_not_wait_for_what_the_command_needs(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", HELP, SCRIPTS[name]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--config_path" in done.stdout


def test_fields_of_the_checkpoint_stand_in_a_file_or_are_typed(tmp_path: Path) -> None:
    file = tmp_path / "export.yaml"
    file.write_text(
        "output_dir: there\npolicy:\n  path: me/policy\n  device: cuda\n"
        "  latent_action: {dim: 3, perturb: null}\n  crop_shape: [8, 8]\n"
    )
    config = parse(ExportConfig, [f"--config_path={file}", "--policy.device", "cpu", "--repo_id=me/x"])
    assert (config.output_dir, config.repo_id, config.policy.path) == (Path("there"), "me/x", "me/policy")
    assert config.policy.overrides == [
        "--device=cuda",
        "--latent_action.dim=3",
        "--latent_action.perturb=null",
        "--crop_shape=[8, 8]",
        "--device=cpu",
    ]
    assert "device: cuda" in file.read_text()
    typed = parse(ExportConfig, ["--output_dir=x", "--policy.path=other"])
    assert (typed.policy.path, typed.policy.overrides) == ("other", [])


def test_a_flag_without_a_value_leaves_the_next_one_alone() -> None:
    config = parse(ExportConfig, ["--policy.compile_model", "--output_dir", "x", "--policy.path", "y"])
    assert (config.output_dir, config.policy.path) == (Path("x"), "y")
    assert config.policy.overrides == ["--compile_model"]


def test_a_file_that_is_no_yaml_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "export.yaml"
    file.write_text("policy: [")
    assert run_command(ExportConfig, lambda config: None, argv=[f"--config_path={file}"]) == 2
    assert "cannot be read as YAML" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            ["--policy.path=x", "--policy.type=act"],
            "--policy.type is the checkpoint's own: give --policy.path alone.",
        ),
        (["--config_path=nowhere.yaml"], "There is no file nowhere.yaml: change --config_path."),
    ],
)
def test_wrong_usage_is_told(flags: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(ExportConfig, lambda config: None, argv=["--output_dir=x", *flags]) == 2
    assert capsys.readouterr().err == f"error: {sentence}\n"
