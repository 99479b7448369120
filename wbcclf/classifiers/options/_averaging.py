"""An average of the weights of all steps."""

from __future__ import annotations

from numbers import Real

from wbcclf._images import Interval
from wbcclf._parameters import Option


class Averaging(Option):
    """Validate and predict with an exponential moving average of the trained weights.

    After every step, average = decay * average + (1 - decay) * weights. The share of the start is
    taken out of it, so that short trainings can use it, too. ``CNNClassifier(averaging=True)``
    stands for ``Averaging()``, and a number for ``Averaging(decay=number)``.

    Parameters
    ----------
    decay : float in [0, 1), default=0.99
        The average reaches back over about ``1 / (1 - decay)`` steps.

    Examples
    --------
    >>> from wbcclf import Averaging, CNNClassifier
    >>> CNNClassifier(averaging=Averaging()).set_params(averaging__decay=0.999).averaging
    Averaging(decay=0.999)
    """

    _parameter_constraints: dict = {"decay": [Interval(Real, 0, 1, closed="left")]}

    def __init__(self, decay=0.99):
        self.decay = decay
