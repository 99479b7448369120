"""Pictures of an evaluation, on matplotlib axes."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import PrecisionRecallDisplay, RocCurveDisplay
from sklearn.utils import Bunch

from wbcclf.inspection._drawing import get_axes

# Paul Tol's bright colours, which colour-blind people tell apart; with dashes, for 28 classes.
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#666666")
DASHES = ("-", "--", ":", "-.")
MOST_CURVES = 12  # that are told apart in one picture


def confusion_size(figures: Bunch) -> tuple[float, float]:
    """Return width and height in inches that leave room for every name and count."""
    names = 0.1 * max(len(str(label)) for label in figures.classes)
    cell = max(0.6, 0.1 * len(str(figures.confusion.max())))
    matrix = max(3.0, cell * len(figures.classes))
    return matrix + names + 0.7, matrix + 0.7 * names + 1.0  # the lower names lie at 45 degrees


def draw_confusion(figures: Bunch, errors_only: bool, ax: Any) -> Any:
    ax = get_axes(ax, confusion_size(figures))
    classes = [str(label) for label in figures.classes]
    confusion = figures.confusion
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    is_shown = np.ones(share.shape, dtype=bool)
    if errors_only:
        is_shown = ~np.eye(len(share), dtype=bool)
        share = np.where(is_shown, share, 0)
    top = max(share.max(), 1e-9) if errors_only else 1
    ax.imshow(share, vmin=0, vmax=top, cmap="Reds" if errors_only else "Blues")
    for row, column in np.argwhere(is_shown & ((confusion > 0) | (not errors_only))):
        colour = "white" if share[row, column] > top / 2 else "black"
        count = confusion[row, column]
        ax.text(column, row, count, ha="center", va="center", color=colour)
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
    title = f"accuracy {figures.accuracy:.3f}, macro-F1 {figures.macro_f1:.3f}"
    n_wrong = int(confusion.sum() - np.trace(confusion))
    ax.set(xlabel="predicted", ylabel="true", title=f"{n_wrong} errors" if errors_only else title)
    return ax


def draw_reliability(evaluation: Bunch, ax: Any) -> Any:
    ax = get_axes(ax, (4.2, 4.2))
    curve = evaluation.calibration.curve
    band = curve.if_calibrated_interval.T
    ax.plot([0, 1], [0, 1], color="#888888", linewidth=1)
    ax.vlines(curve.confidence, *band, color="#bbbbbb", linewidth=6, label="if calibrated")
    low, high = np.abs(curve.accuracy_interval.T - curve.accuracy)
    ax.errorbar(
        curve.confidence,
        curve.accuracy,
        yerr=[low, high],
        fmt="o",
        color=COLOURS[0],
        markersize=4,
        linewidth=1.2,
        label="measured, 95% interval",
    )
    lowest = max(0, min(curve.confidence.min(), curve.accuracy.min()) - 0.05)
    ax.set(
        xlim=(lowest, 1.02),
        ylim=(lowest, 1.02),
        xlabel="probability of the called class",
        ylabel="share that is right",
        title=f"calibration error {evaluation.calibration.error:.3f}",
    )
    ax.legend(loc="upper left", fontsize=8)
    return ax


CURVES = {
    "roc_auc": (RocCurveDisplay, "false positive rate", "recall (true positive rate)"),
    "average_precision": (PrecisionRecallDisplay, "recall", "precision"),
}


def draw_curves(evaluation: Bunch, name: str, ax: Any) -> Any:
    ax = get_axes(ax, (5.2, 4.2))
    display, xlabel, ylabel = CURVES[name]
    given = evaluation.of_images
    rows = np.isin(given.y_true, given.known_classes)
    known = np.flatnonzero(np.isfinite(evaluation[name]))
    worst = known[np.argsort(evaluation[name][known], kind="stable")[:MOST_CURVES]]
    for place in np.sort(worst):
        label = evaluation.classes[place]
        column = np.searchsorted(given.known_classes, label)
        number = len(ax.lines)
        display.from_predictions(
            given.y_true[rows] == label,
            given.probabilities[rows, column],
            ax=ax,
            name="class",
            drop_intermediate=True,
            curve_kwargs={
                "color": COLOURS[number % len(COLOURS)],
                "linestyle": DASHES[number // len(COLOURS) % len(DASHES)],
                "linewidth": 1.3,
            },
        )
        ax.lines[-1].set_label(f"{shortened(drawn(label))} {evaluation[name][place]:.3f}")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if ax.lines:
        legend = ax.legend(fontsize=8, loc="lower right" if name == "roc_auc" else "lower left")
        for text in legend.get_texts():
            text.set_parse_math(False)
    return ax


def draw_risk_coverage(evaluation: Bunch, ax: Any) -> Any:
    ax = get_axes(ax, (5.2, 4.2))
    found = evaluation.risk_coverage
    low, high = found.risk_interval.T
    ax.fill_between(found.coverage, low, high, color=COLOURS[0], alpha=0.2, linewidth=0)
    ax.plot(found.coverage, found.risk, color=COLOURS[0], marker=".", markersize=4)
    ax.set(
        xlim=(0, 1.02),
        ylim=(0, None),
        xlabel="share of the images that are called, the surest first",
        ylabel="share of these that is wrong",
    )
    return ax


def shortened(text: str) -> str:
    return text if len(text) <= 24 else f"{text[:23]}…"


def drawn(name: Any) -> str:
    """Return a name as matplotlib draws it: it hides what begins with _, and takes no bytes."""
    text = str(name).encode("utf-8", "backslashreplace").decode()
    return f" {text}" if text.startswith("_") else text
