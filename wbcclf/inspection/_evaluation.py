"""How good a classifier is: scores that suit imbalanced classes, and the confusion matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, precision_recall_fscore_support
from sklearn.utils import Bunch

from wbcclf._images import _num_samples
from wbcclf._labels import check_labels, check_same_classes
from wbcclf.inspection._checks import check_classifier
from wbcclf.inspection._drawing import check_axes, get_axes


def evaluate_predictions(y_true: Any, y_pred: Any) -> Bunch:
    """Return the scores of a classifier's predictions.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n_samples,)
        True and predicted labels: text, or whole numbers.

    Returns
    -------
    Bunch
        With the attributes

        n_samples : int
        accuracy : float
        accuracy_interval : tuple of 2 floats
            Wilson's 95% interval (Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953),
            which counts every image as an independent cell. If several images show the same cell,
            the true uncertainty is larger.
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

    Raises
    ------
    TypeError
        If `y_true` or `y_pred` is not array-like, such as a model.
    ValueError
        If they are empty, of different lengths, hold anything but labels of one kind (None, NaN,
        probabilities), or spell a class in two ways (``"Neutrophil"``, ``"neutrophil"``).

    Examples
    --------
    >>> from wbcclf.inspection import evaluate_predictions
    >>> result = evaluate_predictions(["mono", "mono", "lymph"], ["mono", "lymph", "lymph"])
    >>> round(result.accuracy, 3), round(result.macro_f1, 3), result.confusion.tolist()
    (0.667, 0.667, [[1, 0], [1, 1]])
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
    classes = np.union1d(y_true, y_pred)
    precision, recall, f1, _ = precision_recall_fscore_support(
        y_true, y_pred, labels=classes, zero_division=0.0
    )
    # Not confusion_matrix, which warns where all images are of one class.
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(confusion, (np.searchsorted(classes, y_true), np.searchsorted(classes, y_pred)), 1)
    support = confusion.sum(axis=1)
    n_right = int(np.count_nonzero(y_true == y_pred))
    interval = binomtest(n_right, len(y_true)).proportion_ci(method="wilson")
    return Bunch(
        n_samples=len(y_true),
        accuracy=float(accuracy_score(y_true, y_pred)),
        accuracy_interval=(float(interval.low), float(interval.high)),
        # Not balanced_accuracy_score, which warns where a class is only ever predicted.
        balanced_accuracy=float(recall[support > 0].mean()),
        macro_f1=float(f1[support > 0].mean()),
        classes=classes,
        precision=precision,
        recall=recall,
        f1=f1,
        support=support,
        confusion=confusion,
    )


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
