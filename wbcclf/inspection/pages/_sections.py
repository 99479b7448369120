"""What a page shows of one model: its classes, its confusions, and its probabilities."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from markupsafe import Markup
from sklearn.utils import Bunch

from wbcclf.inspection.evaluation._result import OF_CLASSES, Evaluation, with_interval
from wbcclf.inspection.pages._html import drawing

N_CONFUSIONS = 20  # that are listed


def sections(result: Evaluation, prefix: str = "", of: str = "") -> Bunch:
    """Return what the templates of `sections.html` show.

    `prefix` tells the ids of one model's drawings from those of another, and `of` the names of its
    tables.
    """
    names = ("reliability", "risk_coverage", "roc", "precision_recall")
    curves = {name: getattr(result, f"plot_{name}") for name in names}
    return Bunch(
        of=of,
        has_groups=result.n_groups is not None,
        class_scores=[OF_CLASSES[name] for name in OF_CLASSES if name in result],
        classes=class_rows(result),
        confusion=confusion_rows(result),
        confusions=confusions(result),
        calibration=result.get("calibration"),
        n_curves=int(np.isfinite(result.get("roc_auc", [])).sum()),
        drawings={
            name: draw(lambda ax, plot=plot: plot(ax=ax), f"{prefix}{name}")
            for name, plot in curves.items()
            if "calibration" in result
        },
    )


def class_rows(result: Evaluation) -> list[Bunch]:
    """Return a row of scores for each class."""
    names = [name for name in OF_CLASSES if name in result]
    cells = result.by_group.support.tolist() if "by_group" in result else None
    return [
        Bunch(
            label=str(label),
            n_images=int(result.support[place]),
            n_cells=None if cells is None else cells[place],
            scores=[in_parts(result, name, place) for name in names],
        )
        for place, label in enumerate(result.classes)
    ]


def in_parts(result: Evaluation, name: str, place: int | None = None) -> tuple[str, str]:
    """Return a score and its interval as texts; the second is empty where there is none."""
    value, _, interval = with_interval(result, name, place).partition(" (")
    return value, interval.rstrip(")")


def confusion_rows(result: Evaluation) -> list[Bunch]:
    """Return the confusion matrix: of each true class, counts and shares of what it is called."""
    shares = result.confusion / np.maximum(result.support[:, None], 1)
    return [
        Bunch(
            label=str(label),
            cells=[
                Bunch(count=int(count), share=float(share), is_right=row == column)
                for column, (count, share) in enumerate(
                    zip(result.confusion[row], shares[row], strict=True)
                )
            ],
        )
        for row, label in enumerate(result.classes)
    ]


def confusions(result: Evaluation) -> list[Bunch]:
    """Return the most frequent confusions, the most frequent first."""
    wrong = result.confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:N_CONFUSIONS]
    places = [np.unravel_index(place, wrong.shape) for place in order]
    return [
        Bunch(
            true=str(result.classes[row]),
            called=str(result.classes[column]),
            count=int(wrong[row, column]),
            share=float(wrong[row, column] / result.support[row]),
        )
        for row, column in places
        if wrong[row, column]
    ]


def draw(draw: Callable, name: str, size: tuple[float, float] = (5.2, 4.2)) -> Markup:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # The page says what is drawn; a class may be called $x$.
    with mpl.rc_context({"text.parse_math": False, "legend.frameon": False}):
        axes = Figure(figsize=size, layout="constrained").add_subplot()
        draw(axes)
        axes.set_title("")
        return drawing(axes.figure, name)
