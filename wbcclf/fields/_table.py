"""The table of a count: the cells of each class, their per cent, and how far to trust it."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from wbcclf._files import some
from wbcclf._labels import without_spelling
from wbcclf.fields._statistics import correct, wilson, wilson_ratio

UNCERTAIN = "uncertain"


def find_white(classes: list[str], not_white: Any) -> np.ndarray:
    """Return which of a model's classes are of white cells, shape (n_classes,), bool.

    Raises
    ------
    TypeError
        If `not_white` is no list of classes.
    ValueError
        If it names a class that the model does not know, or all of them, or if the model has a
        class that the table would take for its row of uncertain cells.
    """
    if isinstance(not_white, (str, bytes, Mapping)) or not np.iterable(not_white):
        raise TypeError(f"not_white must be a list of classes, got {not_white!r}.")
    for name in classes:
        if without_spelling(name) == UNCERTAIN:
            raise ValueError(
                f"The model has a class {name!r}. That is the name of the row for cells that are "
                "given no class. Train the model with another name for this class."
            )
    apart = {str(label) for label in not_white}
    unknown = sorted(apart - set(classes))
    if unknown or len(apart) == len(classes):
        what = (
            f"names {some(unknown, 5)}, unknown to the model"
            if unknown
            else "leaves no class of white cells"
        )
        raise ValueError(f"not_white {what}. The model's classes are {some(classes, 20)}.")
    return np.array([name not in apart for name in classes])


def make_table(
    labels: np.ndarray,
    status: np.ndarray,
    classes: list[str],
    is_white: np.ndarray,
    confusion: np.ndarray | None,
    random_state: int | np.random.RandomState | None,
) -> dict[str, np.ndarray]:
    """Return the columns of the table.

    Parameters
    ----------
    labels : ndarray of shape (n_cells,), int
        Place of each cell's class in `classes`.
    status : ndarray of shape (n_cells,), str
        "called", "uncertain" or "border".
    classes : list of str
    is_white : ndarray of shape (n_classes,), bool
        Their cells add up to 100 per cent. The others are given per 100 of these cells.
    confusion : ndarray of shape (n_classes, n_classes), int, or None
        As :func:`read_confusion` returns it.
    random_state : int, RandomState or None

    Returns
    -------
    dict of ndarrays of shape (n_classes + 1,)
        The white classes come first, the uncertain cells last.
    """
    called = np.bincount(labels[status == "called"], minlength=len(classes))
    white, others = np.flatnonzero(is_white), np.flatnonzero(~is_white)
    order = np.concatenate([white, others])
    n_white = int(called[white].sum())
    own = np.concatenate([wilson(called[white], n_white), wilson_ratio(called[others], n_white)])
    for_all = np.full((len(classes), 2), np.nan)
    for_all[: len(white)] = wilson(called[white], n_white, len(white))
    columns = {
        "percent": called[order] / n_white if n_white else np.full(len(classes), np.nan),
        **_limits("{}", own),
        **_limits("{}_all", for_all),
    }
    if confusion is not None:
        counted = np.bincount(labels[status != "border"], minlength=len(classes))
        shares, limits = correct(counted, confusion, random_state, white)
        columns |= {"corrected": shares[order], **_limits("corrected_{}", limits[order])}
    return {
        "class": np.array([*np.array(classes)[order], UNCERTAIN]),
        "cells": np.append(called[order], np.count_nonzero(status == "uncertain")),
        **{name: np.append(100 * column, np.nan) for name, column in columns.items()},
    }


def _limits(name: str, limits: np.ndarray) -> dict[str, np.ndarray]:
    return {
        name.format(side): column for side, column in zip(("low", "high"), limits.T, strict=True)
    }


def read_confusion(evaluation: Any, classes: list[str]) -> np.ndarray:
    """Return the confusion matrix of an evaluation, in the order of a model's classes.

    Raises
    ------
    TypeError
        If `evaluation` has none.
    ValueError
        If it is of other classes, or a class has no cell.
    """
    if not isinstance(evaluation, Mapping) or not {"classes", "confusion"} <= set(evaluation):
        raise TypeError(
            "evaluation must be what evaluate returned, with classes and confusion, "
            f"got {type(evaluation).__name__}."
        )
    names = _names(evaluation["classes"])
    matrix = _counts(evaluation["confusion"], len(names))
    unknown = sorted(set(names) - set(classes))
    if unknown:
        raise ValueError(
            f"evaluation is of classes that the model does not know: {some(unknown, 5)}. The model "
            f"knows {some(classes, 20)}."
        )
    rows = {name: row for name, row in zip(names, matrix, strict=True) if row.any()}
    missing = [name for name in classes if name not in rows]
    if missing:
        raise ValueError(
            f"evaluation has no cell that truly is of class {some(missing, 5)}, so it does not "
            "show what the model takes such cells for. Evaluate on cells of every class."
        )
    column = {name: k for k, name in enumerate(names)}
    return np.array([rows[name][[column[other] for other in classes]] for name in classes])


def _names(classes: Any) -> list[str]:
    is_text = isinstance(classes, (str, bytes, Mapping))
    names = [str(label) for label in classes] if np.iterable(classes) and not is_text else []
    if not names or len(set(names)) < len(names):
        raise ValueError(
            "evaluation['classes'] must be a list of classes, each named once, got "
            f"{reprlib.repr(classes)}."
        )
    return names


def _counts(confusion: Any, n_classes: int) -> np.ndarray:
    expected = (
        "evaluation['confusion'] must hold counts of cells, one row and one column for each of "
        f"its {n_classes} classes, got "
    )
    try:
        matrix = np.asarray(confusion)
    except ValueError as error:  # NumPy makes no array of these
        raise ValueError(f"{expected}rows of different lengths.") from error
    if matrix.shape != (n_classes, n_classes) or matrix.dtype.kind not in "iu":
        raise ValueError(f"{expected}shape {matrix.shape} and dtype {matrix.dtype}.")
    if matrix.min() < 0:
        raise ValueError(f"{expected}{matrix.min()}.")
    return matrix
