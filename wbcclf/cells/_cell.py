"""What one white cell of a picture is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class Cell:
    """One white blood cell in a picture, as :func:`find_cells` returns it.

    Attributes
    ----------
    bbox : tuple of 4 int
        ``(min_row, min_col, max_row, max_col)`` in pixels of the picture, half-open as in
        scikit-image's ``regionprops``: ``image[min_row:max_row, min_col:max_col]`` holds the cell.
    cell : ndarray of shape (max_row - min_row, max_col - min_col), bool
        True in the whole cell: nucleus and cytoplasm.
    nucleus : ndarray of the same shape, bool
        True in the nucleus, which lies inside `cell`.
    score : float
        How certain it is that this is a white cell, not a platelet or dirt: 0.5 to 1. It grows with
        the areas of the nucleus and of the cell, measured in areas of a red cell.
    """

    bbox: tuple[int, int, int, int]
    cell: np.ndarray = field(repr=False)
    nucleus: np.ndarray = field(repr=False)
    score: float


def overlap(
    one: Sequence[int], other: Sequence[int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return what two boxes (top, left, bottom, right) share, as slices of each; may be empty."""
    top, left = max(one[0], other[0]), max(one[1], other[1])
    bottom, right = max(min(one[2], other[2]), top), max(min(one[3], other[3]), left)
    first, second = (
        (slice(top - box[0], bottom - box[0]), slice(left - box[1], right - box[1]))
        for box in (one, other)
    )
    return first, second
