"""The share of each class with its interval, and corrected for a classifier's errors."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm
from sklearn.utils import check_random_state

CONFIDENCE = 0.95
DRAWS = 2000
STEPS = 300  # of the correction; its likelihood is concave, and later steps change no printed digit


def wilson(counts: np.ndarray, total: int, n_intervals: int = 1) -> np.ndarray:
    """Return the 95% intervals (n_classes, 2) of shares that were counted.

    Parameters
    ----------
    counts : ndarray of shape (n_classes,), int
    total : int
        Cells that were counted; without any, the intervals are NaN.
    n_intervals : int, default=1
        How many of them hold at once with that confidence.

    Notes
    -----
    Wilson's interval (1927, 10.1080/01621459.1927.10502953). With Bonferroni's correction, it is
    the simultaneous interval of Goodman (1965, 10.1080/00401706.1965.10490252).
    """
    if total == 0:
        return np.full((len(counts), 2), np.nan)
    # As binomtest of SciPy, which is slow: it tests, too.
    z2 = norm.isf((1 - CONFIDENCE) / (2 * n_intervals)) ** 2 / total
    share = counts / total
    half = np.sqrt(z2 * share * (1 - share) + (z2 / 2) ** 2)
    limits = np.stack([share + z2 / 2 - half, share + z2 / 2 + half], axis=1) / (1 + z2)
    return np.clip(limits, 0, 1)  # rounding


def wilson_ratio(counts: np.ndarray, n_white: int) -> np.ndarray:
    """Return the 95% intervals (n_classes, 2) of cells per white cell.

    Parameters
    ----------
    counts : ndarray of shape (n_classes,), int
        Cells that are not white, which are counted beside these.
    n_white : int
        White cells; without any, the intervals are NaN.

    Notes
    -----
    Both numbers depend on how much blood was looked at. Their sum does, too, and nothing else does
    if it is taken as given: each cell then is of the class with the probability p, so that Wilson's
    interval holds p. The ratio is p / (1 - p), which grows with p.
    """
    if n_white == 0:
        return np.full((len(counts), 2), np.nan)
    limits = [wilson(counts[[k]], count + n_white)[0] for k, count in enumerate(counts)]
    shares = np.reshape(limits, (-1, 2))
    return shares / (1 - shares)


def correct(
    counts: np.ndarray,
    confusion: np.ndarray,
    random_state: int | np.random.RandomState | None,
    white: np.ndarray | slice = np.s_[:],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the true cells of each class per white cell, and 95% intervals of them.

    Parameters
    ----------
    counts : ndarray of shape (n_classes,), int
        Cells of each predicted label.
    confusion : ndarray of shape (n_classes, n_classes), int
        Test cells: true classes in rows, predicted ones in columns. No row is empty.
    random_state : int, RandomState or None
    white : ndarray of int, or slice
        The classes whose cells are white. If all are, the result is their shares.

    Returns
    -------
    ndarray of shape (n_classes,)
    ndarray of shape (n_classes, 2)

    Notes
    -----
    The shares of highest likelihood: where no class is at 0, the adjusted count of Rogan and Gladen
    (1978, 10.1093/oxfordjournals.aje.a112510), which is the inverse of the confusion matrix times
    what was counted. The interval holds them, and the middle 95% of what `DRAWS` draws of counts
    and confusion matrix give, both from Dirichlet distributions: the parameters are the counts plus
    1/2 (of Jeffreys), and the test cells plus one for a whole row. Multinomial draws would never
    give what was not seen, so that a class of none would have no interval.
    """
    if counts[white].sum() == 0:
        return np.full(len(counts), np.nan), np.full((len(counts), 2), np.nan)
    random = check_random_state(random_state)
    recall = confusion / confusion.sum(axis=1, keepdims=True)
    shares = _most_likely(counts[None] / counts.sum(), recall[None])
    drawn = _most_likely(
        _dirichlet(counts + 0.5, random), _dirichlet(confusion + 1 / len(confusion), random)
    )
    (ratios,), drawn = _per_white(shares, white), _per_white(drawn, white)
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    # Nearly no draw has as much as all, or as little as none: the interval would leave these out.
    return ratios, np.stack([np.minimum(low, ratios), np.maximum(high, ratios)], axis=1)


def _per_white(shares: np.ndarray, white: np.ndarray | slice) -> np.ndarray:
    """Return shares (n, n_classes) as cells per white cell."""
    # If all that were called white may be errors, there is no upper limit, but a finite number.
    return shares / np.maximum(shares[:, white].sum(axis=1, keepdims=True), 1e-9)


def _dirichlet(parameters: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Return draws (DRAWS, ..., n); small parameters may give a gamma variable of 0."""
    gamma = random.standard_gamma(parameters, (DRAWS, *parameters.shape)) + 1e-300
    return gamma / gamma.sum(axis=-1, keepdims=True)


def _most_likely(predicted: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """Return true shares (n, n_classes) by expectation maximisation.

    For positive linear systems: Vardi and Lee (1993, 10.1111/j.2517-6161.1993.tb01925.x).

    Parameters
    ----------
    predicted : ndarray of shape (n, n_classes)
        Shares of predicted labels.
    recall : ndarray of shape (n, n_classes, n_classes)
        Share of each predicted label (columns) in each true class (rows).
    """
    shares = np.full_like(predicted, 1 / predicted.shape[1])
    for _ in range(STEPS):
        expected = np.maximum(np.einsum("ni,nij->nj", shares, recall), 1e-300)
        shares = shares * np.einsum("nij,nj->ni", recall, predicted / expected)
    return shares / shares.sum(axis=1, keepdims=True)
