"""Models in files that are safe to open: a zip of one JSON text and plain arrays, no pickle."""

from __future__ import annotations

import io
import json
import os
import warnings
import zipfile
from typing import Any

import numpy as np
from imblearn.pipeline import Pipeline
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

import wbcclf.classifiers as classifiers
from wbcclf._files import replacing
from wbcclf.classifiers import CNNClassifier
from wbcclf.datasets import ImageLoader
from wbcclf.exceptions import ModelFormatError
from wbcclf.sampling import Augmenter

# Raised whenever a file written by an older version could no longer be read the same way; a reader
# takes its own number and all lower ones.
FORMAT = 1

_CLASSES = {
    cls.__name__: cls
    for cls in (
        ImageLoader,
        Augmenter,
        *(getattr(classifiers, name) for name in classifiers.__all__),
    )
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
_NOT_NEEDED = {"augment", "callbacks", "class_weight", "optimizer", "random_state"}


def save_model(model: BaseEstimator, path: str | os.PathLike) -> None:
    """Write a fitted classifier, or a pipeline that ends in one, to a file.

    Steps that act only while fitting (samplers) are left out: the file holds what predicting
    needs. It is written under a temporary name and then renamed, so an interrupted call leaves
    no half file and an existing one untouched.

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
    learnt = {name: getattr(classifier, name) for name in _LEARNT}
    document = {
        "format": FORMAT,
        "pipeline": hasattr(model, "steps"),
        "steps": [[name, _encode(step)] for name, step in kept],
        "learnt": learnt,
    }
    arrays = {"classes": _plain(classifier.classes_)}
    if hasattr(classifier, "feature_names_in_"):
        arrays["feature_names"] = _plain(classifier.feature_names_in_)
    for name, tensor in classifier.net_.module_.state_dict().items():
        arrays[f"network/{name}"] = tensor.cpu().numpy()
    _write(path, json.dumps(document, indent=1), arrays)


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
        with zipfile.ZipFile(path) as archive:
            document = json.loads(archive.read("model.json"))
            if type(document["format"]) is not int or document["format"] < 1:
                raise ValueError(f"format {document['format']!r}")
            if document["format"] > FORMAT:
                raise ModelFormatError(
                    f"{os.fspath(path)} has format {document['format']}, this version of wbcclf "
                    f"reads up to {FORMAT}: update wbcclf."
                )
            arrays = {
                name.removesuffix(".npy"): _read_array(archive, name)
                for name in archive.namelist()
                if name.endswith(".npy")
            }
        steps = [(name, _decode(step)) for name, step in document["steps"]]
        if not isinstance(steps[-1][1], CNNClassifier):
            raise ValueError("the last step is no classifier")
        for _, step in steps:
            step._validate_params()
        _restore(steps[-1][1], document["learnt"], arrays)
        return Pipeline(steps) if document["pipeline"] else steps[-1][1]
    except _DAMAGED as error:
        if isinstance(error, ModelFormatError):
            raise
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
            try:
                params[name] = _encode(param)
            except TypeError:
                if isinstance(value, CNNClassifier) and name not in _NOT_NEEDED:
                    raise
                warnings.warn(
                    f"{type(value).__name__}({name}={param!r}) cannot be written to a model file "
                    "and is left at its default; predictions do not depend on it.",
                    UserWarning,
                    stacklevel=3,
                )
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
        params = {name: _decode(param) for name, param in value["params"].items()}
        return _CLASSES[value["class"]](**params)
    if isinstance(value, dict):
        return {_decode(key): _decode(item) for key, item in value["dict"]}
    if isinstance(value, list):
        return tuple(_decode(item) for item in value)
    return value


def _plain(labels: np.ndarray) -> np.ndarray:
    """Return an object array of strings as a string array, which needs no pickle."""
    return labels.astype(str) if labels.dtype.kind == "O" else labels


def _restore(classifier: CNNClassifier, learnt: dict, arrays: dict[str, np.ndarray]) -> None:
    """Give an unfitted classifier what it had learnt."""
    import torch

    if len(learnt["image_shape_"]) != 3:
        raise ValueError(f"image_shape_ {learnt['image_shape_']}")
    classifier.classes_ = arrays["classes"]
    if "feature_names" in arrays:
        classifier.feature_names_in_ = arrays["feature_names"].astype(object)
    for name in _LEARNT:
        value = learnt[name]
        setattr(classifier, name, tuple(value) if name in _TUPLES else value)
    prefix = "network/"
    classifier._restore_net(
        {
            name.removeprefix(prefix): torch.from_numpy(array)
            for name, array in arrays.items()
            if name.startswith(prefix)
        }
    )


_TUPLES = ("image_shape_", "value_range_")


def _write(path: str | os.PathLike, text: str, arrays: dict[str, np.ndarray]) -> None:
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr("model.json", text)
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    return np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)
