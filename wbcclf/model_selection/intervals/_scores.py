"""Scores as functions of a confusion matrix, or of a stack of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# Each takes matrices (..., n_classes, n_classes), true classes in rows, and which classes are true
# ones; it returns figures (...,), or (..., n_classes) where it is of each class.
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(np.shape(whole)), where=whole > 0)


def _right(confusion: np.ndarray) -> np.ndarray:
    return np.diagonal(confusion, axis1=-2, axis2=-1)


def accuracy(confusion: np.ndarray, is_true: np.ndarray) -> np.ndarray:
    return _share(_right(confusion).sum(axis=-1), confusion.sum(axis=(-2, -1)))


def recall(confusion: np.ndarray, is_true: np.ndarray) -> np.ndarray:
    return _share(_right(confusion), confusion.sum(axis=-1))


def precision(confusion: np.ndarray, is_true: np.ndarray) -> np.ndarray:
    return _share(_right(confusion), confusion.sum(axis=-2))


def f1(confusion: np.ndarray, is_true: np.ndarray) -> np.ndarray:
    both = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    return _share(2 * _right(confusion), both)


def specificity(confusion: np.ndarray, is_true: np.ndarray) -> np.ndarray:
    """Return which share of the other classes' images is not called the class."""
    others = confusion.sum(axis=(-2, -1))[..., None] - confusion.sum(axis=-1)
    return _share(others - (confusion.sum(axis=-2) - _right(confusion)), others)


def balanced_accuracy(confusion: np.ndarray, is_true: np.ndarray) -> np.ndarray:
    return recall(confusion, is_true)[..., is_true].mean(axis=-1)


def macro_f1(confusion: np.ndarray, is_true: np.ndarray) -> np.ndarray:
    return f1(confusion, is_true)[..., is_true].mean(axis=-1)


def macro_precision(confusion: np.ndarray, is_true: np.ndarray) -> np.ndarray:
    return precision(confusion, is_true)[..., is_true].mean(axis=-1)


def macro_specificity(confusion: np.ndarray, is_true: np.ndarray) -> np.ndarray:
    return specificity(confusion, is_true)[..., is_true].mean(axis=-1)


def mcc(confusion: np.ndarray, is_true: np.ndarray) -> np.ndarray:
    """Return Matthews's correlation coefficient of several classes (Gorodkin 2004)."""
    n, true, called = _sums(confusion)
    both = n * _right(confusion).sum(axis=-1) - (true * called).sum(axis=-1)
    squares = (n**2 - (true**2).sum(axis=-1)) * (n**2 - (called**2).sum(axis=-1))
    squares = np.maximum(squares, 0)  # rounding, of weights
    return np.divide(both, np.sqrt(squares), out=np.zeros(np.shape(n)), where=squares > 0)


def kappa(confusion: np.ndarray, is_true: np.ndarray) -> np.ndarray:
    """Return Cohen's kappa."""
    n, true, called = _sums(confusion)
    by_chance = (true * called).sum(axis=-1)
    more = n * _right(confusion).sum(axis=-1) - by_chance
    return np.divide(more, n**2 - by_chance, out=np.zeros(np.shape(n)), where=n**2 > by_chance)


def _sums(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the images, those of each class, and those called each class, as floats."""
    confusion = np.asarray(confusion, dtype=float)
    return confusion.sum(axis=(-2, -1)), confusion.sum(axis=-1), confusion.sum(axis=-2)


SCORES: dict[str, Score] = {
    score.__name__: score
    for score in (
        *(accuracy, balanced_accuracy, macro_precision, macro_specificity, macro_f1, mcc, kappa),
        *(precision, recall, specificity, f1),
    )
}
# The lowest value, where it is not 0; the highest is 1.
LOWEST = {"mcc": -1.0, "kappa": -1.0}
