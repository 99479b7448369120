"""What `fit` is given, checked: images, labels as class numbers, weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets

from wbcclf._images import _check_sample_weight, check_value_range, validate_images, value_range
from wbcclf.classifiers.data._domain import Domain
from wbcclf.classifiers.data._labels import encode_labels, total_weight

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator


@dataclass(frozen=True)
class Samples:
    """Images, labels and weights of one fit.

    Attributes
    ----------
    images : ndarray of shape (n_samples, height, width, channels)
    labels : ndarray of shape (n_samples,)
        As they were given; of rows of weight zero they may be any.
    target : ndarray of shape (n_samples,), int
        Class numbers.
    weight : ndarray of shape (n_samples,)
        The given ones.
    used : ndarray of int
        Rows with a weight: a weight of zero is as good as no image.
    domain : Domain
    """

    images: np.ndarray
    labels: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    used: np.ndarray
    domain: Domain

    def weights(self, class_weight: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what all rows weigh in training, and which of the given ones weigh anything.

        Raises
        ------
        ValueError
            If none does, or `class_weight` does not fit the classes.
        """
        weight = total_weight(self.weight, class_weight, self.domain.classes, self.labels, rows)
        rows = rows[weight[rows] > 0]  # class_weight may be zero, too
        if not len(rows):
            raise ValueError("class_weight is zero for every image: there is nothing to fit.")
        # Only proportions matter, and float32 does not hold every weight.
        return weight / weight[rows].max(), rows


def check_samples(
    estimator: BaseEstimator,
    X: Any,
    y: Any,
    sample_weight: Any,
    *,
    classes: Any = None,
    known: Domain | None = None,
) -> Samples:
    """Return the samples of a fit.

    Parameters
    ----------
    estimator : CNNClassifier
        Learns its number of features, and their names, unless the domain is known.
    X, y, sample_weight : array-like
    classes : array-like or None
        All labels there will ever be; None takes those of `y`.
    known : Domain or None
        What the estimator was fitted on before: the images and labels have to belong to it.

    Raises
    ------
    ValueError
        If they cannot be trained on; the message says why.
    """
    image_shape = estimator.image_shape if known is None else known.image_shape
    images, labels = validate_images(estimator, X, y, image_shape=image_shape, reset=known is None)
    check_classification_targets(labels)
    weight = _check_sample_weight(sample_weight, images, dtype=np.float64, ensure_non_negative=True)
    used = np.flatnonzero(weight)
    if not len(used):
        raise ValueError("sample_weight is zero for every sample: there is nothing to fit.")
    if known is None:
        known = Domain(
            np.unique(labels[used] if classes is None else classes),
            images.shape[1:],
            value_range(images if len(used) == len(images) else images[used]),
        )
    else:
        check_value_range(images, known.value_range)
    if len(known.classes) < 2:
        raise ValueError(
            f"y holds one class only, {known.classes.tolist()[0]!r}: a classifier needs "
            "images of at least two."
        )
    target = encode_labels(labels, known.classes, used, "y")
    return Samples(images, labels, target, weight, used, known)
