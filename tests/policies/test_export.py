"""`lawm-export`: a checkpoint that acts the same in a LeRobot which has never seen this plugin."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from helpers.datasets_on_the_spot import make_dataset
from helpers.training import assert_same_tensors, finetune, pretrain, run_command
from lerobot.policies import make_pre_post_processors
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from safetensors.torch import load_file
from torch import Tensor

from lawm_lerobot.policies.act.modeling_lawm_act import LawmActPolicy
from lawm_lerobot.policies.common import exporting
from lawm_lerobot.scripts import lawm_export
from tools.speed.control import bench_control

# Run where no import of the plugin can succeed; prints the actions for the observations it was given.
WITHOUT_THE_PLUGIN = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("lawm_lerobot", "lerobot_policy_lawm"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
for name in ("lawm_lerobot", "lerobot_policy_lawm"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    sys.exit(f"{name} could be imported")

import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies import get_policy_class, make_pre_post_processors

checkpoint, observations, actions = sys.argv[1:]
config = PreTrainedConfig.from_pretrained(checkpoint)
policy = get_policy_class(config.type).from_pretrained(checkpoint, strict=True)
before, after = make_pre_post_processors(config, checkpoint)
chosen = [after(policy.select_action(before(observation))) for observation in torch.load(observations)]
torch.save({"type": config.type, "class": type(policy).__module__, "actions": torch.stack(chosen)}, actions)
"""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    root = tmp_path_factory.mktemp("checkpoints")
    dataset = make_dataset(root / "dataset", lengths=(8, 8), action_dim=3)
    before = pretrain(dataset, root / "pretrained", steps=1)
    chunk = ("--policy.chunk_size=5", "--policy.n_action_steps=3")
    after = finetune(before.checkpoint(), dataset, root / "finetuned", *chunk, steps=2)
    return {"pretrained": before.checkpoint(), "finetuned": after.checkpoint()}


def export(checkpoint: Path, output_dir: Path, *flags: str) -> Path:
    run_command(lawm_export.main, f"--policy.path={checkpoint}", f"--output_dir={output_dir}", *flags)
    return output_dir


@pytest.fixture(scope="module")
def exported(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(checkpoints["finetuned"], tmp_path_factory.mktemp("exported") / "plain")


def observations(count: int = 5) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "observation.images.top": torch.rand(3, 32, 32, generator=generator),
            "observation.state": torch.rand(2, generator=generator),
        }
        for _ in range(count)
    ]


def actions(policy: ACTPolicy, checkpoint: Path) -> Tensor:
    """As on a robot: one observation after the other, through the checkpoint's own processors."""
    before, after = make_pre_post_processors(policy.config, str(checkpoint))
    policy.reset()
    return torch.stack([after(policy.select_action(before(o))) for o in observations()])


def test_same_actions_without_the_plugin(
    checkpoints: dict[str, Path], exported: Path, tmp_path: Path
) -> None:
    torch.save(observations(), tmp_path / "observations.pt")
    command = [sys.executable, "-c", WITHOUT_THE_PLUGIN, exported, *(tmp_path / f for f in FILES)]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert finished.returncode == 0, finished.stderr[-3000:]
    found = torch.load(tmp_path / "actions.pt")
    assert (found["type"], found["class"]) == ("act", ACTPolicy.__module__)

    expected = actions(LawmActPolicy.from_pretrained(checkpoints["finetuned"]), checkpoints["finetuned"])
    assert expected.shape == (5, 1, 3)
    assert expected.std() > 0
    torch.testing.assert_close(found["actions"], expected, rtol=0, atol=1e-6)


FILES = ("observations.pt", "actions.pt")


def test_exported_weights_are_the_finetuned_ones(checkpoints: dict[str, Path], exported: Path) -> None:
    assert_same_tensors(
        load_file(exported / "model.safetensors"), load_file(checkpoints["finetuned"] / "model.safetensors")
    )


def test_exported_config_has_acts_fields_only(exported: Path) -> None:
    config = json.loads((exported / "config.json").read_text())
    assert config.keys() == {f.name for f in fields(ACTConfig)} | {"type"}
    assert config["type"] == "act"
    assert (config["chunk_size"], config["n_action_steps"]) == (5, 3)


def test_nothing_in_the_export_remembers_this_machine_or_the_plugin(
    checkpoints: dict[str, Path], exported: Path
) -> None:
    training = checkpoints["finetuned"].parents[2].parent
    for file in exported.iterdir():
        if file.suffix == ".safetensors":
            continue
        text = file.read_text()
        assert str(training) not in text, file
        assert "lawm" not in text, file


def test_export_holds_what_lerobot_loads_and_nothing_else(exported: Path) -> None:
    names = {file.name.partition("_step_")[0] for file in exported.iterdir()}
    assert names == {
        *("config.json", "model.safetensors", "policy_preprocessor.json", "policy_postprocessor.json"),
        *("policy_preprocessor", "policy_postprocessor"),
    }


