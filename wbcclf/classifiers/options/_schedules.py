"""Learning-rate schedules."""

from __future__ import annotations

from numbers import Integral, Real

from wbcclf._images import Interval
from wbcclf._parameters import Option

_NOT_NEGATIVE = Interval(Real, 0, None, closed="left")


class Constant(Option):
    """A constant learning rate; ``CNNClassifier(lr_schedule="constant")``.

    Parameters
    ----------
    warmup_epochs : float, default=0
        Epochs in which the rate rises linearly from 0 to `lr`, >= 0. Fractions are allowed.

    Raises
    ------
    ValueError
        When the classifier is fitted, if an option is out of its range.

    Examples
    --------
    >>> from wbcclf import CNNClassifier, Constant
    >>> CNNClassifier(lr_schedule=Constant(warmup_epochs=1)).lr_schedule
    Constant(warmup_epochs=1)
    """

    _parameter_constraints: dict = {"warmup_epochs": [_NOT_NEGATIVE]}

    def __init__(self, warmup_epochs=0):
        self.warmup_epochs = warmup_epochs


class Cosine(Option):
    """The learning rate falls to 0 along a cosine; ``CNNClassifier(lr_schedule="cosine")``.

    Loshchilov and Hutter 2016, https://arxiv.org/abs/1608.03983, without restarts.

    Parameters
    ----------
    warmup_epochs : float, default=0
        As in :class:`Constant`.

    Raises
    ------
    ValueError
        When the classifier is fitted, if an option is out of its range.

    Examples
    --------
    >>> from wbcclf import CNNClassifier, Cosine
    >>> CNNClassifier(lr_schedule=Cosine(warmup_epochs=1)).lr_schedule
    Cosine(warmup_epochs=1)
    """

    _parameter_constraints: dict = {"warmup_epochs": [_NOT_NEGATIVE]}

    def __init__(self, warmup_epochs=0):
        self.warmup_epochs = warmup_epochs


class StepDecay(Option):
    """The learning rate is lowered every few epochs; ``CNNClassifier(lr_schedule="step")``.

    Parameters
    ----------
    step_size : int, default=10
        Epochs from one reduction to the next, >= 1. They count from the end of the warm-up.
    gamma : float, default=0.1
        Factor of each reduction, >= 0.
    warmup_epochs : float, default=0
        As in :class:`Constant`.

    Raises
    ------
    ValueError
        When the classifier is fitted, if an option is out of its range.

    Examples
    --------
    >>> from wbcclf import CNNClassifier, StepDecay
    >>> CNNClassifier(lr_schedule=StepDecay(step_size=5, gamma=0.5)).lr_schedule
    StepDecay(gamma=0.5, step_size=5)
    """

    _parameter_constraints: dict = {
        "step_size": [Interval(Integral, 1, None, closed="left")],
        "gamma": [_NOT_NEGATIVE],
        "warmup_epochs": [_NOT_NEGATIVE],
    }

    def __init__(self, step_size=10, gamma=0.1, warmup_epochs=0):
        self.step_size = step_size
        self.gamma = gamma
        self.warmup_epochs = warmup_epochs


class InverseTimeDecay(Option):
    """The learning rate falls as ``lr / (1 + decay * step)``, as with the `decay` of Keras.

    ``CNNClassifier(lr_schedule="decay")``.

    Parameters
    ----------
    decay : float, default=1e-4
        Decay per step of the optimizer, >= 0. Steps count from the end of the warm-up.
    warmup_epochs : float, default=0
        As in :class:`Constant`.

    Raises
    ------
    ValueError
        When the classifier is fitted, if an option is out of its range.

    Examples
    --------
    >>> from wbcclf import CNNClassifier, InverseTimeDecay
    >>> CNNClassifier(lr_schedule=InverseTimeDecay(decay=1e-3)).lr_schedule
    InverseTimeDecay(decay=0.001)
    """

    _parameter_constraints: dict = {"decay": [_NOT_NEGATIVE], "warmup_epochs": [_NOT_NEGATIVE]}

    def __init__(self, decay=1e-4, warmup_epochs=0):
        self.decay = decay
        self.warmup_epochs = warmup_epochs


class OneCycle(Option):
    """The learning rate rises to `lr` and falls to almost 0.

    ``CNNClassifier(lr_schedule="onecycle")``: Smith 2018, https://arxiv.org/abs/1803.09820, as in
    torch's ``OneCycleLR``. If the optimizer has a momentum, and ``Optimizer(params=...)`` does not
    set it, it falls while the rate rises, and rises while the rate falls. There are no parameters.

    Examples
    --------
    >>> from wbcclf import CNNClassifier, OneCycle
    >>> CNNClassifier(lr=1e-3, lr_schedule=OneCycle()).lr_schedule
    OneCycle()
    """

    _parameter_constraints: dict = {}


class Plateau(Option):
    """The learning rate is lowered when the validation loss no longer improves.

    ``CNNClassifier(lr_schedule="plateau")``. Without validation images it watches the training
    loss; with early stopping, the metric ``EarlyStopping(monitor=...)``.

    Parameters
    ----------
    factor : float in [0, 1), default=0.3
        The rate is multiplied by this factor.
    patience : int, default=2
        Epochs without improvement that are tolerated before the rate is lowered, >= 0.
    min_lr : float, default=0.0
        Lower bound of the rate, >= 0.

    Raises
    ------
    ValueError
        When the classifier is fitted, if an option is out of its range.

    Examples
    --------
    >>> from wbcclf import CNNClassifier, Plateau
    >>> CNNClassifier(lr_schedule=Plateau(patience=1)).lr_schedule
    Plateau(patience=1)
    """

    _parameter_constraints: dict = {
        "factor": [Interval(Real, 0, 1, closed="left")],
        "patience": [Interval(Integral, 0, None, closed="left")],
        "min_lr": [_NOT_NEGATIVE],
    }

    def __init__(self, factor=0.3, patience=2, min_lr=0.0):
        self.factor = factor
        self.patience = patience
        self.min_lr = min_lr
