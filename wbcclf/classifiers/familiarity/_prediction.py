"""What a prediction says: probabilities, how familiar its images are, which are uncertain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wbcclf._uncertainty import labels_of, unfamiliar
from wbcclf._warnings import warn
from wbcclf.exceptions import UnfamiliarImagesWarning


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a classifier says of images.

    Attributes
    ----------
    probabilities : ndarray of shape (n, n_classes), float32
    familiarity : ndarray of shape (n,), float, or None
        None without a description.
    certainty : ndarray of shape (n,), float, or None
        What `rejection` goes by: log-odds, lowered for images that look unfamiliar.
    is_uncertain : ndarray of shape (n,), bool
        False everywhere without `rejection`.
    """

    probabilities: np.ndarray
    familiarity: np.ndarray | None
    certainty: np.ndarray | None
    is_uncertain: np.ndarray

    def labels(self, classes: np.ndarray) -> np.ndarray:
        """Return the most probable labels (n,), and what stands for uncertain."""
        return labels_of(self.probabilities, self.is_uncertain, classes)

    def warn_of_unfamiliar(self, rejection: float | None = None) -> None:
        """Warn if the images are of another kind than those that were trained on."""
        message = None if self.familiarity is None else unfamiliar(self.familiarity, rejection)
        if message:
            warn(message, UnfamiliarImagesWarning)
