"""Predicting with a trained net, through the store where there is one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from scipy.special import softmax

from wbcclf.classifiers.caching._activations import N_TOGETHER, StoredPart, frozen_part
from wbcclf.classifiers.data._batches import BLOCK_BYTES, ImageData, gather
from wbcclf.classifiers.familiarity._description import NO_DESCRIPTION, WIDTH, Description
from wbcclf.classifiers.familiarity._features import joined
from wbcclf.classifiers.familiarity._prediction import Prediction
from wbcclf.classifiers.network._device import arithmetic, resolve_device, resolve_precision
from wbcclf.classifiers.network._heap import keeping_freed_memory
from wbcclf.classifiers.network._running import run_in_batches
from wbcclf.classifiers.options._settings import Settings
from wbcclf.classifiers.training._net import CellNet


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
    threshold = -np.inf
    if rejection is not None:
        if description is None:
            raise ValueError(NO_DESCRIPTION)
        threshold = description.threshold(rejection)
    views = _eight_views(images) if settings.test_time_augmentation else [images]
    tap = None if description is None else int(description.tap[0])
    logits, features = _predict_views(net, settings, views, tap)
    shares = softmax(logits.astype(np.float64), axis=2).mean(axis=0).astype(np.float32)
    if description is None:
        return Prediction(shares, None, None, np.zeros(len(shares), bool))
    strangeness = description.strangeness(logits[0], features)
    certainty = description.certainty(logits[0], strangeness)
    familiarity = description.familiarity(strangeness)
    return Prediction(shares, familiarity, certainty, certainty < threshold)


def _eight_views(images: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the batch under the symmetries of the square that keep its shape, as views.

    The microscope has no up and down: a cell is as likely to lie one way as another.
    """
    turns = range(4) if images.shape[1] == images.shape[2] else (0, 2)
    for flipped in (images, images[:, :, ::-1]):
        for quarter_turns in turns:
            yield np.rot90(flipped, quarter_turns, axes=(1, 2))


def _predict_views(
    net: CellNet, settings: Settings, views: Iterable[np.ndarray], tap: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return logits (n_views, n, n_classes) of image batches of one length, and features.

    The features (n, 2 * WIDTH) are those of the first view; there are none without `tap`.
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
            given = _predict_view(net, images, settings.batch_size, frozen, tap)
            if tap is not None:
                given, features = given[:, : -2 * WIDTH], given[:, -2 * WIDTH :]
        else:
            given = _predict_view(net, images, settings.batch_size, frozen, None)
        logits.append(given)
    return np.stack(logits), features


def predict_data(
    net: CellNet, data: ImageData, positions: np.ndarray, tap: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return logits (n, n_classes) and features (n, 2 * WIDTH) of what a net was trained on."""
    rows = data.rows[positions]
    parts = []
    with keeping_freed_memory():
        for start in range(0, len(rows), net.batch_size):  # activations may be large
            batch = gather(data.X, rows[start : start + net.batch_size])
            parts.append(_run(net, data.kind, batch, net.batch_size, tap))
    given = np.concatenate(parts)
    return given[:, : -2 * WIDTH], given[:, -2 * WIDTH :]


def _predict_view(
    net: CellNet, images: np.ndarray, batch_size: int, frozen: StoredPart | None, tap: int | None
) -> np.ndarray:
    """Return logits (n, n_classes), with `tap` beside the features.

    `frozen` takes or leaves activations in its store. Fewer images than it computes together are
    predicted without it unless it has them all: filling up their batch would make a single image as
    slow as many.
    """
    if frozen is None or (len(images) < N_TOGETHER and not frozen.holds(images)):
        return _run(net, "images", images, batch_size, tap)
    parts = []
    step = batch_size * max(1, int(BLOCK_BYTES / frozen.row_bytes() / batch_size))
    for start in range(0, len(images), step):
        rows = np.arange(start, min(start + step, len(images)))
        kept = np.empty((len(rows), frozen.row_bytes()), np.uint8)
        frozen.fill(kept, images, rows)
        parts.append(_run(net, "activations", frozen.as_tensor(kept), batch_size, tap))
    return np.concatenate(parts)


def _run(net: CellNet, kind: str, X: Any, batch_size: int, tap: int | None) -> np.ndarray:
    network = net.module_.eval()
    tapped = {} if tap is None else {"tap": tap}

    def run(batch: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            with arithmetic(net.device, net.precision):
                given = network(**{kind: batch.to(net.device)}, **tapped)
            return given if tap is None else joined(*given)

    with keeping_freed_memory():
        return run_in_batches(run, X, batch_size, net.device)
