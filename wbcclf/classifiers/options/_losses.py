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
        Share of every label that is spread over all classes.
    l1, l2 : float or dict of block name to float, default=0.0
        Penalty on the trained kernels, as Keras counts it: so many times the sum of ``|w|`` and of
        ``w ** 2``, without biases and normalisation. A dict penalises the blocks it names
        (``"head"`` is the head).

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

    Cross-entropy that gives less weight to images that are classified well already: times
    ``(1 - p) ** gamma``, where p is the probability of the image's label (Lin et al. 2017,
    https://arxiv.org/abs/1708.02002).

    Parameters
    ----------
    gamma : float, default=2.0
        How much less weight; 0 is cross-entropy.
    label_smoothing, l1, l2 : default=0.0
        As in :class:`CrossEntropy`.

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
