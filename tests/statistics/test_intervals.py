"""Intervals for success rates and for their differences: counting successes honestly."""

from __future__ import annotations

import pytest

from lawm_lerobot.statistics.intervals import SuccessRate, difference_interval, paired_t_interval, verdict


def test_wilson_interval_has_its_textbook_values() -> None:
    # Newcombe 1998 (Statistics in Medicine 17, 857), table I: 81/263, 15/148, 0/20, 1/29.
    for (k, n), (low, high) in {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }.items():
        assert SuccessRate(k, n).interval() == pytest.approx((low, high), abs=1e-4)


def test_interval_of_a_difference_has_its_textbook_values() -> None:
    # Newcombe 1998 (Statistics in Medicine 17, 873), table II, method 10: 56/70 - 48/80 and 9/10 - 3/10.
    for a, b, expected in (
        (SuccessRate(56, 70), SuccessRate(48, 80), (0.0524, 0.3339)),
        (SuccessRate(9, 10), SuccessRate(3, 10), (0.1705, 0.8090)),
    ):
        assert difference_interval(a, b) == pytest.approx(expected, abs=1e-4)


def test_students_interval_is_of_pairs() -> None:
    low, high = paired_t_interval([11.0, 22.0, 33.0], [10.0, 20.0, 30.0])  # differences 1, 2 and 3
    assert (low, high) == pytest.approx((2 - 4.30265 / 3**0.5, 2 + 4.30265 / 3**0.5), abs=1e-4)
    for a, b in (([1.0], [2.0]), ([1.0, 2.0], [1.0]), ([[1.0, 2.0]], [[1.0, 2.0]])):
        with pytest.raises(ValueError, match="do not pair up"):
            paired_t_interval(a, b)


def test_no_gain_is_claimed_that_the_interval_does_not_show() -> None:
    assert verdict(SuccessRate(20, 40), SuccessRate(16, 40), "A", "B").startswith("No difference")
    assert verdict(SuccessRate(36, 40), SuccessRate(16, 40), "A", "B").startswith("A succeeds more often")
    assert verdict(SuccessRate(4, 40), SuccessRate(16, 40), "A", "B").startswith("A succeeds less often")
