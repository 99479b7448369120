"""What training minimises."""

from __future__ import annotations

from numbers import Real

from wbcclf._images import Interval
from wbcclf._parameters import EachValue, Option

_NOT_NEGATIVE = Interval(Real, 0, None, closed="left")
_SHARED: dict = {
    "label_smoothing": [Interval(Real, 0, 1, closed="left")],
    "l1": [_NOT_NEGATIVE, EachValue(_NOT_NEGATIVE)],
    "l2": [_NOT_NEGATIVE, EachValue(_NOT_NEGATIVE)],
}


class CrossEntropy(Option):
    """Cross-entropy, the loss of ``CNNClassifier(loss="cross_entropy")``.

    Parameters
    ----------
    label_smoothing : float in [0, 1), default=0.0
        Share of every label that is spread evenly over all classes (Szegedy et al. 2015,
        https://arxiv.org/abs/1512.00567).
    l1, l2 : float or dict of block name to float, default=0.0
        Penalties on the trained kernels, >= 0, defined as in Keras: ``l1`` times the sum of ``|w|``
        and ``l2`` times the sum of ``w ** 2``. Biases and normalisation layers are left out. A dict
        penalises only the blocks that it names; ``"head"`` is the head.

    Raises
    ------
    ValueError
        When the classifier is fitted, if an option is out of its range, or `l1` or `l2` names a
        block that is not trained.

    Examples
    --------
    >>> from wbcclf import CNNClassifier, CrossEntropy
    >>> CNNClassifier(loss=CrossEntropy(label_smoothing=0.1)).loss
    CrossEntropy(label_smoothing=0.1)
    """

    _parameter_constraints: dict = _SHARED

    def __init__(self, label_smoothing=0.0, l1=0.0, l2=0.0):
        self.label_smoothing = label_smoothing
        self.l1 = l1
        self.l2 = l2


class FocalLoss(Option):
    """Focal loss, the loss of ``CNNClassifier(loss="focal")``.

    Cross-entropy times ``(1 - p) ** gamma``, where p is the predicted probability of the true class
    (Lin et al. 2017, https://arxiv.org/abs/1708.02002). So images that are already classified well
    count less.

    Parameters
    ----------
    gamma : float, default=2.0
        Focusing parameter, >= 0. The larger, the less such images count; 0 is cross-entropy.
    label_smoothing : float in [0, 1), default=0.0
        As in :class:`CrossEntropy`.
    l1, l2 : float or dict of block name to float, default=0.0
        As in :class:`CrossEntropy`.

    Raises
    ------
    ValueError
        When the classifier is fitted, if an option is out of its range, or `l1` or `l2` names a
        block that is not trained.

    Examples
    --------
    >>> from wbcclf import CNNClassifier, FocalLoss
    >>> CNNClassifier(loss=FocalLoss()).set_params(loss__gamma=1.0).loss
    FocalLoss(gamma=1.0)
    """

    _parameter_constraints: dict = {"gamma": [_NOT_NEGATIVE], **_SHARED}

    def __init__(self, gamma=2.0, label_smoothing=0.0, l1=0.0, l2=0.0):
        self.gamma = gamma
        self.label_smoothing = label_smoothing
        self.l1 = l1
        self.l2 = l2
