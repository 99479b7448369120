"""The result of an evaluation: its scores, as attributes, tables, pictures and a page."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import escape
from sklearn.utils import Bunch

from wbcclf._files import plain
from wbcclf.inspection._frames import import_pandas
from wbcclf.inspection.evaluation import _plots

# What is shown first, and how it is called.
OVERALL = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy (macro recall)",
    "macro_precision": "macro precision",
    "macro_specificity": "macro specificity",
    "macro_f1": "macro-F1",
    "mcc": "Matthews correlation",
    "kappa": "Cohen's kappa",
    "top_2_accuracy": "top-2 accuracy",
    "log_loss": "log loss",
}
OF_CLASSES = {
    "precision": "precision",
    "recall": "recall (sensitivity)",
    "specificity": "specificity",
    "f1": "F1",
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
}
_NO_FIGURES = ("of_images", "estimator", "images")


class Evaluation(Bunch):
    """Scores of a classifier, as :func:`evaluate` returns them.

    Every score has its 95% interval beside it: `accuracy` and `accuracy_interval` (low, high).
    Scores of classes are arrays (n_classes,), in the order of `classes`; their intervals have the
    shape (n_classes, 2). With groups, the intervals are those of :func:`group_bootstrap`; without,
    every image counts as a cell of its own.

    Attributes
    ----------
    n_images : int
    n_groups : int or None
        Independent cells; None if no groups were given.
    classes : ndarray of shape (n_classes,)
        All labels, true or predicted, sorted.
    support : ndarray of shape (n_classes,), int
        True images of each class.
    confusion : ndarray of shape (n_classes, n_classes), int
        Rows are true, columns predicted.
    accuracy, mcc, kappa : float
        `mcc` is Matthews's correlation coefficient, `kappa` Cohen's.
    balanced_accuracy, macro_precision, macro_specificity, macro_f1 : float
        Means over the classes that are true, rare and common alike. `balanced_accuracy` is the
        macro recall. A class that is predicted but never true lowers the recall of the others and
        is not counted itself: otherwise the score would depend on which absent classes a model
        happens to predict.
    precision, recall, specificity, f1 : ndarray of shape (n_classes,)
        0 where undefined (a class never predicted or never true).
    by_group : Bunch
        Only with groups. The same scores and intervals, but each group counts the same, however
        many images show it: each image weighs one over the images of its group. The accuracy is
        then the mean, over the groups, of the share of images that are right: how often one image
        of a cell is called rightly. `confusion` holds sums of these weights, and `support` counts
        the groups that show each class.
    top_2_accuracy : float
        Only with probabilities, as all below. How often the true class is among the two most
        probable. This and the three below are of the images whose class the model knows; NaN if
        there are none.
    log_loss : float
        Mean of minus the natural logarithm of the true class's probability, which counts as 1.2e-7
        if it is lower (float32 tells no less apart).
    roc_auc, average_precision : ndarray of shape (n_classes,)
        Each class against the rest. NaN for classes that the model does not know or that are never
        true. The documentation says how often the intervals hold the truth.
    calibration : Bunch
        `error`: the expected calibration error of 15 bins (Guo et al. 2017,
        https://arxiv.org/abs/1706.04599), the mean difference of probability and accuracy, and
        `error_interval`. Few cells make it look larger than it is: `error_by_chance` is its mean if
        the probabilities were calibrated, from 1,000 simulations in which images of a cell are
        right together as often as here, and `error_by_chance_high` what 95% of these stay below.
        Up to there, the interval begins at 0.
        `curve`: of each bin with images, `confidence` (the mean probability), `accuracy`,
        `accuracy_interval`, `if_calibrated_interval` (where 95% of the accuracies would be if the
        probabilities were true; Broecker and Smith 2007, https://doi.org/10.1175/WAF993.1) and
        `n_images`.
    risk_coverage : Bunch
        If only the surest images are called: `coverage` (their share), `risk` (which share of them
        is wrong), `risk_interval`, and `least_confidence`, the lowest probability among them
        (El-Yaniv and Wiener 2010, https://jmlr.org/papers/v11/el-yaniv10a.html).
    familiarity : float or None
        Mean familiarity of the images (:meth:`CNNClassifier.familiarity`): 0.5 at home.
    n_trained_on : int or None
        Images that the model was trained on; the scores are too good if there are any.
    images_sha256, n_repeated : str, int
        Only of files. The SHA-256 of all of them, and how many are the same as another, byte for
        byte.
    of_images : Bunch
        `y_true`, `y_pred`, `groups` (numbers from 0, or None) and with probabilities
        `probabilities`, `known_classes` (its columns), `confidence`; `familiarity` and
        `trained_on`, which may be None.

    See Also
    --------
    evaluate : Makes one of a model.
    evaluate_predictions : Makes one of predictions.
    """

    def __repr__(self) -> str:
        names = ("accuracy", "balanced_accuracy", "macro_f1")
        scores = ", ".join(f"{name} {with_interval(self, name)}" for name in names)
        return f"<Evaluation of {self.counted()}: {scores}>"

    def _repr_html_(self) -> str:
        """Return tables of all scores, for notebooks."""
        overall = [(OVERALL[name], with_interval(self, name)) for name in OVERALL if name in self]
        names = [name for name in OF_CLASSES if name in self]
        header = ["class", "images", *(OF_CLASSES[name] for name in names)]
        rows = [
            [label, count, *(with_interval(self, name, place) for name in names)]
            for place, (label, count) in enumerate(zip(self.classes, self.support, strict=True))
        ]
        return (
            f"<p>{escape(self.counted())}; 95% intervals in brackets.</p>"
            f"{table(['score', ''], overall)}{table(header, rows)}"
        )

    def counted(self) -> str:
        """Return on how much the scores rest."""
        if self.n_images == 1:
            return "one image"
        if self.n_groups is None:
            return f"{self.n_images} images, each counted as a cell of its own"
        return f"{self.n_groups} independent cells in {self.n_images} images"

    @property
    def errors(self) -> list[Bunch]:
        """The wrong calls, the most confident first: `row`, `true`, `predicted`, `confidence`.

        Without probabilities `confidence` is None, and the order is that of the images.
        """
        given = self.of_images
        rows = np.flatnonzero(given.y_true != given.y_pred)
        confidence = given.get("confidence")
        if confidence is not None:
            rows = rows[np.argsort(-confidence[rows], kind="stable")]
        return [
            Bunch(
                row=int(row),
                true=given.y_true[row].item(),
                predicted=given.y_pred[row].item(),
                confidence=None if confidence is None else float(confidence[row]),
            )
            for row in rows
        ]

    def figures(self) -> dict[str, Any]:
        """Return all that is not of single images."""
        return {name: value for name, value in self.items() if name not in _NO_FIGURES}

    def to_frame(self) -> Any:
        """Return the scores as a table.

        Returns
        -------
        pandas.DataFrame
            One row for each score: `score`, `class` (None for scores of all), `value`, `low`,
            `high`.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pd = import_pandas()
        rows: list[tuple] = [
            (name, None, self[name], *self[f"{name}_interval"]) for name in OVERALL if name in self
        ]
        if "calibration" in self:
            found = self.calibration
            rows.append(("calibration_error", None, found.error, *found.error_interval))
        for name in filter(self.__contains__, OF_CLASSES):
            limits = self[f"{name}_interval"]
            rows += [
                (name, label, self[name][place], *limits[place])
                for place, label in enumerate(self.classes.tolist())
            ]
        return pd.DataFrame(rows, columns=["score", "class", "value", "low", "high"])

    def to_json(self) -> str:
        """Return all scores as JSON text. NaN is null."""
        return json.dumps(plain(self.figures()), indent=1, allow_nan=False)

    def to_html(
        self, path: str | os.PathLike, *, learning_curve: Any = None, audit: Any = None
    ) -> None:
        """Write a page for people to read: scores, curves, errors with pictures, what was used.

        One file below 2 MB, which asks for nothing from a network, can be read without JavaScript
        and prints on A4. It shows pictures if :func:`evaluate` made the result. Needs matplotlib.

        Parameters
        ----------
        path : str or path
            The file; one that is there stays as it is if writing fails.
        learning_curve : LearningCurve or None, default=None
            What :func:`learning_curve` returned of this model, to be shown, too.
        audit : Bunch or None, default=None
            What :func:`check_data` returned of the images, such as of training and test images
            together. None shows what its quick part finds.
        """
        from wbcclf.inspection.pages._evaluation import write_evaluation_page

        write_evaluation_page(self, path, learning_curve, audit)

    def to_card(self, path: str | os.PathLike) -> None:
        """Write a model card in Markdown: data, cells, figures, limits, licence of the weights.

        Parameters
        ----------
        path : str or path
            The file; one that is there stays as it is if writing fails.

        Raises
        ------
        ValueError
            If the result was not made of a model (:func:`evaluate`).
        """
        from wbcclf.inspection.pages._card import write_card

        write_card(self, path)

    def plot_confusion(self, *, errors_only: bool = False, ax: Any = None) -> Any:
        """Draw the confusion matrix: counts, shaded by the share of the true class.

        Parameters
        ----------
        errors_only : bool, default=False
            Leave out what is right, so that the shades show the errors.
        ax : matplotlib Axes or None, default=None
            None makes a pyplot figure.

        Returns
        -------
        matplotlib Axes
        """
        return _plots.draw_confusion(self, errors_only, ax)

    def plot_reliability(self, *, ax: Any = None) -> Any:
        """Draw how often calls are right against how probable they are said to be.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None

        Returns
        -------
        matplotlib Axes
        """
        self._needs_probabilities()
        return _plots.draw_reliability(self, ax)

    def plot_roc(self, *, ax: Any = None) -> Any:
        """Draw the ROC curve of each class against the rest; of many, the 12 smallest areas.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None

        Returns
        -------
        matplotlib Axes
        """
        self._needs_probabilities()
        return _plots.draw_curves(self, "roc_auc", ax)

    def plot_precision_recall(self, *, ax: Any = None) -> Any:
        """Draw precision against recall of each class; of many, the 12 smallest areas.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None

        Returns
        -------
        matplotlib Axes
        """
        self._needs_probabilities()
        return _plots.draw_curves(self, "average_precision", ax)

    def plot_risk_coverage(self, *, ax: Any = None) -> Any:
        """Draw the share of wrong calls against the share of images that are called.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None

        Returns
        -------
        matplotlib Axes
        """
        self._needs_probabilities()
        return _plots.draw_risk_coverage(self, ax)

    def _needs_probabilities(self) -> None:
        if "calibration" not in self:
            raise ValueError(
                "This result has no probabilities. Make it with evaluate(model, X, y), of a model "
                "with predict_proba, or give probabilities to evaluate_predictions."
            )


def with_interval(figures: Mapping, name: str, place: int | None = None) -> str:
    """Return a score as text, such as 0.828 (0.69 to 0.93), or a dash where there is none.

    `place` is that of a class; of one without images, there is none.
    """
    value, limits = figures[name], figures[f"{name}_interval"]
    if place is not None:
        value, limits = value[place], limits[place]
    if np.isnan(value) or (place is not None and figures["support"][place] == 0):
        return "-"
    low, high = limits
    return f"{value:.3f}" if np.isnan(low) else f"{value:.3f} ({low:.2f} to {high:.2f})"


def table(header: list[Any], rows: list) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
