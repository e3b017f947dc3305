"""Small real LeRobotDatasets for the tests: a bright square moved by the actions, on a noisy table."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from lerobot.configs.video import RGBEncoderConfig
from lerobot.datasets import language
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lawm_lerobot.labels.episodes import EpisodeReader

FPS = 10
QUICK_ENCODER = RGBEncoderConfig(vcodec="h264", g=2, crf=18, preset="ultrafast")


def make_dataset(
    root: Path,
    *,
    cameras: Sequence[str] = ("top",),
    size: int = 32,
    lengths: Sequence[int] = (14, 14, 14, 14),
    state_dim: int | None = 2,
    action_dim: int | None = 2,
    tasks: Sequence[str] = ("push the square",),
    seed: int = 0,
    scrambled_actions: bool = False,
    video: bool = True,
    fps: int = FPS,
) -> Path:
    """Write a dataset at ``root``; ``state_dim`` or ``action_dim`` None leaves that feature out.

    The first two action dimensions move the square; further ones are noise. ``scrambled_actions`` records numbers
    that have nothing to do with the motion, while the pictures and the state stay as they are. Without ``video`` the
    pictures are stored one by one. Returns ``root``.
    """
    features: dict[str, dict] = {
        f"observation.images.{camera}": {
            "dtype": "video" if video else "image",
            "shape": (size, size, 3),
            "names": ["height", "width", "channels"],
        }
        for camera in cameras
    }
    if state_dim is not None:
        names = [f"joint_{i}" for i in range(state_dim)]
        features["observation.state"] = {"dtype": "float32", "shape": (state_dim,), "names": names}
    if action_dim is not None:
        names = [f"joint_{i}" for i in range(action_dim)]
        features["action"] = {"dtype": "float32", "shape": (action_dim,), "names": names}
    dataset = LeRobotDataset.create(
        repo_id=f"test/{root.name}",
        fps=fps,
        features=features,
        root=root,
        use_videos=video,
        rgb_encoder=QUICK_ENCODER,
    )
    rng, scrambler = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    for episode, length in enumerate(lengths):
        table = rng.integers(60, 90, (len(cameras), size, size, 3), dtype=np.uint8)
        position = rng.uniform(0.3, 0.7, 2)
        for _ in range(length):
            action = rng.uniform(-1, 1, max(action_dim or 2, 2))
            frame: dict = {"task": tasks[episode % len(tasks)]}
            row, column = (position * (size - size // 4)).astype(int)
            for index, camera in enumerate(cameras):
                image = table[index].copy()
                image[row : row + size // 4, column : column + size // 4] = (230, 200, 40)
                frame[f"observation.images.{camera}"] = image
            if state_dim is not None:
                frame["observation.state"] = np.resize(position, state_dim).astype(np.float32)
            if action_dim is not None:
                recorded = scrambler.normal(5, 3, action.shape) if scrambled_actions else action
                frame["action"] = recorded[:action_dim].astype(np.float32)
            dataset.add_frame(frame)
            position = np.clip(position + 0.15 * action[:2], 0, 1)
        dataset.save_episode()
    dataset.finalize()
    return root


def described_otherwise(
    source: Path, target: Path, camera: dict[str, Any] | None = None, **info: Any
) -> Path:
    """A copy of a dataset with other metadata of its camera ``top``, and other entries of info.json."""
    shutil.copytree(source, target)
    file = target / "meta" / "info.json"
    metadata = json.loads(file.read_text()) | info
    metadata["features"]["observation.images.top"].update(camera or {})
    file.write_text(json.dumps(metadata))
    return target


def column(root: Path, key: str) -> np.ndarray:
    """(N,D): the values that a dataset has for a feature."""
    return EpisodeReader(f"test/{root.name}", root).column(key)


def change_column(root: Path, key: str, change: Callable[[np.ndarray], None]) -> Path:
    """Change, in place, the values (N,D) that a dataset of one file has for a feature; its statistics stay as they are."""
    (file,) = root.glob("data/*/*.parquet")
    table = pq.read_table(file)
    values = np.stack(table[key].to_numpy())
    change(values)
    column = pa.array(values.tolist(), type=table[key].type)
    pq.write_table(table.set_column(table.column_names.index(key), key, column), file)
    return root


def add_language(root: Path) -> Path:
    """Give every frame LeRobot's own language columns, as lerobot-annotate writes them: one subtask, and no event."""
    (file,) = root.glob("data/*/*.parquet")
    table = pq.read_table(file)
    for key, kind, rows in (
        (language.LANGUAGE_PERSISTENT, language.language_persistent_row_arrow_type(), 1),
        (language.LANGUAGE_EVENTS, language.language_event_row_arrow_type(), 0),
    ):
        total = len(table) * rows
        said: dict[str, list] = {"role": ["assistant"] * total, "timestamp": [0.0] * total}
        said["content"] = [f"reach {i}" for i in range(total)]
        fields = [pa.array(said[f.name], f.type) if f.name in said else pa.nulls(total, f.type) for f in kind]
        offsets = pa.array(range(0, total + 1, rows) if rows else [0] * (len(table) + 1), pa.int32())
        struct = pa.StructArray.from_arrays(fields, fields=list(kind))
        table = table.append_column(key, pa.ListArray.from_arrays(offsets, struct))
    pq.write_table(table.replace_schema_metadata(None), file)
    info = json.loads((root / "meta" / "info.json").read_text())
    info["features"].update(json.loads(json.dumps(language.language_feature_info())))
    (root / "meta" / "info.json").write_text(json.dumps(info))
    return root


