"""What a model file says of estimators and of what `fit` learnt, and which values it may hold.

Saving leaves out, or refuses, what loading would not take: both ask the tables of this file.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from wbcclf import backbones, classifiers
from wbcclf._images import CHANNELS, LONGEST_SIDE
from wbcclf._model_file import FORMAT
from wbcclf._older_models import translate
from wbcclf._parameters import Each, Machine, Training, belongs_to, make_constraint
from wbcclf._warnings import warn
from wbcclf.backbones import ConvNet
from wbcclf.classifiers import CNNClassifier
from wbcclf.datasets import ImageLoader
from wbcclf.exceptions import ModelFormatError
from wbcclf.preprocessing import BackgroundRemover, CellCropper
from wbcclf.sampling import Augmenter

# What may stand between loader and classifier.
TRANSFORMERS = (CellCropper, BackgroundRemover)

# The estimators that a file may name.
_CLASSES: dict[str, type[BaseEstimator]] = {
    cls.__name__: cls
    for cls in (ImageLoader, *TRANSFORMERS, ConvNet, Augmenter, *vars(classifiers).values())
    if isinstance(cls, type) and not issubclass(cls, classifiers.DeepFeatures)
}

# ---------------------------------------------------------------- the tables

Check = Callable[[Any], bool]

# A file of a few kilobytes can ask for any number of layers, and for images of any size to be made
# of those that it is given: both cost more than their text.
_MOST_LAYERS = 32  # twice the blocks of a ConvNet, six times the layers of a published head
_MOST_STEPS = 8  # a loader, a classifier, and more than anybody puts between
_MOST_KEYS = 1_000  # classes, blocks or options
_MOST_DIAMETERS = 16  # of a nucleus, or of a cell; the defaults are 3 and 1.5
LONGEST_INPUT = 2_048  # pixels, twice the largest input of timm's pretrained networks


def _is(*types: type) -> Check:
    """Take values of exactly these types: True is no int here."""
    return lambda value: type(value) in types


def _tuple_of(item: Check) -> Check:
    return lambda value: type(value) is tuple and all(map(item, value))


def _dict_of(key: Check, item: Check) -> Check:
    return lambda value: (
        type(value) is dict and all(map(key, value)) and all(map(item, value.values()))
    )


def _int(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**64  # what NumPy holds


def _number(value: Any) -> bool:
    return type(value) is float or _int(value)


def _label(value: Any) -> bool:
    return type(value) in (bool, str) or _number(value)


def _scalar(value: Any) -> bool:
    return value is None or _label(value)


def _side(value: Any) -> bool:
    return type(value) is int and 1 <= value <= LONGEST_INPUT


def _size(value: Any) -> bool:
    return value is None or _side(value) or (_tuple_of(_side)(value) and len(value) == 2)


def _image_shape(value: Any) -> bool:
    # Larger than LONGEST_INPUT if these were the training images: predicting takes no others, and
    # makes none of that size.
    return (
        _tuple_of(_int)(value)
        and len(value) == 3
        and all(1 <= side <= LONGEST_SIDE for side in value)
        and value[2] in CHANNELS
    )


# Tighter bounds than those that estimators declare.
_BOUNDS: dict[str, Check] = {
    "backbone": lambda value: type(value) is not str or bool(re.fullmatch(r"\S{1,200}", value)),
    "image_shape": lambda value: value is None or _image_shape(value),
    "image_size": _size,
    "input_size": _size,
    # Of a CellCropper's square, before it is stretched; `factor` is a schedule's, too.
    "scale": lambda value: type(value) is str or _side(value),
    "factor": lambda value: value is None or (_number(value) and value <= _MOST_DIAMETERS),
}


def _value_range(value: Any) -> bool:
    # Both are the same if all pixels were.
    if not (_tuple_of(_number)(value) and len(value) == 2):
        return False
    return -math.inf < value[0] <= value[1] < math.inf


# What transformers learn of their images, besides feature names. Where a cell was found while
# fitting, `found_`, no prediction depends on.
OF_IMAGES: dict[str, Check] = {
    "image_shape_": _image_shape,
    "value_range_": _value_range,
    "n_features_in_": _int,
}
# What classifiers learn besides classes, feature names and the network's weights. A training that
# went wrong has losses that are not finite.
LEARNT: dict[str, Check] = OF_IMAGES | {
    "history_": _tuple_of(_dict_of(_is(str), _number)),
    "n_iter_": _int,
}

# And what they learn with `calibrate`.
OF_CALIBRATION: dict[str, Check] = {
    "temperature_": lambda value: type(value) is float and 0 < value < math.inf,
}

# ---------------------------------------------------------------- estimators


def encode(value: Any) -> Any:
    """Return a parameter, or an estimator with its parameters, as JSON; tuples become lists."""
    if isinstance(value, BaseEstimator) and _CLASSES.get(type(value).__name__) is type(value):
        return {"class": type(value).__name__, "params": _encode_parameters(value)}
    if isinstance(value, dict):
        return {"dict": [[encode(key), encode(item)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if _scalar(value):
        return value
    raise TypeError(f"{type(value).__name__} cannot be written as JSON.")


def _encode_parameters(estimator: BaseEstimator) -> dict[str, Any]:
    cls = type(estimator)
    params = {}
    for name, param in estimator.get_params(deep=False).items():
        if belongs_to(cls, name, Machine):
            continue
        if name == "weights":
            param = tag_or_none(param, estimator.backbone)
        try:
            encoded = encode(param)
            _check_parameter(cls, name, decode(encoded))
        except (TypeError, ValueError) as error:
            fault = f"{cls.__name__}({name}={param!r}) cannot be written to a model file"
            if not belongs_to(cls, name, Training):
                raise TypeError(f"{fault}. Use joblib.dump for such a model.") from error
            warn(f"{fault} and is left at its default; predictions do not depend on it.")
        else:
            params[name] = encoded
    return params


def tag_or_none(weights: Any, backbone: Any) -> str | None:
    """Return the tag of a backbone's weights; None for a file, which belongs to the machine."""
    tags = {"default", *backbones.get_backbone(backbone).weights}
    return weights if isinstance(weights, str) and weights in tags else None


