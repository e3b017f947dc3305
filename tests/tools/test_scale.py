"""docs/scale.md: its commands, its Slurm script, its figures, and what LeRobot hands to HF Jobs."""

from __future__ import annotations

import copy
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import draccus
import pytest
from accelerate.commands.launch import launch_command_parser
from helpers.datasets_on_the_spot import make_dataset
from helpers.hub_server import HubServer, Repository
from helpers.training import leave_checkpoint, parsed
from lerobot.configs.train import TRAIN_CONFIG_NAME, TrainPipelineConfig
from torch.distributed.run import get_args_parser

from lawm_lerobot.importing.config import ImportConfig

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "scale.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
(SBATCH,) = (block for block in BLOCKS if block.startswith("#!"))
TRAIN = "lerobot.scripts.lerobot_train"


# --- figures ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tool() -> dict[str, Any]:
    return runpy.run_path(str(REPOSITORY / "tools" / "speed" / "scale_estimates.py"))


def report() -> dict[str, Any]:
    """A report as bench.py writes it, with round numbers."""
    run = {"workers": 0, "batch": 8, "processes": 1, "samples_per_s": 4.0, "update_s": 1.5, "data_s": 0.5}
    clips = {
        str(count): {"median": rate, "q1": rate, "q3": rate} for count, rate in enumerate((90, 100, 180))
    }
    kind = {"source_frames": 1000, "import_cpu_s": 2.0}
    versions = {"python": "3", "torch": "2", "lerobot": "0.6"}
    return {
        "machine": {"processor": "some", "cores": 2, "gpu": None, "versions": versions},
        **{"device": "cpu", "threads": 2, "quick": False},
        "sections": {
            "scaling": {
                "workers": [run, {**run, "workers": 1}],
                "batch": [run, {**run, "batch": 16}],
                "processes": [run, {**run, "processes": 2}],
            },
            "loading": {
                "video_backend": "pyav",
                "clips_per_s": {"imported 128x128": clips, "stock 480x640": clips},
                "step_clips_per_s": {"median": 6.0},
            },
            "import": {"kinds": dict.fromkeys(("short_webm", "camera_480p", "phone_720p"), kind)},
        },
    }


def save(folder: Path, found: dict[str, Any]) -> str:
    (folder / "speed.json").write_text(json.dumps(found))
    return f"--report={folder / 'speed.json'}"


def rows(text: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "|" in line
    ]


