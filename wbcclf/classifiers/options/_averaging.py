"""An average of the weights of all steps."""

from __future__ import annotations

from numbers import Real

from wbcclf._images import Interval
from wbcclf._parameters import Option


class Averaging(Option):
    """Validate and predict with an exponential moving average of the trained weights.

    After every step, ``average = decay * average + (1 - decay) * weights``. The bias of its start
    is corrected as in Adam (Kingma and Ba 2014, https://arxiv.org/abs/1412.6980), so it also works
    in short trainings. ``CNNClassifier(averaging=True)`` stands for ``Averaging()``, and a
    number for ``Averaging(decay=number)``.

    Parameters
    ----------
    decay : float in [0, 1), default=0.99
        The average spans about the last ``1 / (1 - decay)`` steps.

    Raises
    ------
    ValueError
        When the classifier is fitted, if an option is out of its range.

    Examples
    --------
    >>> from wbcclf import Averaging, CNNClassifier
    >>> CNNClassifier(averaging=Averaging()).set_params(averaging__decay=0.999).averaging
    Averaging(decay=0.999)
    """

    _parameter_constraints: dict = {"decay": [Interval(Real, 0, 1, closed="left")]}

    def __init__(self, decay=0.99):
        self.decay = decay
