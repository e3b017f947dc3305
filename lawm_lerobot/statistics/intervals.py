"""Intervals for success rates and for other metrics, and for their differences."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest, sem, t


@dataclass(frozen=True)
class SuccessRate:
    """k successes in n episodes.

    Args:
        successes: The number k of episodes that succeeded.
        episodes: The number n of episodes, at least one.
    """

    successes: int
    episodes: int

    @property
    def rate(self) -> float:
        return self.successes / self.episodes

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Wilson's score interval."""
        ci = binomtest(self.successes, self.episodes).proportion_ci(confidence, method="wilson")
        return float(ci.low), float(ci.high)

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{self.successes}/{self.episodes} = {self.rate:.0%} (95% {low:.0%} to {high:.0%})"


def difference_interval(a: SuccessRate, b: SuccessRate, confidence: float = 0.95) -> tuple[float, float]:
    """Interval for ``a.rate - b.rate`` of independent episodes (Newcombe 1998, method 10), from Wilson's intervals:
    it stays sensible near 0 and 100%."""
    (a_low, a_high), (b_low, b_high) = a.interval(confidence), b.interval(confidence)
    difference = a.rate - b.rate
    low = difference - math.hypot(a.rate - a_low, b_high - b.rate)
    high = difference + math.hypot(a_high - a.rate, b.rate - b_low)
    return low, high


def paired_t_interval(a: ArrayLike, b: ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """Student's interval for the mean of ``a - b``, at least two metrics (n,) of the same seeds or tasks."""
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if first.shape != second.shape or first.ndim != 1 or len(first) < 2:
        raise ValueError(
            f"metrics of shapes {first.shape} and {second.shape} do not pair up, expected two of (n,) with n of at "
            "least 2."
        )
    difference = first - second
    low, high = t.interval(confidence, len(difference) - 1, difference.mean(), sem(difference))
    return float(low), float(high)


def verdict(a: SuccessRate, b: SuccessRate, name_a: str, name_b: str) -> str:
    """One sentence that claims no more than the interval of the difference of independent episodes shows."""
    return judge(a.rate - b.rate, difference_interval(a, b), name_a, name_b)


def points(difference: float, interval: tuple[float, float]) -> str:
    """A difference of two success rates in percentage points, with its 95% interval."""
    low, high = interval
    return f"{100 * difference:+.0f} points, 95% {100 * low:+.0f} to {100 * high:+.0f}"


def judge(difference: float, interval: tuple[float, float], name_a: str, name_b: str) -> str:
    """One sentence that claims no more than the 95% interval of a difference in success shows."""
    low, high = interval
    gap = points(difference, interval)
    if low > 0:
        return f"{name_a} succeeds more often than {name_b} ({gap})."
    if high < 0:
        return f"{name_a} succeeds less often than {name_b} ({gap})."
    return f"No difference in success is shown between {name_a} and {name_b} ({gap})."