@pytest.mark.parametrize("existing", ["missing", "empty"])
def test_output_directory_may_be_new_or_empty(
    existing: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    output_dir = tmp_path / "new" / "plain"
    if existing == "empty":
        output_dir.mkdir(parents=True)
    export(checkpoints["finetuned"], output_dir)
    assert (output_dir / "model.safetensors").is_file()
    assert [path.name for path in output_dir.parent.iterdir()] == ["plain"]


def test_policy_without_a_state_is_exported_with_a_warning(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "dataset", lengths=(8, 8), state_dim=None)
    before = pretrain(dataset, tmp_path / "pretrained", steps=1)
    after = finetune(before.checkpoint(), dataset, tmp_path / "finetuned", steps=1)
    log = run_command(
        lawm_export.main, f"--policy.path={after.checkpoint()}", f"--output_dir={tmp_path / 'plain'}"
    )
    assert "no observation.state" in log
    assert (tmp_path / "plain" / "model.safetensors").is_file()


# --- refusals ------------------------------------------------------------------------------------------------


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Export what cannot be exported, and return the sentence about it."""

    def sentence(checkpoint: Path, output_dir: Path, *flags: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            export(checkpoint, output_dir, *flags)
        assert stopped.value.code == 1
        last = capsys.readouterr().out.strip().splitlines()[-1]
        assert last.startswith("error: ")
        return last

    return sentence


def test_pretraining_checkpoint_is_refused(
    refused: Callable[..., str], checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    message = refused(checkpoints["pretrained"], tmp_path / "plain")
    assert str(checkpoints["pretrained"]) in message
    assert "--policy.stage=finetune" in message
    assert not list(tmp_path.iterdir())


def test_pretraining_checkpoint_is_refused_with_the_finetuning_stage_too(
    refused: Callable[..., str], checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    message = refused(checkpoints["pretrained"], tmp_path / "plain", "--policy.stage=finetune")
    assert "Finetune it first" in message
    assert not list(tmp_path.iterdir())


def test_output_directory_with_something_in_it_is_refused(
    refused: Callable[..., str], checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "precious.txt").write_text("keep me")
    message = refused(checkpoints["finetuned"], tmp_path)
    assert str(tmp_path) in message
    assert "--output_dir" in message
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_plain_policy_is_refused(refused: Callable[..., str], exported: Path, tmp_path: Path) -> None:
    message = refused(exported, tmp_path / "plain")
    assert "'act'" in message
    assert "--policy.path" in message
    assert not list(tmp_path.iterdir())


def test_missing_checkpoint_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    message = refused(tmp_path / "checkpoint", tmp_path / "plain")
    assert "config.json" in message
    assert not (tmp_path / "plain").exists()


@pytest.mark.parametrize("flag", ["--policy.path", "--output_dir"])
def test_missing_flag_is_named(
    flag: str, checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {"--policy.path": checkpoints["finetuned"], "--output_dir": tmp_path / "plain"}
    del flags[flag]
    with pytest.raises(SystemExit) as error:
        run_command(lawm_export.main, *(f"{name}={value}" for name, value in flags.items()))
    assert error.value.code == 2
    assert flag.lstrip("-") in str(capsys.readouterr())
    assert not list(tmp_path.iterdir())


def test_failure_leaves_nothing_behind(
    refused: Callable[..., str], checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "largest_difference", lambda *_: 1.0)
    assert "acts differently" in refused(checkpoints["finetuned"], tmp_path / "plain")
    assert not list(tmp_path.iterdir())


def test_difference_between_two_policies_is_noticed(checkpoints: dict[str, Path], exported: Path) -> None:
    source, plain = (
        (policy, make_pre_post_processors(policy.config, str(checkpoint))[0])
        for policy, checkpoint in (
            (LawmActPolicy.from_pretrained(checkpoints["finetuned"]), checkpoints["finetuned"]),
            (ACTPolicy.from_pretrained(exported), exported),
        )
    )
    assert exporting.largest_difference(source, plain) <= exporting.TOLERANCE
    with torch.no_grad():
        plain[0].model.action_head.bias[0] += 1e-3
    assert exporting.largest_difference(source, plain) > exporting.TOLERANCE


def test_benchmark_of_the_control_loop() -> None:
    report = bench_control(height=32, width=32, chunks=2, queued=6)
    for kind, steps in (("network", 2), ("queue", 6)):
        assert report[kind]["steps"] == steps
        for name in ("act", "lawm_act"):
            assert report[kind][name].keys() == {"median_ms", "p95_ms", "jitter_ms"}
            assert report[kind][name]["p95_ms"] >= report[kind][name]["median_ms"] > 0
        assert report[kind]["ratio"].keys() == {"median", "p95"}
    sizes = report["checkpoint_bytes"]
    assert sizes["lawm_act"] == sizes["act"] > 1_000_000
