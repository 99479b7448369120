"""Model files of formats 1 and 2, whose classifiers had one parameter for each option.

What a parameter has become is written here once, when the format's integer is raised.
"""

from __future__ import annotations

from typing import Any

_OF_THE_MACHINE = {"cache_gb", "device", "memory_gb", "n_jobs", "verbose"}
# The heads of named classifiers that were not the usual one.
_HEADS: dict[str, dict[str, Any]] = {
    "cnn8": {"pooling": "flatten", "hidden": []},
    "cnn_3block": {"pooling": "flatten", "hidden": []},
    "wide_deep": {"pooling": "flatten", "hidden": []},
    "sepconv": {"pooling": "flatten", "hidden": [512, 128, 64]},
    "nine_class_cnn": {"pooling": "flatten", "hidden": [64]},
    "field_cnn_baseline": {"pooling": "flatten", "hidden": [64]},
    "field_cnn": {"pooling": "flatten", "hidden": [256, 128, 64, 32]},
}
_LOSSES = {"cross_entropy": "CrossEntropy", "focal": "FocalLoss"}
_SCHEDULES = {
    "constant": "Constant",
    "cosine": "Cosine",
    "onecycle": "OneCycle",
    "plateau": "Plateau",
    "step": "StepDecay",
    "decay": "InverseTimeDecay",
}


def translate(name: str, params: dict[str, Any], backbone: str | None) -> dict[str, Any]:
    """Return the parameters of an estimator as format 3 writes them.

    Parameters
    ----------
    name : str
        The estimator's class.
    params : dict
        As the file has them, encoded. Not changed.
    backbone : str or None
        The backbone of a classifier that is named after it.

    Raises
    ------
    TypeError, KeyError
        If they are none that older versions wrote.
    """
    old = {key: value for key, value in params.items() if key not in _OF_THE_MACHINE}
    if name in ("Augmenter", "ConvNet", "Head", "ImageLoader"):
        return old

    newer = {key for key in ("early_stopping", "unfrozen_layers") if isinstance(old.get(key), dict)}
    newer |= {"averaging", "mixing"} & old.keys()
    if newer:
        raise TypeError(f"{min(newer)} is of format 3")

    def take(**names: str) -> dict[str, Any]:
        """Take parameters out of the old ones, under new names."""
        return {new: old.pop(key) for new, key in names.items() if key in old}

    new: dict[str, Any] = {}
    head = old.pop("head", None)
    if head is None:
        head = _object("Head", **_HEADS.get(backbone or "", {}))
    new["head"] = head | {"params": head["params"] | take(dropout="dropout")}
    new["optimizer"] = _object(
        "Optimizer",
        **take(
            method="optimizer",
            params="optimizer_params",
            weight_decay="weight_decay",
            layer_lr_decay="layer_lr_decay",
            max_grad_norm="max_grad_norm",
        ),
    )
    options = take(label_smoothing="label_smoothing", l1="l1", l2="l2")
    gamma = take(gamma="focal_gamma")
    loss = _LOSSES[old.pop("loss", "cross_entropy")]
    new["loss"] = _object(loss, **options | (gamma if loss == "FocalLoss" else {}))
    schedule = _SCHEDULES[old.pop("lr_schedule", "onecycle")]
    of_schedule = dict((old.pop("lr_schedule_params", None) or {"dict": []})["dict"])
    new["lr_schedule"] = _object(schedule, **of_schedule)
    mixing = take(mixup="mixup", cutmix="cutmix")
    if any(mixing.values()):
        new["mixing"] = _object("Mixing", **mixing)
    stopping = take(
        patience="patience",
        monitor="monitor",
        min_delta="min_delta",
        validation_fraction="validation_fraction",
    )
    if old.pop("early_stopping", False):
        new["early_stopping"] = _object("EarlyStopping", **stopping)
    decay = old.pop("ema_decay", None)
    if decay is not None:
        new["averaging"] = _object("Averaging", decay=decay)
    epochs = old.pop("gradual_unfreezing", 0)
    if epochs:
        new["unfrozen_layers"] = _object(
            "GradualUnfreezing", epochs_per_layer=epochs, **take(layers="unfrozen_layers")
        )
    old.setdefault("weights", None)
    return old | new


def _object(name: str, **params: Any) -> dict[str, Any]:
    return {"class": name, "params": params}
