"""What CNNClassifier.fit does, from top to bottom.

Check the images and labels, split off validation images, build the network, freeze its lower
blocks, compute what these make of the images, train the rest, and tell the classifier what was
learnt.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from wbcclf._store import Store
from wbcclf._warnings import warn
from wbcclf.backbones import WeightsReport
from wbcclf.classifiers.caching._activations import keep_activations, open_store
from wbcclf.classifiers.caching._keys import frozen_digest
from wbcclf.classifiers.data._batches import Batches, ImageData
from wbcclf.classifiers.data._domain import Domain
from wbcclf.classifiers.data._labels import total_weight
from wbcclf.classifiers.data._samples import Samples, check_samples
from wbcclf.classifiers.familiarity._seen import trained_on_before, with_images
from wbcclf.classifiers.network._building import (
    build_network,
    check_built,
    check_frozen_weights,
    freeze_blocks,
)
from wbcclf.classifiers.network._network import CellNetwork
from wbcclf.classifiers.options._settings import Settings
from wbcclf.classifiers.training._calibrating import calibrate
from wbcclf.classifiers.training._callbacks import make_callbacks, make_step_callbacks
from wbcclf.classifiers.training._checkpoint import Checkpoint, checkpoint_file
from wbcclf.classifiers.training._describing import describe_training
from wbcclf.classifiers.training._kept import Outcome, find_kept_fit
from wbcclf.classifiers.training._net import CellNet, make_net, train
from wbcclf.classifiers.training._schedules import Budget
from wbcclf.classifiers.training._validation import (
    check_validation,
    positions_of_originals,
    split_off_validation,
)

if TYPE_CHECKING:
    from wbcclf.classifiers._classifier import CNNClassifier

FEWEST_STEPS = 50  # A training of fewer says nothing, whatever its loss.
LEAST_GAIN = 0.01


@dataclass(frozen=True)
class Learnt:
    """What a training gives the classifier."""

    domain: Domain
    net: CellNet
    weights_report: WeightsReport | None
    outcome: Outcome
    train_rows: np.ndarray
    validation_rows: np.ndarray
    trained_on: np.ndarray | None


def fit(
    classifier: CNNClassifier,
    X: Any,
    y: Any,
    sample_weight: Any = None,
    X_val: Any = None,
    y_val: Any = None,
) -> CNNClassifier:
    """Train a classifier, with a new network or, at a warm start, with the one that it has."""
    settings = Settings.of(classifier)
    random_state = check_random_state(classifier.random_state)
    seed = random_state.randint(np.iinfo(np.int32).max)
    is_new = not (classifier.warm_start and hasattr(classifier, "net_"))
    if is_new:
        classifier.__dict__.pop("net_", None)  # a fit that fails leaves no half of two behind

    known = None if is_new else classifier._domain()
    samples = check_samples(classifier, X, y, sample_weight, known=known)

    split = split_off_validation(classifier, settings, samples, X, y, X_val, y_val, random_state)
    check_validation(settings, split.valid_data, samples.domain.classes)
    train_data = _training_data(settings, samples, split.train_rows)
    valid_data = split.valid_data

    if is_new:
        network, report = _new_network(settings, samples.domain, seed)
        earlier: np.ndarray | None = trained_on_before(report)
    else:
        network, report = _same_network(settings, classifier), classifier.weights_report_
        earlier = classifier._trained_on
    store = open_store(settings, network)
    net = _net_for_all_epochs(
        settings, network, samples.domain, random_state, train_data, valid_data is not None
    )
    checkpoint = None
    if is_new and settings.checkpoint_dir is not None:
        checkpoint = Checkpoint(checkpoint_file(classifier, network, train_data, valid_data))
        net.callbacks_.append(("checkpoint", checkpoint.initialize()))

    kept = None
    if is_new:
        kept = find_kept_fit(classifier, settings, net, train_data, valid_data, store)
    outcome = None if kept is None else kept.read()
    originals = positions_of_originals(X, y, samples, train_data.rows)
    if outcome is None:
        images = train_data, valid_data
        data = _prepare(settings, net, *images, store)
        epochs = train(net, *data)
        temperature = None
        if settings.calibrate:  # before the description, which remembers how sure predictions are
            assert data[1] is not None and valid_data is not None  # they were counted
            temperature = calibrate(net, settings, data[1], valid_data)
        n_seen = settings.batch_size * sum(epoch["steps"] for epoch in epochs)
        description = describe_training(net, data, images, originals, n_seen)
        outcome = Outcome(epochs, temperature, description)
        if kept is not None and not net.interrupted:
            kept.write(outcome)
    if not net.interrupted:
        if checkpoint is not None:
            checkpoint.path.unlink(missing_ok=True)
        _warn_if_nothing_was_learnt(settings, samples.domain, outcome.epochs)
    return _learn(
        classifier,
        Learnt(
            samples.domain,
            net,
            report,
            outcome,
            train_data.rows,
            split.validation_rows,
            with_images(earlier, samples.images, train_data.rows[originals]),
        ),
        past=[] if is_new else classifier.history_,
    )


def partial_fit(
    classifier: CNNClassifier, X: Any, y: Any, classes: Any = None, sample_weight: Any = None
) -> CNNClassifier:
    """Train for one epoch more, at a constant learning rate, with the same optimizer if it fits."""
    settings = Settings.of(classifier)
    random_state = check_random_state(classifier.random_state)
    seed = random_state.randint(np.iinfo(np.int32).max)
    net: CellNet | None = getattr(classifier, "net_", None)

    known = None if net is None else classifier._domain()
    samples = check_samples(classifier, X, y, sample_weight, classes=classes, known=known)
    train_data = _training_data(settings, samples, samples.used)

    earlier = classifier._trained_on
    if net is None:
        network, report = _new_network(settings, samples.domain, seed)
        earlier = trained_on_before(report)
        net = _net_for_one_epoch(settings, network, samples.domain, random_state, train_data)
    else:
        report = classifier.weights_report_
        if not _is_for_partial_fit(net, settings):
            network = _same_network(settings, classifier)
            net = _net_for_one_epoch(settings, network, samples.domain, random_state, train_data)
    store = open_store(settings, net.module_)
    epochs = train(net, *_prepare(settings, net, train_data, None, store))
    return _learn(
        classifier,
        Learnt(
            samples.domain,
            net,
            report,
            # Its images are a few of those that it was trained on: they describe nothing.
            Outcome(epochs, temperature=None, description=None),
            train_data.rows,
            samples.used[:0],
            with_images(earlier, samples.images, train_data.rows),
        ),
        past=[] if known is None else classifier.history_,
    )


def check_fit(
    classifier: CNNClassifier, image_shape: tuple[int, int, int], classes: Any
) -> CellNetwork:
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
    settings = Settings.of(trial)
    domain = Domain(np.unique(classes), image_shape, (0, 255))
    numbers = np.arange(len(domain.classes))
    total_weight(
        np.ones(len(numbers)), settings.class_weight, domain.classes, domain.classes, numbers
    )
    data = ImageData(np.zeros((len(numbers), *image_shape), np.uint8), numbers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network, _ = _new_network(settings, domain, 0)
        open_store(settings, network)
        _net_for_all_epochs(settings, network, domain, check_random_state(0), data, validates=False)
        if settings.checkpoint_dir is not None:
            checkpoint_file(trial, network, data, None)
    return network


def _training_data(settings: Settings, samples: Samples, rows: np.ndarray) -> ImageData:
    weight, rows = samples.weights(settings.class_weight, rows)
    return ImageData(samples.images, samples.target, weight, rows)


def _new_network(
    settings: Settings, domain: Domain, seed: int
) -> tuple[CellNetwork, WeightsReport | None]:
    network, report = build_network(settings, domain, settings.weights, seed)
    freeze_blocks(settings, network)
    check_frozen_weights(settings, network, report)
    return network, report


def _same_network(settings: Settings, classifier: CNNClassifier) -> CellNetwork:
    network = classifier.net_.module_
    check_built(settings, network)
    freeze_blocks(settings, network)
    return network


def _net_for_all_epochs(
    settings: Settings,
    network: CellNetwork,
    domain: Domain,
    random_state: np.random.RandomState,
    train_data: ImageData,
    validates: bool,
) -> CellNet:
    per_epoch = len(Batches(train_data, settings.batch_size))
    budget = Budget(settings.max_steps or settings.max_epochs * per_epoch, per_epoch)
    callbacks = make_callbacks(settings, budget, network, validates=validates)
    return make_net(settings, network, len(domain.classes), random_state, callbacks, budget)


def _net_for_one_epoch(
    settings: Settings,
    network: CellNetwork,
    domain: Domain,
    random_state: np.random.RandomState,
    train_data: ImageData,
) -> CellNet:
    n_steps = len(Batches(train_data, settings.batch_size))
    return make_net(
        settings,
        network,
        len(domain.classes),
        random_state,
        make_step_callbacks(settings),
        Budget(n_steps, n_steps),
        incremental=True,
    )


def _is_for_partial_fit(net: CellNet, settings: Settings) -> bool:
    """Return whether a net can be trained for one epoch more as it is.

    One of `fit` has its own number of epochs, schedule and early stopping; one that was pickled has
    no optimizer.
    """
    return net.n_steps is None and net.trained_as == settings.digest and hasattr(net, "optimizer_")


def _prepare(
    settings: Settings,
    net: CellNet,
    train_data: ImageData,
    valid_data: ImageData | None,
    store: Store | None,
) -> tuple[ImageData, ImageData | None]:
    """Return the data that the epochs run on: activations of the frozen blocks, where they last."""
    data = [train_data] if valid_data is None else [train_data, valid_data]
    if net.module_.cut and settings.cache_gb and (net.max_epochs > 1 or store is not None):
        # Images that change in every epoch have no activations to keep.
        first = 1 if settings.augment is not None or settings.mixing is not None else 0
        if data[first:]:
            data[first:] = keep_activations(net, settings, data[first:], store)
            if settings.callbacks:
                net.frozen_digest = frozen_digest(net.module_)
    data = [one.on_device(net.device) for one in data]
    return data[0], data[1] if len(data) > 1 else None


def _warn_if_nothing_was_learnt(settings: Settings, domain: Domain, epochs: list[dict]) -> None:
    """Warn if a training that was long enough has not lowered the loss below the classes' shares.

    On 1,000 real cells (Raabin, 48 pixels, 100 steps) what learnt had a gain of 0.11 or more,
    SepConvClassifier with its dropout of 0.7 the least, and 0.08 after 25 steps already; at
    learning rates a hundred times too low or too high and on images of a broken scale it was below
    -0.005. Random labels are memorised in the end: 0.03 after 100 steps.
    """
    if sum(epoch["steps"] for epoch in epochs) < FEWEST_STEPS:
        return
    # Not an epoch that max_steps cut short, of which few images are left to count.
    per_epoch = epochs[0]["steps"]
    gains = [epoch.get("gain", 1) for epoch in epochs if epoch["steps"] == per_epoch]
    # Early stopping brings the best epoch back, whatever became of the training after it.
    gain = gains[-1] if settings.early_stopping is None else max(gains)
    if gain >= LEAST_GAIN:
        return
    low, high = domain.value_range
    warn(
        "The training has learnt nothing: its loss is no lower than that of always predicting the "
        f"class frequencies (gain {gain:.3f} in history_). Try another lr (it is {settings.lr:g}; "
        "find_learning_rate suggests one) or more epochs. Check the images (the value range was "
        f"taken to be {low:g} to {high:g}), and that the labels belong to them.",
        ConvergenceWarning,
    )


def _learn(classifier: CNNClassifier, learnt: Learnt, past: list[dict]) -> CNNClassifier:
    """Give the classifier what was learnt; no other place does."""
    classifier.classes_ = learnt.domain.classes
    classifier.image_shape_ = learnt.domain.image_shape
    classifier.value_range_ = learnt.domain.value_range
    classifier.net_ = learnt.net
    classifier.weights_report_ = learnt.weights_report
    classifier.train_indices_ = learnt.train_rows
    classifier.validation_indices_ = learnt.validation_rows
    classifier._description = learnt.outcome.description
    classifier._trained_on = learnt.trained_on
    classifier.history_ = [
        *past,
        *(
            epoch | {"epoch": number}
            for number, epoch in enumerate(learnt.outcome.epochs, len(past) + 1)
        ),
    ]
    classifier.n_iter_ = len(classifier.history_)
    for name in ("adaptation_", "temperature_"):  # of the network before
        classifier.__dict__.pop(name, None)
    if learnt.outcome.temperature is not None:
        classifier.temperature_ = learnt.outcome.temperature
    return classifier
