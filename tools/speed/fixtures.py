"""Videos and datasets that the speed measurements read.

LeRobot is imported only where a dataset is made: the importer's workers import this module anew, and the start of
LeRobot is itself measured.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy as np

CAMERA = "observation.images.main"
FPS, SIZE, JOINTS = 30, 128, 6


class Kind(NamedTuple):
    """A kind of source video.

    Args:
        height: The height of its pictures.
        width: The width of its pictures.
        fps: Frames per second.
        codec: The encoder.
        suffix: The container, as the suffix of a file.
        options: Options of the encoder.
    """

    height: int
    width: int
    fps: int
    codec: str
    suffix: str
    options: dict[str, str]


H264 = {"preset": "veryfast", "crf": "23"}
KINDS = {
    # As Something-Something v2 hands them out.
    "short_webm": Kind(
        240, 320, 12, "libvpx-vp9", "webm", {"deadline": "realtime", "cpu-used": "8", "crf": "32"}
    ),
    "phone_720p": Kind(720, 1280, 30, "libx264", "mp4", H264),
    "camera_480p": Kind(480, 640, 30, "libx264", "mp4", H264),
    # At the bit rates of phones.
    "h264_720p30": Kind(720, 1280, 30, "libx264", "mp4", {"preset": "veryfast", "b": "10M"}),
    "h264_720p30_no_b_frames": Kind(
        720, 1280, 30, "libx264", "mp4", {"preset": "veryfast", "b": "10M", "bf": "0"}
    ),
    "h264_1080p60": Kind(1080, 1920, 60, "libx264", "mp4", {"preset": "veryfast", "b": "25M"}),
    "hevc_2160p30": Kind(
        2160, 3840, 30, "libx265", "mp4", {"preset": "ultrafast", "b": "28M", "x265-params": "log-level=0"}
    ),
}


def scene(number: int, frames: int, height: int, width: int) -> Iterator[np.ndarray]:
    """A textured background with a moving camera and a moving object: pictures of (height, width, 3) uint8."""
    generator = np.random.default_rng(number)
    wall = cv2.resize(generator.integers(0, 255, (24, 32, 3), dtype=np.uint8), (width + 64, height + 64))
    grain = generator.integers(-6, 7, (height, width, 3), dtype=np.int16)
    for index in range(frames):
        shift = int(16 + 16 * np.sin(index / 20))
        seen = wall[shift : shift + height, shift : shift + width].astype(np.int16)
        picture = (seen + np.roll(grain, index, 1)).clip(0, 255).astype(np.uint8)
        yield cv2.circle(picture, ((5 * index) % width, height // 2), height // 8, (220, 40, 40), -1)


def write_videos(folder: Path, name: str, count: int, seconds: int) -> int:
    """Write source videos of the kind ``name``; returns how many frames they have together."""
    kind = KINDS[name]
    folder.mkdir(parents=True)
    first = folder / f"000.{kind.suffix}"
    with av.open(str(first), "w") as container:
        stream: Any = container.add_stream(kind.codec, rate=kind.fps, options=kind.options)
        stream.height, stream.width, stream.pix_fmt = kind.height, kind.width, "yuv420p"
        for image in scene(0, seconds * kind.fps, kind.height, kind.width):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    for number in range(1, count):  # Encoding is slow, and is not what is measured.
        (folder / f"{number:03d}.{kind.suffix}").write_bytes(first.read_bytes())
    return count * seconds * kind.fps


def import_videos(root: Path, episodes: int, seconds: int) -> Path:
    """Import videos of 480x640 at `SIZE` pixels, as `lawm-import-videos` does; returns ``root``."""
    from lawm_lerobot.importing.config import ImportConfig
    from lawm_lerobot.importing.run import run_import
    from lawm_lerobot.importing.sources import FolderSource

    videos = root.with_name(f"{root.name}_videos")
    write_videos(videos, "camera_480p", episodes, seconds)
    source = FolderSource(path=videos)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        run_import(ImportConfig(f"bench/{root.name}", root, source, fps=FPS, size=str(SIZE), workers=0))
    return root


def record(root: Path, height: int, width: int, episodes: int, seconds: int, labelled: bool = False) -> Path:
    """Record the scene as LeRobot does, with its default codec; with random state and action if ``labelled``."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
    from lerobot.utils.constants import ACTION, OBS_STATE

    features: dict[str, dict] = {
        CAMERA: {"dtype": "video", "shape": (height, width, 3), "names": ["height", "width", "channels"]}
    }
    if labelled:
        joints = {"dtype": "float32", "shape": (JOINTS,), "names": [f"joint_{i}" for i in range(JOINTS)]}
        features |= {OBS_STATE: joints, ACTION: joints}
    dataset = LeRobotDataset.create(f"bench/{root.name}", FPS, features, root=root)
    generator = np.random.default_rng(0)
    for number in range(episodes):
        for image in scene(number, seconds * FPS, height, width):
            frame: dict[str, Any] = {CAMERA: image, "task": "push"}
            for key in features.keys() - {CAMERA}:
                frame[key] = generator.normal(size=JOINTS).astype(np.float32)
            dataset.add_frame(frame)
        dataset.save_episode()
    dataset.finalize()
    return root
