"""How good a classifier is: the figures that imbalanced classes need, and their picture."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import (
    accuracy_score,
    precision_recall_fscore_support,
)
from sklearn.utils import Bunch
from sklearn.utils.multiclass import unique_labels
from sklearn.utils.validation import check_consistent_length

from wbcclf.inspection._drawing import drawing


def evaluate_predictions(y_true: Any, y_pred: Any) -> Bunch:
    """Return the figures of a classifier's predictions.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n_samples,)
        True and predicted labels.

    Returns
    -------
    Bunch
        With the attributes

        n_samples : int
        accuracy : float
        accuracy_interval : tuple of 2 floats
            Wilson's 95% interval (Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953),
            which counts every image as an independent cell: with copies of cells among the images
            the truth is less certain than it says.
        balanced_accuracy : float
            Mean recall of the classes in `y_true`.
        macro_f1 : float
            Mean F1 of all classes, rare and common alike.
        classes : ndarray of shape (n_classes,)
            All labels in either array, sorted.
        precision, recall, f1 : ndarray of shape (n_classes,)
            0 where undefined (a class never predicted or never true).
        support : ndarray of shape (n_classes,), int
            True images of each class.
        confusion : ndarray of shape (n_classes, n_classes), int
            Rows are true, columns predicted.

    Raises
    ------
    ValueError
        If the arrays are empty or of different lengths.

    Examples
    --------
    >>> from wbcclf.inspection import evaluate_predictions
    >>> result = evaluate_predictions(["mono", "mono", "lymph"], ["mono", "lymph", "lymph"])
    >>> round(result.accuracy, 3), round(result.macro_f1, 3), result.confusion.tolist()
    (0.667, 0.667, [[1, 0], [1, 1]])
    """
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    check_consistent_length(y_true, y_pred)
    if not len(y_true):
        raise ValueError("y_true is empty: there is nothing to evaluate.")
    classes = unique_labels(y_true, y_pred)
    precision, recall, f1, support = precision_recall_fscore_support(
        y_true, y_pred, labels=classes, zero_division=0.0
    )
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(confusion, (np.searchsorted(classes, y_true), np.searchsorted(classes, y_pred)), 1)
    n_right = int(np.count_nonzero(y_true == y_pred))
    interval = binomtest(n_right, len(y_true)).proportion_ci(method="wilson")
    return Bunch(
        n_samples=len(y_true),
        accuracy=float(accuracy_score(y_true, y_pred)),
        accuracy_interval=(float(interval.low), float(interval.high)),
        # Not balanced_accuracy_score, which warns where a class is only ever predicted.
        balanced_accuracy=float(recall[support > 0].mean()),
        macro_f1=float(f1.mean()),
        classes=classes,
        precision=precision,
        recall=recall,
        f1=f1,
        support=support,
        confusion=confusion,
    )


def save_confusion_matrix(evaluation: Bunch, path: str | os.PathLike) -> None:
    """Draw the confusion matrix, shaded by recall and labelled with counts, to a picture file.

    Parameters
    ----------
    evaluation : Bunch
        What :func:`evaluate_predictions` returned.
    path : str or path
        The suffix gives the format: ``.png``, ``.svg``, ``.pdf``.

    Raises
    ------
    ImportError
        If matplotlib is not installed; the message says how to install it.
    """
    classes, confusion = evaluation.classes, evaluation.confusion
    side = 2.5 + 0.6 * len(classes)
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    with drawing(path, side, side) as axes:
        axes.imshow(share, vmin=0, vmax=1, cmap="Blues")
        for row, column in np.ndindex(confusion.shape):
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, confusion[row, column], ha="center", va="center", color=colour)
        axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
        axes.set_yticks(range(len(classes)), classes)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.set_title(f"accuracy {evaluation.accuracy:.3f}, macro-F1 {evaluation.macro_f1:.3f}")
