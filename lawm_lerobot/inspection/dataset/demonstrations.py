"""Measures of demonstrations: joints that never move, clipped actions, actions that are the state, pictures out of step with it.

Letters: N frames, D dimensions of state or action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from lerobot.utils.constants import ACTION, OBS_STATE

from lawm_lerobot.inspection.dataset.motion import FAST_S, Motion, runs
from lawm_lerobot.labels.episodes import EpisodeReader

#: A dimension never moves if its range is below this share of the median range of all.
IDLE_RANGE = 0.01
#: An action is clipped if it stands at an end of its range in so many of the frames in which another dimension moves, and
#: moves if it changes by more than a share of its range from one frame to the next.
CLIPPED, MOVES = 0.05, 0.01
#: Up to so many different values an action is a switch, whose ends mean nothing.
SWITCH = 3
#: Share of the frames whose action equals the state, up to a share of the range, from which one is a copy of the other.
COPIED, SAME = 0.99, 1e-4
#: Seconds by which pictures may follow the state; the correlation that must be there to say so, and what it must gain.
LATE_S, CORRELATED, GAINED = 0.1, 0.3, 0.1
#: Seconds up to which pictures are looked for.
SEARCHED_S = 1.0


@dataclass(frozen=True)
class Step:
    """How far the pictures of a camera come after the state.

    Args:
        frames: The number of frames by which they come later; negative if they come before.
        correlation: The correlation of the change of the pictures with the way of the state at that distance.
        at_once: The same without any distance.
        curve: The correlation at every distance that was tried, by its frames.
    """

    frames: int
    correlation: float
    at_once: float
    curve: dict[int, float]

    def late(self, fps: float) -> bool:
        """Tell if pictures and state are out of step."""
        gained = self.correlation >= CORRELATED and self.correlation - self.at_once >= GAINED
        return gained and abs(self.frames) / fps > LATE_S + 1e-9


@dataclass(frozen=True)
class Demonstrations:
    """What is odd about the numbers of demonstrations.

    Args:
        idle: The dimensions of state and action that never move, by the feature's key.
        clipped: For each clipped dimension of the action, the share of its moving frames at an end of its range.
        copied: The share of the frames whose action equals their state; None where their dimensions differ.
        steps: How far the pictures come after the state, by the camera's key; empty without a state.
    """

    idle: dict[str, list[str]]
    clipped: dict[str, float]
    copied: float | None
    steps: dict[str, Step] = field(default_factory=dict)


def measure_demonstrations(reader: EpisodeReader, motions: dict[str, Motion]) -> Demonstrations | None:
    """Measure the numbers of all frames, and the pictures that were read; None for a dataset without actions.

    Raises:
        ValueError: If a number is NaN or infinite.
    """
    if ACTION not in reader.features:
        return None
    keys = [key for key in (OBS_STATE, ACTION) if key in reader.features]
    for key in keys:
        reader.check_finite(key)
    idle, names = {}, {key: dimension_names(reader, key) for key in keys}
    for key in keys:
        found = find_idle(reader.column(key))
        idle[key] = [name for name, never in zip(names[key], found, strict=True) if never]
    action = reader.column(ACTION)
    ends = np.cumsum([reader.length(episode) for episode in reader.episodes])
    clipped = {
        name: share
        for name, share in zip(names[ACTION], clipped_shares(action, ends), strict=True)
        if share >= CLIPPED and name not in idle[ACTION]
    }
    if OBS_STATE not in keys:
        return Demonstrations(idle, clipped, None)
    steps = {}
    for camera, motion in motions.items():
        step = find_step(reader, motion)
        if step is not None:
            steps[camera] = step
    return Demonstrations(idle, clipped, copied_share(action, reader.column(OBS_STATE)), steps)


def dimension_names(reader: EpisodeReader, key: str) -> list[str]:
    """The names of a feature's dimensions, their numbers where it has none."""
    count, names = reader.column(key).shape[1], reader.features[key].get("names")
    if isinstance(names, dict):  # Some converters group them.
        names = [name for group in names.values() for name in (group if isinstance(group, list) else [group])]
    return [str(name) for name in names] if names and len(names) == count else [str(i) for i in range(count)]


def find_idle(values: np.ndarray) -> np.ndarray:
    """Find (D,) the dimensions of (N,D) whose range is next to nothing beside that of the others that move at all."""
    spread = np.ptp(values, axis=0)
    return spread <= (IDLE_RANGE * np.median(spread[spread > 0]) if spread.any() else 0)


def clipped_shares(action: np.ndarray, ends: Sequence[int] | np.ndarray) -> list[float]:
    """For every dimension of actions (N,D), the share of its frames at an end of its range while another dimension moves.

    ``ends`` are the frames at which episodes end. An arm that rests at home may rest at an end too: there nothing moves.
    """
    low, high = action.min(0), action.max(0)
    spread = np.where(high > low, high - low, 1)
    moves = np.zeros(action.shape, bool)
    moves[1:] = np.abs(np.diff(action, axis=0)) > MOVES * spread
    moves[np.asarray(ends)[:-1]] = False
    shares = []
    for dim in range(action.shape[1]):
        values = action[:, dim]
        others = np.delete(moves, dim, axis=1).any(1) if action.shape[1] > 1 else np.ones(len(values), bool)
        if not others.any() or len(np.unique(values)) <= SWITCH:
            shares.append(0.0)
            continue
        at_end = np.minimum(values - low[dim], high[dim] - values)[others] <= 1e-6 * spread[dim]
        shares.append(float(at_end.mean()))
    return shares


def copied_share(action: np.ndarray, state: np.ndarray) -> float | None:
    """The share of the frames whose action (N,D) equals the state (N,D); None where they have other dimensions."""
    if action.shape != state.shape:
        return None
    return float((np.abs(action - state) <= SAME * np.ptp(state, axis=0)).all(1).mean())


def find_step(reader: EpisodeReader, motion: Motion) -> Step | None:
    """Find the distance at which the change of the pictures goes best with the way of the state, both over `FAST_S`.

    None if the pictures or the state do not change.
    """
    reach, later = (max(1, round(seconds * reader.fps)) for seconds in (SEARCHED_S, FAST_S))
    scale = reader.column(OBS_STATE).std(0)
    sums = np.zeros((2 * reach + 1, 3))  # of products, and of the squares of both
    for run in runs(motion, np.isfinite(motion.moved[FAST_S])):
        episode, first = int(motion.episode[run.start]), int(motion.frame[run.start])
        change = motion.moved[FAST_S][run]
        state = reader.numbers(episode, OBS_STATE)[first : first + len(change) + later]
        way = np.linalg.norm((state[later:] - state[:-later]) / np.where(scale > 0, scale, 1), axis=1)
        way, change = way - way.mean(), change - change.mean()
        for shift in range(-reach, reach + 1):
            if 2 * abs(shift) > len(change):  # Few frames that overlap agree by chance.
                continue
            pictures, numbers = (
                (change[shift:], way[: len(way) - shift]) if shift >= 0 else (change[:shift], way[-shift:])
            )
            sums[shift + reach] += pictures @ numbers, pictures @ pictures, numbers @ numbers
    curve = {
        place - reach: float(product / np.sqrt(of_pictures * of_numbers))
        for place, (product, of_pictures, of_numbers) in enumerate(sums)
        if of_pictures > 0 and of_numbers > 0
    }
    if 0 not in curve:
        return None
    best = max(curve, key=lambda shift: curve[shift])
    return Step(best, curve[best], curve[0], curve)
