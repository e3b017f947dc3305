"""Pretraining on needlessly large frames: the warning, and the import that it asks for."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.training import TINY_ACT, TINY_LAWM, lerobot_train, pretrain
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.datasets.lerobot_dataset import LeRobotDatasetMetadata

from lawm_lerobot.policies.common.large_frames import import_command, warn_of_large_frames
from lawm_lerobot.scripts.lawm_import_videos import main as import_videos
from tools.speed.fixtures import CAMERA, record

ADVICE = "Make them small once"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("clip cost") / "large", 480, 640, 1, 1, labelled=True)


def test_large_frames_are_warned_of_and_the_printed_command_mends_it(large: Path, tmp_path: Path) -> None:
    log = pretrain(large, tmp_path / "run", "--batch_size=1", "--save_checkpoint=false", steps=1).log
    assert log.count(ADVICE) == 1
    # 5 frames of 480x640 and of 32x32 pixels, 3 channels of 4 bytes
    assert "frames have 480x640 pixels" in log and "are 18.4 MB" in log and "uses 0.1 MB" in log
    (line,) = (line for line in log.splitlines() if ADVICE in line)
    command = shlex.split(line[line.index("lawm-import-videos") :])
    assert import_videos([*command[1:], "--workers=0"]) == 0

    small = large.with_name("large_128")
    meta = LeRobotDatasetMetadata("test/large_128", root=small)
    assert meta.features[CAMERA]["shape"] == (128, 170, 3)  # all of the picture, as far as even numbers allow
    assert {"action", "observation.state"} < meta.features.keys()
    assert meta.fps == 30
    log = pretrain(small, tmp_path / "again", "--batch_size=1", "--save_checkpoint=false", steps=1).log
    assert ADVICE not in log


def test_finetuning_is_not_warned(large: Path, tmp_path: Path) -> None:
    flags = (
        *TINY_LAWM,
        *TINY_ACT,
        "--policy.stage=finetune",
        "--policy.chunk_size=8",
        "--policy.n_action_steps=8",
    )
    run = lerobot_train(large, tmp_path / "run", *flags, "--batch_size=1", "--save_checkpoint=false", steps=1)
    assert ADVICE not in run.log


def test_a_dataset_without_colour_is_left_to_the_sentence_that_refuses_it() -> None:
    depth = "observation.images.depth"
    config = SimpleNamespace(image_features={depth: PolicyFeature(FeatureType.VISUAL, (1, 480, 640))})
    warn_of_large_frames(config, [depth], meta("/data/pens", [depth]))  # type: ignore[arg-type]


def meta(root: str, cameras: list[str], **features: PolicyFeature) -> SimpleNamespace:
    return SimpleNamespace(root=Path(root), repo_id="pens", fps=15, camera_keys=cameras, features=features)


def test_command_for_other_datasets() -> None:
    top, depth = "observation.images.top", "observation.images.depth"
    command = import_command(meta("/hub/datasets--pens/snapshots/1a", [top, depth]), [top], 256, 256, 128)
    assert "--root=" not in command  # a snapshot of the Hub's cache gets no neighbour
    assert "--size=128x128" in command and "--repo_id=local/pens_128" in command
    assert shlex.split(command)[-1] == f"--source.cameras=[{top}]"
    assert "keep_" not in command
    pooled = {"labels.embodiment": PolicyFeature(FeatureType.STATE, (1,))}
    assert import_command(meta("/data/pens", [top], **pooled), [top], 256, 256, 128).endswith(
        "with --size=128"
    )
