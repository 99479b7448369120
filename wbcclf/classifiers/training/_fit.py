"""What CNNClassifier.fit does: look at the data, split, build or go on with a net, train it."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets

from wbcclf._images import (
    _check_sample_weight,
    check_value_range,
    validate_images,
    value_range,
)
from wbcclf._resampled import sources_of
from wbcclf._store import Store
from wbcclf.classifiers.caching._activations import keep_activations, open_store
from wbcclf.classifiers.data._batches import Batches, ImageData
from wbcclf.classifiers.data._labels import encode_labels, total_weight
from wbcclf.classifiers.data._split import validation_split, warn_of_doubles
from wbcclf.classifiers.network._building import build_network, check_built, freeze_blocks
from wbcclf.classifiers.network._device import resolve_device
from wbcclf.classifiers.network._network import CellNetwork
from wbcclf.classifiers.options._values import digest
from wbcclf.classifiers.training._callbacks import make_callbacks
from wbcclf.classifiers.training._checkpoint import (
    Checkpoint,
    fit_fingerprint,
    fit_key,
    is_repeatable,
    read_fit,
    write_fit,
)
from wbcclf.classifiers.training._net import make_net, train
from wbcclf.classifiers.training._schedules import Budget

FEWEST_STEPS = 50  # A training of fewer says nothing, whatever its loss.
LEAST_GAIN = 0.01


def fit(
    clf: Any, X, y, sample_weight=None, X_val=None, y_val=None, *, classes=None, partial=False
) -> Any:
    """Train a CNNClassifier on `X`, `y`; `partial` trains one epoch more."""
    go_on = hasattr(clf, "net_") and (partial or clf.warm_start)
    random_state = check_random_state(clf.random_state)
    seed = random_state.randint(np.iinfo(np.int32).max)
    images, labels, weight = _check_data(clf, X, y, sample_weight, classes, go_on)
    used = np.flatnonzero(weight)  # a weight of zero is as good as no image
    target = encode_labels(labels, clf.classes_, used, "y")

    train_rows, validation, valid_data = used, used[:0], None
    if X_val is not None or y_val is not None:
        valid_data = _validation_data(clf, X_val, y_val)
        warn_of_doubles(X, images, used, X_val, valid_data.X)
    elif clf.early_stopping and not partial:
        sources = sources_of(X, images, y)
        train_rows, validation = validation_split(
            images, labels, used, sources, clf.validation_fraction, random_state
        )
        valid_data = ImageData(images, target, rows=validation)
    weight = total_weight(weight, clf.class_weight, clf.classes_, labels, train_rows)
    train_rows = train_rows[weight[train_rows] > 0]  # class_weight may be zero, too
    if not len(train_rows):
        raise ValueError("class_weight is zero for every image: there is nothing to fit.")
    # Only proportions matter, and float32 does not hold every weight.
    weight = weight / weight[train_rows].max()
    clf.train_indices_, clf.validation_indices_ = train_rows, validation
    train_data = ImageData(images, target, weight, train_rows)

    is_whole = not partial and not go_on  # and so a function of its arguments
    store = open_store(clf)
    checkpoint = _set_net(clf, go_on, seed, random_state, train_data, valid_data, partial)
    figures = _train_or_recall(clf, train_data, valid_data, store, is_whole)
    for epoch in figures:
        clf.history_.append(epoch | {"epoch": len(clf.history_) + 1})
    clf.n_iter_ = len(clf.history_)
    if not partial and not clf.net_.interrupted:
        _warn_if_nothing_was_learnt(clf, figures)
    if checkpoint is not None and not clf.net_.interrupted:
        checkpoint.unlink(missing_ok=True)
    return clf


def check_fit(classifier: Any, image_shape: tuple[int, int, int], classes: Any) -> CellNetwork:
    """Fail as `fit` would on images of this shape and these classes, before any are read.

    All but the images themselves is looked at: parameters and what they name (blocks, weights,
    folders, device). Warnings are left to `fit`.

    Parameters
    ----------
    classifier : CNNClassifier
        Not changed.
    image_shape : (height, width, channels)
    classes : array-like of shape (n_classes,)
        The labels.

    Returns
    -------
    CellNetwork
        What `fit` would train.
    """
    trial = clone(classifier)
    trial._validate_params()
    trial.image_shape_, trial.value_range_ = tuple(image_shape), (0, 255)
    trial.classes_ = np.unique(classes)
    numbers = np.arange(len(trial.classes_))
    total_weight(np.ones(len(numbers)), trial.class_weight, *[trial.classes_] * 2, numbers)
    data = ImageData(np.zeros((len(numbers), *image_shape), np.uint8), numbers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        open_store(trial)
        _set_net(trial, False, 0, check_random_state(0), data, None, False)
    return trial.net_.module_


def _check_data(
    clf: Any, X: Any, y: Any, sample_weight: Any, classes: Any, go_on: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images, labels and weights; of a first fit, learn what it learns before training."""
    image_shape = clf.image_shape_ if go_on else clf.image_shape
    images, labels = validate_images(clf, X, y, image_shape=image_shape, reset=not go_on)
    check_classification_targets(labels)
    weight = _check_sample_weight(sample_weight, images, dtype=np.float64, ensure_non_negative=True)
    if not weight.any():
        raise ValueError("sample_weight is zero for every sample: there is nothing to fit.")
    if go_on:
        check_value_range(images, clf.value_range_)
        return images, labels, weight
    vars(clf).pop("net_", None)  # a fit that fails leaves no half of two behind
    is_used = weight > 0
    clf.classes_ = np.unique(labels[is_used] if classes is None else classes)
    if len(clf.classes_) < 2:
        raise ValueError(
            f"y holds one class only, {clf.classes_.tolist()[0]!r}: a classifier needs "
            "images of at least two."
        )
    clf.image_shape_ = images.shape[1:]
    clf.value_range_ = value_range(images if is_used.all() else images[is_used])
    clf.history_ = []
    return images, labels, weight


