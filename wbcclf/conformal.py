"""Sets of labels that hold the true one as often as they promise."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin
from sklearn.utils import check_consistent_length, check_random_state, get_tags
from sklearn.utils.validation import check_is_fitted, column_or_1d

from wbcclf._images import HasMethods, Interval, _fit_context
from wbcclf._labels import check_labels, check_same_classes
from wbcclf._warnings import warn
from wbcclf.exceptions import SmallClassWarning
from wbcclf.model_selection.intervals._intervals import check_groups


class ConformalClassifier(MetaEstimatorMixin, ClassifierMixin, BaseEstimator):
    """Gives each image a set of labels, which holds the true one with a chosen probability.

    A fitted classifier is measured on cells that it was not trained on, the calibration set. A
    label is in the set of an image if its probability reaches the threshold of the class: the
    highest value that a share `confidence_level` of the calibration cells of that class reaches,
    with a correction for few cells. This is class-conditional (Mondrian) split conformal
    prediction [1]_, [2]_. A set of one label is a call. A set of several has the classes that the
    model cannot separate. An empty set says that no class reaches its threshold.

    Parameters
    ----------
    estimator : classifier
        Fitted, with `predict_proba`; it is not fitted again. A :class:`CNNClassifier`, a pipeline
        that ends in one, or any other. To clone what holds it, as a search does, wrap it in
        :class:`sklearn.frozen.FrozenEstimator`.
    confidence_level : float, default=0.9
        The share of cells, in (0, 1), whose set holds the true label. It has to be above the
        accuracy of `estimator`, or some sets must be empty.
    class_conditional : bool, default=True
        Whether the promise holds in each class, or only over all of them. Then a rare class may pay
        for a common one.
    random_state : int, RandomState instance or None, default=None
        Which picture of each cell is drawn.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels of `estimator`.
    thresholds_ : ndarray of shape (n_classes,), float in [0, 1]
        The least probability with which a class is in a set. 0, for a class with too few cells,
        puts it in every set.
    n_cells_ : ndarray of shape (n_classes,), int
        Cells that the threshold of each class was learnt from.
    n_features_in_ : int
        Of `estimator`, if it has it.
    feature_names_in_ : ndarray of str
        Of `estimator`, if it has them.

    See Also
    --------
    CNNClassifier : Its `rejection` bounds the share of calls that are wrong.
    sklearn.calibration.CalibratedClassifierCV : Probabilities that say how often they are right.

    Notes
    -----
    **What is promised.** Take a new cell, from where the cells of `fit` come from, and draw one of
    its pictures. Its class is in the set with a probability of `confidence_level` or more. For m
    cells of the class it is ``ceil((m + 1) * confidence_level) / (m + 1)``, if no two probabilities
    are equal. This is the mean over all cells that `fit` may be given. For one fit it varies: with
    50 cells and a level of 0.9 by 0.04 (standard deviation). Probabilities need not be calibrated.
    Nothing is promised for another laboratory.

    **Several pictures of one cell** are not independent, so one of them is drawn [3]_: of each cell
    and class.

    **Cells needed**: ``confidence_level / (1 - confidence_level)`` of each class, which is 9 for
    0.9, 19 for 0.95, 99 for 0.99.

    References
    ----------
    .. [1] V. Vovk, A. Gammerman and G. Shafer, "Algorithmic learning in a random world", 2005,
       https://doi.org/10.1007/b106715
    .. [2] M. Sadinle, J. Lei and L. Wasserman, "Least ambiguous set-valued classifiers with bounded
       error levels", Journal of the American Statistical Association 114, 2019,
       https://doi.org/10.1080/01621459.2017.1395341
    .. [3] R. Dunn, L. Wasserman and A. Ramdas, "Distribution-free prediction sets for two-layer
       hierarchical models", 2018, https://arxiv.org/abs/1809.07441

    Examples
    --------
    Sixty cells to train on, eighty others to measure on, and two new ones.

    >>> from wbcclf import ConformalClassifier, SimpleCNNClassifier, make_blood_cells
    >>> cells = make_blood_cells(142, classes=2, image_size=32, random_state=0)
    >>> clf = SimpleCNNClassifier(max_epochs=5, device="cpu", random_state=0)
    >>> clf = clf.fit(cells.images[:60], cells.target[:60])
    >>> sets = ConformalClassifier(clf, confidence_level=0.95, random_state=0)
    >>> sets = sets.fit(cells.images[60:140], cells.target[60:140])
    >>> sets.predict_set(cells.images[140:])
    array([[ True,  True],
           [False,  True]])
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods("predict_proba")],
        "confidence_level": [Interval(Real, 0, 1, closed="neither")],
        "class_conditional": ["boolean"],
        "random_state": ["random_state"],
    }

    def __init__(
        self, estimator, *, confidence_level=0.9, class_conditional=True, random_state=None
    ):
        self.estimator = estimator
        self.confidence_level = confidence_level
        self.class_conditional = class_conditional
        self.random_state = random_state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self.estimator).input_tags
        return tags

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, groups=None):
        """Learn from held-out cells how probable their true labels are.

        Parameters
        ----------
        X : array-like
            Images as `estimator` takes them, of cells that it was not trained on.
        y : array-like of shape (n_samples,)
            Their labels.
        groups : array-like of shape (n_samples,) or None, default=None
            The cell that each image shows; or the slide or patient, if the promise is to hold for
            new ones. None: each image shows another cell.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the estimator was trained on some of the images, as far as it knows; if `y` holds a
            label that it does not know, or `groups` is not one for each image.
        sklearn.exceptions.NotFittedError
            If `estimator` is not fitted.

        Warns
        -----
        wbcclf.exceptions.SmallClassWarning
            If a class has too few cells for `confidence_level`: it is then in every set.
        """
        check_is_fitted(self.estimator)
        check_consistent_length(X, y)
        y = check_labels(column_or_1d(y, warn=True), "y")
        classes = check_labels(self.estimator.classes_, "classes_")
        check_same_classes(y, classes, ("y", "the estimator"))
        if (classes[:-1] >= classes[1:]).any():
            raise ValueError(f"The estimator's classes_ must be sorted, got {classes.tolist()}.")
        unknown = np.setdiff1d(y, classes).tolist()
        if unknown:
            raise ValueError(
                f"y holds {', '.join(map(repr, unknown))}, but the estimator knows "
                f"{', '.join(map(repr, classes.tolist()))}. Leave these images out."
            )
        cell = np.arange(len(y)) if groups is None else check_groups(groups, len(y), "y", "sets")
        target = np.searchsorted(classes, y)
        probabilities = self._probabilities_of_new(X)[np.arange(len(y)), target]
        stratum = target if self.class_conditional else np.zeros_like(target)
        order = check_random_state(self.random_state).permutation(len(y))
        _, first = np.unique([cell[order], stratum[order]], axis=1, return_index=True)
        drawn = order[first]
        of_strata = [
            probabilities[drawn[stratum[drawn] == number]]
            for number in range(len(classes) if self.class_conditional else 1)
        ]
        thresholds = [_threshold(each, self.confidence_level) for each in of_strata]
        self.thresholds_ = np.resize(thresholds, len(classes))
        self.n_cells_ = np.resize([len(each) for each in of_strata], len(classes))
        self.classes_ = self.estimator.classes_
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.estimator, name):
                setattr(self, name, getattr(self.estimator, name))
        self._warn_of_small_classes()
        return self

    def _probabilities_of_new(self, X: Any) -> np.ndarray:
        """Return probabilities of images; fail if the estimator was trained on some of them."""
        estimator = getattr(self.estimator, "best_estimator_", self.estimator)
        steps = getattr(estimator, "steps", [("", estimator)])
        for _, step in steps[:-1]:  # samplers have no `transform`
            X = step.transform(X) if hasattr(step, "transform") else X
        classifier = steps[-1][1]
        # Those inside scikit-learn's CalibratedClassifierCV, too.
        inside = [each.estimator for each in getattr(classifier, "calibrated_classifiers_", [])]
        for network in [classifier, *inside]:
            if getattr(network, "_trained_on", None) is None:
                continue
            n_known = np.count_nonzero(network.was_trained_on(X))
            if n_known:
                raise ValueError(
                    f"The estimator was trained on {n_known} of the {len(X)} images: it knows them "
                    "too well, and the sets of new images would be too small. Give images of other "
                    "cells; was_trained_on finds those to leave out."
                )
        return classifier.predict_proba(X)

    def _warn_of_small_classes(self) -> None:
        level = self.confidence_level
        needed = math.ceil(round(level / (1 - level), 9))
        small = self.n_cells_ < needed
        if not small.any():
            return
        if self.class_conditional:
            labels, counts = self.classes_[small].tolist(), self.n_cells_[small].tolist()
            found = ", ".join(f"{n} of {label!r}" for label, n in zip(labels, counts, strict=True))
            fault = f"{needed} cells of each class; there are {found}. These are in every set now"
        else:
            fault = f"{needed} cells; there are {self.n_cells_[0]}, so all labels are in every set"
        warn(
            f"confidence_level={level:g} needs {fault}. Give more cells, or a lower level.",
            SmallClassWarning,
        )

    def predict_set(self, X):
        """Return which labels are in the sets of images.

        Parameters
        ----------
        X : array-like
            Images as `estimator` takes them.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), bool
            Columns in the order of ``classes_``.
        """
        check_is_fitted(self)
        return self.estimator.predict_proba(X) >= self.thresholds_

    def predict(self, X):
        """Return the labels that `estimator` predicts (n_samples,)."""
        check_is_fitted(self)
        return self.estimator.predict(X)

    def predict_proba(self, X):
        """Return the class probabilities of `estimator` (n_samples, n_classes)."""
        check_is_fitted(self)
        return self.estimator.predict_proba(X)


def _threshold(probabilities: np.ndarray, confidence_level: float) -> float:
    """Return what a further probability reaches so often; 0 if these are too few to tell."""
    # Rounded: 0.55 * 100 is 55.00000000000001.
    rank = math.ceil(round((len(probabilities) + 1) * confidence_level, 9))
    return np.sort(probabilities)[-rank] if rank <= len(probabilities) else 0.0
