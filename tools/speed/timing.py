"""Timing on machines that other work shares: what is compared runs turn by turn, and ratios are taken within a turn."""

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch


def seconds_of(action: Callable[[], object]) -> float:
    """Wall time of a call, up to the end of what it gave a GPU to do."""
    _synchronise()
    start = time.perf_counter()
    action()
    _synchronise()
    return time.perf_counter() - start


def interleaved(
    subjects: Mapping[str, Callable[[], object]], repeats: int, warmup: int = 2
) -> dict[str, list[float]]:
    """Seconds of every subject in each of `repeats` turns, all subjects once a turn and in alternating order.

    A neighbour that slows the machine then slows all of them alike.
    """
    for action in subjects.values():
        for _ in range(warmup):
            action()
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for turn in range(repeats):
        order = list(subjects.items())
        for name, action in order if turn % 2 == 0 else order[::-1]:
            times[name].append(seconds_of(action))
    return times


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """Median and quartiles, and how many values they are of."""
    q1, median, q3 = np.percentile(values, (25, 50, 75))
    return {
        "median": round(float(median), digits),
        "q1": round(float(q1), digits),
        "q3": round(float(q3), digits),
        "n": len(values),
    }


def ratio(ours: Sequence[float], theirs: Sequence[float], digits: int = 3) -> dict[str, float]:
    """`spread` of ours / theirs, turn by turn."""
    return spread([a / b for a, b in zip(ours, theirs, strict=True)], digits)


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
