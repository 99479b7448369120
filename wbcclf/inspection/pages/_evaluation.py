"""The page of an evaluation: the answer first, then every score, curve and error."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from markupsafe import Markup
from sklearn.utils import Bunch

from wbcclf._files import some
from wbcclf._uncertainty import LEAST_FAMILIAR
from wbcclf.inspection._drawing import check_axes
from wbcclf.inspection._files import last_step
from wbcclf.inspection._history import plot_history
from wbcclf.inspection.evaluation._learning_curve import LearningCurve
from wbcclf.inspection.evaluation._plots import COLOURS
from wbcclf.inspection.evaluation._result import OVERALL, Evaluation, with_interval
from wbcclf.inspection.pages._gallery import Pictures, find_cards
from wbcclf.inspection.pages._html import MOST_BYTES, check_made_by, write_page
from wbcclf.inspection.pages._provenance import about, versions
from wbcclf.inspection.pages._sections import draw, sections
from wbcclf.model_selection.audit._findings import small_classes
from wbcclf.model_selection.audit._quick_check import check_headers

FEW_CELLS = 50  # in all: a score of fewer says little
LIKE_HOME = 0.4  # mean familiarity; at home it is 0.5, elsewhere 0.00 to 0.03 (docs/familiarity.md)


def write_evaluation_page(
    result: Evaluation,
    path: str | os.PathLike,
    learning_curve: LearningCurve | None,
    audit: Bunch | None,
) -> None:
    """Write the page of an evaluation, or of a cross-validation.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    OSError
        If the page cannot be written; an existing one then stays as it is.
    """
    check_axes(None)
    if audit is not None:
        check_made_by(audit, "findings", "check_data")
    if learning_curve is not None:
        check_made_by(learning_curve, "forecast", "learning_curve")
    drawings = _drawings(result, learning_curve)
    part = sections(result)
    room = MOST_BYTES - sum(map(len, [*drawings.values(), *part.drawings.values()]))
    errors, uncertain, maps = find_cards(result, room)
    write_page(
        path,
        "evaluation.html",
        script="gallery.js",
        result=result,
        answer=answer(result),
        cautions=cautions(result),
        overall=[
            (OVERALL[name], with_interval(result, name)) for name in OVERALL if name in result
        ],
        by_cell=_by_cell(result),
        folds=_folds(result),
        part=part,
        drawings=drawings,
        sorts=_sorts(errors + uncertain),
        has_images=result.get("images") is not None,
        learning_curve=learning_curve,
        errors=errors,
        n_errors=len(result.errors),
        uncertain=uncertain,
        labels=sorted({str(label) for label in result.classes}),
        maps=maps,
        findings=quick_findings(result) if audit is None else audit.findings,
        audited=audit is not None,
        about=about(result),
        versions=versions(),
    )


def answer(result: Evaluation) -> list[str]:
    """Return in sentences how good the model is, how sure that is, and on what it rests."""
    sentences = [
        f"{_percent(result, 'accuracy')} of the images are classified correctly.",
        f"Each class counting the same, it is {_percent(result, 'balanced_accuracy')} (the macro "
        "recall).",
    ]
    worst = _worst_class(result)
    if worst is not None:
        sentences.append(
            f"The class with the lowest recall here is {result.classes[worst]}: "
            f"{_percent(result, 'recall', worst)} of its {result.support[worst]} images are found."
        )
    source = f", in {result.source['Images']}" if "source" in result else ""
    sentences.append(f"This rests on {result.counted()}{source}.")
    familiarity = result.get("familiarity")
    if familiarity is not None and familiarity >= LIKE_HOME:
        sentences.append(
            "The images look like those that the model was trained on: their mean familiarity is "
            f"{familiarity:.2f}, and new images of the training laboratory have 0.50. On slides of "
            "another laboratory scores can be far lower."
        )
    return sentences


def _worst_class(result: Evaluation) -> int | None:
    is_true = result.support > 0
    if is_true.sum() < 2:
        return None
    return int(np.where(is_true, result.recall, np.inf).argmin())


def _percent(result: Evaluation, name: str, place: int | None = None) -> str:
    value, limits = result[name], result[f"{name}_interval"]
    if place is not None:
        value, limits = value[place], limits[place]
    low, high = limits
    if np.isnan(low):
        return f"{100 * value:.1f}%"
    return f"{100 * value:.1f}% (95% interval {100 * low:.1f}% to {100 * high:.1f}%)"


def cautions(result: Evaluation) -> list[str]:
    """Return in sentences what makes the scores less worth than they look."""
    found = []
    if result.get("n_trained_on"):
        found.append(
            f"{result.n_trained_on} of the images were used to train the model. The scores are too "
            "good: evaluate it on images of other cells."
        )
    if result.n_groups is None:
        found.append(
            "Nothing says which images show the same cell. If several do, all intervals are too "
            "narrow: give groups."
        )
        if result.get("n_repeated"):
            found.append(f"{result.n_repeated} files are the same as another, byte for byte.")
    if result.get("left_out"):
        names = some([each["file"] for each in result.left_out], 5)
        found.append(f"{len(result.left_out)} files were left out: {names}.")
    n_cells = result.n_groups or result.n_images
    if n_cells < FEW_CELLS:
        found.append(f"{n_cells} cells are few. Look at the intervals, not at the scores.")
    if result.get("unknown_classes"):
        names = ", ".join(result.unknown_classes)
        found.append(f"The model does not know {names}: images of these count as wrong.")
    if result.get("familiarity") is None:
        return found
    mean = result.familiarity
    if mean < LEAST_FAMILIAR:
        found.append(
            "The images do not look like those that the model was trained on (stain, scale, "
            f"focus): their mean familiarity is {mean:.2f}, and new images of the training "
            "laboratory have 0.50. The scores hold for these slides, not for those."
        )
    elif mean < LIKE_HOME:
        found.append(
            f"The mean familiarity of the images is {mean:.2f}: between that of new images of the "
            "training laboratory (0.50) and of other laboratories (0.00 to 0.03). It cannot be "
            "told whether they are like the training images."
        )
    return found


def _by_cell(result: Evaluation) -> list[tuple[str, str]]:
    if "by_group" not in result:
        return []
    names = ("accuracy", "balanced_accuracy", "macro_f1")
    return [(OVERALL[name], with_interval(result.by_group, name)) for name in names]


def _folds(result: Evaluation) -> list[tuple[str, str, list[str]]]:
    if "folds" not in result:
        return []
    return [
        (OVERALL[name], result.folds_text(name), [f"{fold[name]:.3f}" for fold in result.folds])
        for name in OVERALL
        if name in result.mean
    ]


def quick_findings(result: Evaluation) -> list[Bunch]:
    """Return what the quick part of the audit finds in the images."""
    y, groups = result.of_images.y_true.astype(str), result.of_images.groups
    found = small_classes(y, groups)
    if result.get("images") is not None:
        paths = Pictures(result.images, result.n_images).paths
        if paths is not None:
            found += check_headers(paths, y, groups)
    return found


def _sorts(cards: list[Bunch]) -> list[tuple[str, str]]:
    """Return what pictures can be sorted by: key and text."""
    sorts = {
        "confidence": [
            ("confidence", "probability, from high"),
            ("doubt", "probability, from low"),
        ],
        "familiarity": [("familiarity", "familiarity, from low")],
        "inside": [("inside", "map on the cell, from low")],
    }
    known = [name for name in sorts if any(card[name] is not None for card in cards)]
    return [("", "as listed"), *(each for name in known for each in sorts[name])]


def _drawings(result: Evaluation, learning_curve: LearningCurve | None) -> dict[str, Markup]:
    drawings = {}
    familiarity = result.of_images.get("familiarity")
    if familiarity is not None:
        drawings["familiarity"] = draw(lambda ax: _draw_familiarity(familiarity, ax), "familiarity")
    model = getattr(result.get("estimator"), "best_estimator_", result.get("estimator"))
    history = [] if model is None else getattr(last_step(model), "history_", [])
    if len(history) > 1:
        drawings["history"] = draw(lambda ax: plot_history(model, ax=ax), "history", (7, 4))
    if learning_curve is not None:
        drawings["more_cells"] = draw(lambda ax: learning_curve.plot(ax=ax), "more-cells")
    return drawings


def _draw_familiarity(familiarity: np.ndarray, ax: Any) -> None:
    ax.hist(familiarity, bins=np.linspace(0, 1, 21), color=COLOURS[0])
    ax.axhline(len(familiarity) / 20, color="#888888", linewidth=1, linestyle="--")
    ax.set(xlabel="familiarity", ylabel="images", xlim=(0, 1))
