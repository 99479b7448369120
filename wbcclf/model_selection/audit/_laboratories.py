"""Whether pictures are of two kinds: other stain, light, camera or scale."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import gaussian_kde
from sklearn.cluster import KMeans
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.preprocessing import RobustScaler

N_CLUSTERS = (2, 3, 4)
FEWEST, SMALLEST = 20, 0.05  # pictures of a kind, and their share, at least
# Density between two kinds, as a share of the lower one's peak. In one set or class it was 0.13 or
# more, in mixtures of two laboratories less than 0.001 (five sets: docs/audit.md).
VALLEY = 0.05
NARROWEST = 1e-4  # variance within kinds, of that of all: none is a line without a width
MOST = 5_000  # pictures that kinds are looked for in
N_GRID = 400


class Kinds(NamedTuple):
    """Pictures that fall into two kinds.

    Attributes
    ----------
    is_other : ndarray of shape (n_pictures,), bool
        Those of the smaller kind.
    valley : float
        How many pictures lie between the kinds: 0 none, 1 as many as in the smaller kind.
    position : ndarray of shape (n_pictures,), float
        On the axis that tells the kinds apart, from the border; positive for the smaller kind.
    """

    is_other: np.ndarray
    valley: float
    position: np.ndarray


def find_kinds(features: np.ndarray, random_state: np.random.RandomState) -> Kinds | None:
    """Return the clearest division of pictures into two kinds, or None if they are of one.

    k-means finds clusters. For each, linear discriminant analysis finds the axis that separates it
    best from all other pictures. Between two kinds the density along this axis has a valley. A
    cluster that was cut out of one kind has none.

    Parameters
    ----------
    features : ndarray of shape (n_pictures, n_features), float
    random_state : RandomState
    """
    if len(features) < 2 * FEWEST:
        return None
    rows = random_state.permutation(len(features))[:MOST]
    scaler = RobustScaler(quantile_range=(16, 84)).fit(features[rows])
    X = np.clip(scaler.transform(features), -5, 5)
    best = None
    n_different = len(np.unique(X[rows], axis=0))
    for n_clusters in [n for n in N_CLUSTERS if n <= n_different]:
        clusters = KMeans(n_clusters, n_init=5, random_state=random_state).fit_predict(X[rows])
        for cluster in range(n_clusters):
            kinds = _divide(X, rows, clusters == cluster)
            if kinds is not None and (best is None or kinds.valley < best.valley):
                best = kinds
    return best


def _divide(X: np.ndarray, rows: np.ndarray, is_one: np.ndarray) -> Kinds | None:
    """Return a cluster of `rows` and all others as kinds, unless there is no valley between."""
    if min(is_one.sum(), (~is_one).sum()) < FEWEST:
        return None
    axis = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(X[rows], is_one)
    position = axis.decision_function(X)
    seen = position[rows]
    if np.ptp(seen) == 0:
        return None
    grid = np.linspace(seen.min(), seen.max(), N_GRID)
    # As smooth as the kinds are wide, not as all pictures are: else a few fill the valley.
    n_one, n = is_one.sum(), len(seen)
    within = (seen[is_one].var() * n_one + seen[~is_one].var() * (n - n_one)) / n / seen.var()
    smooth = n**-0.2 * np.sqrt(max(within, NARROWEST))
    density = gaussian_kde(seen, smooth)(grid)
    low, high = sorted([seen[is_one].mean(), seen[~is_one].mean()])
    between = np.flatnonzero((grid >= low) & (grid <= high))
    bottom = between[density[between].argmin()]
    valley = density[bottom] / min(density[: bottom + 1].max(), density[bottom:].max())
    is_above = position > grid[bottom]
    sign = 1 if is_above.mean() <= 0.5 else -1
    is_other = is_above if sign == 1 else ~is_above
    is_few = is_other.sum() < FEWEST or is_other.mean() < SMALLEST
    if is_few or valley > VALLEY:
        return None
    return Kinds(is_other, float(valley), sign * (position - grid[bottom]))
