"""How a training went."""

from __future__ import annotations

from typing import Any

from wbcclf._history import best_epoch, draw_history
from wbcclf.classifiers import CNNClassifier
from wbcclf.classifiers.options._settings import Settings
from wbcclf.inspection._checks import check_classifier
from wbcclf.inspection._drawing import get_axes
from wbcclf.inspection._files import last_step


def plot_history(model: Any, *, ax: Any = None) -> Any:
    """Draw the losses of a training, epoch by epoch.

    Parameters
    ----------
    model : CNNClassifier, or a pipeline or search that ends in one
        Fitted. Of a search, the history is that of its `best_estimator_`.
    ax : matplotlib Axes or None, default=None
        None makes a pyplot figure.

    Returns
    -------
    matplotlib Axes
        With the training loss, and the validation loss if there were validation images. A second
        axis at the right has the validation accuracy, and the gain: how far the training loss is
        below that of always predicting the classes' shares, from 0 (nothing learnt) to 1. Values
        below 0 are out of view. A vertical line marks the epoch that early stopping kept; there is
        none with ``warm_start=True``, where each fit has kept its own.

    Raises
    ------
    ImportError
        If matplotlib is not installed; the message says how to install it.
    TypeError
        If `model` does not end in a :class:`CNNClassifier`, or `ax` is neither axes nor None.
    ValueError
        If the training was interrupted before its first epoch ended: there is no history.
    sklearn.exceptions.NotFittedError
        If `model` is not fitted.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from wbcclf import SimpleCNNClassifier, make_blood_cells
    >>> from wbcclf.inspection import plot_history
    >>> cells = make_blood_cells(40, classes=2, image_size=32, random_state=0)
    >>> clf = SimpleCNNClassifier(max_epochs=3, device="cpu", random_state=0)
    >>> ax = plot_history(clf.fit(cells.images, cells.target))
    >>> ax.get_xlabel(), [line.get_label() for line in ax.lines]
    ('epoch', ['training loss'])
    >>> plt.close(ax.figure)
    """
    check_classifier(model, "model")
    classifier = last_step(getattr(model, "best_estimator_", model))
    if not isinstance(classifier, CNNClassifier):
        raise TypeError(
            "model must end in a CNNClassifier, which has a history, but ends in "
            f"{type(classifier).__name__}."
        )
    history = classifier.history_
    if not history:
        raise ValueError("model has no history: its training ended before its first epoch did.")
    ax = get_axes(ax, (7, 4))
    stopping = Settings.of(classifier).early_stopping
    kept = None
    if stopping is not None and not classifier.warm_start:
        kept = best_epoch(history, stopping.monitor, stopping.min_delta)
    draw_history(ax, history, kept)
    return ax