def _train_or_recall(
    clf: Any,
    train_data: ImageData,
    valid_data: ImageData | None,
    store: Store | None,
    is_whole: bool,
) -> list[dict]:
    """Train the net, or take what the same fit gave before; return the figures of the epochs."""
    key = None
    if is_whole and store is not None and is_repeatable(clf):
        try:
            key = fit_key(clf.net_, fit_fingerprint(clf, clf.net_.module_, train_data, valid_data))
        except TypeError as error:
            warnings.warn(f"The training is not kept: {error}.", UserWarning, stacklevel=5)
    if key is not None:
        figures = read_fit(clf.net_, store, key)
        if figures is not None:
            return figures
    figures = _train(clf, train_data, valid_data, store)
    if key is not None and not clf.net_.interrupted:
        write_fit(clf.net_, store, key, figures)
    return figures


def _train(
    clf: Any, train_data: ImageData, valid_data: ImageData | None, store: Store | None
) -> list[dict]:
    """Train the net on activations of the frozen blocks, as far as these stay as they are."""
    net = clf.net_

    def prepare(
        train_data: ImageData, valid_data: ImageData | None
    ) -> tuple[ImageData, ImageData | None]:
        parts = {"train": train_data} | ({} if valid_data is None else {"valid": valid_data})
        changing = {"train"} if clf.augment is not None or clf.mixup or clf.cutmix else set()
        pays = net.module_.cut and clf.cache_gb and (net.max_epochs > 1 or store is not None)
        if pays and (fixed := {name: parts[name] for name in parts if name not in changing}):
            kept = keep_activations(clf, [*fixed.values()], store)
            parts.update(zip(fixed, kept, strict=True))
        parts = {name: data.on_device(net.device) for name, data in parts.items()}
        return parts["train"], parts.get("valid")

    return train(net, train_data, valid_data, prepare)