def decode(value: Any) -> Any:
    """Return the parameter or estimator that :func:`encode` made JSON of.

    Raises
    ------
    ModelFormatError
        If an estimator has a parameter that this version does not know.
    TypeError, ValueError, KeyError
        If it is anything that saving does not write.
    """
    if isinstance(value, dict) and value.keys() == {"class", "params"}:
        return _decode_estimator(value["class"], value["params"])
    if isinstance(value, dict):
        items = value["dict"]
        if len(items) > _MOST_KEYS:
            raise TypeError(f"a dict of {len(items):,} keys; a model file holds {_MOST_KEYS:,}")
        return {_decode_plain(key): _decode_plain(item) for key, item in items}
    return _decode_plain(value)


def _decode_plain(value: Any) -> Any:
    """Return a single value, or a tuple of them: no parameter needs more in each other."""
    if isinstance(value, list):
        if len(value) > _MOST_LAYERS:
            raise TypeError(f"a list of {len(value):,} values; a model file holds {_MOST_LAYERS}")
        if all(map(_scalar, value)):
            return tuple(value)
    elif _scalar(value):
        return value
    raise TypeError(f"{reprlib.repr(value)} is not among the values that a model file holds")


def _decode_estimator(name: str, encoded: dict[str, Any]) -> BaseEstimator:
    cls = _CLASSES[name]
    unknown = encoded.keys() - cls._get_param_names()
    if unknown:
        raise ModelFormatError(
            f"The model file gives {name} the parameter {min(unknown)!r:.80}, which this version "
            "of wbcclf does not know: update wbcclf."
        )
    params = {}
    for param, value in encoded.items():
        if belongs_to(cls, param, Machine):
            raise ValueError(f"{param} belongs to the machine; save_model does not write it")
        params[param] = decode(value)
        _check_parameter(cls, param, params[param])
    estimator = cls(**params)  # what an older version did not know yet is at its default
    estimator._validate_params()
    return estimator


def _check_parameter(cls: type[BaseEstimator], name: str, value: Any) -> None:
    """Fail for values that are larger than a file may ask for, or of a kind that nobody declared.

    Single values and those of dicts are left to the estimator, whose own check follows. What is
    below another value must be declared as such: a constraint like `tuple` or "has a method" says
    nothing of what a tuple or an estimator holds.
    """
    constraints = [make_constraint(each) for each in cls._parameter_constraints[name]]
    if isinstance(value, BaseEstimator):
        is_allowed = any(constraint.is_satisfied_by(value) for constraint in constraints)
    elif isinstance(value, tuple) and value:
        declared = [constraint for constraint in constraints if isinstance(constraint, Each)]
        is_allowed = any(constraint.is_satisfied_by(value) for constraint in declared)
    else:
        is_allowed = not isinstance(value, dict) or all(map(_label, value))
    if not is_allowed or (name in _BOUNDS and not _BOUNDS[name](value)):
        raise TypeError(
            f"{name}={reprlib.repr(value)} is not among the values that a model file holds"
        )


# ---------------------------------------------------------------- the document


_DOCUMENT: dict[str, Check] = {
    "format": _int,
    "version": _is(str),
    "backbone": _is(str),
    "package": lambda value: value is None or bool(re.fullmatch(r"[\w.-]{1,100}", value)),
    "pipeline": _is(bool),
    "steps": _is(list),
    "learnt": _is(dict),
    "transformers": _is(dict),
}


