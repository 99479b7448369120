"""Which images a training validates on: those that were given, or some that are split off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from wbcclf._resampled import sources_of
from wbcclf._uncertainty import uncertain_label
from wbcclf.classifiers.data._batches import ImageData
from wbcclf.classifiers.data._domain import Domain
from wbcclf.classifiers.data._labels import encode_labels
from wbcclf.classifiers.data._samples import Samples
from wbcclf.classifiers.data._split import validation_split, warn_of_doubles
from wbcclf.classifiers.familiarity._description import fewest_calls, too_few_for
from wbcclf.classifiers.options._settings import Settings
from wbcclf.classifiers.training._calibrating import FEWEST

if TYPE_CHECKING:
    from wbcclf.classifiers._classifier import CNNClassifier


class Split(NamedTuple):
    """Rows of `X` to train on and to validate on, and all images to validate on, if any."""

    train_rows: np.ndarray
    validation_rows: np.ndarray
    valid_data: ImageData | None


def split_off_validation(
    classifier: CNNClassifier,
    settings: Settings,
    samples: Samples,
    X: Any,
    y: Any,
    X_val: Any,
    y_val: Any,
    random_state: np.random.RandomState,
) -> Split:
    """Take the validation images that were given, or split some off for early stopping."""
    if X_val is not None or y_val is not None:
        valid_data = _given_validation(classifier, samples.domain, X_val, y_val)
        warn_of_doubles(X, samples.images, samples.used, X_val, valid_data.X)
        return Split(samples.used, samples.used[:0], valid_data)
    if settings.early_stopping is None:
        return Split(samples.used, samples.used[:0], None)
    train_rows, validation_rows = validation_split(
        samples.images,
        samples.labels,
        samples.used,
        sources_of(X, samples.images, y),
        settings.early_stopping.validation_fraction,
        random_state,
    )
    valid_data = ImageData(samples.images, samples.target, rows=validation_rows)
    return Split(train_rows, validation_rows, valid_data)


def check_validation(settings: Settings, valid_data: ImageData | None, classes: np.ndarray) -> None:
    """Fail before the training if validation images are too few for what is learnt from them.

    Also if labels leave no room for what is uncertain.
    """
    share, n_images = settings.rejection, 0 if valid_data is None else len(valid_data)
    if settings.calibrate and n_images < FEWEST:
        raise ValueError(
            f"calibrate=True needs at least {FEWEST} validation images, not {n_images}. Fit with "
            "X_val and y_val, or with early_stopping=True, on more images."
        )
    if share is None:
        return
    uncertain_label(classes)  # raises if they leave no room for it
    if n_images < fewest_calls(share):
        raise ValueError(too_few_for(share, n_images))


def positions_of_originals(X: Any, y: Any, samples: Samples, rows: np.ndarray) -> np.ndarray:
    """Return positions in `rows` of images that are no copies, as far as the record tells."""
    sources = sources_of(X, samples.images, y)
    return np.arange(len(rows)) if sources is None else np.flatnonzero(sources.original[rows])


def _given_validation(
    classifier: CNNClassifier, domain: Domain, X_val: Any, y_val: Any
) -> ImageData:
    if y_val is None:
        raise ValueError("X_val was given without y_val.")
    if X_val is None:
        raise ValueError("y_val was given without X_val.")
    images = classifier._check_images(X_val, domain)
    y_val = np.asarray(y_val)
    if y_val.shape != (len(images),):
        raise ValueError(f"X_val has {len(images)} images, y_val the shape {y_val.shape}.")
    return ImageData(images, encode_labels(y_val, domain.classes, slice(None), "y_val"))