def _warn_if_nothing_was_learnt(clf: Any, figures: list[dict]) -> None:
    """Warn if a training that was long enough has not lowered the loss below the classes' shares.

    On 1,000 real cells (Raabin, 48 pixels, 100 steps) what learnt had a gain of 0.11 or more,
    SepConvClassifier with its dropout of 0.7 the least, and 0.08 after 25 steps already; at
    learning rates a hundred times too low or too high and on images of a broken scale it was below
    -0.005. Random labels are memorised in the end: 0.03 after 100 steps.
    """
    if sum(epoch["steps"] for epoch in figures) < FEWEST_STEPS:
        return
    # Not an epoch that max_steps cut short, of which few images are left to count.
    per_epoch = figures[0]["steps"]
    gains = [epoch.get("gain", 1) for epoch in figures if epoch["steps"] == per_epoch]
    # Early stopping brings the best epoch back, whatever became of the training after it.
    gain = max(gains) if clf.early_stopping else gains[-1]
    if gain >= LEAST_GAIN:
        return
    warnings.warn(
        "The training has learnt nothing: its loss is not below that of always answering with the "
        f"classes' shares (gain {gain:.3f} in history_). Try another lr (it is {clf.lr:g}; "
        "find_learning_rate proposes one) or more epochs, and look at the images (the value range "
        f"was taken to be {clf.value_range_[0]:g} to {clf.value_range_[1]:g}) and at whether the "
        "labels belong to them.",
        ConvergenceWarning,
        stacklevel=5,
    )


def _validation_data(clf: Any, X_val: Any, y_val: Any) -> ImageData:
    if y_val is None:
        raise ValueError("X_val was given without y_val.")
    if X_val is None:
        raise ValueError("y_val was given without X_val.")
    images = clf._check_images(X_val)
    y_val = np.asarray(y_val)
    if y_val.shape != (len(images),):
        raise ValueError(f"X_val has {len(images)} images, y_val the shape {y_val.shape}.")
    return ImageData(images, encode_labels(y_val, clf.classes_, slice(None), "y_val"))


def _checkpoint_file(
    clf: Any, network: CellNetwork, train_data: ImageData, valid_data: ImageData | None
) -> Path:
    """Return the file of a whole fit's checkpoint."""
    if clf.random_state is None:
        raise ValueError(
            "checkpoint_dir needs a random_state, like 0: without one, two fits with the same "
            "parameters cannot be told apart."
        )
    folder = Path(clf.checkpoint_dir).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"checkpoint_dir={str(folder)!r} cannot be written to ({error})."
        ) from error
    try:
        fingerprint = fit_fingerprint(clf, network, train_data, valid_data)
    except TypeError as error:
        raise ValueError(
            f"checkpoint_dir={str(folder)!r} cannot be used: {error}, so a fit that is to go on "
            "could not be told from another."
        ) from error
    return folder / f"fit-{fingerprint.hexdigest()}.pt"


def _set_net(
    clf: Any,
    go_on: bool,
    seed: int,
    random_state: np.random.RandomState,
    train_data: ImageData,
    valid_data: ImageData | None,
    partial: bool,
) -> Path | None:
    """Set the net that is to be trained, around a new network or the one that is to go on.

    Returns
    -------
    Path or None
        The file of its checkpoint.
    """
    trained_as = {
        name: digest(value)
        for name, value in clf.get_params(deep=False).items()
        if name not in ("random_state", "callbacks")
    }
    # A callback that has seen an epoch is still the same.
    trained_as["callbacks"] = list(map(id, clf.callbacks or ()))
    # A net of `fit` has its own number of epochs, schedule and early stopping.
    same = go_on and clf.net_.incremental and clf.net_.trained_as == trained_as
    if partial and same and hasattr(clf.net_, "optimizer_"):
        return None
    if go_on:
        check_built(clf)
        network, report = clf.net_.module_, clf.weights_report_
    else:
        network, report = build_network(clf, clf.weights, seed)
    clf.weights_report_ = report
    freeze_blocks(clf, network, report, go_on=go_on)
    per_epoch = len(Batches(train_data, clf.batch_size))
    if partial:
        n_steps = per_epoch
    else:
        n_steps = clf.max_steps or clf.max_epochs * per_epoch
    budget = Budget(n_steps, per_epoch)
    callbacks = make_callbacks(
        clf,
        budget,
        network,
        validates=valid_data is not None,
        partial=partial,
    )
    checkpoint = None
    if clf.checkpoint_dir is not None and not go_on and not partial:
        checkpoint = _checkpoint_file(clf, network, train_data, valid_data)
        callbacks.append(("checkpoint", Checkpoint(checkpoint)))
    device = resolve_device(clf.device, fitted=False)
    clf.net_ = make_net(clf, network, callbacks, budget, random_state, device)
    clf.net_.incremental = partial
    clf.net_.trained_as = trained_as
    return checkpoint
