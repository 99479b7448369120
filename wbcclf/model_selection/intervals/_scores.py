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


def balanced_accuracy(confusion: np.ndarray, is_true: np.ndarray) -> np.ndarray:
    return recall(confusion, is_true)[..., is_true].mean(axis=-1)


def macro_f1(confusion: np.ndarray, is_true: np.ndarray) -> np.ndarray:
    return f1(confusion, is_true)[..., is_true].mean(axis=-1)


SCORES: dict[str, Score] = {
    score.__name__: score
    for score in (accuracy, balanced_accuracy, macro_f1, precision, recall, f1)
}