def read_steps(document: dict) -> list[tuple[str, BaseEstimator]]:
    """Return the unfitted steps of a model: at most a loader, transformers, and a classifier.

    Raises
    ------
    TypeError, ValueError, KeyError
        If the document is anything that saving does not write.
    """
    unknown = document.keys() - _DOCUMENT.keys()
    for name, is_allowed in _DOCUMENT.items():
        if name in document and not is_allowed(document[name]):
            raise ValueError(f"{name} is {reprlib.repr(document[name])}")
    if unknown:
        raise ValueError(f"{min(unknown)!r:.80} is no part of a model")
    steps = document["steps"]
    # Counted first: each step costs more to make than to write down.
    most = _MOST_STEPS if document["pipeline"] else 1
    if not 1 <= len(steps) <= most:
        raise ValueError(f"{len(steps)} steps, of which a model file holds {most}")
    names = [name for name, _ in steps]
    are_names = all(isinstance(name, str) and "__" not in name for name in names)
    if not are_names or len({*names}) < len(names):
        raise ValueError(f"the names of the steps are {reprlib.repr(names)}")
    if document.get("format", FORMAT) < 3:
        steps = [(name, _translated(step)) for name, step in steps]
    estimators = [decode(step) for _, step in steps]
    *before, classifier = estimators
    transformers = before[1:] if before and isinstance(before[0], ImageLoader) else before
    if not isinstance(classifier, CNNClassifier) or not all(
        isinstance(step, TRANSFORMERS) for step in transformers
    ):
        raise ValueError(
            f"the steps are {', '.join(type(step).__name__ for step in estimators)}: not an "
            "ImageLoader, then croppers and removers, then a classifier"
        )
    return list(zip(names, estimators, strict=True))


def _translated(step: dict) -> dict:
    cls = _CLASSES[step["class"]]
    return step | {
        "params": translate(cls.__name__, step["params"], getattr(cls, "backbone", None))
    }


def _are_classes(labels: np.ndarray) -> bool:
    return (
        labels.ndim == 1
        and len(labels) >= 2
        and bool((labels[:-1] < labels[1:]).all())  # sorted, none twice, none NaN
        and (labels.dtype.kind != "f" or bool(np.isfinite(labels).all()))
    )


def set_learnt(classifier: CNNClassifier, learnt: dict, classes: np.ndarray) -> None:
    """Give an unfitted classifier what it had learnt, but for its network and feature names.

    Raises
    ------
    ValueError
        If that is anything that `fit` does not learn.
    """
    known = _checked(learnt, LEARNT | (OF_CALIBRATION if "temperature_" in learnt else {}))
    classes.tolist()  # fails for characters that there are not
    consistent = {
        "n_iter_": known["n_iter_"] == len(known["history_"]),
        "classes_": _are_classes(classes),
    }
    for name, is_consistent in consistent.items():
        if not is_consistent:
            raise ValueError(f"{name} cannot have been learnt")
    known["history_"] = list(known["history_"])
    classifier.__dict__.update(known, classes_=classes)


def set_transformers_learnt(
    transformers: list[tuple[str, BaseEstimator]], learnt: dict[str, dict]
) -> None:
    """Give unfitted transformers what they had learnt, by their names, but for feature names.

    Raises
    ------
    ValueError
        If that is anything that `fit` does not learn.
    """
    if learnt.keys() != {name for name, _ in transformers}:
        raise ValueError(f"transformers are {reprlib.repr(list(learnt))}")
    for name, transformer in transformers:
        transformer.__dict__.update(_checked(learnt[name], OF_IMAGES))
        transformer._n_features_out = math.prod(output_shape(transformer))


def output_shape(transformer: BaseEstimator) -> tuple[int, ...]:
    """Return the shape of what a fitted transformer makes of an image."""
    return transformer._output(np.empty((0, *transformer.image_shape_), np.uint8))[0]


def set_feature_names(step: BaseEstimator, names: np.ndarray) -> None:
    """Give a step the names of the columns that it was fitted on.

    Raises
    ------
    ValueError
        If they are not one string for each of its features.
    """
    if names.dtype.kind != "U" or names.shape != (step.n_features_in_,):
        raise ValueError("feature_names_in_ cannot have been learnt")
    step.feature_names_in_ = np.array(names.tolist(), dtype=object)


def _checked(learnt: dict, table: dict[str, Check]) -> dict[str, Any]:
    """Return what a step had learnt, if it is what the table names and allows."""
    learnt = {n: tuple(value) if type(value) is list else value for n, value in learnt.items()}
    if learnt.keys() != table.keys():
        raise ValueError(f"learnt are {reprlib.repr(list(learnt))}")
    for name, is_allowed in table.items():
        if not is_allowed(learnt[name]):
            raise ValueError(f"{name}={reprlib.repr(learnt[name])} cannot have been learnt")
    if learnt["n_features_in_"] != math.prod(learnt["image_shape_"]):
        raise ValueError("n_features_in_ cannot have been learnt")
    return learnt
