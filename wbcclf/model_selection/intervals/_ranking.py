"""Scores of probabilities, and their intervals by group."""

from __future__ import annotations

import numpy as np
from scipy import stats

from wbcclf.model_selection.intervals._resamples import strata_of, wilson


def rank(
    scores: np.ndarray, is_positive: np.ndarray, groups: np.ndarray, confidence_level: float
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

    Notes
    -----
    The variance is that of the sum over groups of what each image adds to a figure, to first order
    (the infinitesimal jackknife, Efron 1982): of the area under the ROC curve it is DeLong's, by
    group (Obuchowski 1997, https://doi.org/10.2307/2533958). Groups vary within strata, as for the
    scores of labels. The interval is Wilson's for as many independent observations as have that
    variance. One more group of the scarcer kind comes to them, which ranks in the middle, as
    Agresti and Coull (1998) add to counts: so a perfect ranking of few groups has an interval, too.
    Student's quantile has as many degrees of freedom as there are groups of the scarcer kind, which
    nearly all of the variance comes from.
    """
    shows = np.zeros((groups.max() + 1, 2), dtype=bool)
    shows[groups, is_positive.astype(int)] = True
    strata, n_groups = strata_of(shows), int(shows.sum(axis=0).min())
    _, places = np.unique(-scores, return_inverse=True)  # equal scores are one place
    positives, negatives = (np.bincount(places, each) for each in (is_positive, ~is_positive))
    figures = {}
    for ranking in (roc_auc, average_precision):
        value, of_positive, of_negative = ranking(positives, negatives)
        influence = np.where(is_positive, of_positive[places], of_negative[places])
        variance = _variance(np.bincount(groups, influence), strata)
        limits = smoothed_wilson(value, variance, n_groups, confidence_level)
        figures[ranking.__name__] = (float(value), *limits.tolist())
    return figures


# Each takes the number of positives and of negatives at each place, from the highest score down. It
# returns a figure, and what one more positive and one more negative at each place add to it.
Ranking = tuple[float, np.ndarray, np.ndarray]


def roc_auc(positives: np.ndarray, negatives: np.ndarray) -> Ranking:
    """Return the area under the ROC curve."""
    n_positives, n_negatives = positives.sum(), negatives.sum()
    lower = (n_negatives - np.cumsum(negatives) + negatives / 2) / n_negatives
    higher = (np.cumsum(positives) - positives / 2) / n_positives
    value = (positives * lower).sum() / n_positives
    return value, (lower - value) / n_positives, (higher - value) / n_negatives


def average_precision(positives: np.ndarray, negatives: np.ndarray) -> Ranking:
    """Return the sum of the precisions, each weighted by the recall that it adds."""
    called = np.cumsum(positives + negatives)
    precision = np.cumsum(positives) / called
    recall = positives / positives.sum()  # that each place adds
    value = (recall * precision).sum()

    def from_here(gains: np.ndarray) -> np.ndarray:
        return np.cumsum((recall * gains / called)[::-1])[::-1]

    of_positive = (precision - value) / positives.sum() + from_here(1 - precision)
    return value, of_positive, -from_here(precision)


RANKINGS = (roc_auc.__name__, average_precision.__name__)


def _variance(sums: np.ndarray, strata: np.ndarray) -> float:
    """Return the variance of the total of groups that are drawn within strata."""
    counts = np.bincount(strata)
    away = sums - (np.bincount(strata, sums) / np.maximum(counts, 1))[strata]
    return float((counts / np.maximum(counts - 1, 1)) @ np.bincount(strata, away**2))


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
    value: float, variance: float, n_groups: int, confidence_level: float
) -> np.ndarray:
    """Return limits (2,) of a mean in [0, 1] over groups, to which one of value 1/2 comes."""
    total = n_groups + 1
    middle = (n_groups * value + 0.5) / total
    squares = n_groups**2 * variance + n_groups * (value - middle) ** 2
    squares += (0.5 - middle) ** 2
    with np.errstate(divide="ignore"):  # where nothing varies, as of scores that are all equal
        n = np.divide(middle * (1 - middle) * total * n_groups, squares)
    return wilson(np.asarray(value), n, n_groups, confidence_level)


def mean_loss(
    losses: np.ndarray, groups: np.ndarray, guess: float, confidence_level: float
) -> tuple[float, float, float]:
    """Return the mean of losses with its interval by group.

    The interval is Wilson's, but of a rate: the variance is proportional to the mean. One more
    group with the loss of a guess comes to the variance, so that few groups without an error do
    not look sure.

    Parameters
    ----------
    losses : ndarray of shape (n_samples,), float
        From 0.
    groups : ndarray of shape (n_samples,), int
        From 0, without gaps.
    guess : float
        Above 0.
    confidence_level : float
    """
    sums, counts = np.bincount(groups, losses), np.bincount(groups)
    n_groups, value = len(sums), losses.mean()
    size = (counts**2).sum() / counts.sum()  # of the group that comes
    total = counts.sum() + size
    smoothed = (sums.sum() + size * guess) / total
    squares = ((sums - smoothed * counts) ** 2).sum() + (size * (guess - smoothed)) ** 2
    variance = squares / total**2 * (n_groups + 1) / n_groups
    degrees_of_freedom = (counts**2).sum() ** 2 / (counts**4).sum()
    half = stats.t.isf((1 - confidence_level) / 2, degrees_of_freedom) ** 2 * variance
    half /= 2 * smoothed
    away = np.sqrt(half**2 + 2 * half * value)
    return float(value), float(max(0.0, value + half - away)), float(value + half + away)
