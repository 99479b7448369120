"""A classifier's parameters as the rooms below read them: checked, objects for plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property, partial
from numbers import Real
from os import PathLike
from typing import Any

from joblib import Memory
from sklearn.base import BaseEstimator

from wbcclf._parameters import Option
from wbcclf._store import Cache
from wbcclf.backbones import BackboneSpec, Head, get_backbone
from wbcclf.classifiers.options._averaging import Averaging
from wbcclf.classifiers.options._early_stopping import EarlyStopping
from wbcclf.classifiers.options._losses import CrossEntropy, FocalLoss
from wbcclf.classifiers.options._mixing import Mixing
from wbcclf.classifiers.options._optimizer import METHODS, Optimizer
from wbcclf.classifiers.options._schedules import (
    Constant,
    Cosine,
    InverseTimeDecay,
    OneCycle,
    Plateau,
    StepDecay,
)
from wbcclf.classifiers.options._unfreezing import GradualUnfreezing
from wbcclf.classifiers.options._values import digest

__all__ = ["LOSSES", "METHODS", "MIXING", "SCHEDULES", "Settings"]

LOSSES: dict[str, type[Option]] = {"cross_entropy": CrossEntropy, "focal": FocalLoss}
SCHEDULES: dict[str, type[Option]] = {
    "constant": Constant,
    "cosine": Cosine,
    "onecycle": OneCycle,
    "plateau": Plateau,
    "step": StepDecay,
    "decay": InverseTimeDecay,
}
MIXING: dict[str, Callable[[], Option]] = {
    "mixup": partial(Mixing, mixup=0.2),
    "cutmix": partial(Mixing, cutmix=1.0),
}


@dataclass(frozen=True)
class Settings:
    """The parameters of a CNNClassifier, of the same names unless another is noted."""

    backbone: BackboneSpec
    weights: str | PathLike | None  # a tag, a file, or None for random ones
    unfrozen_layers: int | str
    epochs_per_layer: int | None  # of gradual unfreezing
    head: Head
    input_size: Any
    test_time_augmentation: bool
    rejection: float | None
    max_epochs: int
    max_steps: int | None
    batch_size: int
    lr: float
    lr_schedule: Option
    optimizer: Optimizer
    averaging: Averaging | None
    loss: CrossEntropy | FocalLoss
    class_weight: Any
    balanced_batches: bool
    augment: Any
    mixing: Mixing | None
    early_stopping: EarlyStopping | None
    calibrate: bool
    checkpoint_dir: str | PathLike | None
    device: str
    precision: str
    compile: bool
    cache_gb: float
    memory: str | PathLike | Memory | Cache | None
    verbose: int
    callbacks: list | tuple
    given: Mapping[str, Any]  # as they were

    @classmethod
    def of(cls, classifier: BaseEstimator) -> Settings:
        """Return the settings of a CNNClassifier.

        Raises
        ------
        ValueError
            If an option is out of its range; the message names it.
        """
        classifier._validate_params()
        given = classifier.get_params(deep=False) | {"backbone": classifier.backbone}
        spec = get_backbone(given["backbone"])
        unfreezing = given["unfrozen_layers"]
        is_gradual = isinstance(unfreezing, GradualUnfreezing)
        averaging, optimizer = given["averaging"], given["optimizer"]
        if isinstance(averaging, Real) and not isinstance(averaging, bool):
            averaging = Averaging(averaging)
        if not isinstance(optimizer, Optimizer):
            optimizer = Optimizer(optimizer)
        mixing = _option(given["mixing"], MIXING)
        values = given | {
            "backbone": spec,
            "weights": spec.default_weights if given["weights"] == "default" else given["weights"],
            "unfrozen_layers": unfreezing.validate().layers if is_gradual else unfreezing,
            "epochs_per_layer": int(unfreezing.epochs_per_layer) if is_gradual else None,
            "head": (spec.head if given["head"] is None else given["head"]).validate(),
            # torch's schedules take no integers of NumPy, as searches over np.arange have them.
            "max_epochs": int(given["max_epochs"]),
            "max_steps": given["max_steps"] and int(given["max_steps"]),
            "lr": spec.lr if given["lr"] is None else given["lr"],
            "lr_schedule": _option(given["lr_schedule"], SCHEDULES),
            "optimizer": optimizer.validate(),
            "averaging": _switch(averaging, Averaging),
            "loss": _option(given["loss"], LOSSES),
            "mixing": mixing if mixing and (mixing.mixup or mixing.cutmix) else None,
            "early_stopping": _switch(given["early_stopping"], EarlyStopping),
            "callbacks": given["callbacks"] or (),
            "given": given,
        }
        return cls(**{field.name: values[field.name] for field in fields(cls)})

    @cached_property
    def built_from(self) -> dict[str, str]:
        """Digests of the parameters that the network is built from, but for its weights."""
        return {name: digest(self.given[name]) for name in ("backbone", "head", "input_size")}

    @cached_property
    def digest(self) -> str:
        """A digest of all parameters but `random_state`."""
        # A callback that has seen an epoch is still the same.
        ids = [id(callback) for callback in self.callbacks]
        values = {**self.given, "random_state": None, "callbacks": ids}
        return digest([(name, digest(value)) for name, value in sorted(values.items())])


def _option(value: Any, names: Mapping[str, Callable[[], Option]]) -> Option | None:
    """Return the object that a parameter stands for."""
    return names[value]() if isinstance(value, str) else value and value.validate()


def _switch(value: Any, option: type[Option]) -> Option | None:
    """Return the object that a parameter stands for which may also be True or False."""
    if isinstance(value, option):
        return value.validate()
    return option() if value else None
