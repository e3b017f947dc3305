"""Measures of what moves in the video of a dataset: how much, where and how fast; pauses, cuts, repeated frames, copies.

All of it is measured on pictures of 64 by 64 pixels, as a world model sees them by default, so that the noise of a camera or of
a codec hardly counts. A pixel *moves* from one frame to another if one of its channels changes by more than `MOVED`.

Letters: n frames of a stretch, N frames of all stretches, C channels, E episodes, P places in an episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import percentile_filter
from torch import Tensor
from tqdm import tqdm

from lawm_lerobot.inspection.metrics import MOVED
from lawm_lerobot.labels.episodes import EpisodeReader
from lawm_lerobot.policies.common.pretraining_checkpoint import evenly_spaced

SIZE = 64
#: Frames that are read of all cameras together, so that a look takes about a minute.
FRAMES = 4000
#: Frames are read in stretches of so many seconds, spread evenly over the dataset.
STRETCH_S = 10.0
#: Seconds that a latent action spans where things move fast, and by default; and seconds after which what moves has moved.
FAST_S, DEFAULT_S, FAR_S = TIMES_S = (0.2, 0.4, 1.0)
#: Share of moving pixels below which two pictures are the same: four of 64 x 64.
STILL = 0.001
#: From one frame to the next is a cut if so large a share of the pixels move, so many times the usual one.
CUT, CUT_FACTOR = 0.01, 3.0
#: A frame is repeated if what changes most, to the next one, changes by less than this share of what is usual around it.
#: Usual changes below `CLEAR` (of 1) do not count: codecs leave out such a change in every second frame.
REPEATED, CLEAR = 0.3, 0.15
#: Episodes that are compared with each other, at so many places each.
COMPARED, PLACES = 100, 4


@dataclass(frozen=True)
class Stretch:
    """Neighbouring frames of an episode; ``own`` are measured, and the ones after them are read along to compare with."""

    episode: int
    own: range
    read: range


@dataclass
class Motion:
    """What moves before one camera, measured at each of N frames; NaN where the episode ends before.

    Args:
        episode: The episode of each frame.
        frame: Its number in the episode.
        moved: The share of pixels that move until `FAST_S`, `DEFAULT_S` and `FAR_S` later, by these seconds.
        cut: Between the frame and the next is a cut.
        clear: What moves around then is large enough to tell if the frame is repeated.
        repeated: The next frame repeats it, although things clearly move around then.
        where: Share of the frames at which each pixel moves until `DEFAULT_S` later.
        picture: A frame, to show where.
    """

    episode: np.ndarray  # (N)
    frame: np.ndarray  # (N)
    moved: dict[float, np.ndarray]  # (N) each
    cut: np.ndarray  # (N) bool
    clear: np.ndarray  # (N) bool
    repeated: np.ndarray  # (N) bool
    where: np.ndarray  # (64,64)
    picture: np.ndarray  # (h,w,C) uint8

    @property
    def moving(self) -> np.ndarray:
        """Tell of each frame (N,) if anything moves until `DEFAULT_S` later."""
        return self.moved[DEFAULT_S] >= STILL

    @property
    def still(self) -> np.ndarray:
        """Tell of each frame (N,) if nothing moves until `DEFAULT_S` later; neither is said where the episode ends before."""
        return self.moved[DEFAULT_S] < STILL


def take_stretches(lengths: Sequence[int], fps: float, frames: int) -> list[Stretch]:
    """Divide episodes into stretches, and take as many, spaced evenly, as have about so many frames."""
    longest, along = max(2, round(STRETCH_S * fps)), max(1, round(FAR_S * fps))
    every = []
    for episode, length in enumerate(lengths):
        ends = np.linspace(0, length, max(1, -(-length // longest)) + 1).astype(int)
        for start, stop in zip(ends[:-1], ends[1:], strict=True):
            every.append(Stretch(episode, range(start, stop), range(start, min(int(stop) + along, length))))
    total = sum(len(stretch.read) for stretch in every)
    if total <= frames:
        return every
    return [every[index] for index in evenly_spaced(len(every), max(1, len(every) * frames // total))]


def measure_motion(reader: EpisodeReader, camera: str, stretches: Sequence[Stretch]) -> Motion:
    """Read the stretches of one camera and measure them."""
    parts = []
    where, seen = np.zeros((SIZE, SIZE)), 0
    name = camera.rpartition(".")[2]
    for stretch in tqdm(stretches, desc=f"Motion before {name}", unit="stretch"):
        pixels = reader.frames(stretch.episode, camera, (SIZE, SIZE), stretch.read).float() / 255
        part, moving = _of_stretch(pixels, stretch, reader.fps)
        parts.append(part)
        where, seen = where + moving.sum(0), seen + len(moving)
    middle = stretches[len(stretches) // 2]
    picture = reader.frames(middle.episode, camera, span=middle.own[len(middle.own) // 2 :][:1])[0]

    def joined(key: str) -> np.ndarray:
        return np.concatenate([part[key] for part in parts])

    return Motion(
        joined("episode"),
        joined("frame"),
        {seconds: joined(str(seconds)) for seconds in TIMES_S},
        joined("cut"),
        joined("clear"),
        joined("repeated"),
        where / max(seen, 1),
        picture.permute(1, 2, 0).numpy(),
    )


def _of_stretch(pixels: Tensor, stretch: Stretch, fps: float) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Measure frames (n,C,64,64) in [0, 1]: the fields of `Motion`, and what moves (m,64,64) until `DEFAULT_S` later."""
    own = len(stretch.own)
    part = {"episode": np.full(own, stretch.episode), "frame": np.arange(stretch.own.start, stretch.own.stop)}
    moving = np.zeros((0, SIZE, SIZE), bool)
    for seconds in TIMES_S:
        later = max(1, round(seconds * fps))
        moves = (pixels[later:] - pixels[:-later]).abs().amax(1) > MOVED  # (n-later,64,64)
        part[str(seconds)] = _padded(moves.float().mean((1, 2)).numpy(), own)
        if seconds == DEFAULT_S:
            moving = moves[:own].numpy()
    largest = (pixels[1:] - pixels[:-1]).abs().amax(1).flatten(1)  # (n-1,64*64)
    part["cut"] = _padded(find_cuts((largest > MOVED).float().mean(1).numpy(), fps), own) == 1
    # One pixel in a hundred: what is small moves too, and a codec's noise is everywhere.
    most = largest.topk(SIZE * SIZE // 100).values.mean(1).numpy()
    clear, repeated = find_repeated(most, fps)
    part |= {"clear": _padded(clear, own) == 1, "repeated": _padded(repeated, own) == 1}
    return part, moving


def _padded(values: np.ndarray, length: int) -> np.ndarray:
    """The first ``length`` of some values, NaN where there are fewer."""
    padded = np.full(length, np.nan)
    padded[: min(length, len(values))] = values[:length]
    return padded


def find_cuts(moved: np.ndarray, fps: float) -> np.ndarray:
    """Find (n,) the cuts among the shares (n,) of pixels that move from one frame to the next.

    A fast motion has shares like its own right beside it, and a shaking camera many within a second around.
    """
    if len(moved) < 3:
        return np.zeros(len(moved), bool)
    usual = percentile_filter(moved, 90, 2 * max(3, round(fps)) + 1, mode="nearest")
    beside = np.pad(moved, 1)
    usual = np.maximum(usual, np.maximum(beside[:-2], beside[2:]))
    return (moved >= CUT) & (moved > CUT_FACTOR * usual)


def find_repeated(most: np.ndarray, fps: float) -> tuple[np.ndarray, np.ndarray]:
    """Tell of each change (n,) of what changes most to the next frame if it can be judged, and if it repeats the frame."""
    if not len(most):
        return np.zeros(0, bool), np.zeros(0, bool)
    usual = percentile_filter(most, 90, 2 * max(2, round(DEFAULT_S / 2 * fps)) + 1, mode="nearest")
    clear = usual >= CLEAR
    return clear, clear & (most < REPEATED * usual)


def find_copies(reader: EpisodeReader, camera: str) -> tuple[int, list[tuple[int, int]]]:
    """Compare up to `COMPARED` episodes; returns how many, and each that is nearly the same as one before it, with that one."""
    episodes = [
        reader.episodes[i] for i in evenly_spaced(len(reader.episodes), min(COMPARED, len(reader.episodes)))
    ]
    pictures = []
    for episode in tqdm(episodes, desc="Comparing episodes", unit="episode"):
        places = evenly_spaced(reader.length(episode), PLACES)
        shown = [reader.frames(episode, camera, (SIZE, SIZE), range(i, i + 1)) for i in places]
        pictures.append(torch.cat(shown).float() / 255)  # (P,C,64,64)
    everything = torch.stack(pictures)  # (E,P,C,64,64)
    copies = []
    for index in range(1, len(episodes)):
        moved = (everything[:index] - everything[index]).abs().amax(2) > MOVED  # (index,P,64,64)
        same = (moved.float().mean((2, 3)) < STILL).all(1).nonzero()[:, 0]
        if len(same):
            copies.append((episodes[index], episodes[int(same[0])]))
    return len(episodes), copies


def runs(motion: Motion, flags: np.ndarray) -> list[slice]:
    """List the runs of neighbouring frames whose flag (N,) is set, as slices of the measures."""
    chosen = np.flatnonzero(flags)
    if not len(chosen):
        return []
    apart = (np.diff(motion.frame[chosen]) != 1) | (np.diff(motion.episode[chosen]) != 0)
    parts = np.split(chosen, np.flatnonzero(apart) + 1)
    return [slice(int(part[0]), int(part[-1]) + 1) for part in parts]
