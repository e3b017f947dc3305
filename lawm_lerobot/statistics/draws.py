"""Differences between two arms over draws: interval, p value, the difference that would have been found, and verdict.

A draw is one thing that was sampled anew and then shared by all arms: a task with one set of demonstrations, initial
weights and evaluation episodes. All outcomes of a draw hang together, since they come from one trained policy, so a draw
counts as one observation: its mean difference. Counting its episodes one by one would claim a certainty that no
further training run bears out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

LEVEL = 0.05  # of a test: how often it finds a difference where there is none
POWER = 0.8  # how often the detectable difference is found

BETTER, WORSE = "better", "worse"
NOT_SHOWN = "no difference shown"
UNDERPOWERED = "underpowered"


@dataclass(frozen=True)
class DrawDifference:
    """The difference in success between two arms over the draws that both have.

    Args:
        mean: The mean over draws of the first arm's success minus the second's.
        interval: Student's 95% interval of the mean over draws; -1 to 1 with a single draw.
        p: The two-sided p value of Student's test that the mean is 0; 1 with a single draw.
        deviation: The standard deviation of a draw's difference; NaN with a single draw.
        draws: The number of draws.
    """

    mean: float
    interval: tuple[float, float]
    p: float
    deviation: float
    draws: int


def difference_over_draws(ours: Sequence[Sequence[bool]], theirs: Sequence[Sequence[bool]]) -> DrawDifference:
    """Compare two arms' outcomes, a list of evaluation episodes for each draw, in the same order of draws.

    Where all draws differ by the same, which happens with few episodes, their spread is taken from the episodes
    instead: an interval of no width would claim certainty.

    Raises:
        ValueError: If the draws do not pair up, or there are none.
    """
    if not ours or [len(draw) for draw in ours] != [len(draw) for draw in theirs]:
        raise ValueError(
            f"outcomes of {len(ours)} and {len(theirs)} draws do not pair up, expected as many draws, at least one, "
            "with as many episodes each."
        )
    differences = np.array([np.mean(a) - np.mean(b) for a, b in zip(ours, theirs, strict=True)])
    mean, draws = float(differences.mean()), len(differences)
    if draws == 1:
        return DrawDifference(mean, (-1.0, 1.0), 1.0, math.nan, 1)
    deviation = float(differences.std(ddof=1))
    if deviation < 1e-9:
        variances = [_episode_variance(a) + _episode_variance(b) for a, b in zip(ours, theirs, strict=True)]
        deviation = math.sqrt(np.mean(variances))
    error = deviation / math.sqrt(draws)
    half = float(t.ppf(1 - LEVEL / 2, draws - 1)) * error
    p = 2 * float(t.sf(abs(mean) / error, draws - 1))
    return DrawDifference(mean, (max(mean - half, -1.0), min(mean + half, 1.0)), p, deviation, draws)


def _episode_variance(outcomes: Sequence[bool]) -> float:
    """Binomial variance of a success rate, with one success and one failure added so that it is never 0."""
    rate = (sum(outcomes) + 1) / (len(outcomes) + 2)
    return rate * (1 - rate) / len(outcomes)


def detectable_difference(deviation: float, draws: int, level: float = LEVEL) -> float:
    """The true difference that a two-sided test over draws finds with 80% probability; inf with a single draw.

    It is the multiple of the standard error of Bloom 1995 (Evaluation Review 19, 547): the quantiles of Student's
    distribution that belong to the level and to the power.

    Args:
        deviation: The standard deviation of a draw's difference.
        draws: The number of draws.
        level: The level of the test.
    """
    if draws < 2:
        return math.inf
    multiple = t.ppf(1 - level / 2, draws - 1) + t.ppf(POWER, draws - 1)
    return float(multiple) * deviation / math.sqrt(draws)


def expected_deviation(success: float, episodes: int, spread: float) -> float:
    """The standard deviation of a draw's difference before anything was measured.

    Args:
        success: A guess of both arms' success rate.
        episodes: The number of evaluation episodes of a draw and arm, whose binomial variance counts twice.
        spread: A guess of the standard deviation, over draws, of the true difference between the two policies.
    """
    return math.sqrt(2 * success * (1 - success) / episodes + spread**2)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected by Holm's method (1979): together they are wrong at most as often as one alone would be."""
    adjusted, highest = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, (len(p_values) - rank) * p_values[i])
        adjusted[i] = min(highest, 1.0)
    return adjusted


def verdict_over_draws(mean: float, p: float, detectable: float, relevant: float) -> str:
    """One of `BETTER`, `WORSE`, `NOT_SHOWN` and `UNDERPOWERED`.

    Args:
        mean: The mean difference.
        p: Its p value, corrected if it is one of several.
        detectable: The difference that the test finds with 80% probability.
        relevant: The smallest difference that matters: a test that cannot find it shows nothing by not finding any.
    """
    if p < LEVEL:
        return BETTER if mean > 0 else WORSE
    return NOT_SHOWN if detectable <= relevant else UNDERPOWERED
