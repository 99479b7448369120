"""What a trained net makes of a sample of the images that it was trained on."""

from __future__ import annotations

import numpy as np

from wbcclf.classifiers.data._batches import ImageData, gather
from wbcclf.classifiers.familiarity._description import Description, describe
from wbcclf.classifiers.training._net import CellNet
from wbcclf.classifiers.training._predict import predict_data
from wbcclf.sampling import Augmenter

MOST = 1_000  # training images that are looked at
MOST_VALIDATED = 5_000
MOST_ELSEWHERE = 300  # validation images that are shown as other laboratories would
# One image is looked at for so many that training has looked at, so that it takes next to no time.
_SHARE = 30
_FEWEST = 100


def describe_training(
    net: CellNet,
    data: tuple[ImageData, ImageData | None],
    images: tuple[ImageData, ImageData | None],
    originals: np.ndarray,
    n_seen: int,
) -> Description | None:
    """Return the description of training images, None if they are too few.

    Parameters
    ----------
    net : CellNet
        Trained. Only the mode of its network is changed.
    data : tuple of ImageData
        What was trained and validated on: images, or activations if these were kept.
    images : tuple of ImageData
        The images of both.
    originals : ndarray of int
        Positions in the training data of images that are no copies.
    n_seen : int
        Images that the training has looked at, each as often as it has.
    """
    n_looked_at = min(MOST, max(_FEWEST, n_seen // _SHARE))
    sample = evenly(originals, n_looked_at)
    if not len(sample):
        return None
    (train_data, valid_data), (train_images, valid_images) = data, images
    validation = elsewhere = None
    if valid_data is not None and valid_images is not None:
        places = evenly(np.arange(len(valid_data)), MOST_VALIDATED)
        target = valid_data.y[valid_data.rows[places]]
        validation = (*predict_data(net, valid_data, valid_images, places), target)
        # Activations were kept: images were not changed in training, so the usual weight holds,
        # and the frozen blocks need not run once more.
        if train_data.kind == "images":
            elsewhere = _predict_elsewhere(net, valid_images, min(n_looked_at, MOST_ELSEWHERE))
    seen = predict_data(net, train_data, train_images, sample)
    return describe(len(net.classes), *seen, validation, elsewhere)


def _predict_elsewhere(
    net: CellNet, images: ImageData, n_most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return what is predicted of some images in other stains, light, focus and file formats.

    None for images that are not red, green and blue.
    """
    rows = images.rows[evenly(np.arange(len(images)), n_most)]
    if images.X.shape[3] != 3:
        return None
    shown = Augmenter(laboratory=1).augment(gather(images.X, rows), random_state=0)
    data = ImageData(shown, images.y[rows])
    return (*predict_data(net, data, data, np.arange(len(rows))), data.y)


def describe_images(net: CellNet, images: np.ndarray) -> Description | None:
    """Return the description of images that a net was adapted to, None if they are too few."""
    data = ImageData(images, np.zeros(len(images), int))
    logits, features = predict_data(net, data, data, evenly(np.arange(len(images)), MOST))
    return describe(len(net.classes), logits, features, None)


def evenly(places: np.ndarray, n_most: int) -> np.ndarray:
    """Return at most so many of some places, from the first to the last, drawing nothing."""
    if len(places) <= n_most:
        return places
    return places[np.linspace(0, len(places) - 1, n_most).astype(int)]
