"""Ridge regression whose penalty and whose R2 come from held-out episodes."""

from __future__ import annotations

import numpy as np
import pytest

from lawm_lerobot.statistics.ridge import (
    fit_ridge,
    group_folds,
    held_out_predictions,
    overall_r2,
    r2_per_dimension,
    varies,
)


def test_ridge_finds_a_linear_map_and_admits_that_noise_is_none():
    rng = np.random.default_rng(0)
    inputs, groups = rng.normal(size=(200, 10)) * 7 + 3, np.repeat(np.arange(20), 10)
    inputs[:, 9] = 1.0  # does not vary
    targets = np.c_[inputs @ rng.normal(size=(10, 2)), np.ones(200)]
    assert not set(groups[group_folds(groups, 5) == 0]) & set(groups[group_folds(groups, 5) == 1])
    held_out = held_out_predictions(inputs, targets, groups)
    r2 = r2_per_dimension(targets, held_out)
    assert (r2[:2] > 0.99).all() and np.isnan(r2[2]) and overall_r2(targets, held_out) > 0.99
    noise = rng.normal(size=(200, 2))
    assert overall_r2(noise, held_out_predictions(inputs, noise, groups)) < 0.05
    assert fit_ridge(inputs, noise, groups).penalty > fit_ridge(inputs, targets, groups).penalty
    with pytest.raises(ValueError, match="at least two"):
        held_out_predictions(inputs, targets, np.zeros(200))


def test_rounding_is_no_motion():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(500, 1))
    still = np.c_[0.1 + 1e-8 * noise, np.float32(170.3) + 1e-5 * noise, np.zeros(500)]
    moving = np.c_[0.1 + 1e-3 * noise, 170.3 + 0.01 * noise, np.where(np.arange(500) == 250, 1.0, 0.0)]
    assert not varies(still).any() and varies(moving).all()
