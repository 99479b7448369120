"""Options of MixUp and CutMix."""

from __future__ import annotations

from numbers import Real

from wbcclf._images import Interval
from wbcclf._parameters import Option

_NOT_NEGATIVE = Interval(Real, 0, None, closed="left")


class Mixing(Option):
    """Blend every training batch with a shuffled copy of itself, images and labels.

    ``CNNClassifier(mixing="mixup")`` stands for ``Mixing(mixup=0.2)``, and ``"cutmix"`` for
    ``Mixing(cutmix=1.0)``. If both are above 0, one of them is picked at
    random for every batch.

    Parameters
    ----------
    mixup : float, default=0.0
        Blend whole images (Zhang et al. 2017, https://arxiv.org/abs/1710.09412). The mixing ratio
        is drawn from Beta(mixup, mixup). >= 0; 0 is off.
    cutmix : float, default=0.0
        Paste a rectangle (Yun et al. 2019, https://arxiv.org/abs/1905.04899). Its share of the area
        is drawn from Beta(cutmix, cutmix). >= 0; 0 is off.

    Raises
    ------
    ValueError
        When the classifier is fitted, if an option is out of its range.

    Examples
    --------
    >>> from wbcclf import CNNClassifier, Mixing
    >>> CNNClassifier(mixing=Mixing(mixup=0.4, cutmix=1.0)).mixing
    Mixing(cutmix=1.0, mixup=0.4)
    """

    _parameter_constraints: dict = {"mixup": [_NOT_NEGATIVE], "cutmix": [_NOT_NEGATIVE]}

    def __init__(self, mixup=0.0, cutmix=0.0):
        self.mixup = mixup
        self.cutmix = cutmix
