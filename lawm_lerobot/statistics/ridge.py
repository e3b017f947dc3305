"""Ridge regression whose penalty and whose R2 come from held-out episodes.

Letters: N rows (frames or transitions), D inputs, A outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import t

# Penalties to choose from. They count per row, so that one means the same for few rows and for many.
PENALTIES = tuple(10.0**exponent for exponent in range(-5, 4))


@dataclass(frozen=True)
class Ridge:
    """A fitted linear map with standardised inputs.

    Args:
        mean: (D,) mean of the inputs.
        scale: (D,) standard deviation of the inputs, 1 where they do not vary.
        weights: (D,A) weights of the standardised inputs.
        bias: (A,) mean of the targets.
        penalty: The penalty that was chosen.
    """

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    penalty: float

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """(N,D) -> (N,A)"""
        return (inputs - self.mean) / self.scale @ self.weights + self.bias


def _fit_path(
    inputs: np.ndarray, targets: np.ndarray, penalties: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean (D,), scale (D,), bias (A,) and, from one SVD, the weights (P,D,A) of every penalty."""
    mean, scale, bias = inputs.mean(0), inputs.std(0), targets.mean(0)
    scale = np.where(scale > 1e-8, scale, 1.0)
    u, s, vt = np.linalg.svd((inputs - mean) / scale, full_matrices=False)  # (N,r), (r,), (r,D)
    rotated = u.T @ (targets - bias)  # (r,A)
    strength = np.asarray(penalties)[:, None] * len(inputs)  # (P,1)
    shrunk = (s / (s**2 + strength))[:, :, None] * rotated  # (P,r,A)
    return mean, scale, bias, vt.T @ shrunk  # (D,r) @ (P,r,A) -> (P,D,A)


def fit_ridge(
    inputs: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    penalties: tuple[float, ...] = PENALTIES,
    folds: int = 5,
    seed: int = 0,
) -> Ridge:
    """Fit with the penalty that predicts held-out groups best.

    Args:
        inputs: (N,D) inputs.
        targets: (N,A) targets. Each dimension counts by its share of explained variance, whatever its unit.
        groups: (N,) the episode of each row, or whatever else must not be on both sides of a split.
        penalties: The penalties to choose from.
        folds: The number of folds, at most one per group. With one group the largest penalty is taken.
        seed: Seed of the assignment of groups to folds.
    """
    inputs, targets = np.asarray(inputs, np.float64), np.asarray(targets, np.float64)
    deviation = np.where(targets.std(0) > 1e-8, targets.std(0), 1.0)  # (A,)
    error = np.zeros(len(penalties))  # (P,)
    held_out = splits(groups, folds, seed)
    for train, test in held_out:
        mean, scale, bias, weights = _fit_path(inputs[train], targets[train], penalties)
        predicted = (inputs[test] - mean) / scale @ weights + bias  # (P,N,A)
        error += (((predicted - targets[test]) / deviation) ** 2).sum((1, 2))
    best = int(error.argmin()) if held_out else len(penalties) - 1
    mean, scale, bias, weights = _fit_path(inputs, targets, (penalties[best],))
    return Ridge(mean, scale, weights[0], bias, penalties[best])


def held_out_predictions(
    inputs: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    penalties: tuple[float, ...] = PENALTIES,
    folds: int = 5,
    seed: int = 0,
) -> np.ndarray:
    """(N,A): each row predicted by a `fit_ridge` that saw nothing of its group, in the choice of penalty either.

    Raises ValueError if there is one group only. The arguments are those of `fit_ridge`.
    """
    held_out = splits(groups, folds, seed)
    if not held_out:
        raise ValueError("held-out predictions need at least two groups (episodes), found one")
    predicted = np.empty(targets.shape)
    for train, test in held_out:
        model = fit_ridge(inputs[train], targets[train], groups[train], penalties, folds, seed)
        predicted[test] = model.predict(inputs[test])
    return predicted


def splits(groups: np.ndarray, folds: int, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """(N,) bool rows to fit and (N,) bool rows to hold out, for each of `group_folds`; none of a single group."""
    fold = group_folds(groups, folds, seed)
    count = int(fold.max()) + 1
    return [(fold != held, fold == held) for held in range(count)] if count > 1 else []


def group_folds(groups: np.ndarray, folds: int, seed: int = 0) -> np.ndarray:
    """(N,) the fold 0.. of each row; the rows of a group share one, and the folds are equally many groups."""
    names, members = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    return (order % max(min(folds, len(names)), 1))[members]


def varies(targets: np.ndarray) -> np.ndarray:
    """(N,A) -> (A,) bool: the dimensions that are not constant but for rounding."""
    total = ((targets - targets.mean(0)) ** 2).sum(0)
    return total > 1e-12 * len(targets) * (1.0 + targets.mean(0) ** 2)


def r2_per_dimension(targets: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """(N,A), (N,A) -> (A,) explained variance: 1 is perfect, 0 as good as the mean of these targets, NaN if constant."""
    residual = ((targets - predicted) ** 2).sum(0)
    total = ((targets - targets.mean(0)) ** 2).sum(0)
    moving = varies(targets)
    return np.where(moving, 1.0 - residual / np.where(moving, total, 1.0), np.nan)


def overall_r2(targets: np.ndarray, predicted: np.ndarray) -> float:
    """Mean of `r2_per_dimension` over the dimensions that vary; NaN if none does."""
    r2 = r2_per_dimension(targets, predicted)
    return float(np.nanmean(r2)) if np.isfinite(r2).any() else float("nan")


def r2_interval(
    targets: np.ndarray, predicted: np.ndarray, groups: np.ndarray, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95% interval of `overall_r2`, by drawing groups (N,) of rows with replacement; NaN where that is NaN."""
    moving = varies(targets)
    if not moving.any():
        return float("nan"), float("nan")
    centred = (targets - targets.mean(0))[:, moving]
    residual = (targets - predicted)[:, moving] ** 2
    _, members = np.unique(groups, return_inverse=True)
    sums = np.zeros(
        (members.max() + 1, 3, moving.sum())
    )  # (G,3,A): of residuals, of targets and of their squares
    np.add.at(sums, members, np.stack([residual, centred, centred**2], 1))
    drawn = np.random.default_rng(seed).integers(len(sums), size=(resamples, len(sums)))  # (R,G)
    rows = np.bincount(members)[drawn].sum(1)[:, None]  # (R,1)
    error, total, square = np.moveaxis(sums[drawn].sum(1), 1, 0)  # (R,A) each
    variance = np.maximum(square - total**2 / rows, 1e-3 * (centred**2).mean(0) * rows)
    ends = np.quantile((1.0 - error / variance).mean(1), [0.025, 0.975])
    # A bootstrap of few groups is too narrow, as the normal distribution is beside Student's.
    few = max(len(sums) - 1, 1)
    wider = t.ppf(0.975, few) / t.ppf(0.975, np.inf) * np.sqrt(len(sums) / few)
    r2 = overall_r2(targets, predicted)
    low, high = r2 + wider * (ends - r2)
    return float(low), float(min(high, 1.0))
