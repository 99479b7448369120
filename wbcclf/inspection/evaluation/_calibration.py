"""Whether probabilities are as right as they say, and what it costs to decline the doubtful."""

from __future__ import annotations

import numpy as np
from sklearn.utils import Bunch

from wbcclf.model_selection.intervals._intervals import interval_of_right
from wbcclf.model_selection.intervals._resamples import correlation

N_BINS = 15  # as Guo et al. 2017
COVERAGES = np.linspace(0.05, 1, 20)
N_SIMULATED = 1000


def calibration(
    confidence: np.ndarray, is_right: np.ndarray, groups: np.ndarray, random: np.random.Generator
) -> Bunch:
    """Return the calibration error with its interval and its bias, and the reliability curve.

    Parameters
    ----------
    confidence : ndarray of shape (n_samples,), float
        Probability of the label that was called.
    is_right : ndarray of shape (n_samples,), bool
    groups : ndarray of shape (n_samples,), int
        From 0, without gaps.
    random : Generator

    Returns
    -------
    Bunch
        As :func:`evaluate` describes it.
    """
    bins = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)
    n_samples, n_groups = len(confidence), groups.max() + 1
    surplus = confidence - is_right  # of confidence, over being right
    places = groups * N_BINS + bins
    sums = np.bincount(places, surplus, n_groups * N_BINS).reshape(n_groups, N_BINS)
    means = sums.sum(axis=0) / n_samples
    error = _error(means)
    # The sums over groups vary nearly normally, with the groups' size as well.
    away = sums - np.bincount(groups)[:, None] * means
    covariance = away.T @ away * n_groups / max(n_groups - 1, 1) / n_samples**2
    resampled = _error(random.multivariate_normal(means, covariance, N_SIMULATED))
    calibrated = _simulate_calibrated(confidence, is_right, groups, bins, random)
    by_chance = _error(calibrated * np.bincount(bins, minlength=N_BINS) / n_samples)
    highest_by_chance = np.quantile(by_chance, 0.95)
    # Resampling adds noise as sampling did, so the interval is turned round the error.
    low, high = 2 * error - np.quantile(resampled, [0.975, 0.025])
    if error <= highest_by_chance:  # the probabilities may be true
        low = 0
    if n_groups == 1:  # which tells nothing
        low, high = 0, 1
    used = np.unique(bins)
    mean_confidence = np.array([confidence[bins == each].mean() for each in used])
    accuracies = [interval_of_right(is_right[bins == each], groups[bins == each]) for each in used]
    # A calibrated model's accuracy in the bin, as the same cells would show it.
    consistent = mean_confidence - np.quantile(calibrated[:, used], [0.975, 0.025], axis=0)
    return Bunch(
        error=float(error),
        error_interval=(max(0.0, float(low)), float(max(error, high))),
        error_by_chance=float(by_chance.mean()),
        error_by_chance_high=float(highest_by_chance),
        curve=Bunch(
            confidence=mean_confidence,
            accuracy=np.array([value for value, _, _ in accuracies]),
            accuracy_interval=np.array([limits for _, *limits in accuracies]),
            if_calibrated_interval=consistent.clip(0, 1).T,
            n_images=np.bincount(bins)[used],
        ),
    )


def _error(means: np.ndarray) -> np.ndarray:
    """Return the calibration error of the surplus in each bin (..., N_BINS) a sample."""
    return np.abs(means).sum(axis=-1)


def _simulate_calibrated(
    confidence: np.ndarray,
    is_right: np.ndarray,
    groups: np.ndarray,
    bins: np.ndarray,
    random: np.random.Generator,
) -> np.ndarray:
    """Return the mean surplus in each bin (N_SIMULATED, N_BINS) if the confidences were true.

    Images of a group are right together as often as they are here: with that probability an image
    takes the group's number, else one of its own, and is right if it is below the confidence.
    """
    n_groups = groups.max() + 1
    counts = np.bincount(groups)[:, None]
    together = correlation(counts, np.bincount(groups, is_right).astype(int)[:, None])
    n_in_bin = np.maximum(np.bincount(bins, minlength=N_BINS), 1)
    expected = np.bincount(bins, confidence, N_BINS)
    surplus = np.empty((N_SIMULATED, N_BINS))
    for each in surplus:
        of_group, own, which = (
            random.random(count, dtype=np.float32) for count in (n_groups, len(groups), len(groups))
        )
        is_right = np.where(which < np.sqrt(together), of_group[groups], own) < confidence
        each[:] = (expected - np.bincount(bins[is_right], minlength=N_BINS)) / n_in_bin
    return surplus


def risk_coverage(confidence: np.ndarray, is_right: np.ndarray, groups: np.ndarray) -> Bunch:
    """Return the share of wrong calls if only the surest images are called.

    Parameters are those of :func:`calibration`; the result is as :func:`evaluate` describes it.
    """
    order = np.argsort(-confidence, kind="stable")
    counts = np.unique(np.ceil(COVERAGES * len(order)).astype(int))
    risks, limits = [], []
    for count in counts:
        rows = order[:count]
        accuracy, low, high = interval_of_right(is_right[rows], groups[rows])
        risks.append(1 - accuracy)
        limits.append((1 - high, 1 - low))
    return Bunch(
        coverage=counts / len(order),
        risk=np.array(risks),
        risk_interval=np.array(limits),
        least_confidence=confidence[order[counts - 1]],
    )
