"""Models in files that are safe to open: a zip of one JSON text and plain arrays, no pickle."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from imblearn.pipeline import Pipeline
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from wbcclf import backbones, classifiers, datasets, sampling
from wbcclf._model_file import open_model_file, write_model_file
from wbcclf.classifiers import CNNClassifier
from wbcclf.datasets import ImageLoader
from wbcclf.exceptions import ModelFormatError
from wbcclf.sampling import Augmenter

# The estimators that a file may name: classifiers, heads, backbones of one's own design, and more.
_CLASSES = {
    cls.__name__: cls
    for room in (backbones, classifiers, datasets, sampling)
    for cls in (getattr(room, name) for name in room.__all__)
    if isinstance(cls, type) and issubclass(cls, BaseEstimator)
}
# What `fit` learns besides the network's weights, and how it is written.
_LEARNT = ("image_shape_", "value_range_", "n_features_in_", "history_", "n_iter_")
# What reading a damaged or made-up file runs into.
_DAMAGED = (
    zipfile.BadZipFile,
    AttributeError,
    IndexError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
)
# Parameters that only training needs; the others must be in the file.
_NOT_NEEDED = {
    "augment",
    "callbacks",
    "class_weight",
    "lr_schedule_params",
    "optimizer",
    "optimizer_params",
    "random_state",
}
# Parameters that belong to the machine and not to the model: folders, a compiler.
_OF_THE_MACHINE = {"checkpoint_dir", "compile", "memory", "spill_dir"}
# What format 1 called tensors of the network.
_RENAMED = {"scale": "preprocessing.scale", "offset": "preprocessing.offset"}


def save_model(model: BaseEstimator, path: str | os.PathLike) -> None:
    """Write a fitted classifier, or a pipeline that ends in one, to a file.

    Steps that act only while fitting (samplers) are left out: the file holds what predicting
    needs. So are folders (`memory`, `spill_dir`, `checkpoint_dir`) and `compile`, which belong to
    the machine. The file is written under a temporary name and then renamed, so an interrupted call
    leaves no half file and an existing one untouched.

    Parameters
    ----------
    model : CNNClassifier or Pipeline
        Fitted. A pipeline may hold an :class:`ImageLoader`, any samplers, and the classifier.
    path : str or path
        File to write; ``.wbcclf`` is the usual suffix.

    Raises
    ------
    TypeError
        If the model holds a step that cannot be written; use joblib for such a pipeline.
    sklearn.exceptions.NotFittedError
        If the model is not fitted.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import os, tempfile
    >>> from wbcclf import SimpleCNNClassifier, load_model, make_blood_cells, save_model
    >>> cells = make_blood_cells(40, classes=2, image_size=32, random_state=0)
    >>> clf = SimpleCNNClassifier(max_epochs=1, device="cpu", random_state=0)
    >>> clf = clf.fit(cells.images, cells.target)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.wbcclf")
    ...     save_model(clf, path)
    ...     loaded = load_model(path)
    >>> (loaded.predict_proba(cells.images) == clf.predict_proba(cells.images)).all()
    np.True_
    """
    steps = model.steps if hasattr(model, "steps") else [("", model)]
    kept = [(name, step) for name, step in steps if not hasattr(step, "fit_resample")]
    for name, step in kept:
        if not isinstance(step, (ImageLoader, CNNClassifier)):
            raise TypeError(
                f"save_model writes ImageLoader, samplers and wbcclf's classifiers, not "
                f"{type(step).__name__} (step {name!r}). Use joblib.dump for such a pipeline."
            )
    classifier = kept[-1][1] if kept else None
    if not isinstance(classifier, CNNClassifier):
        raise TypeError(f"The last step of the model must be a CNNClassifier, got {classifier!r}.")
    check_is_fitted(classifier)
    from wbcclf.classifiers._network import check_built  # brings torch

    check_built(classifier)
    learnt = {name: getattr(classifier, name) for name in _LEARNT}
    document = {
        "backbone": backbones.get_backbone(classifier.backbone).name,
        "pipeline": hasattr(model, "steps"),
        "steps": [[name, _encode(step)] for name, step in kept],
        "learnt": learnt,
    }
    arrays = {"classes": _plain(classifier.classes_)}
    if hasattr(classifier, "feature_names_in_"):
        arrays["feature_names"] = _plain(classifier.feature_names_in_)
    for name, tensor in classifier.net_.module_.state_dict().items():
        arrays[f"network/{name}"] = tensor.cpu().numpy()
    write_model_file(path, document, arrays)


def load_model(path: str | os.PathLike) -> BaseEstimator:
    """Read a model that :func:`save_model` wrote. Safe for files from others: no code is run.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    CNNClassifier or imblearn.pipeline.Pipeline
        Fitted; predicts as the saved one did, on the best device of this machine.

    Raises
    ------
    wbcclf.exceptions.ModelFormatError
        If the file is no such model, is damaged, or was written by a newer format.
    FileNotFoundError
        If there is no such file.
    """
    try:
        with open_model_file(path) as (document, arrays):
            steps = [(name, _decode(step)) for name, step in document["steps"]]
            if not isinstance(steps[-1][1], CNNClassifier):
                raise ValueError("the last step is no classifier")
            for _, step in steps:
                step._validate_params()
            _restore(steps[-1][1], document["learnt"], arrays)
        return Pipeline(steps) if document["pipeline"] else steps[-1][1]
    except ModelFormatError:
        raise
    except _DAMAGED as error:
        raise ModelFormatError(
            f"{os.fspath(path)} is not a model written by wbcclf.save_model, or is damaged "
            f"({type(error).__name__}: {error}). Files of joblib.dump are read with joblib.load, "
            "and only if you trust who made them."
        ) from error


def _encode(value: Any) -> Any:
    """Return a parameter, or an estimator with its parameters, as JSON; tuples become lists."""
    if isinstance(value, BaseEstimator) and _CLASSES.get(type(value).__name__) is type(value):
        params = {}
        for name, param in value.get_params(deep=False).items():
            if name in _OF_THE_MACHINE:
                continue
            try:
                params[name] = _encode(param)
            except TypeError as error:
                if name not in _NOT_NEEDED and not isinstance(value, Augmenter):
                    raise TypeError(
                        f"{type(value).__name__}({name}={param!r}) cannot be written to a model "
                        "file. Use joblib.dump for such a model."
                    ) from error
                warnings.warn(
                    f"{type(value).__name__}({name}={param!r}) cannot be written to a model file "
                    "and is left at its default; predictions do not depend on it.",
                    UserWarning,
                    stacklevel=3,
                )
        if "optimizer" not in params:  # what it was given is nothing for the default one
            params.pop("optimizer_params", None)
        return {"class": type(value).__name__, "params": params}
    if isinstance(value, dict):
        return {"dict": [[_encode(key), _encode(item)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_encode(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__name__} has no form in JSON.")


def _decode(value: Any) -> Any:
    if isinstance(value, dict) and "class" in value:
        cls = _CLASSES[value["class"]]
        params = {name: _decode(param) for name, param in value["params"].items()}
        unknown = sorted(params.keys() - cls._get_param_names())
        if unknown:
            raise ModelFormatError(
                f"The model file gives {cls.__name__} the parameter {unknown[0]!r}, which this "
                "version of wbcclf does not know: update wbcclf."
            )
        return cls(**params)  # what an older version did not know yet is at its default
    if isinstance(value, dict):
        return {_decode(key): _decode(item) for key, item in value["dict"]}
    if isinstance(value, list):
        return tuple(_decode(item) for item in value)
    return value


def _plain(labels: np.ndarray) -> np.ndarray:
    """Return an object array of strings as a string array, which needs no pickle."""
    return labels.astype(str) if labels.dtype.kind == "O" else labels


def _restore(classifier: CNNClassifier, learnt: dict, arrays: Mapping[str, np.ndarray]) -> None:
    """Give an unfitted classifier what it had learnt."""
    import torch

    if len(learnt["image_shape_"]) != 3:
        raise ValueError(f"image_shape_ {learnt['image_shape_']}")
    classifier.classes_ = arrays["classes"]
    try:
        backbones.get_backbone(classifier.backbone)
    except ValueError as error:
        raise ModelFormatError(f"The model's backbone is not to be had here: {error}") from error
    if "feature_names" in arrays:
        classifier.feature_names_in_ = arrays["feature_names"].astype(object)
    for name in _LEARNT:
        value = learnt[name]
        setattr(classifier, name, tuple(value) if name in _TUPLES else value)
    state = {
        name.removeprefix("network/"): torch.from_numpy(array)
        for name, array in arrays.items()
        if name.startswith("network/")
    }
    classifier._restore_net({_RENAMED.get(name, name): array for name, array in state.items()})


_TUPLES = ("image_shape_", "value_range_")
