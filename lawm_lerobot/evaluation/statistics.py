"""Intervals for success rates."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.stats import binomtest


@dataclass(frozen=True)
class SuccessRate:
    """k successes in n episodes."""

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
    """Interval for ``a.rate - b.rate`` of independent episodes (Newcombe 1998, method 10).

    Built from the two Wilson intervals, so that it stays sensible near 0 and 100%.
    """
    (a_low, a_high), (b_low, b_high) = a.interval(confidence), b.interval(confidence)
    difference = a.rate - b.rate
    low = difference - math.hypot(a.rate - a_low, b_high - b.rate)
    high = difference + math.hypot(a_high - a.rate, b.rate - b_low)
    return low, high


def verdict(a: SuccessRate, b: SuccessRate, name_a: str, name_b: str) -> str:
    """One sentence that claims no more than the interval of the difference shows."""
    low, high = difference_interval(a, b)
    points = f"{100 * (a.rate - b.rate):+.0f} points, 95% {100 * low:+.0f} to {100 * high:+.0f}"
    if low > 0:
        return f"{name_a} succeeds more often than {name_b} ({points})."
    if high < 0:
        return f"{name_a} succeeds less often than {name_b} ({points})."
    return f"No difference in success is shown between {name_a} and {name_b} ({points})."