def test_figures_follow_from_the_report(
    tool: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    tool["main"]([save(tmp_path, report())])
    found = rows(capsys.readouterr().out)
    assert ["-", "0", "8", "4.0", "0.5", "1.5"] in found
    assert ["2", "0", "8", "4.0", "0.5", "1.5"] in found
    assert ["imported 128x128", "90", "100", "180"] in found
    # 16 cores of 100 clips/s are fewer clips than 165 TFLOP/s at 30% compute; each has 3.3 s of 25 kB.
    flops = tool["STEPS"]["lawm_act"].flops
    computed = 165e12 * 0.3 / flops
    rates = [f"{computed:,.0f}", f"{computed / 100:.0f}", "1,600"]
    assert ["lawm_act", "1 x RTX 4090", *rates, "decoding", "132", "0"] in found
    # 12,800,000 clips at 1,600 a second, for half a dollar an hour.
    assert any(row[:3] == ["lawm_act", "1 x RTX 4090", "2.2 h, $1.1"] for row in found)
    # 245.4 hours of 12 frames a second, 2 ms of a core each; 25 kB of result for every second.
    ssv2 = ["Something-Something v2", "245", "19", "5.9", "0.18 h", "0.046 h", "0.012 h", "22"]
    assert ssv2 in found


def test_a_report_that_does_not_do(tool: dict[str, Any], tmp_path: Path) -> None:
    found = report()
    with pytest.raises(SystemExit, match=r"^There is no speed\.json: "):
        tool["main"]([f"--report={tmp_path / 'speed.json'}"])
    with pytest.raises(SystemExit, match="is a quick look"):
        tool["main"]([save(tmp_path, {**found, "quick": True})])
    del found["sections"]["import"]
    with pytest.raises(SystemExit, match=r"^speed\.json has no section import: `.* --only=import`\.$"):
        tool["main"]([save(tmp_path, found)])


def test_writing_changes_the_block_only(
    tool: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = [save(tmp_path, report()), f"--page={tmp_path / 'scale.md'}", "--write"]
    (tmp_path / "scale.md").write_text(PAGE)
    tool["main"](flags)
    written = (tmp_path / "scale.md").read_text()
    tool["main"](flags)
    assert (tmp_path / "scale.md").read_text() == written
    tool["main"](flags[:1])
    assert block(tool, written) == capsys.readouterr().out.strip()
    assert outside(tool, written) == outside(tool, PAGE)
    (tmp_path / "scale.md").write_text("no marks")
    with pytest.raises(SystemExit, match="must have the marks"):
        tool["main"](flags)


def block(tool: dict[str, Any], page: str) -> str:
    return page.partition(tool["BEGIN"])[2].partition(tool["END"])[0].strip()


def outside(tool: dict[str, Any], page: str) -> tuple[str, str]:
    return page.partition(tool["BEGIN"])[0], page.partition(tool["END"])[2]


def test_the_page_has_the_tools_figures(tool: dict[str, Any], capsys: pytest.CaptureFixture) -> None:
    """The figures of the committed report, that is."""
    tool["main"]([])
    assert block(tool, PAGE) == capsys.readouterr().out.strip()


# --- commands ---------------------------------------------------------------------------------------------


def commands() -> list[list[str]]:
    text = "\n".join(block for block in BLOCKS if block != SBATCH).replace("\\\n", " ")
    return [words for line in text.splitlines() if (words := shlex.split(line))]


def training_flags(words: list[str]) -> list[str]:
    """The flags that lerobot-train gets of a command, read by the launcher's own parser."""
    words = [word for word in words if word != "ACCELERATE_MIXED_PRECISION=bf16"]
    if words[0] == "lerobot-train":
        return words[1:]
    if words[0] == "torchrun":
        given = get_args_parser().parse_args(words[1:])
    else:
        assert words[:2] == ["accelerate", "launch"]
        given = launch_command_parser().parse_args(words[2:])
    assert given.module and given.training_script == TRAIN
    return given.training_script_args


def test_every_command_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = {"local": 0, "resumed": 0, "job": 0}
    for index, words in enumerate(commands()):
        if words[0] == "lawm-import-videos":
            draccus.parse(ImportConfig, args=words[1:]).check()
            continue
        flags = training_flags(words)
        if "--resume=true" in flags:  # in the folder of the run before
            cfg = parsed(TrainPipelineConfig, flags)
            assert cfg.checkpoint_path == Path("outputs/pretrain/checkpoints/last")
            training["resumed"] += 1
            continue
        (tmp_path / str(index)).mkdir()
        monkeypatch.chdir(tmp_path / str(index))
        cfg = parsed(TrainPipelineConfig, flags)
        leave_checkpoint(cfg)
        training["job" if cfg.job.is_remote else "local"] += 1
    assert training == {"local": 2, "resumed": 1, "job": 1}


def slurm_job(folder: Path) -> list[str]:
    """Flags of lerobot-train in the Slurm script, which runs with stand-ins for Slurm and for torchrun."""
    programs = {
        "srun": 'shift; exec "$@"',
        "scontrol": "echo node1; echo node2",
        "torchrun": 'printf "%s\\n" "$@"',
    }
    (folder / "bin").mkdir(exist_ok=True)
    for name, body in programs.items():
        (folder / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / "bin" / name).chmod(0o755)
    environment = {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_GPUS_ON_NODE": "8",
        "SLURM_CPUS_PER_TASK": "96",
    }
    ran = subprocess.run(["bash", "-c", SBATCH], cwd=folder, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    words = ran.stdout.splitlines()
    assert get_args_parser().parse_args(words).rdzv_endpoint == "node1:29500"
    return training_flags(["torchrun", *words])


def test_the_slurm_script_begins_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["bash", "-n"], input=SBATCH, text=True, check=True)
    monkeypatch.chdir(tmp_path)
    begun = parsed(TrainPipelineConfig, slurm_job(tmp_path))
    assert not begun.resume
    leave_checkpoint(begun)
    goes_on = parsed(TrainPipelineConfig, slurm_job(tmp_path))
    assert goes_on.resume and goes_on.output_dir == begun.output_dir and goes_on.steps == begun.steps


def test_links_lead_somewhere() -> None:
    for path in re.findall(r"\]\(([^)#:]+)\)", PAGE):
        assert (REPOSITORY / "docs" / path).exists(), path
    anchors = {
        line.strip("# ").lower().replace(" ", "-") for line in PAGE.splitlines() if line.startswith("#")
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= anchors


# --- HF Jobs ----------------------------------------------------------------------------------------------

SETTINGS = (
    "--policy.type=lawm_act",
    "--policy.dim_model=32",
    "--policy.n_heads=2",
    "--policy.dim_feedforward=64",
    "--policy.n_encoder_layers=1",
    "--policy.n_vae_encoder_layers=1",
    "--policy.pretrained_backbone_weights=null",
    "--policy.latent_action.source=both",
    "--policy.latent_action.dim=6",
    "--policy.latent_action.horizon=4",
    "--policy.latent_action.stride=2",
    "--policy.world_model.type=rssm",
    "--policy.world_model.size=test",
    "--policy.world_model.image_size=32",
    "--policy.idm.size=test",
    "--policy.idm.random_shift=2",
    "--policy.labels.repo_id=somebody/demonstrations",
    "--policy.labels.weight=0.5",
    "--policy.labels.batch_size=3",
    "--policy.pretraining_lr=1e-4",
    "--policy.health_freq=2",
    "--dataset.repo_id=somebody/clips",
    *("--batch_size=4", "--num_workers=0", "--steps=2", "--log_freq=1"),
)
#: By LeRobot, for the job.
REPLACED = {"push_to_hub", "repo_id", "device", "tags"}


@dataclass
class Cloud:
    """A Hub with two datasets, and one job that was submitted to it."""

    hub: HubServer
    folder: Path
    output: str

    @property
    def repo_id(self) -> str:
        (name,) = re.findall(r"Model repo: https://huggingface.co/(\S+)", self.output)
        return name


def publish(hub: HubServer, root: Path) -> None:
    """Publish as the importer would: private, tagged with the format's version."""
    files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    repository = Repository(private=True, commits=[("0" * 40, {})])
    repository.tags["v3.0"] = repository.add(files)
    hub.repositories["dataset", f"somebody/{root.name}"] = repository


def run(hub: HubServer, home: Path, command: list[str]) -> str:
    """A command of LeRobot in a process of its own, which has nothing but the Hub."""
    assert command[0] == "lerobot-train"
    home.mkdir()
    environment = {
        **hub.environment(home),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])),
    }
    ran = subprocess.run(
        [sys.executable, "-m", TRAIN, *command[1:]],
        cwd=home,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("cloud")
    with HubServer() as hub:
        publish(hub, make_dataset(folder / "clips", action_dim=None))
        publish(hub, make_dataset(folder / "demonstrations", lengths=(14, 14), action_dim=3))
        job = ("--job.target=a10g-large", "--job.image=you/lerobot-lawm:latest", "--job.detach=true")
        yield Cloud(hub, folder, run(hub, folder / "client", ["lerobot-train", *job, *SETTINGS]))


def test_a_job_is_submitted_with_the_image_that_has_the_plugin(cloud: Cloud) -> None:
    (job,) = cloud.hub.jobs
    assert job["flavor"] == "a10g-large"
    assert job["command"] == ["lerobot-train", f"--config_path={cloud.repo_id}"]
    assert job["secrets"] == {"HF_TOKEN": cloud.hub.token}
    assert job["dockerImage"] == "you/lerobot-lawm:latest"
    assert cloud.repo_id.startswith("somebody/lawm_act_")
    assert cloud.hub.repositories["model", cloud.repo_id].private


def test_the_staged_config_has_all_settings(cloud: Cloud, tmp_path: Path) -> None:
    """Read by the parser of the job's own command."""
    staged = cloud.hub.files(cloud.repo_id)[TRAIN_CONFIG_NAME]
    (tmp_path / TRAIN_CONFIG_NAME).write_bytes(staged)
    found = parsed(TrainPipelineConfig, [f"--config_path={tmp_path / TRAIN_CONFIG_NAME}"])
    wanted = parsed(TrainPipelineConfig, [*SETTINGS, "--policy.push_to_hub=false"])
    ours, theirs = (draccus.encode(copy.deepcopy(cfg)) for cfg in (wanted, found))
    policy, arrived = ours.pop("policy"), theirs.pop("policy")
    assert {key for key in policy if policy[key] != arrived[key]} == REPLACED - {"device"}  # a CPU here too
    assert json.loads(staged)["policy"]["device"] is None
    assert arrived["repo_id"] == cloud.repo_id and arrived["tags"] == ["lerobot"]
    assert not found.job.is_remote
    different = {key for key in ours if ours[key] != theirs[key]}
    assert different <= {"output_dir"}  # named by the time


@pytest.mark.slow
def test_the_job_runs_with_nothing_but_the_hub(cloud: Cloud) -> None:
    (job,) = cloud.hub.jobs
    log = run(cloud.hub, cloud.folder / "pod", job["command"])
    assert f"Model pushed to {cloud.hub.endpoint}/{cloud.repo_id}" in log
    files = cloud.hub.files(cloud.repo_id)
    assert {"model.safetensors", "config.json", "README.md"} <= files.keys()
    config = json.loads(files["config.json"])
    assert config["stage"] == "pretrain" and config["labels"]["action_dims"] == [3]
