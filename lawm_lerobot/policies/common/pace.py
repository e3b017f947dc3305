"""The pace of a training: seconds and memory of its first steps, and what limits it.

A policy sees two moments of each of LeRobot's training steps: the call of its ``forward``, and the call of ``update``
after the optimizer has stepped. Between an ``update`` and the next ``forward`` LeRobot reads the next batch and
preprocesses it, and logs now and then: that is the part of *loading*. The rest is computing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psutil
import torch

from lawm_lerobot.processes import peak_bytes

#: Steps of a run over which its pace is measured. The first is left out, in which loaders start and kernels are chosen.
MEASURED = 20
GB = 1024**3


class Pace:
    """Seconds of the first steps of a run.

    Args:
        device: The device that is trained on; a GPU is waited for at the end of each measured step, where LeRobot
            waits for it next anyway.
        clock: The seconds since some moment.
    """

    def __init__(self, device: torch.device, clock: Callable[[], float] = time.perf_counter) -> None:
        self.device = device
        self.clock = clock
        self.steps = 0
        self.loading_s = 0.0
        self.computing_s = 0.0
        self.peak_bytes = 0
        self._began = self._ended = 0.0

    @property
    def measuring(self) -> bool:
        return self.steps < MEASURED

    def begin(self) -> None:
        """Note the call of ``forward``."""
        if self.measuring:
            self._began = self.clock()

    def end(self) -> None:
        """Note the call of ``update``."""
        if not self.measuring:
            return
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        ended = self.clock()
        if self.steps:
            self.loading_s += self._began - self._ended
            self.computing_s += ended - self._began
        self._ended = ended
        self.steps += 1
        self.peak_bytes = max(self.peak_bytes, peak_bytes(self.device))

    @property
    def step_s(self) -> float:
        """Mean seconds of a step, from one ``update`` to the next."""
        return (self.loading_s + self.computing_s) / (self.steps - 1)

    @property
    def loading_share(self) -> float:
        return self.loading_s / (self.loading_s + self.computing_s)

    def sentence(self, run: Any, step: int, image_size: int) -> str:
        """Say the pace, the time to the end, the memory and what limits, with the flags that help.

        Args:
            run: LeRobot's training config.
            step: The steps that are done.
            image_size: The world model's, in pixels.
        """
        left = timedelta(seconds=round(self.step_s * (run.steps - step)))
        share = f"{self.loading_share:.0%}"
        if self.loading_share > 0.5:
            cores = os.cpu_count() or 1
            limit = f"Loading the batches limits the pace ({share} of a step): raise --num_workers ({run.num_workers}; "
            limit += f"this machine has {cores} processor cores), or import the video at a smaller --size"
        else:
            limit = f"Computing limits the pace (loading takes {share} of a step): a step gets shorter with a lower "
            limit += f"--batch_size ({run.batch_size}) or --policy.world_model.image_size ({image_size})"
        return (
            f"Pretraining takes {self.step_s:.3g} s a step, {left} for the {run.steps - step} steps to come. "
            f"Peak memory {self.peak_bytes / GB:.1f} of {total_bytes(self.device) / GB:.1f} GB. {limit}."
        )


def total_bytes(device: torch.device) -> int:
    """The memory that there is on the GPU, or on the host."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return psutil.virtual_memory().total
