"""How good a classifier is: scores that suit imbalanced classes, and the confusion matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import binomtest
from sklearn.utils import Bunch

from wbcclf._images import _num_samples
from wbcclf._labels import check_labels, check_same_classes
from wbcclf.inspection._checks import check_classifier
from wbcclf.inspection._drawing import check_axes, get_axes
from wbcclf.model_selection.intervals._intervals import check_groups, confusion_by_group
from wbcclf.model_selection.intervals._resamples import Resamples
from wbcclf.model_selection.intervals._scores import SCORES

CONFIDENCE = 0.95
N_RESAMPLES = 1000


def evaluate_predictions(y_true: Any, y_pred: Any, groups: Any = None) -> Bunch:
    """Return the scores of a classifier's predictions.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n_samples,)
        True and predicted labels: text, or whole numbers.
    groups : array-like of shape (n_samples,) or None, default=None
        Which cell each image shows (or which slide or patient), such as the `groups` of
        :func:`load_image_folder`. Two or more. Give it wherever several images show one cell:
        their errors come together, and an interval that counts every image is too narrow.

    Returns
    -------
    Bunch
        With the attributes

        n_samples : int
        accuracy : float
        accuracy_interval : tuple of 2 floats
            95% interval. Without `groups` it is Wilson's (Wilson 1927,
            https://doi.org/10.1080/01621459.1927.10502953), which counts every image as an
            independent cell. With `groups`, it is that of :func:`group_bootstrap`.
        balanced_accuracy : float
            Mean recall of the classes in `y_true`.
        macro_f1 : float
            Mean F1 of the classes in `y_true`, rare and common alike. A class that is predicted
            but never true lowers the recall of the others and is not counted itself: otherwise
            the score would depend on which absent classes a model happens to predict.
        classes : ndarray of shape (n_classes,)
            All labels in either array, sorted.
        precision, recall, f1 : ndarray of shape (n_classes,)
            0 where undefined (a class never predicted or never true).
        support : ndarray of shape (n_classes,), int
            True images of each class.
        confusion : ndarray of shape (n_classes, n_classes), int
            Rows are true, columns predicted.

        and with `groups`

        n_groups : int
            Independent cells.
        balanced_accuracy_interval, macro_f1_interval : tuple of 2 floats
        precision_interval, recall_interval, f1_interval : ndarray of shape (n_classes, 2)
            95% intervals by group (:func:`group_bootstrap`, which also says where they are NaN).
        by_group : Bunch
            The same scores and intervals, but each group counts the same, however many images show
            it: each image weighs one over the images of its group. The accuracy is then the mean,
            over the groups, of the share of images that are right: how often one image of a cell
            is called rightly. (A majority of a cell's images would be right more often, but needs
            several images of every cell.) `confusion` holds sums of these weights, and `support`
            counts the groups that show each class.

    Raises
    ------
    TypeError
        If `y_true` or `y_pred` is not array-like, such as a model.
    ValueError
        If they are empty, of different lengths, hold anything but labels of one kind (None, NaN,
        probabilities), or spell a class in two ways (``"Neutrophil"``, ``"neutrophil"``); or if
        `groups` has another length, holds None or NaN, or names one group only.

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
    if groups is None:
        classes, matrices = confusion_by_group(y_true, y_pred, np.zeros(len(y_true), dtype=int))
        result = _scores(matrices.sum(axis=0))
        n_right = int(np.count_nonzero(y_true == y_pred))
        interval = binomtest(n_right, len(y_true)).proportion_ci(CONFIDENCE, method="wilson")
        result.accuracy_interval = (float(interval.low), float(interval.high))
    else:
        classes, matrices = confusion_by_group(y_true, y_pred, check_groups(groups, len(y_true)))
        result = _with_intervals(matrices, equal=False)
        result.n_groups = len(matrices)
        result.by_group = _with_intervals(matrices, equal=True)
        result.by_group.support = np.count_nonzero(matrices.any(axis=2), axis=0)
    return Bunch(n_samples=len(y_true), classes=classes, **result)


def _scores(confusion: np.ndarray) -> Bunch:
    support = confusion.sum(axis=1)
    scores = {name: score(confusion, support > 0) for name, score in SCORES.items()}
    return Bunch(
        support=support,
        confusion=confusion,
        **{name: score if score.ndim else float(score) for name, score in scores.items()},
    )


def _with_intervals(matrices: np.ndarray, *, equal: bool) -> Bunch:
    """Return scores and their intervals from the confusion matrix of each group.

    Parameters
    ----------
    matrices : ndarray of shape (n_groups, n_classes, n_classes), int
    equal : bool
        Whether each group counts the same, not each image.
    """
    resamples = Resamples(matrices, N_RESAMPLES, 0, equal=equal)
    result = _scores(resamples.total)
    for name in SCORES:
        limits = np.stack(resamples.interval(name, CONFIDENCE), axis=-1)
        is_one = limits.ndim == 1
        result[f"{name}_interval"] = tuple(limits.tolist()) if is_one else limits
    return result


