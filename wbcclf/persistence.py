"""Models in files that are safe to open: a zip of one JSON text and plain arrays, no pickle."""

from __future__ import annotations

import errno
import json
import os
import reprlib
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from imblearn.pipeline import Pipeline
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from wbcclf import _saved, backbones
from wbcclf._images import check_image_size
from wbcclf._model_file import TRAINED_ON, check_digests, open_model_file, write_model_file
from wbcclf._version import __version__
from wbcclf.backbones._compact import BLOOD_CELLS
from wbcclf.backbones._registry import backbone_package, draft_backbones
from wbcclf.classifiers import CNNClassifier
from wbcclf.classifiers.familiarity._description import restored
from wbcclf.classifiers.options._settings import Settings
from wbcclf.datasets import ImageLoader
from wbcclf.datasets._cropping import check_crop
from wbcclf.exceptions import ModelFormatError

# The models of this package, by the name that load_model takes.
PACKAGED = {"wbcclf:blood-cells": BLOOD_CELLS.path}
_PREFIX = "wbcclf:"  # of their names

_NETWORK = "network/"
_DESCRIPTION = "description/"  # of the training images; a file of format 4 or less has none
# What format 1 called tensors of the network.
_RENAMED = {"scale": "preprocessing.scale", "offset": "preprocessing.offset"}


