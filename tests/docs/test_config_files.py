"""The YAML files in configs/, read and run by LeRobot's own command."""

from __future__ import annotations

from pathlib import Path

import draccus
import pytest
import yaml
from helpers.datasets_on_the_spot import make_dataset
from helpers.training import TINY_LAWM, lerobot_train, parsed
from lerobot.configs.train import TrainPipelineConfig

from lawm_lerobot.benchmark.cells import unique_commands
from lawm_lerobot.benchmark.configuration import BenchmarkConfig
from lawm_lerobot.benchmark.stages import cell_runs

CONFIGS = Path(__file__).parents[2] / "configs"


def test_pretraining_and_finetuning_files_train(tmp_path: Path) -> None:
    video = make_dataset(tmp_path / "video", action_dim=None)
    labelled = make_dataset(tmp_path / "labelled")
    tiny = [flag for flag in TINY_LAWM if not flag.startswith("--policy.type=")]
    pretrained = lerobot_train(
        video, tmp_path / "pre", f"--config_path={CONFIGS / 'lawm_act_pretrain.yaml'}", *tiny, steps=1
    )
    finetuned = lerobot_train(
        labelled,
        tmp_path / "fine",
        f"--config_path={CONFIGS / 'lawm_act_finetune.yaml'}",
        f"--policy.path={pretrained.checkpoint()}",
        "--policy.chunk_size=12",
        "--policy.n_action_steps=12",
        steps=1,
    )
    assert "model.action_head.weight" in finetuned.tensors()
    assert not any(name.startswith("pretraining.") for name in finetuned.tensors())


@pytest.mark.parametrize("preset", ["smoke", "gate", "evidence", "gpu", "rivals", "so101", "libero"])
def test_benchmark_presets_can_be_planned(preset: str) -> None:
    file = CONFIGS / "benchmark" / f"{preset}.yaml"
    cfg = draccus.parse(BenchmarkConfig, args=[f"--config_path={file}"])
    cfg.check()
    runs = cell_runs(cfg)
    assert {run.cell.arm for run in runs} == set(cfg.arms)
    assert len({run.key for run in runs}) > len(cfg.seeds)
    strides = {
        flag
        for command in unique_commands(runs)
        if "--policy.stage=pretrain" in command.arguments
        for flag in [flag for flag in command.arguments if "latent_action.stride" in flag][-1:]
    }
    if cfg.simulator == "metaworld":
        assert strides <= {"--policy.latent_action.stride=" + ("2" if preset == "smoke" else "4")}
        assert strides or preset == "gate"
    else:  # the default, in seconds
        assert not strides
    if preset == "gpu":  # ends within 25 minutes, in commands that a queue of short jobs takes
        commands = unique_commands(runs)
        assert sum(command.seconds for command in commands) / cfg.workers < 25 * 60
        assert all(command.seconds < 8 * 60 for command in commands)


def test_each_rival_pretrains_on_the_flags_of_its_family() -> None:
    file = CONFIGS / "benchmark" / "rivals.yaml"
    cfg = draccus.parse(BenchmarkConfig, args=[f"--config_path={file}", "--seeds=[0]", "--tasks=[reach-v3]"])
    runs = {run.cell.arm: run for run in cell_runs(cfg)}
    pretrained = {
        arm: parsed(TrainPipelineConfig, run.pretraining.typed()[1:]).policy
        for arm, run in runs.items()
        if run.pretraining is not None and "cotraining" not in arm
    }
    found = {
        arm: (
            p.latent_action.source,
            p.latent_action.quantizer,
            p.latent_action.proprio_weight,
            p.labels.grounding_weight,
        )
        for arm, p in pretrained.items()
    }
    assert found == {
        "lawm": ("policy", "none", 0, 0),
        "inverse_dynamics": ("inverse_dynamics", "none", 0, 0),
        "inverse_dynamics+readout": ("inverse_dynamics", "none", 0, 0),
        "lapa": ("inverse_dynamics", "vq", 0, 0),
        "villa_x": ("inverse_dynamics", "vq", 1, 0),
        "glam": ("inverse_dynamics", "none", 0, 1),
    }
    assert {arm for arm, p in pretrained.items() if p.labels.repo_id} == {"inverse_dynamics+readout", "glam"}
    for family in ("lapa", "villa_x", "glam"):  # finetuned plainly and with the video from one pretraining
        assert runs[family].pretraining.name == runs[f"{family}_cotraining"].pretraining.name
        assert any("policy.video.root" in flag for flag in runs[f"{family}_cotraining"].finetuning.arguments)


def test_no_training_file_is_untested() -> None:
    # configs/import/ is read by lawm-import-videos, whose tests parse it.
    assert {file.stem for file in (CONFIGS / "benchmark").glob("*.yaml")} == {
        "smoke",
        "gate",
        "evidence",
        "gpu",
        "rivals",
        "so101",
        "libero",
    }
    files = {file.name for file in CONFIGS.glob("*.yaml")}
    assert files == {"lawm_act_pretrain.yaml", "lawm_act_finetune.yaml"}
    for file in files:
        assert yaml.safe_load((CONFIGS / file).read_text())["policy"]