def delay_pictures(root: Path, seconds: float) -> Path:
    """Let every picture of a dataset come a little later than its frame, as in a recording without a common clock."""
    (file,) = root.glob("meta/episodes/*/*.parquet")
    table = pq.read_table(file)
    for index, name in enumerate(table.column_names):
        if name.startswith("videos/") and name.endswith("/from_timestamp"):
            table = table.set_column(index, name, pc.add(table[name], seconds))
    pq.write_table(table, file)
    return root


def write_episodes(
    root: Path, episodes: Sequence[dict[str, np.ndarray]], fps: int, video: bool = True
) -> Path:
    """Write a dataset of given pictures ``top`` (n,h,w,3) and, as they have any, ``state`` and ``action`` (n,D)."""
    keys = {"top": "observation.images.top", "state": "observation.state", "action": "action"}
    features: dict[str, dict] = {}
    for name, values in episodes[0].items():
        names = (
            ["height", "width", "channels"]
            if name == "top"
            else [f"joint_{i}" for i in range(values.shape[1])]
        )
        kind = ("video" if video else "image") if name == "top" else "float32"
        features[keys[name]] = {"dtype": kind, "shape": values.shape[1:], "names": names}
    dataset = LeRobotDataset.create(
        f"test/{root.name}", fps, features, root=root, use_videos=video, rgb_encoder=QUICK_ENCODER
    )
    for episode in episodes:
        for index in range(len(episode["top"])):
            frame = {keys[name]: values[index] for name, values in episode.items()}
            dataset.add_frame({"task": "push the square", **frame})
        dataset.save_episode()
    dataset.finalize()
    return root


def square_path(seconds: float, fps: int, seed: int) -> np.ndarray:
    """(n,2): a slow, smooth way of the square, the same one at every frame rate, as shares of the table."""
    rng = np.random.default_rng(seed)
    phase, frequency = rng.uniform(0, 6, 2), rng.uniform(0.06, 0.12, 2)
    times = np.arange(round(seconds * fps))[:, None] / fps
    return 0.5 + 0.45 * np.sin(2 * np.pi * frequency * times + phase)


def film(path: np.ndarray, seed: int, size: int = 64, noise: float = 2) -> np.ndarray:
    """(n,size,size,3) uint8: a bright square on its way (n,2) over a table, with the noise of a camera."""
    rng, side = np.random.default_rng(seed), size // 5
    table = np.kron(rng.integers(50, 110, (size // 8, size // 8, 3)), np.ones((8, 8, 1)))
    corner = path[..., None] * (size - side)  # (n,2,1)
    pixels = np.arange(size)
    covered = np.clip(np.minimum(pixels + 1, corner + side) - np.maximum(pixels, corner), 0, 1)  # (n,2,size)
    square = (covered[:, 0, :, None] * covered[:, 1, None, :])[..., None]  # (n,size,size,1)
    pictures = table * (1 - square) + np.array([230, 200, 40]) * square
    return np.clip(pictures + rng.normal(0, noise, pictures.shape), 0, 255).astype(np.uint8)
