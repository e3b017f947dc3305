"""The map of where a policy looks: how far its actions move when a patch of a picture is painted over.

Letters: F shown frames, n observations of a policy's history, C h w, G patches along a side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lawm_lerobot.inspection.looking import CONSTANT_RMS, Pairs
from lawm_lerobot.policies.common.asking import AskedPolicy, batched, chunk_distance

GRID = 8
SHOWN = 6


@dataclass(frozen=True)
class Occlusions:
    """Frames of several episodes, and what painting over their patches changes.

    Args:
        pictures: The present picture of each frame by camera, uint8, with its channels last.
        changes: The difference of the chunk by camera, for every patch painted over, as a share of the distance
            between two frames' chunks.
        episodes: The episode of each frame.
        indices: The number of each frame in its episode.
    """

    pictures: dict[str, np.ndarray]  # (F,h,w,C)
    changes: dict[str, np.ndarray]  # (F,G,G)
    episodes: list[int]
    indices: list[int]


def occlude(
    asked: AskedPolicy, pairs: Pairs, distance: float, seed: int, progress: bool = False
) -> Occlusions:
    """Paint over each patch of each camera in turn, in frames of several episodes.

    Args:
        asked: The policy.
        pairs: The frames to choose from.
        distance: The distance between two frames' chunks that the changes are given as shares of.
        seed: The seed of the noise.
        progress: Show a bar.
    """
    chosen = shown_frames(pairs.episodes)
    observation = batched([pairs.own[index] for index in chosen])
    first = asked.chunk(observation, seed)
    changes = {}
    with tqdm(total=len(asked.cameras) * GRID**2, desc="patches", unit="patch", disable=not progress) as bar:
        for camera in asked.cameras:
            rows = []
            for row in range(GRID):
                for column in range(GRID):
                    painted = paint_over(observation[camera], row, column)
                    chunk = asked.chunk({**observation, camera: painted}, seed)
                    rows.append(chunk_distance(chunk, first))
                    bar.update(1)
            change = torch.stack(rows, 1).unflatten(1, (GRID, GRID))  # (F,G,G)
            changes[camera] = change.double().numpy() / max(distance, CONSTANT_RMS)
    return Occlusions(
        pictures={camera: _shown(observation[camera]) for camera in asked.cameras},
        changes=changes,
        episodes=[int(pairs.episodes[index]) for index in chosen],
        indices=[int(number) for number in observation.get("frame_index", chosen)],
    )


def shown_frames(episodes: np.ndarray) -> list[int]:
    """Choose up to `SHOWN` of N frames, by their episodes (N,): of as many episodes, at different moments of them."""
    different = np.unique(episodes)
    shown = different[np.linspace(0, len(different) - 1, min(SHOWN, len(different))).round().astype(int)]
    chosen: list[int] = []
    for number, episode in enumerate(shown):
        frames = np.flatnonzero(episodes == episode)
        count = len(range(number, SHOWN, len(shown)))
        # A single frame is taken early in the first episode, late in the last one.
        at = (np.arange(count) + (number + 0.5) / len(shown)) / count
        chosen += frames[np.unique((at * len(frames)).astype(int))].tolist()
    return chosen


def paint_over(picture: Tensor, row: int, column: int) -> Tensor:
    """Copy pictures (F,n,C,h,w) with one of G x G patches in the mean colour of each."""
    height, width = picture.shape[-2:]
    top, bottom = row * height // GRID, (row + 1) * height // GRID
    left, right = column * width // GRID, (column + 1) * width // GRID
    colour = picture.float().mean((-2, -1), keepdim=True)  # (F,n,C,1,1)
    painted = picture.clone()
    painted[..., top:bottom, left:right] = colour.to(picture.dtype)
    return painted


def _shown(pictures: Tensor) -> np.ndarray:
    """The present picture (F,h,w,C) as uint8 of a history (F,n,C,h,w) of bytes, or of floats in [0, 1]."""
    present = pictures[:, -1]
    if present.dtype != torch.uint8:
        present = (present.float() / present.max().clamp_min(1) * 255).round().to(torch.uint8)
    return present.permute(0, 2, 3, 1).numpy()
