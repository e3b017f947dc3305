"""The cameras of a dataset, as decoding hands out their pictures: channels first, whatever the metadata lists first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lerobot.configs import FeatureType, PolicyFeature
from lerobot.utils.constants import OBS_PREFIX
from lerobot.utils.feature_utils import dataset_to_policy_features

CHANNEL_NAMES = {"channel", "channels", "c", "rgb", "bgr", "rgba", "gray", "grey", "depth"}
CHANNELS = (1, 3, 4)


def picture_shape(feature: Mapping[str, Any]) -> tuple[int, int, int]:
    """(C,h,w) of a camera's decoded pictures, from the ``shape`` and ``names`` of its feature in any order.

    Converters list the axes as they like. The channel is the axis that has as many entries as pictures have channels;
    where that may be several, the one with a channel's name, else the last.
    """
    shape = [int(size) for size in feature["shape"]]
    names = [str(name).lower() for name in feature.get("names") or ()]
    named = [axis for axis, name in enumerate(names[:3]) if name in CHANNEL_NAMES]
    small = [axis for axis in range(3) if shape[axis] in CHANNELS]
    likely = [axis for axis in named if axis in small] or small or named or [2]
    channel = 2 if 2 in likely else likely[0]
    height, width = (axis for axis in range(3) if axis != channel)
    if "height" in names[width : width + 1] and "width" in names[height : height + 1]:
        height, width = width, height
    return shape[channel], shape[height], shape[width]


def is_depth(key: str) -> bool:
    """True if a camera's name says that its pictures, whatever their channels, are depth maps."""
    return "depth" in key.lower()


def policy_features(features: dict[str, dict]) -> dict[str, PolicyFeature]:
    """LeRobot's `dataset_to_policy_features` with every camera's shape as (C,h,w).

    Cameras that never reach a policy are left out: LeRobot hands on what is called ``observation.<...>``.
    """
    offered = dataset_to_policy_features(features)
    for key, feature in list(offered.items()):
        if feature.type is FeatureType.VISUAL:
            if key.startswith(OBS_PREFIX):
                offered[key] = PolicyFeature(FeatureType.VISUAL, picture_shape(features[key]))
            else:
                del offered[key]
    return offered
