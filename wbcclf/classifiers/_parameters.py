"""What each parameter of CNNClassifier may be, in scikit-learn's own terms."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from wbcclf._images import HasMethods, Interval, StrOptions
from wbcclf._store import MEMORY_CONSTRAINT
from wbcclf.backbones._registry import A_BACKBONE
from wbcclf.classifiers.options._head import Head

_POSITIVE_INT = Interval(Integral, 1, None, closed="left")
_NOT_NEGATIVE = Interval(Real, 0, None, closed="left")
_POSITIVE = Interval(Real, 0, None, closed="neither")
_SHARE = Interval(Real, 0, 1, closed="left")


class _Backbone(HasMethods):
    """What `backbone` may be; the error tells how a torch module becomes one."""

    def __init__(self) -> None:
        super().__init__("spec")

    def is_satisfied_by(self, val: Any) -> bool:
        return isinstance(val, str) or super().is_satisfied_by(val)

    def __str__(self) -> str:
        return A_BACKBONE


PARAMETER_CONSTRAINTS: dict = {
    "backbone": [_Backbone()],
    "weights": [str, HasMethods("__fspath__"), None],
    "unfrozen_layers": [Interval(Integral, 0, None, closed="left"), str],
    "head": [Head, None],
    "dropout": [_SHARE, tuple, list],
    "input_size": [_POSITIVE_INT, tuple, list, None],
    "image_shape": [tuple, list, None],
    "max_epochs": [_POSITIVE_INT],
    "max_steps": [_POSITIVE_INT, None],
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
    "memory": MEMORY_CONSTRAINT,
    "memory_gb": [_POSITIVE],
    "callbacks": [list, tuple, None],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
    "warm_start": ["boolean"],
}
