"""Scores of probabilities, and their intervals by group."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats

from wbcclf.model_selection.intervals._resamples import strata_of, wilson

N_RESAMPLES = 400  # they tell a standard deviation to 4%
MOST_WEIGHTS = 4_000_000  # that are in memory at a time

# Sums of the weights of the positives and of the negatives (n_resamples, n_scores), from the
# highest score down, in; one figure for each resample out.
Ranking = Callable[[np.ndarray, np.ndarray], np.ndarray]


def roc_auc(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve."""
    lower = negatives.sum(axis=1, keepdims=True) - np.cumsum(negatives, axis=1) + negatives / 2
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    return (positives * lower).sum(axis=1) / pairs


def average_precision(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Return the sum of the precisions, each weighted by the recall that it adds."""
    called_right = np.cumsum(positives, axis=1)
    called = called_right + np.cumsum(negatives, axis=1)
    precision = np.divide(called_right, called, out=np.zeros_like(called), where=called > 0)
    return (positives * precision).sum(axis=1) / positives.sum(axis=1)


RANKINGS: dict[str, Ranking] = {
    ranking.__name__: ranking for ranking in (roc_auc, average_precision)
}


def rank(
    scores: np.ndarray,
    is_positive: np.ndarray,
    groups: np.ndarray,
    confidence_level: float,
    random: np.random.RandomState,
) -> dict[str, tuple[float, float, float]]:
    """Return how well scores tell positives from negatives, each figure with its interval.

    Parameters
    ----------
    scores : ndarray of shape (n_samples,), float
    is_positive : ndarray of shape (n_samples,), bool
        Some are, some are not.
    groups : ndarray of shape (n_samples,), int
        From 0, without gaps.
    confidence_level : float
    random : RandomState

    Notes
    -----
    Whole groups are drawn within strata, as for the scores of labels. The interval is Wilson's for
    as many independent observations as have the variance of the resamples. One more group of the
    scarcer kind comes to them, which ranks in the middle, as Agresti and Coull (1998) add to
    counts: so a perfect ranking of few groups has an interval, too.
    """
    shows = np.zeros((groups.max() + 1, 2), dtype=bool)
    shows[groups, is_positive.astype(int)] = True
    order = np.argsort(-scores, kind="stable")
    sorted_scores, is_positive, groups = scores[order], is_positive[order], groups[order]
    starts = np.flatnonzero(np.r_[True, np.diff(sorted_scores) != 0])  # equal scores are one

    def figures(weights: np.ndarray) -> np.ndarray:
        of_images = weights[:, groups]
        sums = [
            np.add.reduceat(of_images * chosen, starts, axis=1)
            for chosen in (is_positive, ~is_positive)
        ]
        return np.stack([ranking(*sums) for ranking in RANKINGS.values()])

    values = figures(np.ones((1, len(shows))))[:, 0]
    strata, n_rows = strata_of(shows), max(1, MOST_WEIGHTS // len(scores))
    resampled = np.concatenate(
        [
            figures(draw_weights(strata, min(n_rows, N_RESAMPLES - start), random))
            for start in range(0, N_RESAMPLES, n_rows)
        ],
        axis=1,
    )
    n_groups = int(shows.sum(axis=0).min())
    limits = [
        smoothed_wilson(value, each.var(), n_groups, len(shows) - 1, confidence_level)
        for value, each in zip(values, resampled, strict=True)
    ]
    return {
        name: (float(value), float(low), float(high))
        for name, value, (low, high) in zip(RANKINGS, values, limits, strict=True)
    }


def draw_weights(strata: np.ndarray, n_resamples: int, random: np.random.RandomState) -> np.ndarray:
    """Return how much each group counts (n_resamples, n_groups): drawn within strata."""
    weights = np.ones((n_resamples, len(strata)))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        n = len(members)
        if n > 1:
            # One draw less than there are groups: as Bessel's correction.
            drawn = random.multinomial(n - 1, np.full(n, 1 / n), size=n_resamples)
            weights[:, members] = drawn * (n / (n - 1))
    return weights


def smoothed_wilson(
    value: float,
    variance: float,
    n_groups: int,
    degrees_of_freedom: float,
    confidence_level: float,
) -> np.ndarray:
    """Return limits (2,) of a mean in [0, 1] over groups, to which one of value 1/2 comes."""
    total = n_groups + 1
    middle = (n_groups * value + 0.5) / total
    squares = n_groups**2 * variance + n_groups * (value - middle) ** 2
    squares += (0.5 - middle) ** 2
    with np.errstate(divide="ignore"):  # where nothing varies, as of scores that are all equal
        n = np.divide(middle * (1 - middle) * total * n_groups, squares)
    return wilson(np.asarray(value), n, degrees_of_freedom, confidence_level)


def mean_loss(
    losses: np.ndarray, groups: np.ndarray, confidence_level: float
) -> tuple[float, float, float]:
    """Return the mean of losses > 0 with its interval by group, which is even for logarithms."""
    sums, counts = (np.bincount(groups, each) for each in (losses, np.ones(len(losses))))
    value, n_groups = losses.mean(), len(sums)
    if value == 0 or n_groups == 1:
        return float(value), np.nan, np.nan
    variance = ((sums - value * counts) ** 2).sum() * n_groups / (n_groups - 1) / len(losses) ** 2
    half = stats.t.isf((1 - confidence_level) / 2, n_groups - 1) * np.sqrt(variance) / value
    return float(value), float(value * np.exp(-half)), float(value * np.exp(half))
