"""When to stop, and on which images that is decided."""

from __future__ import annotations

from numbers import Integral, Real

from wbcclf._images import Interval, StrOptions
from wbcclf._parameters import Option


class EarlyStopping(Option):
    """Stop when a validation metric no longer improves, and keep the weights of the best epoch.

    ``CNNClassifier(early_stopping=True)`` stands for ``EarlyStopping()``.

    Parameters
    ----------
    patience : int, default=5
        Epochs without improvement after which training stops, >= 1.
    monitor : {"valid_loss", "valid_acc"}, default="valid_loss"
        The metric to watch: loss or accuracy on the validation images.
    min_delta : float, default=0.0
        Smallest change that counts as an improvement, >= 0.
    validation_fraction : float in (0, 1), default=0.1
        Share of each class's distinct original images that are held out for validation. Ignored
        if `fit` gets `X_val`.

    Raises
    ------
    ValueError
        When the classifier is fitted, if an option is out of its range.

    Examples
    --------
    >>> from wbcclf import CNNClassifier, EarlyStopping
    >>> clf = CNNClassifier(early_stopping=EarlyStopping(patience=10))
    >>> clf.set_params(early_stopping__monitor="valid_acc").early_stopping
    EarlyStopping(monitor='valid_acc', patience=10)
    """

    _parameter_constraints: dict = {
        "patience": [Interval(Integral, 1, None, closed="left")],
        "monitor": [StrOptions({"valid_loss", "valid_acc"})],
        "min_delta": [Interval(Real, 0, None, closed="left")],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    }

    def __init__(self, patience=5, monitor="valid_loss", min_delta=0.0, validation_fraction=0.1):
        self.patience = patience
        self.monitor = monitor
        self.min_delta = min_delta
        self.validation_fraction = validation_fraction
