"""How good a classifier is: one result with every score, each with an interval by group."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from wbcclf._images import _num_samples
from wbcclf._labels import check_labels, check_same_classes
from wbcclf._warnings import warn
from wbcclf.inspection._checks import check_classifier
from wbcclf.inspection._files import facts_of_files, predict_all
from wbcclf.inspection.evaluation._calibration import calibration, risk_coverage
from wbcclf.inspection.evaluation._result import Evaluation
from wbcclf.model_selection.intervals._intervals import (
    check_groups,
    confusion_by_group,
    interval_of_right,
)
from wbcclf.model_selection.intervals._ranking import RANKINGS, mean_loss, rank
from wbcclf.model_selection.intervals._resamples import Resamples
from wbcclf.model_selection.intervals._scores import SCORES

CONFIDENCE = 0.95
N_RESAMPLES = 1000


def evaluate(model: Any, X: Any, y: Any, groups: Any = None) -> Evaluation:
    """Return how well a fitted classifier predicts, every score with an interval.

    Parameters
    ----------
    model : classifier, pipeline or search
        Fitted. With `predict_proba`, the result also has the scores of probabilities.
    X : array-like
        Images as `model` takes them, or paths of image files (see :func:`predict_files`). Files are
        read in chunks, so memory does not grow with their number.
    y : array-like of shape (n_samples,)
        True labels: text, or whole numbers. Classes that the model does not know count as wrong.
    groups : array-like of shape (n_samples,) or None, default=None
        Which cell each image shows (or which slide or patient), such as the `groups` of
        :func:`load_image_folder`. Give it wherever several images show one cell: their errors come
        together, and an interval that counts every image is too narrow. None counts every image.

    Returns
    -------
    Evaluation

    Raises
    ------
    ImageReadError
        If a file cannot be read.
    TypeError, ValueError
        As by :func:`evaluate_predictions`, or if `model` is no classifier, or `y` has not one label
        for each image.
    sklearn.exceptions.NotFittedError
        If `model` is not fitted.

    Warns
    -----
    UserWarning
        If the model was trained on some of the images: the scores are then too good.
    wbcclf.exceptions.UnfamiliarImagesWarning
        If the images do not look like those that the model was trained on.

    See Also
    --------
    evaluate_predictions : The same of predictions that are there already.
    cross_evaluate : For a model that is not trained yet.
    compare : Whether one model is better than another.

    Examples
    --------
    >>> from wbcclf import SimpleCNNClassifier, make_blood_cells
    >>> from wbcclf.inspection import evaluate
    >>> cells = make_blood_cells(120, classes=2, image_size=32, random_state=0)
    >>> clf = SimpleCNNClassifier(max_epochs=5, device="cpu", random_state=0)
    >>> clf = clf.fit(cells.images[:80], cells.target[:80])
    >>> result = evaluate(clf, cells.images[80:], cells.target[80:])
    >>> result.n_images, result.accuracy > 0.5, result.accuracy_interval[0] < result.accuracy
    (40, True, True)
    """
    check_classifier(model, "model")
    y = check_labels(y, "y")
    if isinstance(X, (str, bytes, os.PathLike)):
        raise TypeError(
            f"X must be images or paths, one for each label, got {X!r}. list_image_folder(folder) "
            "gives the paths and labels of a folder."
        )
    if _num_samples(X) != len(y):
        raise ValueError(
            f"X holds {_num_samples(X)} images, y {len(y)} labels: y needs one for each image."
        )
    known = check_labels(model.classes_, "model.classes_")
    check_same_classes(y, known, ("y", "model.classes_"))
    if groups is not None:
        check_groups(groups, len(y), "y")
    found = predict_all(model, X)
    if found.trained_on is not None and found.trained_on.any():
        warn(
            f"{found.trained_on.sum()} of these {len(y)} images were used to train the model. So "
            "the scores are too good: evaluate it on images of other cells."
        )
    result = evaluate_predictions(
        y, found.labels, groups, probabilities=found.probabilities, classes=known
    )
    result.estimator, result.images = model, X
    if "digests" in found:
        result.update(facts_of_files(found.digests))
    return with_prediction(result, found)


def with_prediction(result: Evaluation, found: Bunch) -> Evaluation:
    """Add what a network says of the images besides their classes."""
    familiarity, trained_on = found.familiarity, found.trained_on
    result.familiarity = None if familiarity is None else float(familiarity.mean())
    result.n_trained_on = None if trained_on is None else int(trained_on.sum())
    result.of_images.familiarity, result.of_images.trained_on = familiarity, trained_on
    return result


def evaluate_predictions(
    y_true: Any, y_pred: Any, groups: Any = None, *, probabilities: Any = None, classes: Any = None
) -> Evaluation:
    """Return the scores of a classifier's predictions, each with an interval.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n_samples,)
        True and predicted labels: text, or whole numbers.
    groups : array-like of shape (n_samples,) or None, default=None
        As for :func:`evaluate`; two groups or more.
    probabilities : array-like of shape (n_samples, n_known) or None, default=None
        Of each class; rows sum to 1. None leaves out the scores that need them.
    classes : array-like of shape (n_known,) or None, default=None
        The columns of `probabilities`, such as ``classes_``; sorted. None is all labels, sorted.

    Returns
    -------
    Evaluation

    Raises
    ------
    TypeError
        If `y_true` or `y_pred` is not array-like, such as a model.
    ValueError
        If they are empty, of different lengths, hold anything but labels of one kind (None, NaN,
        probabilities), or spell a class in two ways (``"Neutrophil"``, ``"neutrophil"``); if
        `groups` has another length, holds None or NaN, or names one group only; or if
        `probabilities` has another shape, or its rows do not sum to 1, or `y_pred` holds a class
        that is not in `classes`.

    Examples
    --------
    >>> from wbcclf.inspection import evaluate_predictions
    >>> result = evaluate_predictions(["mono", "mono", "lymph"], ["mono", "lymph", "lymph"])
    >>> round(result.accuracy, 3), round(result.macro_f1, 3), result.confusion.tolist()
    (0.667, 0.667, [[1, 0], [1, 1]])

    Six images of three cells, which tell next to nothing:

    >>> y_true = ["mono"] * 5 + ["lymph"]
    >>> y_pred = ["mono"] * 4 + ["lymph"] * 2
    >>> result = evaluate_predictions(y_true, y_pred, groups=[1, 1, 1, 1, 2, 3])
    >>> round(result.accuracy, 3), round(result.by_group.accuracy, 3), result.n_groups
    (0.833, 0.667, 3)
    >>> [round(limit, 2) for limit in result.accuracy_interval]
    [0.03, 1.0]
    """
    y_true, y_pred = check_labels(y_true, "y_true"), check_labels(y_pred, "y_pred")
    if len(y_true) != len(y_pred):
        raise ValueError(
            f"y_true holds {len(y_true)} labels, y_pred {len(y_pred)}: both need one for each "
            "image, in the same order."
        )
    if not len(y_true):
        raise ValueError("y_true is empty: there is nothing to evaluate.")
    check_same_classes(y_true, y_pred, ("y_true", "y_pred"))
    codes = np.arange(len(y_true)) if groups is None else check_groups(groups, len(y_true))
    labels, matrices = confusion_by_group(y_true, y_pred, codes)
    result = Evaluation(
        n_images=len(y_true),
        n_groups=None if groups is None else len(matrices),
        classes=labels,
        of_images=Bunch(y_true=y_true, y_pred=y_pred, groups=None if groups is None else codes),
        **_scores(matrices, equal=False),
    )
    if groups is not None:
        result.by_group = _scores(matrices, equal=True)
        result.by_group.support = np.count_nonzero(matrices.any(axis=2), axis=0)
    if probabilities is not None:
        shares, known = _check_probabilities(probabilities, classes, y_true, y_pred)
        _add_scores_of_probabilities(result, shares, known, codes)
    return result


def plot_confusion(y_true: Any, y_pred: Any, *, errors_only: bool = False, ax: Any = None) -> Any:
    """Draw a confusion matrix: counts, shaded by the share of the true class.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n_samples,)
        True and predicted labels: text, or whole numbers.
    errors_only : bool, default=False
        Leave out what is right, so that the shades show the errors.
    ax : matplotlib Axes or None, default=None
        None makes a pyplot figure that has room for every name and count.

    Returns
    -------
    matplotlib Axes
        ``ax.figure.savefig("confusion.png")`` writes a file.

    Raises
    ------
    ImportError
        If matplotlib is not installed; the message says how to install it.
    TypeError
        As by :func:`evaluate_predictions`, or if `ax` is neither axes nor None.
    ValueError
        As by :func:`evaluate_predictions`.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from wbcclf.inspection import plot_confusion
    >>> ax = plot_confusion(["mono", "lymph"], ["mono", "mono"])
    >>> ax.get_title()
    'accuracy 0.500, macro-F1 0.333'
    >>> plt.close(ax.figure)
    """
    return evaluate_predictions(y_true, y_pred).plot_confusion(errors_only=errors_only, ax=ax)


def _scores(matrices: np.ndarray, *, equal: bool) -> Bunch:
    """Return scores and their intervals from the confusion matrix of each group.

    Parameters
    ----------
    matrices : ndarray of shape (n_groups, n_classes, n_classes), int
    equal : bool
        Whether each group counts the same, not each image.
    """
    resamples = Resamples(matrices, N_RESAMPLES, 0, equal=equal)
    result = Bunch(support=resamples.total.sum(axis=1), confusion=resamples.total)
    for name in SCORES:
        value = resamples.score(name)
        limits = np.stack(resamples.interval(name, CONFIDENCE), axis=-1)
        result[name] = value if value.ndim else float(value)
        result[f"{name}_interval"] = limits if value.ndim else tuple(limits.tolist())
    return result


def _check_probabilities(
    probabilities: Any, classes: Any, y_true: np.ndarray, y_pred: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    known = np.union1d(y_true, y_pred) if classes is None else check_labels(classes, "classes")
    check_same_classes(known, y_true, ("classes", "y_true"))
    shares = np.asarray(probabilities, dtype=float)
    if shares.shape != (len(y_true), len(known)):
        raise ValueError(
            f"probabilities has the shape {shares.shape}, but needs one row for each of the "
            f"{len(y_true)} images and one column for each of the {len(known)} classes. Give "
            "classes=model.classes_ if these are not the labels."
        )
    if (known[:-1] >= known[1:]).any():
        raise ValueError(f"classes must be sorted, as classes_ is, got {known.tolist()}.")
    is_known = np.isin(y_pred, known)
    if not is_known.all():
        raise ValueError(
            f"y_pred holds {y_pred[~is_known][0].item()!r}, which is not in classes: it has no "
            "probability."
        )
    if not (np.abs(shares.sum(axis=1) - 1) < 1e-3).all() or shares.min() < 0:
        raise ValueError(
            "probabilities must lie between 0 and 1 and sum to 1 in each row. Logits are none yet: "
            "take scipy.special.softmax(logits, axis=1)."
        )
    return shares, known


def _add_scores_of_probabilities(
    result: Evaluation, shares: np.ndarray, known: np.ndarray, groups: np.ndarray
) -> None:
    """Add the scores that need probabilities: most are of images whose class the model knows."""
    random = np.random.default_rng(0)
    y_true, y_pred = result.of_images.y_true, result.of_images.y_pred
    confidence, is_right = (
        shares[np.arange(len(shares)), np.searchsorted(known, y_pred)],
        y_true == y_pred,
    )
    result.of_images |= Bunch(probabilities=shares, known_classes=known, confidence=confidence)
    result.calibration = calibration(confidence, is_right, groups, random)
    result.risk_coverage = risk_coverage(confidence, is_right, groups)
    for name in ("top_2_accuracy", "log_loss"):
        result[name], result[f"{name}_interval"] = np.nan, (np.nan, np.nan)
    for name in RANKINGS:
        result[name] = np.full(len(result.classes), np.nan)
        result[f"{name}_interval"] = np.full((len(result.classes), 2), np.nan)
    rows = np.flatnonzero(np.isin(y_true, known))
    if not len(rows):
        return
    shares, truth = shares[rows], np.searchsorted(known, y_true[rows])
    _, groups = np.unique(groups[rows], return_inverse=True)
    second = np.argpartition(-shares, min(1, len(known) - 1), axis=1)[:, :2]
    is_among = (second == truth[:, None]).any(axis=1)
    result.top_2_accuracy, *limits = interval_of_right(is_among, groups)
    result.top_2_accuracy_interval = tuple(limits)
    own = shares[np.arange(len(rows)), truth]
    losses = -np.log(np.maximum(own, np.finfo(np.float32).eps))
    value, *limits = mean_loss(losses, groups, np.log(max(len(known), 2)), CONFIDENCE)
    result.log_loss, result.log_loss_interval = value, tuple(limits)
    for place, label in enumerate(result.classes):
        column = np.flatnonzero(known == label)
        is_positive = y_true[rows] == label
        if len(column) and 0 < is_positive.sum() < len(rows):
            ranked = rank(shares[:, column[0]], is_positive, groups, CONFIDENCE)
            for name, (value, *limits) in ranked.items():
                result[name][place], result[f"{name}_interval"][place] = value, limits
