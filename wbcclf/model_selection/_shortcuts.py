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

from wbcclf.model_selection._intervals import group_bootstrap

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


def find_shortcuts(predicted: np.ndarray, y: np.ndarray, groups: np.ndarray) -> list[Shortcut]:
    """Return the classes that predictions without the cell tell from others, surest first."""
    found: list[Shortcut] = []
    if min(len(np.unique(groups)), len(np.unique(y))) < 2:
        return found
    for label in np.unique(y):
        is_class, is_called = y == label, predicted == label
        recall, specificity = is_called[is_class].mean(), (~is_called[~is_class]).mean()
        if (recall + specificity) / 2 <= SUSPECT:
            continue
        score = group_bootstrap("balanced_accuracy", is_class, is_called, groups)
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


def predict_from_fact(values: Sequence[str], y: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the class in which each picture's value is most frequent, in all other groups.

    Parameters
    ----------
    values : sequence of str
        A fact of each picture's file.
    y : ndarray of shape (n_pictures,), str
    groups : ndarray of shape (n_pictures,), int

    Returns
    -------
    ndarray of shape (n_pictures,), str
        Empty where no other group has the value.
    """
    classes, labels = np.unique(y, return_inverse=True)
    _, value = np.unique(np.array(values, dtype=object), return_inverse=True)
    _, group = np.unique(groups, return_inverse=True)
    n_classes = len(classes)

    def count(keys: np.ndarray) -> np.ndarray:
        return np.bincount(keys * n_classes + labels, minlength=(keys.max() + 1) * n_classes)

    def counts(keys: np.ndarray) -> np.ndarray:
        return count(keys).reshape(-1, n_classes)[keys]

    both = np.unique(group * (value.max() + 1) + value, return_inverse=True)[1]
    with_value = counts(value) - counts(both)
    in_class = np.bincount(labels) - counts(group)
    shares = with_value / np.maximum(in_class, 1)
    return np.where(shares.any(axis=1), classes[shares.argmax(axis=1)], "")


def bin_sizes(sizes: Sequence[str]) -> list[str]:
    """Return sizes such as "360 x 363", or ranges of the longer side if there are many of them."""
    if len(set(sizes)) <= MOST_VALUES:
        return list(sizes)
    # A header that cannot be read has no numbers.
    numbers = [[int(number) for number in re.findall(r"\d+", size)] for size in sizes]
    sides = np.array([max(each, default=0) for each in numbers])
    edges = np.unique(np.quantile(sides, np.linspace(0, 1, MOST_VALUES + 1)[1:-1], method="lower"))
    return [f"bin {place}" for place in np.searchsorted(edges, sides, side="right")]


def predict_from_colour(colours: np.ndarray, y: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the class that a colour (n_pictures, 3) predicts, in pictures of other groups.

    A logistic regression on the three numbers, their squares and products, in which each class
    weighs the same. Classes with a single group are never predicted.

    Returns
    -------
    ndarray of shape (n_pictures,), str
        Empty for classes with a single group, or if fewer than two have several.
    """
    n_groups = {label: len(np.unique(groups[y == label])) for label in np.unique(y)}
    several = [label for label, n in n_groups.items() if n > 1]
    predicted = np.full(len(y), "", dtype=y.dtype)
    if len(several) < 2:
        return predicted
    rows = np.isin(y, several)
    folds = StratifiedGroupKFold(
        min(N_FOLDS, min(n_groups[label] for label in several)), shuffle=True, random_state=0
    )
    model = make_pipeline(
        StandardScaler(),
        PolynomialFeatures(2, include_bias=False),
        StandardScaler(),
        LogisticRegression(class_weight="balanced", max_iter=1000),
    )
    predicted[rows] = cross_val_predict(
        model, colours[rows].astype(float), y[rows], groups=groups[rows], cv=folds
    )
    return predicted
