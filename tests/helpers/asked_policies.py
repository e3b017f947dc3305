"""Policies whose looking is known, because their actions are a function that a test wrote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import draccus
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies import make_policy, make_pre_post_processors
from torch import Tensor, nn

from lawm_lerobot.policies.common.asking import AskedPolicy

Act = Callable[[dict[str, Any]], Tensor]


class WrittenPolicy(nn.Module):
    """Acts by a function from a batch to a chunk (B,H,A); its preprocessor changes nothing."""

    def __init__(self, act: Act, cameras: Sequence[str] = ("top",), state: bool = True) -> None:
        super().__init__()
        pictures = {
            f"observation.images.{camera}": PolicyFeature(FeatureType.VISUAL, (3, 32, 32))
            for camera in cameras
        }
        numbers = {"observation.state": PolicyFeature(FeatureType.STATE, (2,))} if state else {}
        self.config = SimpleNamespace(
            type="written",
            image_features=pictures,
            input_features={**pictures, **numbers},
            observation_delta_indices=None,
        )
        self.act = act

    def reset(self) -> None:
        pass

    def predict_action_chunk(self, batch: dict[str, Any]) -> Tensor:
        assert not self.training
        return self.act(batch)


def unprocessed(batch: dict[str, Any]) -> dict[str, Any]:
    return batch


def brightness(batch: dict[str, Any], camera: str = "top") -> Tensor:
    """The mean of a picture, as a chunk (B,1,1)."""
    return batch[f"observation.images.{camera}"].mean((1, 2, 3))[:, None, None]


def untrained(kind: str, root: Path, *flags: str) -> AskedPolicy:
    """A policy of LeRobot's with random weights, for a dataset of `make_dataset`."""
    meta = LeRobotDatasetMetadata(f"test/{root.name}", root=root)
    flags = tuple(flag.replace("--policy.", "--") for flag in flags)
    config = draccus.parse(PreTrainedConfig.get_choice_class(kind), args=[*flags, "--device=cpu"])
    policy = make_policy(config, ds_meta=meta)
    preprocessor, _ = make_pre_post_processors(config, dataset_stats=meta.stats)
    return AskedPolicy(policy.eval(), preprocessor)


def frames_of(root: Path, **options: Any) -> LeRobotDataset:
    return LeRobotDataset(f"test/{root.name}", root=root, return_uint8=True, **options)
