"""What a classifier is for: images of one shape and scale, of known classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Domain:
    """The images and labels that a classifier is for."""

    classes: np.ndarray
    image_shape: tuple[int, int, int]
    value_range: tuple[float, float]
