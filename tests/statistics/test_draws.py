"""Differences over draws: what a handful of trained policies can show, and what not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import nct, t

from lawm_lerobot.statistics.draws import (
    BETTER,
    NOT_SHOWN,
    UNDERPOWERED,
    WORSE,
    detectable_difference,
    difference_over_draws,
    expected_deviation,
    holm,
    verdict_over_draws,
)


def draws(*counts: int, of: int = 50) -> list[list[bool]]:
    return [[i < count for i in range(of)] for count in counts]


def test_a_draw_is_one_observation() -> None:
    found = difference_over_draws(draws(40, 29, 30), draws(22, 25, 24))
    # The differences 0.36, 0.08 and 0.12 have a standard error of 0.087433. Student's distribution with two degrees of
    # freedom has a closed form, by which p is 1 - t / sqrt(2 + t^2), and its 97.5% quantile is 4.302653.
    assert found.mean == pytest.approx(0.56 / 3)
    assert found.p == pytest.approx(0.166311, abs=1e-5)
    assert found.interval == pytest.approx((-0.189527, 0.562861), abs=1e-5)
    # Ten times the episodes of each draw, with the same rates, are no further evidence about other draws.
    more = difference_over_draws(draws(400, 290, 300, of=500), draws(220, 250, 240, of=500))
    assert more.p == pytest.approx(found.p)


def test_equal_draws_are_not_taken_for_certain() -> None:
    found = difference_over_draws(draws(0, 0, of=2), draws(0, 0, of=2))
    low, high = found.interval
    assert (found.mean, found.p) == (0.0, 1.0)
    assert low < -0.9 and high > 0.9
    single = difference_over_draws(draws(50), draws(0))
    assert (single.interval, single.p, single.draws) == ((-1.0, 1.0), 1.0, 1)
    assert math.isnan(single.deviation)
    for ours, theirs in ((draws(1), draws(1, 1)), (draws(1), draws(1, of=40)), ([], [])):
        with pytest.raises(ValueError, match="do not pair up"):
            difference_over_draws(ours, theirs)


def test_the_detectable_difference_is_found_with_its_probability() -> None:
    deviation, count, level = 0.15, 10, 0.05
    found = detectable_difference(deviation, count, level)
    critical, shift = t.ppf(1 - level / 2, count - 1), found / (deviation / math.sqrt(count))
    power = nct.sf(critical, count - 1, shift) + nct.cdf(-critical, count - 1, shift)
    assert power == pytest.approx(0.8, abs=0.02)
    assert (
        detectable_difference(deviation, count, level / 7)
        > found
        > detectable_difference(deviation, 4 * count)
    )
    assert detectable_difference(deviation, 1) == math.inf


def test_the_expected_deviation_is_that_of_simulated_draws() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 0.1, 20_000)
    rates = [rng.binomial(50, 0.4 + sign * truth / 2) / 50 for sign in (1, -1)]
    assert np.std(rates[0] - rates[1]) == pytest.approx(expected_deviation(0.4, 50, 0.1), rel=0.03)


def test_holm_has_its_textbook_values() -> None:
    # Wright 1992 (Biometrics 48, 1005), and in another order.
    assert holm([0.01, 0.02, 0.03, 0.04]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.04, 0.01]) == pytest.approx([0.04, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("mean", "p", "detectable", "verdict"),
    [
        (0.2, 0.01, 0.3, BETTER),
        (-0.2, 0.01, 0.1, WORSE),
        (0.1, 0.2, 0.15, NOT_SHOWN),
        (0.1, 0.2, 0.16, UNDERPOWERED),
        (0.5, 1.0, math.inf, UNDERPOWERED),
    ],
)
def test_verdicts(mean: float, p: float, detectable: float, verdict: str) -> None:
    assert verdict_over_draws(mean, p, detectable, relevant=0.15) == verdict