def save_model(model: BaseEstimator, path: str | os.PathLike) -> None:
    """Write a fitted classifier, or a pipeline that ends in one, to a file.

    Steps that act only while fitting (samplers) are left out: the file holds what predicting
    needs. So are `found_` of croppers and what belongs to the machine: folders (`memory`,
    `spill_dir`, `checkpoint_dir`), a file given as `weights`, `device`, `compile`, `cache_gb`,
    `n_jobs` and `verbose`. They are at their defaults after loading, `weights` at None. The file is
    written under a temporary name and then renamed, so an interrupted call leaves no half file and
    an existing one untouched. Before that the model is restored once from what would be written:
    what :func:`load_model` would refuse is an error here.

    Parameters
    ----------
    model : CNNClassifier or Pipeline
        Fitted. A pipeline may hold an :class:`ImageLoader`, up to six steps of
        :class:`CellCropper` and :class:`BackgroundRemover`, any samplers, and the classifier.
    path : str or path
        File to write; ``.wbcclf`` is the usual suffix.

    Raises
    ------
    TypeError
        If the model holds a step that cannot be written, or a parameter that predictions depend on:
        a network or cropper of a class of your own, more than 32 layers, an `input_size`,
        `image_size` or cropper's `scale` above 2,048 pixels, a cropper's `factor` above 16. Use
        joblib for such a pipeline.
    ValueError
        If parameters that the network is built from were changed after `fit`, one has a value that
        `fit` would refuse, labels are not plain numbers or strings, or the weights are not finite;
        or if the name of the file begins with ``wbcclf:``, as those of the package's models do.
    sklearn.exceptions.NotFittedError
        If the model is not fitted.
    OSError
        If the file cannot be written.

    Warns
    -----
    UserWarning
        If a parameter that only training depends on cannot be written: an optimizer of torch's or
        a loss of a class of your own, `callbacks`, a RandomState. It is left at its default.

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
    check_file_name(path)
    kept = _kept_steps(model)
    classifier = kept[-1][1]
    for _, step in kept:
        check_is_fitted(step)
    from wbcclf.classifiers.network._building import check_built  # brings torch

    classifier._validate_params()
    check_built(Settings.of(classifier), classifier.net_.module_)
    transformers = [(name, step) for name, step in kept if isinstance(step, _saved.TRANSFORMERS)]
    name = backbones.get_backbone(classifier.backbone).name
    is_calibrated = hasattr(classifier, "temperature_")
    learnt = _saved.LEARNT | (_saved.OF_CALIBRATION if is_calibrated else {})
    document = {
        "version": __version__,
        "backbone": name,
        "package": backbone_package(name),
        "pipeline": hasattr(model, "steps"),
        "steps": [[name, _saved.encode(step)] for name, step in kept],
        "learnt": _learnt(classifier, learnt),
        "transformers": {name: _learnt(step, _saved.OF_IMAGES) for name, step in transformers},
    }
    arrays = {"classes": _plain(classifier.classes_, "classes_")}
    _, first = [*transformers, kept[-1]][0]
    if hasattr(first, "feature_names_in_"):
        arrays["feature_names"] = _plain(first.feature_names_in_, "feature_names_in_")
    if classifier._description is not None:
        for name, array in classifier._description.arrays().items():
            arrays[_DESCRIPTION + name] = array
    if classifier._trained_on is not None:
        arrays[TRAINED_ON] = classifier._trained_on
    for name, tensor in classifier.net_.module_.state_dict().items():
        arrays[_NETWORK + name] = tensor.cpu().numpy()
        if not np.isfinite(arrays[_NETWORK + name]).all():
            raise ValueError(
                f"The network's weights are not finite ({name}): the training diverged. Lower lr "
                "or set Optimizer(max_grad_norm=1), and fit again."
            )
    headers = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    _read_model(json.loads(json.dumps(document)), headers, arrays)
    write_model_file(path, document, arrays)


def _learnt(step: BaseEstimator, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(step, name) for name in names}


def _kept_steps(model: BaseEstimator) -> list[tuple[str, BaseEstimator]]:
    """Return the named steps that predicting needs."""
    steps = model.steps if hasattr(model, "steps") else [("", model)]
    kept = [(name, step) for name, step in steps if not hasattr(step, "fit_resample")]
    for name, step in kept:
        if hasattr(step, "refit"):
            raise TypeError(
                f"save_model writes the model that a search found, not the {type(step).__name__} "
                "itself: give its best_estimator_, like save_model(search.best_estimator_, path)."
            )
        if not isinstance(step, (ImageLoader, *_saved.TRANSFORMERS, CNNClassifier)):
            raise TypeError(
                "save_model writes ImageLoader, CellCropper, BackgroundRemover, samplers and "
                f"wbcclf's classifiers, not {type(step).__name__} (step {name!r}). Use joblib.dump "
                "for such a pipeline."
            )
    if not kept or not isinstance(kept[-1][1], CNNClassifier):
        raise TypeError(f"The last step of the model must be a CNNClassifier, got {model!r}.")
    return kept


def load_model(path: str | os.PathLike) -> BaseEstimator:
    """Read a model that :func:`save_model` wrote. Safe for files from others: no code is run.

    The file names no folder, no file and no code. It may name a backbone of an installed package
    (an entry point ``wbcclf.backbones``); that package is then imported. Time and memory are
    bounded by the size of the file, unless such a package's network needs more.

    Parameters
    ----------
    path : str or path
        A file, or ``"wbcclf:blood-cells"``: the model that comes with this package.

    Returns
    -------
    CNNClassifier or imblearn.pipeline.Pipeline
        Fitted; predicts as the saved one did, on the best device of this machine.

    Raises
    ------
    wbcclf.exceptions.ModelFormatError
        If the file is not a model file, is damaged, has a newer format, or has a backbone that is
        not available here: the message says what to register or to install.
    ValueError
        If the name after ``wbcclf:`` is no model of this version.
    OSError
        If the file cannot be opened or read (FileNotFoundError, PermissionError and the like).
    """
    path = find_model(path)
    try:
        with open_model_file(path) as (document, arrays):
            steps = _read_model(document, arrays.headers, arrays)
        return Pipeline(steps) if document["pipeline"] else steps[-1][1]
    except ModelFormatError:
        raise
    except Exception as error:  # what is damaged or made up says so in all ways that there are
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # a place before the start
            raise
        raise ModelFormatError(
            f"{os.fspath(path)} is not a model written by wbcclf.save_model, or is damaged "
            f"({type(error).__name__}: {error!s:.300}). Files of joblib.dump are read with "
            "joblib.load, and only if you trust who made them."
        ) from error


def find_model(path: str | os.PathLike) -> str | os.PathLike:
    """Return the file of a model of this package, or a path as it is.

    Raises
    ------
    ValueError
        If it names a model of this package that there is not.
    FileNotFoundError
        If it names a packaged model without ``wbcclf:``.
    """
    name = os.fsdecode(path)
    if name in PACKAGED:
        return PACKAGED[name]
    if name.startswith(_PREFIX):
        raise ValueError(
            f"This version of wbcclf has no model {name!r}, but {', '.join(map(repr, PACKAGED))}."
        )
    if f"{_PREFIX}{name}" in PACKAGED and not os.path.exists(path):
        raise FileNotFoundError(
            f"There is no file {name!r}. The model that comes with wbcclf is {_PREFIX + name!r}."
        )
    return path


def check_file_name(path: str | os.PathLike) -> None:
    """Raise a ValueError if a model could not be loaded from a file of that name."""
    name = os.fsdecode(path)
    if name.startswith(_PREFIX):
        raise ValueError(
            f"{name!r} cannot be the file of a model: names that begin with {_PREFIX!r} are those "
            f"of models that come with wbcclf. Give a name that begins with something else."
        )


def _read_model(
    document: dict, headers: dict[str, Any], arrays: Mapping[str, np.ndarray]
) -> list[tuple[str, BaseEstimator]]:
    """Return the fitted steps of a model from what a file holds, or would hold."""
    steps = _saved.read_steps(document)
    fitted = steps[1:] if isinstance(steps[0][1], ImageLoader) else steps
    *transformers, (_, classifier) = fitted
    _saved.set_learnt(classifier, document["learnt"], arrays["classes"])
    _saved.set_transformers_learnt(transformers, document.get("transformers", {}))
    if "feature_names" in headers:
        _saved.set_feature_names(fitted[0][1], arrays["feature_names"])
    for (_, step), (_, following) in pairwise(steps):
        _check_passed_on(step, following)
    _restore(classifier, document, headers, arrays)
    return steps


def _check_passed_on(step: BaseEstimator, following: BaseEstimator) -> None:
    """Raise a ValueError if a step does not make the images that the next one was fitted on."""
    expected = following.image_shape_
    if isinstance(step, ImageLoader):
        _, size = check_crop(step.crop, check_image_size(step.image_size))
        passed_on = size is None or size == expected[:2]
    else:
        passed_on = _saved.output_shape(step) == expected
    if not passed_on:
        raise ValueError(
            f"{step!r:.200} makes no images of {expected[0]}x{expected[1]} pixels, which the "
            f"{type(following).__name__} was fitted on. Set image_size back, or fit again."
        )


def _restore(
    classifier: CNNClassifier,
    document: dict,
    headers: dict[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Give a classifier its network, and the description of its images if there is one."""
    theirs = {}  # the network's names for tensors, and the file's
    described = []
    for name in headers:
        if name.startswith(_NETWORK):
            ours = name.removeprefix(_NETWORK)
            theirs[_RENAMED.get(ours, ours)] = name
        elif name.startswith(_DESCRIPTION):
            described.append(name)
        elif name not in ("classes", "feature_names", TRAINED_ON):
            raise ValueError(f"{name!r:.80} is no part of a model")

    def read(name: str) -> np.ndarray:
        array = arrays[theirs[name]]
        if not np.isfinite(array).all():
            raise ValueError(f"tensor {name!r} is not finite")
        return array

    _check_backbone(classifier, document)
    classifier._restore_net({ours: headers[name] for ours, name in theirs.items()}, read)
    if described:
        classifier._description = restored(
            {name.removeprefix(_DESCRIPTION): arrays[name] for name in described},
            len(classifier.classes_),
        )
    if TRAINED_ON in headers:
        classifier._trained_on = check_digests(arrays[TRAINED_ON])
    # Without input_size, a backbone of many blocks enlarges small images, twofold for each block.
    seen = classifier.net_.module_.preprocessing.input_size
    for side, given in zip(seen, classifier.image_shape_, strict=False):
        if side > max(given, _saved.LONGEST_INPUT):
            raise ValueError(
                f"The network enlarges images to {seen} pixels; in a model file it may "
                f"not exceed {_saved.LONGEST_INPUT:,} pixels a side. Use joblib.dump for it."
            )
    classifier.weights = _saved.tag_or_none(classifier.weights, classifier.backbone)