class EvaluationDisplay:
    """Confusion matrix with counts, shaded by recall; the title has accuracy and macro-F1.

    Create and use it like scikit-learn's displays, with :meth:`from_estimator` or
    :meth:`from_predictions`. ``display.figure_.savefig("confusion.png")`` writes a file.

    Parameters
    ----------
    evaluation : Bunch
        What :func:`evaluate_predictions` returned.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    See Also
    --------
    sklearn.metrics.ConfusionMatrixDisplay : Shades by counts, which hides rare classes; if it is
        normalised, it shows no counts.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from wbcclf.inspection import EvaluationDisplay
    >>> display = EvaluationDisplay.from_predictions(["mono", "lymph"], ["mono", "mono"])
    >>> display.ax_.get_title()
    'accuracy 0.500, macro-F1 0.333'
    >>> plt.close(display.figure_)
    """

    def __init__(self, evaluation: Bunch) -> None:
        self.evaluation = evaluation

    @property
    def figsize(self) -> tuple[float, float]:
        """Width and height in inches that leave room for every name and count."""
        names = 0.1 * max(len(str(label)) for label in self.evaluation.classes)
        cell = max(0.6, 0.1 * len(str(self.evaluation.confusion.max())))
        matrix = max(3.0, cell * len(self.evaluation.classes))
        return matrix + names + 0.7, matrix + 0.7 * names + 1.0  # the lower names lie at 45 degrees

    def plot(self, *, ax: Any = None) -> EvaluationDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            None makes a pyplot figure of the size `figsize`.

        Returns
        -------
        EvaluationDisplay
            The display itself, with ``ax_`` and ``figure_``.

        Raises
        ------
        ImportError
            If matplotlib is not installed; the message says how to install it.
        TypeError
            If `ax` is neither axes nor None.
        """
        ax = get_axes(ax, self.figsize)
        classes = [str(label) for label in self.evaluation.classes]
        confusion = self.evaluation.confusion
        share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
        ax.imshow(share, vmin=0, vmax=1, cmap="Blues")
        for row, column in np.ndindex(confusion.shape):
            colour = "white" if share[row, column] > 0.5 else "black"
            ax.text(column, row, confusion[row, column], ha="center", va="center", color=colour)
        # parse_math: a dollar in a name is no formula.
        ax.set_xticks(
            range(len(classes)),
            classes,
            rotation=45,
            ha="right",
            rotation_mode="anchor",
            parse_math=False,
        )
        ax.set_yticks(range(len(classes)), classes, parse_math=False)
        ax.set(
            xlabel="predicted",
            ylabel="true",
            title=f"accuracy {self.evaluation.accuracy:.3f}, "
            f"macro-F1 {self.evaluation.macro_f1:.3f}",
        )
        self.ax_, self.figure_ = ax, ax.get_figure(root=True)
        return self

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, y: Any, *, ax: Any = None) -> EvaluationDisplay:
        """Draw how well a fitted classifier predicts.

        Parameters
        ----------
        estimator : classifier, pipeline or search
            Fitted.
        X : array-like
            What its `predict` takes: images, or paths if it begins with an :class:`ImageLoader`.
        y : array-like of shape (n_samples,)
            True labels.
        ax : matplotlib Axes or None, default=None
            As in :meth:`plot`.

        Returns
        -------
        EvaluationDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed; the message says how to install it.
        TypeError
            If `estimator` is no classifier, `y` no array-like, or `ax` neither axes nor None.
        ValueError
            If `y` holds anything but labels, or not one for each row of `X`.
        sklearn.exceptions.NotFittedError
            If `estimator` is not fitted.
        """
        check_axes(ax)
        check_classifier(estimator, "estimator")
        y = check_labels(y, "y")
        if _num_samples(X) != len(y):
            raise ValueError(
                f"X holds {_num_samples(X)} images, y {len(y)} labels: y needs one for each image."
            )
        known = check_labels(estimator.classes_, "estimator.classes_")
        check_same_classes(y, known, ("y", "estimator.classes_"))
        return cls.from_predictions(y, estimator.predict(X), ax=ax)

    @classmethod
    def from_predictions(cls, y_true: Any, y_pred: Any, *, ax: Any = None) -> EvaluationDisplay:
        """Draw how well predictions agree with the truth.

        Parameters
        ----------
        y_true, y_pred : array-like of shape (n_samples,)
            True and predicted labels, as for :func:`evaluate_predictions`.
        ax : matplotlib Axes or None, default=None
            As in :meth:`plot`.

        Returns
        -------
        EvaluationDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed; the message says how to install it.
        TypeError, ValueError
            As by :func:`evaluate_predictions`, or if `ax` is neither axes nor None.
        """
        return cls(evaluate_predictions(y_true, y_pred)).plot(ax=ax)
