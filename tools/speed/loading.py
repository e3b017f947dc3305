"""Clips a second that pretraining reads from an imported dataset and from stock LeRobot recordings.

    python -m tools.speed --only=loading

A clip is what `lawm_act` asks for by default: 9 frames, 4 apart.
"""

from __future__ import annotations

import contextlib
import functools
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets.factory import make_dataset
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies import make_policy, make_pre_post_processors
from lerobot.utils.constants import ACTION, OBS_STATE
from torch.utils.data import ConcatDataset, DataLoader

from lawm_lerobot.importing.config import ImportConfig
from lawm_lerobot.importing.run import run_import
from lawm_lerobot.importing.sources import FolderSource
from lawm_lerobot.policies.act.configuration_lawm_act import LawmActConfig
from tools.speed.bench import figure
from tools.speed.importing import scene, write_clips
from tools.speed.timing import interleaved, ratio, spread

CAMERA = "observation.images.main"
FPS, SIZE, BATCH, JOINTS = 30, 128, 8, 6
IMPORTED, STOCK, STOCK_LARGE = "imported 128x128", "stock 128x128", "stock 480x640"


def import_videos(root: Path, episodes: int, seconds: int) -> Path:
    """What `lawm-import-videos` makes of 480x640 videos, at 128 pixels; returns ``root``."""
    videos = root.with_name(f"{root.name}_videos")
    write_clips(videos, "camera_480p", episodes, seconds)
    source = FolderSource(path=videos)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        run_import(ImportConfig(f"bench/{root.name}", root, source, fps=FPS, size=str(SIZE), workers=0))
    return root


def record(root: Path, height: int, width: int, episodes: int, seconds: int, labelled: bool = False) -> Path:
    """The same scene as LeRobot records it, with its default codec; with random state and action if ``labelled``."""
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


def train_config(root: Path, device: str) -> TrainPipelineConfig:
    """`lerobot-train --policy.type=lawm_act` on the dataset at ``root``, all else as it is by default."""
    policy = LawmActConfig(device=device, pretrained_backbone_weights=None, push_to_hub=False)
    dataset = DatasetConfig(repo_id=f"bench/{root.name}", root=str(root))
    return TrainPipelineConfig(dataset=dataset, policy=policy)


def readers(
    configs: dict[str, TrainPipelineConfig], workers: int, batches: int
) -> dict[str, Callable[[], None]]:
    """Per dataset, what reads ``batches`` batches of random clips of it, all by the same, already running workers."""
    datasets = [make_dataset(config) for config in configs.values()]
    config = next(iter(configs.values()))
    of_workers: dict[str, Any] = {}
    if workers:
        of_workers = {
            "prefetch_factor": config.prefetch_factor,
            "persistent_workers": True,
            "multiprocessing_context": config.dataloader_multiprocessing_context,
        }
    # A worker is as large as LeRobot and takes as long to start: one loader serves all datasets, its indices changing.
    indices = list(range(batches * BATCH))
    loader: DataLoader = DataLoader(
        ConcatDataset(datasets), BATCH, sampler=indices, num_workers=workers, **of_workers
    )
    if workers:
        iter(loader)  # They start now, those of all loaders at the same time.
    generator = np.random.default_rng(0)

    def read(first: int, last: int) -> None:
        indices[:] = generator.integers(first, last, len(indices)).tolist()
        # A whole epoch: nothing is read ahead in another's turn.
        for _ in loader:
            pass

    ends = np.cumsum([0, *map(len, datasets)])
    return {
        name: functools.partial(read, first, last)
        for name, first, last in zip(configs, ends, ends[1:], strict=False)
    }


def training_step(config: TrainPipelineConfig) -> Callable[[], None]:
    """One step of pretraining on a batch that is there already: forward, backward, optimizer."""
    dataset = make_dataset(config)
    assert config.policy is not None
    policy = make_policy(config.policy, ds_meta=dataset.meta).train()
    preprocess, _ = make_pre_post_processors(config.policy, dataset_stats=dataset.meta.stats)
    optimizer = config.policy.get_optimizer_preset().build(policy.get_optim_params())
    raw = next(iter(DataLoader(dataset, BATCH)))
    raw[CAMERA] = raw[CAMERA].float() / 255  # (B,T,C,h,w)
    batch = preprocess(raw)

    def step() -> None:
        loss, _ = policy.forward(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def bench_loading(quick: bool = False, device: str = "cpu") -> dict[str, Any]:
    """Clips a second by dataset and DataLoader workers, beside those that a pretraining step consumes.

    Datasets are built as `lerobot-train` builds them and read in batches of 8; starting the workers is not counted.

    Args:
        quick: One short episode, no workers, one turn: does it work?
        device: Where the pretraining step runs; reading is the processor's work.

    Returns:
        ``clips_per_s``: by dataset and workers; ``step_s`` and ``step_clips_per_s`` of the default `lawm_act`;
        ``ratios``.
    """
    episodes, seconds, batches, turns = (1, 2, 2, 1) if quick else (2, 8, 4, 7)
    workers = (0,) if quick else (0, 1, 2)
    compared = f"workers: {workers[-1] // 2}"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        roots = {
            IMPORTED: import_videos(folder / "imported", episodes, seconds),
            STOCK: record(folder / "stock", SIZE, SIZE, episodes, seconds),
            STOCK_LARGE: record(folder / "large", 480, 640, episodes, seconds),
        }
        configs = {name: train_config(root, device) for name, root in roots.items()}
        reads = {
            f"{name}, workers: {count}": read
            for count in workers
            for name, read in readers(configs, count, batches).items()
        }
        times = interleaved({"step": training_step(configs[IMPORTED]), **reads}, turns, warmup=1)
        backend = configs[IMPORTED].dataset.video_backend
    clips = batches * BATCH
    read = {name: times[f"{name}, {compared}"] for name in configs}
    step = times["step"]
    faster = "clips/s of an imported dataset over a stock recording"
    return {
        "video_backend": backend,
        "batch": BATCH,
        "clips_per_s": {
            name: {
                str(count): spread([clips / s for s in times[f"{name}, workers: {count}"]])
                for count in workers
            }
            for name in configs
        },
        "step_s": spread(step),
        "step_clips_per_s": spread([BATCH / s for s in step]),
        "ratios": [
            figure(
                f"{faster}, 480x640, {compared}", ratio(read[STOCK_LARGE], read[IMPORTED]), 3, at_most=False
            ),
            figure(f"{faster}, 128x128, {compared}", ratio(read[STOCK], read[IMPORTED]), at_most=False),
            figure(
                f"clips/s of an imported dataset over those a lawm_act step on {device} consumes, {compared}",
                ratio([s * batches for s in step], read[IMPORTED]),
                1,
                at_most=False,
            ),
        ],
    }
