"""The head's parameters, as an object whose parts a search can set."""

from __future__ import annotations

from numbers import Integral

from sklearn.base import BaseEstimator

from wbcclf._images import Interval, StrOptions


class Head(BaseEstimator):
    """The small classifier on top of a backbone: pooling, hidden layers, one output per class.

    Parameters
    ----------
    pooling : {"avg", "max", "flatten", "token"}, default="avg"
        How the backbone's feature maps (or a vision transformer's tokens) become one vector: their
        mean or maximum over the image, all their values (the classic VGG head; ties the network to
        one input size), or a transformer's class token, the first one.
    hidden : sequence of int, default=()
        Widths of hidden linear layers, each followed by ReLU. Dropout (the classifier's `dropout`)
        stands before every linear layer.
    batch_norm : bool or sequence of bool, default=False
        Whether BatchNorm stands before the linear layers, after their dropout; a sequence has one
        value for each of them (the last for the output layer).

    Examples
    --------
    The head of the published nine-class system, and a search over its width:

    >>> from wbcclf import Head, VGG16Classifier
    >>> clf = VGG16Classifier(head=Head(pooling="flatten", hidden=(64,)))
    >>> clf.set_params(head__hidden=(128, 64)).head
    Head(hidden=(128, 64), pooling='flatten')
    """

    _parameter_constraints: dict = {
        "pooling": [StrOptions({"avg", "max", "flatten", "token"})],
        "hidden": [tuple, list],
        "batch_norm": ["boolean", tuple, list],
    }

    def __init__(self, pooling="avg", hidden=(), batch_norm=False):
        self.pooling = pooling
        self.hidden = hidden
        self.batch_norm = batch_norm

    def validate(self) -> Head:
        """Check the parameters and return the head itself; the classifier's `fit` calls it."""
        self._validate_params()
        width = Interval(Integral, 1, None, closed="left")
        if not all(width.is_satisfied_by(size) for size in self.hidden):
            raise ValueError(
                f"The 'hidden' parameter of Head must hold positive ints, got {self.hidden!r}."
            )
        return self
