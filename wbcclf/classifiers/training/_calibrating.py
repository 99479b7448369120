"""A trained net whose probabilities are made as sure as it is right: temperature scaling."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.optimize import brentq, minimize_scalar

from wbcclf.classifiers.data._batches import ImageData
from wbcclf.classifiers.options._settings import Settings
from wbcclf.classifiers.training._describing import MOST_VALIDATED, evenly
from wbcclf.classifiers.training._net import CellNet
from wbcclf.classifiers.training._predict import eight_views, mean_of_views, predict_data

FEWEST = 50  # validation images; fewer cost more than they gain: benchmarks/calibrating.py
_FARTHEST = 10  # logarithm of a temperature; scikit-learn's bounds


def calibrate(net: CellNet, settings: Settings, data: ImageData, images: ImageData) -> float:
    """Divide the logits of a trained net by a temperature; return it.

    Guo et al. 2017, https://arxiv.org/abs/1706.04599. The last layer is linear: its weights are
    divided, so all that depends on logits is calibrated, in a file and elsewhere.

    Parameters
    ----------
    net : CellNet
    settings : Settings
        With test-time augmentation the temperature is that of the mean over the views, which are
        less sure together than each is alone.
    data, images : ImageData
        What was validated on, which may be activations; and its images.
    """
    places = evenly(np.arange(len(images)), MOST_VALIDATED)
    views = [(data, images)]
    if settings.test_time_augmentation:
        turned = [ImageData(X, images.y, rows=images.rows) for X in eight_views(images.X)]
        views = [(view, view) for view in turned]
    logits = np.stack([predict_data(net, *view, places)[0] for view in views])
    temperature = fit_temperature(logits, images.y[images.rows[places]])
    last = net.module_.head[-1]
    with torch.no_grad():
        for tensor in last.parameters():
            tensor.div_(temperature)
    return temperature


def fit_temperature(logits: np.ndarray, target: np.ndarray) -> float:
    """Return the temperature with the least log loss.

    Where hardly an image is wrong, that would be next to none, and the network would never doubt.
    So the mean probability of an error stays at 1 in n + 2 or more, which is Laplace's rule of
    succession for n images without one.

    Parameters
    ----------
    logits : ndarray of shape (n_views, n_samples, n_classes)
    target : ndarray of shape (n_samples,), int
        Class numbers.
    """
    logits = logits.astype(np.float64)
    rows = np.arange(len(target))

    def log_loss(log_temperature: float) -> float:
        return -mean_of_views(logits / math.exp(log_temperature))[rows, target].mean()

    def doubt(log_temperature: float) -> float:
        shares = np.exp(mean_of_views(logits / math.exp(log_temperature)))
        return 1 - shares.max(axis=1).mean() - 1 / (len(target) + 2)

    # Of one view, the loss is convex in the inverse temperature, so it has one minimum.
    low, high = -_FARTHEST, _FARTHEST
    if doubt(low) < 0 < doubt(high):
        low = brentq(doubt, low, high)
    found = minimize_scalar(log_loss, bounds=(low, high), options={"xatol": 1e-6})
    return math.exp(found.x)
