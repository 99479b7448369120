"""Options of the optimizer."""

from __future__ import annotations

from numbers import Real

from wbcclf._images import Interval, StrOptions
from wbcclf._parameters import Option

METHODS = {"adam", "adamw", "sgd", "rmsprop"}


class Optimizer(Option):
    """The optimizer of a training; the learning rate is the classifier's `lr`.

    ``CNNClassifier(optimizer="sgd")`` stands for ``Optimizer("sgd")``.

    Parameters
    ----------
    method : {"adam", "adamw", "sgd", "rmsprop"} or torch optimizer class, default="adamw"
        ``"adam"`` (Kingma and Ba 2014, https://arxiv.org/abs/1412.6980), ``"adamw"`` (Loshchilov
        and Hutter 2017, https://arxiv.org/abs/1711.05101), ``"sgd"`` with Nesterov momentum 0.9, or
        ``"rmsprop"``.
    weight_decay : float, default=0.0
        The `weight_decay` of the torch optimizer, >= 0. It acts on all trained parameters, biases
        and normalisation included.
    layer_lr_decay : float in (0, 1], default=1.0
        Discriminative learning rates (Howard and Ruder 2018, https://arxiv.org/abs/1801.06146): the
        head learns at the full rate, the k-th block below it at ``layer_lr_decay ** k`` times that.
    max_grad_norm : float or None, default=None
        Gradient clipping: gradients with a larger total norm (L2) are scaled down to this norm,
        > 0. None does not clip.
    params : dict or None, default=None
        Further arguments of the torch optimizer, such as ``{"betas": (0.9, 0.99)}``.

    Raises
    ------
    ValueError
        When the classifier is fitted, if an option is out of its range, `params` holds ``"lr"``, or
        the optimizer does not take `params`.

    Examples
    --------
    >>> from wbcclf import CNNClassifier, Optimizer
    >>> clf = CNNClassifier(optimizer=Optimizer("adamw", weight_decay=0.05))
    >>> clf.set_params(optimizer__weight_decay=0.01).optimizer
    Optimizer(weight_decay=0.01)
    """

    _parameter_constraints: dict = {
        "method": [StrOptions(METHODS), callable],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "layer_lr_decay": [Interval(Real, 0, 1, closed="right")],
        "max_grad_norm": [Interval(Real, 0, None, closed="neither"), None],
        "params": [dict, None],
    }

    def __init__(
        self, method="adamw", weight_decay=0.0, layer_lr_decay=1.0, max_grad_norm=None, params=None
    ):
        self.method = method
        self.weight_decay = weight_decay
        self.layer_lr_decay = layer_lr_decay
        self.max_grad_norm = max_grad_norm
        self.params = params
