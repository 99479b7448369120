"""What each parameter of CNNClassifier may be, in scikit-learn's own terms; and as a text."""

from __future__ import annotations

import os
from dataclasses import is_dataclass
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from wbcclf._images import HasMethods, Interval, StrOptions
from wbcclf.classifiers._head import Head

_POSITIVE_INT = Interval(Integral, 1, None, closed="left")
_NOT_NEGATIVE = Interval(Real, 0, None, closed="left")
_POSITIVE = Interval(Real, 0, None, closed="neither")
_SHARE = Interval(Real, 0, 1, closed="left")

PARAMETER_CONSTRAINTS: dict = {
    "backbone": [str, HasMethods("spec")],
    "weights": [str, HasMethods("__fspath__"), None],
    "unfrozen_layers": [Interval(Integral, 0, None, closed="left"), str],
    "head": [Head, None],
    "dropout": [_SHARE, tuple, list],
    "input_size": [_POSITIVE_INT, tuple, list, None],
    "image_shape": [tuple, list, None],
    "max_epochs": [_POSITIVE_INT],
    "batch_size": [_POSITIVE_INT],
    "optimizer": [StrOptions({"adam", "adamw", "sgd", "rmsprop"}), callable],
    "optimizer_params": [dict, None],
    "lr": [_POSITIVE],
    "weight_decay": [_NOT_NEGATIVE],
    "lr_schedule": [StrOptions({"constant", "cosine", "onecycle", "plateau", "step", "decay"})],
    "lr_schedule_params": [dict, None],
    "layer_lr_decay": [Interval(Real, 0, 1, closed="right")],
    "gradual_unfreezing": [Interval(Integral, 0, None, closed="left")],
    "loss": [StrOptions({"cross_entropy", "focal"})],
    "focal_gamma": [_NOT_NEGATIVE],
    "label_smoothing": [_SHARE],
    "l1": [_NOT_NEGATIVE, dict],
    "l2": [_NOT_NEGATIVE, dict],
    "class_weight": [StrOptions({"balanced"}), dict, None],
    "balanced_batches": ["boolean"],
    "mixup": [_NOT_NEGATIVE],
    "cutmix": [_NOT_NEGATIVE],
    "max_grad_norm": [_POSITIVE, None],
    "ema_decay": [_SHARE, None],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    "patience": [_POSITIVE_INT],
    "monitor": [StrOptions({"valid_loss", "valid_acc"})],
    "min_delta": [_NOT_NEGATIVE],
    "checkpoint_dir": [str, HasMethods("__fspath__"), None],
    "augment": [HasMethods("augment"), None],
    "test_time_augmentation": ["boolean"],
    "device": [str],
    "precision": [StrOptions({"auto", "float32", "bfloat16"})],
    "compile": ["boolean"],
    "cache_gb": [_NOT_NEGATIVE],
    "memory": [str, HasMethods("__fspath__"), HasMethods("cache"), None],
    "memory_gb": [_POSITIVE],
    "callbacks": [list, tuple, None],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
    "warm_start": ["boolean"],
}


def parameter_text(value: Any) -> str:
    """Return a text that is the same for equal parameters, in another process too."""
    if isinstance(value, np.generic):
        value = value.item()
    if hasattr(value, "detach"):  # a tensor: torch is not imported here
        return f"tensor({value.dtype}, {parameter_text(value.detach().cpu().double().numpy())})"
    if isinstance(value, np.ndarray):  # its own text leaves values out
        return f"array({value.dtype}, {parameter_text(value.tolist())})"
    if isinstance(value, np.random.RandomState):
        return repr([np.asarray(part).tolist() for part in value.get_state()])
    if isinstance(value, BaseEstimator):
        parts = sorted(value.get_params(deep=False).items())
        return f"{_name(value)}({', '.join(f'{k}={parameter_text(v)}' for k, v in parts)})"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(parameter_text, value))}]"
    if isinstance(value, dict):
        items = [f"{parameter_text(k)}: {parameter_text(v)}" for k, v in value.items()]
        return f"{{{', '.join(items)}}}"
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, partial):
        return f"partial{parameter_text([value.func, value.args, value.keywords])}"
    if callable(value):
        return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__name__)}"
    if is_dataclass(value) or type(value).__repr__ is object.__repr__:
        # The latter would tell the address in memory, the former may leave values of arrays out.
        return f"{_name(value)}({parameter_text(vars(value))})"
    return repr(value)


def _name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
