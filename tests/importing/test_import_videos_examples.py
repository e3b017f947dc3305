"""The commands of the phone-clips example and of the Slurm example, run as written."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.video_fixtures import write_video

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "examples" / "import_phone_clips" / "README.md"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def commands(document: Path) -> list[list[str]]:
    """Every line of every bash block, as words."""
    blocks = re.findall(r"```bash\n(.*?)```", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines() if line.strip()]


@pytest.mark.slow
def test_the_phone_clips_example_runs_as_written(tmp_path):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    ran = []
    for words in commands(EXAMPLE):
        name, rest = words[0], words[1:]
        ran.append(name)
        if name == "python":
            words = [sys.executable, *rest]
        elif name == "lawm-import-videos":
            words = [sys.executable, "-m", "lawm_lerobot.scripts.lawm_import_videos", *rest]
        elif name == "lerobot-train":
            words = [sys.executable, "-c", TRAIN, *rest, "--policy.pretrained_backbone_weights=null"]
        result = subprocess.run(words, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
        assert result.returncode == 0, (words, result.stderr[-3000:])
    assert ran == ["python", "lawm-import-videos", "lawm-import-videos", "lerobot-train"]
    dataset = LeRobotDataset("me/phone_clips", root=tmp_path / "data" / "phone_clips")
    assert sorted(dataset.meta.tasks.index) == ["open the drawer", "pick up the cup"]
    assert dataset.meta.total_episodes == 3
    assert (tmp_path / "outputs" / "phone_pretrain" / "checkpoints").is_dir()


# What the console script does once the plugin is installed; in a bare checkout LeRobot cannot discover it.
TRAIN = "import lerobot_policy_lawm; from lerobot.scripts.lerobot_train import main; main()"


@pytest.mark.slow
def test_the_slurm_example_runs_locally(tmp_path):
    for number in range(3):
        write_video(tmp_path / "videos" / f"{number}.mp4", 60, 30)
    config = tmp_path / "import.yaml"
    config.write_text(
        f"repo_id: me/set\nsize: 64\nsources:\n  - {{type: folder, path: {tmp_path / 'videos'}}}\n"
    )
    script = REPOSITORY / "examples" / "slurm_import" / "import_on_slurm.py"
    result = subprocess.run(
        [sys.executable, str(script), f"--config={config}", f"--root={tmp_path / 'out'}"]
        + ["--shards=2", "--cpus=0", "--local"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "Imported 3 episodes" in result.stdout
