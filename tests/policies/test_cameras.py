"""Cameras as other people describe them: axes in any order, keys that reach no policy, VLAs that go by order."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.datasets_on_the_spot import described_otherwise
from helpers.training import Run, assert_same_tensors, finetune, pretrain
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.act.modeling_act import ACTPolicy

from lawm_lerobot.labels.cameras import picture_shape, policy_features
from lawm_lerobot.policies.act.configuration_lawm_act import LawmActConfig
from lawm_lerobot.policies.common.clips import world_model_camera
from lawm_lerobot.policies.common.exporting import export_checkpoint, read_config
from lawm_lerobot.policies.smolvla.configuration_lawm_smolvla import LawmSmolVLAConfig
from lawm_lerobot.policies.vla.policy import VLAPolicy

TOP = "observation.images.top"
RGB = {"names": ["height", "width", "rgb"]}
CHANNELS_FIRST = {"shape": [3, 32, 32], "names": ["channels", "height", "width"]}


@pytest.mark.parametrize(
    ("shape", "names", "expected"),
    [
        ((48, 64, 3), ["height", "width", "channels"], (3, 48, 64)),
        ((48, 64, 3), ["height", "width", "channel"], (3, 48, 64)),
        ((48, 64, 3), ["height", "width", "rgb"], (3, 48, 64)),
        ((3, 48, 64), ["channels", "height", "width"], (3, 48, 64)),
        ((3, 48, 64), ["height", "width", "channels"], (3, 48, 64)),
        ((64, 48, 3), ["width", "height", "channels"], (3, 48, 64)),
        ((3, 64, 48), ["c", "width", "height"], (3, 48, 64)),
        ((48, 64, 1), ["height", "width", "channels"], (1, 48, 64)),
        ((48, 64, 3), None, (3, 48, 64)),
        ((48.0, 64.0, 3), ["height", "width", "rgb"], (3, 48, 64)),
    ],
)
def test_the_channel_is_found_in_any_order(shape: tuple, names: list | None, expected: tuple) -> None:
    found = picture_shape({"dtype": "video", "shape": shape, "names": names})
    assert found == expected
    assert all(type(size) is int for size in found)


@pytest.mark.parametrize("camera", [RGB, CHANNELS_FIRST], ids=["rgb", "channels_first"])
def test_the_order_of_axes_changes_nothing(
    camera: dict[str, Any], short_dataset: Path, pretrained_once: Run, tmp_path: Path
) -> None:
    other = described_otherwise(short_dataset, tmp_path / "other", camera)
    run = pretrain(other, tmp_path / "run", "--seed=3", steps=1)
    assert_same_tensors(run.tensors(), pretrained_once.tensors())
    assert run.config()["input_features"][TOP]["shape"] == [3, 32, 32]

    labelled = [
        pretrain(
            short_dataset,
            tmp_path / f"labelled_{labels.name}",
            "--seed=3",
            f"--policy.labels.repo_id=test/{labels.name}",
            f"--policy.labels.root={labels}",
            steps=1,
        ).tensors()
        for labels in (short_dataset, other)
    ]
    assert_same_tensors(*labelled)

    ours = finetune(pretrained_once.checkpoint(), other, tmp_path / "fine", "--seed=3", steps=1)
    theirs = finetune(
        pretrained_once.checkpoint(), short_dataset, tmp_path / "fine_plain", "--seed=3", steps=1
    )
    assert_same_tensors(ours.tensors(), theirs.tensors())
    exported = export_checkpoint(read_config(str(ours.checkpoint())), tmp_path / "plain_act")
    assert ACTPolicy.from_pretrained(exported).config.input_features[TOP].shape == (3, 32, 32)


def test_depth_is_the_world_models_camera_only_by_name() -> None:
    visual = PolicyFeature(FeatureType.VISUAL, (3, 32, 32))
    config = LawmActConfig(device="cpu", input_features={f"{TOP[:-3]}depth": visual, TOP: visual})
    assert world_model_camera(config) == TOP
    config.world_model.camera = "depth"
    assert world_model_camera(config) == f"{TOP[:-3]}depth"


def test_a_camera_that_never_reaches_a_policy_is_refused_or_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    image = {"dtype": "video", "shape": (32, 32, 3), "names": ["height", "width", "channels"]}
    config = LawmActConfig(device="cpu")
    with pytest.raises(
        ValueError, match=r"'image'.*begin with 'observation\.'.*lawm-import-videos"
    ) as refused:
        config.set_dataset_feature_metadata({"image": image})
    assert "rename_map" not in str(refused.value)
    visual = PolicyFeature(FeatureType.VISUAL, (3, 32, 32))
    config.input_features = {"image": visual, TOP: visual}
    with caplog.at_level(logging.WARNING):
        config.set_dataset_feature_metadata({"image": image, TOP: image})
    assert config.input_features == {TOP: visual}
    assert "image" in caplog.text
    assert policy_features({"image": image, TOP: image}).keys() == {TOP}


@pytest.mark.parametrize(
    ("now", "level", "said"),
    [
        (("top", "wrist"), None, ""),
        (("top",), None, ""),
        (
            ("wrist", "top"),
            logging.WARNING,
            r"images\.wrist is where \S+images\.top was, \S+images\.top is where",
        ),
        (("front", "wrist"), logging.INFO, r"order: \S+images\.front is where \S+images\.top was in"),
    ],
)
def test_cameras_of_a_vla_go_by_order_and_that_is_said(
    now: tuple[str, ...], level: int | None, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    visual = PolicyFeature(FeatureType.VISUAL, (3, 32, 32))

    def config(cameras: tuple[str, ...]) -> LawmSmolVLAConfig:
        features = {f"observation.images.{camera}": visual for camera in cameras}
        return LawmSmolVLAConfig(device="cpu", stage="finetune", input_features=features)

    with caplog.at_level(logging.INFO):
        policy = SimpleNamespace(config=config(now))
        VLAPolicy.transfer_rules(policy, config(("top", "wrist")))  # type: ignore[arg-type]
    assert [record.levelno for record in caplog.records] == ([] if level is None else [level])
    assert re.search(said, caplog.text)


def test_the_confidence_of_decoded_actions_is_no_output(pretrained_once: Run, tmp_path: Path) -> None:
    decoded = LeRobotDataset.create(
        "test/decoded",
        fps=10,
        root=tmp_path / "decoded",
        use_videos=False,
        features={
            TOP: {"dtype": "image", "shape": (32, 32, 3), "names": ["height", "width", "channels"]},
            "action": {"dtype": "float32", "shape": (2,), "names": ["a", "b"]},
            "action_confidence": {"dtype": "float32", "shape": (1,), "names": None},
        },
    )
    for _ in range(8):
        decoded.add_frame(
            {
                "task": "go",
                TOP: np.full((32, 32, 3), 90, np.uint8),
                "action": np.ones(2, np.float32),
                "action_confidence": np.ones(1, np.float32),
            }
        )
    decoded.save_episode()
    decoded.finalize()
    run = finetune(pretrained_once.checkpoint(), tmp_path / "decoded", tmp_path / "run", steps=1)
    config = run.config()
    assert config["output_features"].keys() == {"action"}
    assert config["input_features"].keys() == {TOP}
