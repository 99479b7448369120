"""Options of gradual unfreezing."""

from __future__ import annotations

from numbers import Integral

from wbcclf._images import Interval
from wbcclf._parameters import Option


class GradualUnfreezing(Option):
    """Train the head alone at first, then unfreeze one block more every few epochs.

    From the top down (Howard and Ruder 2018, https://arxiv.org/abs/1801.06146).

    Parameters
    ----------
    layers : int, str or "all", default="all"
        The blocks that are unfrozen in the end, as in ``CNNClassifier(unfrozen_layers=layers)``: a
        number of blocks from the top (>= 0), the name of the lowest block, or all.
    epochs_per_layer : int, default=1
        Epochs of training before the next block is unfrozen, >= 1.

    Raises
    ------
    ValueError
        When the classifier is fitted, if an option is out of its range.

    Examples
    --------
    >>> from wbcclf import GradualUnfreezing, ResNet18Classifier
    >>> clf = ResNet18Classifier(unfrozen_layers=GradualUnfreezing(layers=3))
    >>> clf.set_params(unfrozen_layers__epochs_per_layer=2).unfrozen_layers
    GradualUnfreezing(epochs_per_layer=2, layers=3)
    """

    _parameter_constraints: dict = {
        "layers": [Interval(Integral, 0, None, closed="left"), str],
        "epochs_per_layer": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(self, layers="all", epochs_per_layer=1):
        self.layers = layers
        self.epochs_per_layer = epochs_per_layer
