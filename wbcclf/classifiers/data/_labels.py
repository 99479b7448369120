"""Labels as class numbers, and what each row weighs."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight


def encode_labels(y: np.ndarray, classes: np.ndarray, used: Any, name: str) -> np.ndarray:
    """Return the class number of every label; rows not in `used` may hold any label.

    Raises
    ------
    ValueError
        If a used label is not among the classes; the message names both.
    """
    unknown = np.setdiff1d(y[used], classes)
    if len(unknown):
        raise ValueError(
            f"{name} holds labels that are not among the classes {classes.tolist()}: "
            f"{unknown.tolist()}."
        )
    return np.searchsorted(classes, y).clip(max=len(classes) - 1)


def total_weight(
    sample_weight: np.ndarray,
    class_weight: Any,
    classes: np.ndarray,
    y: np.ndarray,
    train: np.ndarray,
) -> np.ndarray:
    """Return sample weight times class weight; "balanced" counts the rows in `train` alone."""
    if class_weight is None:
        return sample_weight
    if isinstance(class_weight, dict):
        # Checked against all classes: a batch of partial_fit need not hold every one.
        compute_class_weight(class_weight, classes=classes, y=classes)
        present = set(np.unique(y).tolist())
        of_present = {label: w for label, w in class_weight.items() if label in present}
        return sample_weight * compute_sample_weight(of_present, y)
    return sample_weight * compute_sample_weight(class_weight, y, indices=train)
