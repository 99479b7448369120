"""How many points agree by chance, measured on the pictures; how sure links and groups are."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.isotonic import IsotonicRegression

# From so many points on, chance agreements become rarer by at least the same factor with each
# further point: every one has to lie near its place by chance, too. Three always agree.
FIRST, LAST = 5, 7  # the factor is measured from here to there: copies have more
FACTOR, N_PRIOR = 0.3, 10  # what is taken for it where few pairs tell: more than PBC's 0.19
EXPECTED = 0.01  # chance links among all that are strong
SURE = 0.99  # probability of a weak link


def chance_counts(agreeing: np.ndarray, of_others: np.ndarray) -> np.ndarray:
    """Return how many candidates are expected to have 0, 1, 2 ... agreeing points by chance.

    Parameters
    ----------
    agreeing, of_others : ndarray of int
        Agreeing points of the candidates, and of pairs that show different cells. Some of these may
        show the same cell after all (a wrong label): they have more points than are counted here.

    Returns
    -------
    ndarray of shape (n,), float
        From `FIRST` on; below, all are by chance.
    """
    n_first = np.count_nonzero((of_others >= FIRST) & (of_others <= LAST))
    n_next = np.count_nonzero((of_others > FIRST) & (of_others <= LAST + 1))
    factor = min((n_next + FACTOR * N_PRIOR) / (n_first + N_PRIOR), 1 / 2)
    counts = np.bincount(agreeing, minlength=FIRST + 1).astype(float)
    tail = np.arange(len(counts) - FIRST)
    counts[FIRST:] = (counts[FIRST] + 1) * factor**tail
    return counts


def link(
    pairs: np.ndarray, agreeing: np.ndarray, expected: np.ndarray, n_pictures: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return which candidates show the same, and the probability that each is not by chance.

    Strong links are so many points that hardly one link by chance is expected among all. Weak ones
    are probable one by one; so they join two groups of several pictures only if there are two of
    them: a single one would make a chain.
    """
    if not len(pairs):
        return np.empty(0, np.intp), np.empty(0)
    counts = np.bincount(agreeing, minlength=len(expected))
    certainty = np.clip(1 - expected / np.maximum(counts, 1), 0, 1)
    seen = counts > 0
    # More points are never less sure; scatter of small counts is smoothed.
    rising = IsotonicRegression(out_of_bounds="clip").fit(
        np.flatnonzero(seen), certainty[seen], sample_weight=counts[seen]
    )
    certainty = rising.predict(np.arange(len(expected)))
    # Of as many points or more.
    at_least = expected[::-1].cumsum()[::-1]
    is_strong = (at_least <= EXPECTED)[agreeing]
    is_weak = (certainty >= SURE)[agreeing] & ~is_strong
    groups = group_by(pairs[is_strong], n_pictures)
    weak = np.flatnonzero(is_weak)
    joined = np.sort(groups[pairs[weak]], axis=1)
    weak, joined = weak[joined[:, 0] != joined[:, 1]], joined[joined[:, 0] != joined[:, 1]]
    _, where, n_links = np.unique(joined, axis=0, return_inverse=True, return_counts=True)
    smaller = np.bincount(groups)[joined].min(axis=1)
    kept = weak[(n_links[where] > 1) | (smaller == 1)]
    chosen = np.union1d(np.flatnonzero(is_strong), kept)
    return chosen, certainty[agreeing[chosen]]


def group_by(pairs: np.ndarray, n_pictures: int) -> np.ndarray:
    """Return the number of each picture's group: what links join, directly or by others.

    Groups are numbered in the order in which they begin.
    """
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), [n_pictures, n_pictures])
    groups = connected_components(links, directed=False)[1]
    _, first, numbers = np.unique(groups, return_index=True, return_inverse=True)
    return first.argsort().argsort()[numbers]


def certainty_of_pictures(
    groups: np.ndarray, links: np.ndarray, certainty: np.ndarray
) -> np.ndarray:
    """Return how surely each picture (n_pictures,) hangs together with most of its group.

    The largest certainty so that links of this or more still join it to more than half of the
    group. So a weak link beside sure ones takes nothing away, and one that alone joins two parts
    counts for every picture of the smaller part. NaN for a picture that is alone.
    """
    n_pictures = len(groups)
    n_members = np.bincount(groups)[groups]
    found = np.full(n_pictures, np.nan)
    for least in np.unique(certainty):
        parts = group_by(links[certainty >= least], n_pictures)
        is_most = (2 * np.bincount(parts)[parts] > n_members) & (n_members > 1)
        found[is_most] = least
    return found
