"""The head's parameters, as an object whose parts a search can set."""

from __future__ import annotations

from numbers import Integral, Real

from wbcclf._images import Interval, StrOptions
from wbcclf._parameters import Each, Option

_SHARE = Interval(Real, 0, 1, closed="left")


class Head(Option):
    """The small classifier on top of a backbone: pooling, hidden layers, one output per class.

    Parameters
    ----------
    pooling : {"avg", "max", "flatten", "token"}, default="avg"
        How the backbone's feature maps (or a vision transformer's tokens) become one vector: their
        mean or maximum over the image, all their values (the classic VGG head; ties the network to
        one input size), or a transformer's class token, the first one.
    hidden : sequence of int, default=()
        Widths of the hidden linear layers, each >= 1. ReLU follows each of them.
    dropout : float in [0, 1) or sequence of them, default=0.2
        Dropout before every linear layer. A sequence has one value for each of them; the last value
        is for the output layer.
    batch_norm : bool or sequence of bool, default=False
        Whether BatchNorm stands before every linear layer, after the dropout. A sequence has one
        value for each of them.

    Raises
    ------
    ValueError
        When the classifier is fitted, if an option is out of its range, a sequence does not have
        one value for each linear layer, or `pooling` does not fit the backbone.

    Examples
    --------
    The head of the published nine-class system, and a search over its width:

    >>> from wbcclf import Head, VGG16Classifier
    >>> clf = VGG16Classifier(head=Head(pooling="flatten", hidden=(64,), dropout=0.0))
    >>> clf.set_params(head__hidden=(128, 64)).head
    Head(dropout=0.0, hidden=(128, 64), pooling='flatten')
    """

    _parameter_constraints: dict = {
        "pooling": [StrOptions({"avg", "max", "flatten", "token"})],
        "hidden": [Each(Interval(Integral, 1, None, closed="left"))],
        "dropout": [_SHARE, Each(_SHARE)],
        "batch_norm": ["boolean", Each("boolean")],
    }

    def __init__(self, pooling="avg", hidden=(), dropout=0.2, batch_norm=False):
        self.pooling = pooling
        self.hidden = hidden
        self.dropout = dropout
        self.batch_norm = batch_norm