def _check_backbone(classifier: CNNClassifier, document: dict) -> None:
    name = classifier.backbone
    if isinstance(name, str):
        _check_known(name, document.get("package"))
    else:
        name = backbones.get_backbone(name).name
    if document.get("backbone", name) != name:  # format 1 does not tell
        raise ValueError(f"backbone {document['backbone']!r:.80} in a model of {name!r}")


def _check_known(name: str, package: str | None) -> None:
    try:
        draft_backbones(name) or backbones.get_backbone(name)
    except ImportError as error:  # it says what to install
        raise ModelFormatError(f"The model cannot be used here: {error}") from error
    except ValueError as error:
        offered = "a package offers it" if package is None else f"the package {package!r} offers it"
        raise ModelFormatError(
            f"The model's backbone {name!r} is not known here. If a script made it, run the part "
            "of the script that calls wbcclf.backbones.register_backbone with a spec of that name, "
            f"and load the model after it. If {offered}, install that package if you trust it."
        ) from error


def _plain(labels: np.ndarray, name: str) -> np.ndarray:
    """Return an object array of strings as a string array, which needs no pickle."""
    plain = labels.astype(str) if labels.dtype.kind == "O" else labels
    if plain.tolist() != labels.tolist():  # such an array drops NULs at the end
        raise ValueError(
            f"{name} cannot be written as they are: {reprlib.repr(labels.tolist())}. Give strings "
            "that do not end in a NUL character to fit, or use joblib.dump."
        )
    return plain
