"""Checks of labels, before any work."""

from __future__ import annotations

from collections.abc import Mapping, Set
from numbers import Real
from typing import Any

import numpy as np


def check_labels(y: Any, name: str) -> np.ndarray:
    """Return labels as an array of text or of numbers.

    Raises
    ------
    TypeError
        If `y` is not array-like.
    ValueError
        If it has another shape than (n_samples,), or holds anything but labels of one kind.
    """
    if hasattr(type(y), "predict"):
        raise TypeError(
            f"{name} must be labels, got a model, {type(y).__name__}. Give model.predict(X), or "
            "call evaluate(model, X, y)."
        )
    if isinstance(y, (str, bytes, Mapping, Set)) or not np.iterable(y):
        raise TypeError(f"{name} must be an array-like of labels, got {type(y).__name__}.")
    if not hasattr(y, "__array__"):
        y = np.array(list(y), dtype=object)  # otherwise NumPy makes text of the 1 in ["a", 1]
    labels = np.asarray(y)
    if labels.ndim != 1:
        raise ValueError(
            f"{name} must hold one label for each image, shape (n_samples,), got {labels.shape}. "
            "From probabilities, take the most probable class: "
            "classes_[probabilities.argmax(axis=1)]."
        )
    if labels.dtype.kind in "Ubiu":
        return labels
    items = labels.tolist()
    for row, label in enumerate(items):
        is_text = isinstance(label, str)
        if not is_text and not (isinstance(label, (Real, np.bool_)) and label % 1 == 0):
            raise ValueError(
                f"{name}[{row}] is {label!r}, but {name} must be text or whole numbers. Leave out "
                "images without one; from probabilities, take the most probable class."
            )
        if is_text != isinstance(items[0], str):
            raise ValueError(
                f"{name} holds text as well as numbers: {name}[0] is {items[0]!r}, {name}[{row}] "
                f"is {label!r}. Make all labels one type."
            )
    return np.array(items)


def without_spelling(label: str) -> str:
    """Return what all spellings of a class have in common.

    Examples
    --------
    >>> without_spelling("Neutrophil ") == without_spelling("NEUTROPHIL")
    True
    """
    return label.strip().casefold()


def check_same_classes(one: np.ndarray, other: np.ndarray, names: tuple[str, str]) -> None:
    """Fail if two arrays of labels cannot mean the same classes.

    Raises
    ------
    ValueError
        If one holds text and the other numbers, or if they spell a class in two ways.
    """
    if not len(one) or not len(other):
        return
    if (one.dtype.kind == "U") != (other.dtype.kind == "U"):
        raise ValueError(
            f"{names[0]} holds labels such as {one[0].item()!r}, {names[1]} such as "
            f"{other[0].item()!r}: text and numbers are never equal. Make both one type."
        )
    if one.dtype.kind != "U":
        return
    ones, others = set(one.tolist()), set(other.tolist())
    spelled = {without_spelling(label): label for label in others - ones}
    for label in sorted(ones - others):
        twin = spelled.get(without_spelling(label))
        if twin is not None:
            raise ValueError(
                f"{names[0]} holds {label!r}, {names[1]} {twin!r}: they would count as two "
                "classes. Spell each class in one way."
            )
