"""Whether more cells would help."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import escape
from sklearn.utils import Bunch, check_random_state

from wbcclf._files import plain
from wbcclf.inspection._drawing import get_axes
from wbcclf.inspection.evaluation._cross import (
    check_labelled,
    make_splits,
    out_of_fold,
    pooled,
)
from wbcclf.inspection.evaluation._plots import COLOURS
from wbcclf.inspection.evaluation._result import table, with_interval
from wbcclf.model_selection.intervals._ranking import draw_weights
from wbcclf.model_selection.intervals._resamples import strata_of

N_RESAMPLES = 1000


class LearningCurve(Bunch):
    """Scores of a model that was trained on more and more cells (:func:`learning_curve`).

    Attributes
    ----------
    steps : list of Bunch
        From few cells to all: `share`, `n_cells` and `n_images` trained on (means over the folds),
        `balanced_accuracy` with `balanced_accuracy_interval`, `accuracy` with `accuracy_interval`.
    forecast : Bunch
        Of the balanced accuracy with twice as many cells: `n_cells`, `value`, `interval`, and the
        `gain` over all cells that there are, with `gain_interval`.
    helps : bool or None
        Whether more cells would help: True if the whole interval of the gain is above half a point,
        False if it is below one point, None if these cells cannot tell.
    """

    def __repr__(self) -> str:
        return self.sentence()

    def sentence(self) -> str:
        """Return in words what more cells would do."""
        now, found = self.steps[-1], self.forecast
        low, high = found.gain_interval
        verdict = {
            True: "More cells would help",
            False: "More cells of this kind would hardly help",
            None: "It cannot be told whether more cells would help",
        }[self.helps]
        return (
            f"{verdict}. On the fitted curve, the macro recall goes from "
            f"{found.value - found.gain:.3f} with {now.n_cells} cells to {found.value:.3f} with "
            f"{found.n_cells}: {100 * found.gain:+.1f} points (95% interval {100 * low:+.1f} to "
            f"{100 * high:+.1f}). The curve cannot fall, so the gain is never below 0."
        )

    def _repr_html_(self) -> str:
        rows = [
            [step.n_cells, step.n_images, *(with_interval(step, name) for name in SCORES)]
            for step in self.steps
        ]
        header = ["cells", "images", "macro recall", "accuracy"]
        return f"<p>{escape(self.sentence())}</p>{table(header, rows)}"

    def to_json(self) -> str:
        """Return all figures as JSON text."""
        return json.dumps(plain(self), indent=1, allow_nan=False)

    def plot(self, *, ax: Any = None) -> Any:
        """Draw the macro recall against the number of cells, and the forecast.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None

        Returns
        -------
        matplotlib Axes
        """
        ax = get_axes(ax, (5.2, 4.2))
        for points, colour, label in (
            (self.steps, COLOURS[0], "measured"),
            ([self.forecast], COLOURS[1], "forecast"),
        ):
            values = np.array([_value(point) for point in points])
            limits = np.array([_limits(point) for point in points])
            ax.errorbar(
                [point.n_cells for point in points],
                values,
                yerr=np.abs(limits - values[:, None]).T,
                fmt="o-" if label == "measured" else "D",
                color=colour,
                capsize=3,
                label=f"{label}, 95% interval",
            )
        ax.set(xscale="log", xlabel="cells trained on", ylabel="macro recall")
        ax.legend(fontsize=8)
        return ax


SCORES = ("balanced_accuracy", "accuracy")


def _value(point: Bunch) -> float:
    return point.get("balanced_accuracy", point.get("value"))


def _limits(point: Bunch) -> tuple[float, float]:
    return point.get("balanced_accuracy_interval", point.get("interval"))


def learning_curve(
    model: Any,
    X: Any,
    y: Any,
    groups: Any = None,
    *,
    shares: Sequence[float] = (0.25, 0.5, 1.0),
    cv: Any = 5,
    verbose: int = 0,
) -> LearningCurve:
    """Return what a model gains from more cells, and a forecast for twice as many.

    It trains ``len(shares)`` times as often as a cross-validation, on nested parts of the cells.

    Parameters
    ----------
    model, X, y, groups, cv, verbose
        As for :func:`cross_evaluate`.
    shares : sequence of float, default=(0.25, 0.5, 1.0)
        Which shares of every class's cells to train on, in (0, 1], growing, two or more.

    Returns
    -------
    LearningCurve

    Raises
    ------
    TypeError, ValueError
        As by :func:`cross_evaluate`, or if `shares` are not such numbers, or a class has too few
        cells for the smallest.

    See Also
    --------
    sklearn.model_selection.learning_curve : For any score; it counts images, not cells.

    Notes
    -----
    The forecast continues the error rate as a power of the number of cells (Hestness et al. 2017,
    https://arxiv.org/abs/1712.00409), fitted by least squares to the logarithms; an error rate that
    grows is taken as constant. The intervals come from resampled groups: they hold what is not
    known since the test cells are few. They leave out the chance of another training, and a curve
    that bends. Cells of another laboratory are not more of the same.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.datasets import make_classification
    >>> from wbcclf.inspection import learning_curve
    >>> X, y = make_classification(400, random_state=0, flip_y=0.05)
    >>> curve = learning_curve(LogisticRegression(), X, y, cv=3)
    >>> [step.n_cells for step in curve.steps], curve.forecast.n_cells
    ([67, 133, 267], 534)
    """
    y, codes = check_labelled(X, y, groups)
    _check_shares(shares)
    splits = make_splits(X, y, groups, codes, cv)
    cells = np.arange(len(y)) if codes is None else codes
    steps, wrong = [], []
    for share in shares:
        parts = [(_some_cells(train, y, cells, share), test) for train, test in splits]
        found = pooled(list(out_of_fold(model, X, y, groups, parts, verbose)), y, groups)
        wrong.append(found.of_images.y_pred != y)
        step = Bunch(
            share=float(share),
            n_cells=round(np.mean([len(np.unique(cells[rows])) for rows, _ in parts])),
            n_images=round(np.mean([len(rows) for rows, _ in parts])),
        )
        for name in SCORES:
            step |= {key: found[key] for key in (name, f"{name}_interval")}
        steps.append(Bunch(**step))
    forecast = _forecast([step.n_cells for step in steps], np.array(wrong), y, cells)
    low, high = forecast.gain_interval
    helps = True if low > 0.005 else False if high < 0.01 else None
    return LearningCurve(steps=steps, forecast=forecast, helps=helps)


def _check_shares(shares: Any) -> None:
    values = np.asarray(shares, dtype=float)
    if values.ndim != 1 or len(values) < 2 or not (values > 0).all() or values[-1] > 1:
        raise ValueError(f"shares must be two numbers or more in (0, 1], got {shares!r}.")
    if (np.diff(values) <= 0).any():
        raise ValueError(f"shares must grow, got {shares!r}.")


def _some_cells(rows: np.ndarray, y: np.ndarray, cells: np.ndarray, share: float) -> np.ndarray:
    """Return the rows of a share of each class's cells; those of a smaller share are among them."""
    random = check_random_state(0)
    chosen = []
    for label in np.unique(y[rows]):
        own = random.permutation(np.unique(cells[rows][y[rows] == label]))
        n_cells = round(share * len(own))
        if n_cells < 2:
            raise ValueError(
                f"shares: {share:g} of the {len(own)} cells of class {label} to train on are fewer "
                "than two. Begin with a larger share."
            )
        chosen.append(own[:n_cells])
    return rows[np.isin(cells[rows], np.concatenate(chosen))]


def _forecast(n_cells: list[int], wrong: np.ndarray, y: np.ndarray, cells: np.ndarray) -> Bunch:
    """Return the balanced accuracy for twice as many cells, from errors (n_steps, n_samples)."""
    labels, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
    _, groups = np.unique(cells, return_inverse=True)
    n_groups = groups.max() + 1
    shows = np.zeros((n_groups, len(labels)), dtype=bool)
    shows[groups, codes] = True
    weights = np.vstack(
        [
            np.ones((1, n_groups)),
            draw_weights(strata_of(shows), N_RESAMPLES, check_random_state(0)),
        ]
    )
    places = groups * len(labels) + codes
    size = n_groups * len(labels)

    def by_class(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(places, values, size).reshape(n_groups, len(labels))
        return weights @ sums

    images = by_class(np.ones(len(y)))
    # An error that was not seen is half an error, so that its logarithm is finite.
    half = 0.5 / counts.sum()
    errors = np.stack([(by_class(each) / images).mean(axis=1) for each in wrong], axis=1) + half
    x = np.log(n_cells) - np.log(n_cells[-1])
    slopes, heights = _line(x, np.log(errors))
    now, later = np.exp(heights), np.exp(heights + np.minimum(slopes, 0) * np.log(2))
    values, gains = 1 - later, now - later
    low, high = np.quantile(gains[1:], [0.025, 0.975])
    return Bunch(
        n_cells=2 * n_cells[-1],
        value=float(np.clip(values[0], 0, 1)),
        interval=tuple(np.quantile(values[1:], [0.025, 0.975]).clip(0, 1).tolist()),
        gain=float(gains[0]),
        gain_interval=(float(low), float(high)),
    )


def _line(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return slopes and values at 0 of lines through points (n_lines, n_points)."""
    centred = x - x.mean()
    slopes = (y * centred).sum(axis=1) / (centred**2).sum()
    return slopes, y.mean(axis=1) - slopes * x.mean()
