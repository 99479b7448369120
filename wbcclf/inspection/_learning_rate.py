"""The learning-rate range test: which learning rate a classifier can take."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.utils import Bunch

from wbcclf.classifiers import CNNClassifier
from wbcclf.inspection._drawing import drawing


def find_learning_rate(
    classifier: CNNClassifier,
    X: Any,
    y: Any,
    *,
    lowest: float = 1e-6,
    highest: float = 1.0,
    n_steps: int = 100,
) -> Bunch:
    """Train for a few steps at a learning rate that grows, and see how the loss answers.

    Too low a rate changes nothing, a good one lowers the loss, too high a one raises it (Smith
    2015, https://arxiv.org/abs/1506.01186). The classifier itself is not changed: a clone of it is
    trained, and stopped when its loss has grown to four times its lowest.

    Parameters
    ----------
    classifier : CNNClassifier
        Its own learning rate, schedule, early stopping and averaging have no effect.
    X, y : array-likes
        Images and labels, as for its `fit`.
    lowest, highest : float
        The range; every step multiplies the rate by the same factor.
    n_steps : int
        Training batches, passes over `X` as needed.

    Returns
    -------
    Bunch
        With the attributes

        learning_rates : ndarray of shape (n_done,)
        losses : ndarray of shape (n_done,)
            Of each batch, smoothed over about ten steps.
        suggestion : float
            A tenth of the rate at the lowest loss: the loss still falls there, far from where it
            rises. The highest rate for a schedule such as ``"onecycle"``, or a constant one. If it
            is `lowest`, the loss never fell: look at `losses`.

    Raises
    ------
    ValueError
        If the range is empty or `n_steps` is under 10.

    Examples
    --------
    >>> from wbcclf import SimpleCNNClassifier, make_blood_cells
    >>> from wbcclf.inspection import find_learning_rate
    >>> cells = make_blood_cells(60, classes=2, image_size=32, random_state=0)
    >>> clf = SimpleCNNClassifier(device="cpu", random_state=0)
    >>> result = find_learning_rate(clf, cells.images, cells.target, n_steps=40)
    >>> 1e-4 < result.suggestion < 1e-1
    True
    """
    if not 0 < lowest < highest < math.inf:
        raise ValueError(
            f"lowest={lowest!r} and highest={highest!r} must be 0 < lowest < highest, finite."
        )
    if n_steps < 10:
        raise ValueError(f"n_steps={n_steps!r} is too few to see anything: give 10 or more.")
    test = _range_test(np.geomspace(lowest, highest, n_steps))
    trial = clone(classifier).set_params(
        lr=lowest,
        max_steps=n_steps,
        lr_schedule="constant",
        lr_schedule_params=None,
        gradual_unfreezing=0,
        early_stopping=False,
        ema_decay=None,
        cache_gb=0,  # most images are seen once at most
        checkpoint_dir=None,
        callbacks=[*(classifier.callbacks or ()), ("range_test", test)],
        warm_start=False,
        verbose=0,
    )
    try:
        trial.fit(X, y)
    except StopIteration:
        pass
    losses = np.array(test.losses)
    lowest_at = int(losses.argmin())
    return Bunch(
        learning_rates=test.rates[: len(losses)],
        losses=losses,
        suggestion=max(lowest, float(test.rates[lowest_at] / 10)),
    )


def _range_test(rates: np.ndarray) -> Any:
    """Return a skorch callback that goes through `rates` and keeps the smoothed losses."""
    from skorch.callbacks import Callback

    class RangeTest(Callback):
        def __init__(self):
            self.rates = rates
            self.losses: list[float] = []

        def on_train_begin(self, net, X=None, y=None, **kwargs):
            # layer_lr_decay gives blocks different rates: their proportions are kept.
            self.shares = [group["lr"] / net.lr for group in net.optimizer_.param_groups]
            self.mean = 0.0

        def on_batch_begin(self, net, batch=None, training=False, **kwargs):
            rate = self.rates[len(self.losses)]
            for group, share in zip(net.optimizer_.param_groups, self.shares, strict=True):
                group["lr"] = rate * share

        def on_batch_end(self, net, batch=None, training=False, **kwargs):
            loss = net.history[-1, "batches", -1, "train_loss"]
            self.mean = 0.9 * self.mean + 0.1 * loss
            # A mean that starts from nothing has collected this much weight.
            smooth = self.mean / (1 - 0.9 ** (len(self.losses) + 1))
            if not math.isfinite(smooth) or smooth > 4 * min(self.losses, default=math.inf):
                raise StopIteration
            self.losses.append(smooth)
            if len(self.losses) == len(self.rates):
                raise StopIteration

    return RangeTest()


def save_learning_rate_curve(result: Bunch, path: str | os.PathLike) -> None:
    """Draw the loss over the learning rate, with the suggestion, to a picture file.

    Parameters
    ----------
    result : Bunch
        What :func:`find_learning_rate` returned.
    path : str or path
        The suffix gives the format: ``.png``, ``.svg``, ``.pdf``.

    Raises
    ------
    ImportError
        If matplotlib is not installed; the message says how to install it.
    """
    with drawing(path, 6, 4) as axes:
        axes.plot(result.learning_rates, result.losses)
        axes.axvline(result.suggestion, linestyle="--", color="grey")
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("smoothed training loss")
        axes.set_title(f"suggestion: {result.suggestion:.1e}")
