"""Predicting with a trained net, through the store where there is one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from scipy.special import log_softmax, logsumexp

from wbcclf.classifiers.caching._activations import N_TOGETHER, StoredPart, frozen_part
from wbcclf.classifiers.data._batches import BLOCK_BYTES, ImageData, gather
from wbcclf.classifiers.familiarity._description import NO_DESCRIPTION, Description
from wbcclf.classifiers.familiarity._features import joined, parted
from wbcclf.classifiers.familiarity._prediction import Prediction
from wbcclf.classifiers.network._device import arithmetic, resolve_device, resolve_precision
from wbcclf.classifiers.network._heap import keeping_freed_memory
from wbcclf.classifiers.network._running import run_in_batches
from wbcclf.classifiers.options._settings import Settings
from wbcclf.classifiers.training._net import CellNet
from wbcclf.preprocessing._style import style


def predict_images(
    net: CellNet,
    settings: Settings,
    images: np.ndarray,
    description: Description | None,
    rejection: float | None,
) -> Prediction:
    """Return what a net predicts of images, and how familiar they are if it was described.

    The net is moved to the device that the settings ask for, or to one that there is.

    Raises
    ------
    ValueError
        If the description cannot keep the bound of the rejection.
    """
    threshold = None
    if rejection is not None:
        if description is None:
            raise ValueError(NO_DESCRIPTION)
        threshold = description.threshold(rejection)
    views = eight_views(images) if settings.test_time_augmentation else [images]
    logits, features = _predict_views(net, settings, views, description is not None)
    log_shares = mean_of_views(logits)
    shares = np.exp(log_shares).astype(np.float32)
    is_uncertain = np.zeros(len(shares), bool)
    if description is None:
        return Prediction(shares, None, None, is_uncertain)
    strangeness = description.strangeness(logits[0], features)
    certainty = description.certainty(log_shares, strangeness)
    if threshold is not None:
        is_uncertain = ~description.is_called(certainty, strangeness, threshold)
    return Prediction(shares, description.familiarity(strangeness), certainty, is_uncertain)


def mean_of_views(logits: np.ndarray) -> np.ndarray:
    """Return the logarithm of the probabilities (n, n_classes) of logits (n_views, n, n_classes).

    Of the mean of the views' probabilities: views that disagree are a sign of doubt.
    """
    log_shares = logsumexp(log_softmax(logits.astype(np.float64), axis=2), axis=0)
    return log_shares - np.log(len(logits))


def eight_views(images: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the batch under the symmetries of the square that keep its shape, as views.

    The microscope has no up and down: a cell is as likely to lie one way as another.
    """
    turns = range(4) if images.shape[1] == images.shape[2] else (0, 2)
    for flipped in (images, images[:, :, ::-1]):
        for quarter_turns in turns:
            yield np.rot90(flipped, quarter_turns, axes=(1, 2))


def _predict_views(
    net: CellNet, settings: Settings, views: Iterable[np.ndarray], described: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return logits (n_views, n, n_classes) of image batches of one length, and features.

    The features (n, WIDTH + N_STYLE) are those of the first view, if it is to be `described`.
    """
    device = resolve_device(settings.device, fitted=True)
    precision = resolve_precision(settings.precision, device, settings.backbone.name)
    if (device, precision) != (net.device, net.precision):
        net.move_to(device, precision)
    frozen: StoredPart | None = None
    features = np.empty(0)
    logits = []
    for number, images in enumerate(views):
        if number == 0:
            frozen = frozen_part(net, settings, len(images))
            given = _predict_view(net, images, settings.batch_size, frozen, described)
            if described:
                given, features = parted(given)
        else:
            given = _predict_view(net, images, settings.batch_size, frozen, described=False)
        logits.append(given)
    return np.stack(logits), features


def predict_data(
    net: CellNet, data: ImageData, images: ImageData, positions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return logits (n, n_classes) and features (n, WIDTH + N_STYLE) of what a net was trained on.

    `data` holds the `images`, or activations of them, in the same order.
    """
    parts = []
    with keeping_freed_memory():
        for start in range(0, len(positions), net.batch_size):  # activations may be large
            some = positions[start : start + net.batch_size]
            batch = gather(data.X, data.rows[some])
            given = _run(net, data.kind, batch, net.batch_size, described=True)
            if data.kind == "activations":
                batch = gather(images.X, images.rows[some])
                given = np.hstack([given, _styles(net, batch, net.batch_size)])
            parts.append(given)
    return parted(np.concatenate(parts))


def _predict_view(
    net: CellNet, images: np.ndarray, batch_size: int, frozen: StoredPart | None, described: bool
) -> np.ndarray:
    """Return logits (n, n_classes), and beside them the features if they are to be `described`.

    `frozen` takes or leaves activations in its store. Fewer images than it computes together are
    predicted without it unless it has them all: filling up their batch would make a single image as
    slow as many.
    """
    if frozen is None or (len(images) < N_TOGETHER and not frozen.holds(images)):
        return _run(net, "images", images, batch_size, described)
    parts = []
    step = batch_size * max(1, int(BLOCK_BYTES / frozen.row_bytes() / batch_size))
    for start in range(0, len(images), step):
        rows = np.arange(start, min(start + step, len(images)))
        kept = np.empty((len(rows), frozen.row_bytes()), np.uint8)
        frozen.fill(kept, images, rows)
        given = _run(net, "activations", frozen.as_tensor(kept), batch_size, described)
        if described:
            given = np.hstack([given, _styles(net, images[rows], batch_size)])
        parts.append(given)
    return np.concatenate(parts)


def _styles(net: CellNet, images: np.ndarray, batch_size: int) -> np.ndarray:
    """Return the style of images (n, N_STYLE) of which only activations went into the network."""

    def run(batch: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return style(net.module_.preprocessing(batch.to(net.device)))

    return run_in_batches(run, images, batch_size, net.device)


def _run(net: CellNet, kind: str, X: Any, batch_size: int, described: bool) -> np.ndarray:
    network = net.module_.eval()

    def run(batch: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            with arithmetic(net.device, net.precision):
                given = network(**{kind: batch.to(net.device)}, described=described)
            return joined(*given) if described else given

    with keeping_freed_memory():
        return run_in_batches(run, X, batch_size, net.device)
