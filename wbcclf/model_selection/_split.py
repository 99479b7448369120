"""One split into training and test, in which no cell is on both sides."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from wbcclf._files import some
from wbcclf._images import Interval
from wbcclf._labels import check_labels
from wbcclf._warnings import warn
from wbcclf.exceptions import SmallClassWarning
from wbcclf.model_selection.intervals._intervals import check_groups

# So many splits are drawn. Of the first with every class on both sides, that with the most even
# shares of images is taken. To compare more would choose the same groups for every seed.
N_DRAWS, N_COMPARED = 100, 5


def train_test_split_cells(
    y: Any,
    groups: Any,
    *,
    test_size: float = 0.2,
    random_state: int | np.random.RandomState | None = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Split images into training and test, so that no cell is on both sides.

    Every class with two groups or more is on both sides.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Labels: text, or whole numbers.
    groups : array-like of shape (n_samples,)
        What each image shows: a cell, a slide, a patient. Two groups or more. A group may have
        images of several classes.
    test_size : float, default=0.2
        Share of the groups of every class that is for the test, between 0 and 1: rounded, but at
        least one group, and never all. Groups count, not images: a score on forty copies of one
        cell is hardly surer than on one (:func:`group_bootstrap`), and how many copies there are
        is chance. The share of the images is near it, unless a class has few groups, or some
        much larger than others.
    random_state : int, RandomState instance or None, default=0
        What is drawn.

    Returns
    -------
    train, test : ndarray of shape (n_train,) and (n_test,), int
        Rows of the images, in rising order, as scikit-learn's splitters give them. So images,
        labels, groups and paths can all be split, and no image is copied until you do.

    Raises
    ------
    TypeError
        If `y` or `groups` is not array-like.
    ValueError
        If the lengths differ, there are fewer than two groups, a group is missing (None, NaN),
        labels are not of one kind, `test_size` is not between 0 and 1, or none of 100 random
        splits has every class with two groups or more on both sides.

    Warns
    -----
    SmallClassWarning
        Of classes with one group only. They are trained on, and not tested.

    See Also
    --------
    find_image_groups : Finds the groups.
    sklearn.model_selection.StratifiedGroupKFold : For cross-validation.
    sklearn.model_selection.GroupShuffleSplit : Splits by group, whatever the classes.

    Notes
    -----
    The groups of each class are drawn, the class with the fewest first, since a group with several
    classes counts for all of them (Sechidis et al. 2011, "On the stratification of multi-label
    data", https://doi.org/10.1007/978-3-642-23808-6_10). Of five such splits the one is returned in
    which the test has most nearly `test_size` of the images of each class, too.

    A fold of `StratifiedGroupKFold` keeps the shares of the images, but may hold none of the groups
    of a rare class, or all of them.

    Examples
    --------
    Six cells of one class and three of another, four images of each.

    >>> import numpy as np
    >>> from wbcclf.model_selection import train_test_split_cells
    >>> cell = np.repeat(np.arange(9), 4)
    >>> y = np.where(cell < 6, "neutrophil", "monocyte")
    >>> train, test = train_test_split_cells(y, cell, test_size=1 / 3)
    >>> len(train), len(test), np.unique(y[test]).tolist()
    (24, 12, ['monocyte', 'neutrophil'])
    >>> np.intersect1d(cell[train], cell[test]).tolist()
    []
    """
    if not Interval(Real, 0, 1, closed="neither").is_satisfied_by(test_size):
        raise ValueError(f"test_size must lie between 0 and 1, such as 0.2, got {test_size!r}.")
    y = check_labels(y, "y")
    if not len(y):
        raise ValueError("y is empty: there is nothing to split.")
    groups = check_groups(groups, len(y), "y", "a split by group")
    random = check_random_state(random_state)
    classes, codes = np.unique(y, return_inverse=True)
    n_images = np.zeros((groups.max() + 1, len(classes)), dtype=np.intp)
    np.add.at(n_images, (groups, codes), 1)
    n_groups = (n_images > 0).sum(axis=0)
    # Of one group none is tested: clip takes its upper bound where that is below the lower one.
    wanted = np.rint(test_size * n_groups).clip(1, n_groups - 1).astype(np.intp)
    drawn = [_draw(n_images > 0, wanted, random) for _ in range(N_DRAWS)]
    drawn.sort(key=lambda in_test: len(_apart(n_images, in_test)))  # stable: else as drawn
    _check_sides(classes[_apart(n_images, drawn[0])], drawn[0])
    possible = [in_test for in_test in drawn if not len(_apart(n_images, in_test))]
    in_test = min(
        possible[:N_COMPARED], key=lambda in_test: _unevenness(n_images, in_test, test_size)
    )
    _warn_of_single_groups(classes[n_groups == 1].tolist())
    return np.flatnonzero(~in_test[groups]), np.flatnonzero(in_test[groups])


def _draw(shown: np.ndarray, wanted: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Return which groups are for the test (n_groups,), drawn class by class, rarest first.

    Parameters
    ----------
    shown : ndarray of shape (n_groups, n_classes), bool
        Which classes a group shows.
    wanted : ndarray of shape (n_classes,), int
        Groups of each class for the test.
    random : RandomState
    """
    in_test = np.zeros(len(shown), dtype=bool)
    is_open = np.ones(len(shown), dtype=bool)
    ties = random.random_sample(len(wanted))
    for label in np.lexsort((ties, shown.sum(axis=0))):
        n_more = max(0, wanted[label] - np.count_nonzero(shown[:, label] & in_test))
        members = np.flatnonzero(shown[:, label] & is_open)
        in_test[random.permutation(members)[:n_more]] = True
        is_open[members] = False
    return in_test


def _apart(n_images: np.ndarray, in_test: np.ndarray) -> np.ndarray:
    """Return the classes with two groups or more that have images on one side only."""
    n_groups, n_tested = (n_images > 0).sum(axis=0), (n_images[in_test] > 0).sum(axis=0)
    return np.flatnonzero((n_groups > 1) & ((n_tested == 0) | (n_tested == n_groups)))


def _unevenness(n_images: np.ndarray, in_test: np.ndarray, test_size: float) -> float:
    """Return how far the share of the images of each class is off, in all."""
    shares = n_images[in_test].sum(axis=0) / n_images.sum(axis=0)
    return float(np.abs(shares - test_size).sum())


def _check_sides(apart: np.ndarray, in_test: np.ndarray) -> None:
    """Fail if a class is on one side that should be on both, or if there is no test."""
    if len(apart):
        raise ValueError(
            f"No split was found with images of {some([*map(str, apart)], 5)} in training and in "
            "test: their groups also show other classes with few groups. Give smaller groups "
            "(cells, not patients), join classes, or leave the rarest out."
        )
    if not in_test.any():
        raise ValueError(
            "Every class has one group only, so nothing is left to test on. Give images of more "
            "cells, or smaller groups."
        )


def _warn_of_single_groups(classes: list) -> None:
    if classes:
        warn(
            f"Classes with one group only: {some([*map(str, classes)], 5)}. They are trained on, "
            "but not tested. Give images of a second cell of each to test them.",
            SmallClassWarning,
        )
