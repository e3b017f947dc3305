"""Clips a second that pretraining reads from an imported dataset and from LeRobot's own recordings.

    python -m tools.speed --only=loading

A clip is what `lawm_act` asks for by default: 9 frames, 4 apart.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets.factory import make_dataset
from lerobot.policies import make_policy, make_pre_post_processors
from torch.utils.data import ConcatDataset, DataLoader

from lawm_lerobot.policies.act.configuration_lawm_act import LawmActConfig
from tools.speed.fixtures import CAMERA, SIZE, import_videos, record
from tools.speed.policies import training_step
from tools.speed.table import row
from tools.speed.timing import interleaved, ratio, spread

BATCH = 8
IMPORTED, STOCK, STOCK_LARGE = "imported 128x128", "stock 128x128", "stock 480x640"


def train_config(root: Path, device: str) -> TrainPipelineConfig:
    """`lerobot-train --policy.type=lawm_act` on the dataset at ``root``, all else as it is by default."""
    policy = LawmActConfig(device=device, pretrained_backbone_weights=None, push_to_hub=False)
    dataset = DatasetConfig(repo_id=f"bench/{root.name}", root=str(root))
    return TrainPipelineConfig(dataset=dataset, policy=policy)


def readers(
    configs: dict[str, TrainPipelineConfig], workers: int, batches: int
) -> dict[str, Callable[[], None]]:
    """For each dataset a function that reads random clips of it, all by the same workers, which are running already.

    Args:
        configs: The training config of each dataset, by name.
        workers: The number of the loader's processes.
        batches: The number of batches that a call reads.
    """
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


def pretraining_step(config: TrainPipelineConfig) -> Callable[[], None]:
    """A function that takes one step of pretraining on a batch that is there already."""
    dataset = make_dataset(config)
    assert config.policy is not None
    policy = make_policy(config.policy, ds_meta=dataset.meta)
    preprocess, _ = make_pre_post_processors(config.policy, dataset_stats=dataset.meta.stats)
    raw = next(iter(DataLoader(dataset, BATCH)))
    raw[CAMERA] = raw[CAMERA].float() / 255  # (B,T,C,h,w)
    return training_step(policy, preprocess(raw), bf16=False)


def bench_loading(quick: bool = False, device: str = "cpu") -> dict[str, Any]:
    """Clips a second by dataset and DataLoader workers, beside those that a pretraining step consumes.

    Datasets are built as `lerobot-train` builds them and read in batches of 8; starting the workers is not counted.

    Args:
        quick: One short episode, no workers, one turn: does it work?
        device: The device of the pretraining step; reading is the processor's work.

    Returns:
        ``clips_per_s`` by dataset and workers; ``step_s`` and ``step_clips_per_s`` of the default `lawm_act`;
        ``ratios``.
    """
    episodes, seconds, batches, turns = (1, 2, 2, 1) if quick else (2, 8, 4, 7)
    workers = (0,) if quick else (0, 1, 2)
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
        times = interleaved({"step": pretraining_step(configs[IMPORTED]), **reads}, turns, warmup=1)
        backend = configs[IMPORTED].dataset.video_backend
    return {
        "video_backend": backend,
        "batch": BATCH,
        "clips_per_s": {
            name: {
                str(count): spread([batches * BATCH / s for s in times[f"{name}, workers: {count}"]])
                for count in workers
            }
            for name in configs
        },
        "step_s": spread(times["step"]),
        "step_clips_per_s": spread([BATCH / s for s in times["step"]]),
        "ratios": ratio_rows(times, f"workers: {workers[-1] // 2}", batches, device),
    }


def ratio_rows(
    times: dict[str, list[float]], workers: str, batches: int, device: str
) -> list[dict[str, Any]]:
    """The section's rows of the table, from the seconds of a step and of reading ``batches`` by some ``workers``."""
    imported, stock, large = (times[f"{name}, {workers}"] for name in (IMPORTED, STOCK, STOCK_LARGE))
    step = [s * batches for s in times["step"]]
    faster = "clips/s of an imported dataset over a stock recording"
    consumed = f"clips/s of an imported dataset over those a lawm_act step on {device} consumes"
    return [
        row(f"{faster}, 480x640, {workers}", ratio(large, imported), 3, at_most=False),
        row(f"{faster}, 128x128, {workers}", ratio(stock, imported), at_most=False),
        row(f"{consumed}, {workers}", ratio(step, imported), 1, at_most=False),
    ]
