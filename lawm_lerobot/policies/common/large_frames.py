"""A warning of needlessly large frames in pretraining, with the command that makes them small once and for all."""

from __future__ import annotations

import logging
import math
import re
import shlex
from collections.abc import Sequence
from typing import Any

from lerobot.utils.constants import ACTION, OBS_STATE

from lawm_lerobot.labels.configuration import EMBODIMENT
from lawm_lerobot.policies.common.configuration import LawmConfig

logger = logging.getLogger(__name__)

SIDE = 128  # pixels, the importer's default
#: The fields by which LeRobot's policies bring frames to a size of their own, which takes at least as many pixels.
SIZE_FIELDS = (
    "resize_imgs_with_padding",
    "image_resolution",
    "resize_shape",
    "crop_shape",
    "image_resize_shape",
    "image_crop_shape",
)


def warn_of_large_frames(config: LawmConfig, cameras: Sequence[str], dataset_meta: Any) -> None:
    """Warn of the cost of a training sample if a colour camera has at least 4 times the pixels that training needs."""
    shapes = {key: config.image_features[key].shape for key in cameras}
    sizes = {key: shape[1:] for key, shape in shapes.items() if shape[0] == 3}  # (h, w)
    if not sizes:  # refused a moment later, with a sentence of its own
        return
    height, width = max(sizes.values(), key=math.prod)
    size = config.world_model.image_size
    side = max(SIDE, size, *(n for name in SIZE_FIELDS for n in getattr(config, name, None) or ()))
    if height * width < 4 * side**2:
        return
    frames = len(config.observation_delta_indices or ())
    megabytes = frames * 3 * 4 / 1e6  # of a sample of one pixel, three floats a frame
    logger.warning(
        f"The dataset's frames have {height}x{width} pixels, so the {frames} frames of {len(sizes)} camera(s) "
        f"in every training sample are {megabytes * sum(map(math.prod, sizes.values())):.1f} MB of floats to decode, "
        f"normalise and move to the device. The world model uses {megabytes * size**2:.1f} MB of them ({size}x{size} of "
        f"one camera). Make them small once, which makes every camera's episodes episodes of their own, and pretrain "
        f"on the result: {import_command(dataset_meta, list(sizes), height, width, side)}"
    )


def import_command(meta: Any, cameras: Sequence[str], height: int, width: int, side: int) -> str:
    """Write the command that imports cameras of a dataset again, with all of the picture in smaller frames.

    ``height`` and ``width`` are those of the largest frames, ``side`` is what the shorter side shall have, in pixels.
    """
    if EMBODIMENT in meta.features:  # importing the import would mix up the embodiments
        return f"the lawm-import-videos command that wrote this dataset, with --size={side}"
    small = [2 * round(n * side / min(height, width) / 2) for n in (height, width)]  # video has even sizes
    name = meta.repo_id if "/" in meta.repo_id else f"local/{meta.repo_id}"
    command = ["lawm-import-videos", "--source.type=lerobot", f"--source.path={meta.root}"]
    command += [f"--repo_id={name}_{side}", f"--fps={meta.fps}", f"--size={'x'.join(map(str, small))}"]
    if meta.root.parent.name != "snapshots":  # of the Hub's cache, no place for a new dataset
        command += [f"--root={meta.root}_{side}"]
    if len(cameras) == 1 and re.fullmatch(r"observation\.images\.\w+", cameras[0]):
        command += [f"--camera={cameras[0]}"]
    if set(cameras) < set(meta.camera_keys):
        command += [f"--source.cameras=[{','.join(cameras)}]"]
    labels = {"keep_actions": ACTION, "keep_state": OBS_STATE}
    command += [f"--source.{flag}=true" for flag, key in labels.items() if key in meta.features]
    return shlex.join(command)
