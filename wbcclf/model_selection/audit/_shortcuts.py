"""Whether something beside the cell gives its class away: the file's header, or a mean colour."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from wbcclf.model_selection.intervals._intervals import group_bootstrap

# Balanced accuracy of one class against all others: 0.5 is chance, 1 gives the class away. What
# counts is the lower limit of its interval by cell, so that few cells raise no alarm.
TOLD, SUSPECT = 0.75, 0.6
MOST_VALUES = 16  # of a fact, such as the size of pictures; more are put into so many bins
N_FOLDS = 5


class Shortcut(NamedTuple):
    """A class that something tells from all others.

    Attributes
    ----------
    label : str
    recall, specificity : float
        Share of the class's pictures, and of all others, that are told rightly.
    score, low : float
        Balanced accuracy, the mean of both, and the lower limit of its 95% interval.
    """

    label: str
    recall: float
    specificity: float
    score: float
    low: float


def find_shortcuts(is_called: np.ndarray, y: np.ndarray, groups: np.ndarray) -> list[Shortcut]:
    """Return the classes that calls without the cell tell from others, surest first.

    Parameters
    ----------
    is_called : ndarray of shape (n_pictures, n_classes), bool
        Which pictures are called each class of `y`, in sorted order.
    y : ndarray of shape (n_pictures,), str
    groups : ndarray of shape (n_pictures,), int
    """
    found: list[Shortcut] = []
    if min(len(np.unique(groups)), len(np.unique(y))) < 2:
        return found
    for label, called in zip(np.unique(y), is_called.T, strict=True):
        is_class = y == label
        recall, specificity = called[is_class].mean(), (~called[~is_class]).mean()
        if (recall + specificity) / 2 <= SUSPECT:
            continue
        score = group_bootstrap("balanced_accuracy", is_class, called, groups)
        if score.low > SUSPECT:
            found.append(
                Shortcut(
                    str(label),
                    float(recall),
                    float(specificity),
                    float(score.value),
                    float(score.low),
                )
            )
    return sorted(found, key=lambda shortcut: -shortcut.low)


def call_by_fact(values: Sequence[str], y: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return which pictures a fact calls each class (n_pictures, n_classes), bool.

    A picture is called a class if its value is more frequent there than in all other classes
    together, not counting the picture's own group. Several classes may share a value.

    Parameters
    ----------
    values : sequence of str
        A fact of each picture's file.
    y : ndarray of shape (n_pictures,), str
    groups : ndarray of shape (n_pictures,), int
    """
    classes, labels = np.unique(y, return_inverse=True)
    _, value = np.unique(np.array(values, dtype=object), return_inverse=True)
    _, group = np.unique(groups, return_inverse=True)
    n_classes = len(classes)

    def counts(keys: np.ndarray) -> np.ndarray:
        """Return how many pictures of each class have each picture's key."""
        length = (keys.max() + 1) * n_classes
        return np.bincount(keys * n_classes + labels, minlength=length).reshape(-1, n_classes)[keys]

    both = np.unique(group * (value.max() + 1) + value, return_inverse=True)[1]
    with_value = counts(value) - counts(both)
    of_all = np.bincount(labels) - counts(group)

    def in_others(each: np.ndarray) -> np.ndarray:
        return each.sum(axis=1, keepdims=True) - each

    # Shares compared without a division, since a class may have no other group.
    return with_value * in_others(of_all) > in_others(with_value) * of_all


def bin_sizes(sizes: Sequence[str]) -> list[str]:
    """Return sizes such as "360 x 363", or ranges of the longer side if there are many of them."""
    if len(set(sizes)) <= MOST_VALUES:
        return list(sizes)
    # A header that cannot be read has no numbers.
    numbers = [[int(number) for number in re.findall(r"\d+", size)] for size in sizes]
    sides = np.array([max(each, default=0) for each in numbers])
    edges = np.unique(np.quantile(sides, np.linspace(0, 1, MOST_VALUES + 1)[1:-1], method="lower"))
    return [f"bin {place}" for place in np.searchsorted(edges, sides, side="right")]


def call_by_colour(colours: np.ndarray, y: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return which pictures a colour (n_pictures, 3) calls each class (n_pictures, n_classes).

    One logistic regression for each class, on the three numbers, their squares and products,
    learned from pictures of other groups. No picture is called a class that has a single group, or
    that leaves the others a single one.
    """
    model = make_pipeline(
        StandardScaler(),
        PolynomialFeatures(2, include_bias=False),
        StandardScaler(),
        LogisticRegression(class_weight="balanced", max_iter=1000),
    )
    called = []
    for label in np.unique(y):
        is_class = y == label
        fewest = min(len(np.unique(groups[rows])) for rows in (is_class, ~is_class))
        if fewest < 2:
            called.append(np.zeros(len(y), dtype=bool))
            continue
        folds = StratifiedGroupKFold(min(N_FOLDS, fewest), shuffle=True, random_state=0)
        called.append(
            cross_val_predict(model, colours.astype(float), is_class, groups=groups, cv=folds)
        )
    return np.stack(called, axis=1)
