"""The page of a comparison: the verdicts first, then every model, and where they disagree."""

from __future__ import annotations

import os

import numpy as np
from sklearn.utils import Bunch

from wbcclf.inspection._drawing import check_axes
from wbcclf.inspection.evaluation._compare import Comparison
from wbcclf.inspection.evaluation._result import OVERALL
from wbcclf.inspection.pages._evaluation import cautions
from wbcclf.inspection.pages._gallery import Pictures, cards_that_fit
from wbcclf.inspection.pages._html import MOST_BYTES, write_page
from wbcclf.inspection.pages._provenance import about, versions
from wbcclf.inspection.pages._sections import in_parts, sections

N_SHOWN = 200  # pictures at most


def write_comparison_page(result: Comparison, path: str | os.PathLike) -> None:
    """Write the page of a comparison.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    OSError
        If the page cannot be written; an existing one then stays as it is.
    """
    check_axes(None)
    evaluations = result.evaluations
    first = next(iter(evaluations.values()))
    names = [name for name in OVERALL if all(name in each for each in evaluations.values())]
    disagreements = _disagreements(result)
    parts = {
        name: sections(each, f"model-{number}-", f" of {name}")
        for number, (name, each) in enumerate(evaluations.items(), 1)
    }
    room = MOST_BYTES - sum(len(text) for part in parts.values() for text in part.drawings.values())
    write_page(
        path,
        "comparison.html",
        script="gallery.js",
        result=result,
        cautions={name: cautions(each) for name, each in evaluations.items()},
        models=list(evaluations),
        names=OVERALL,
        scores=[
            (
                OVERALL[name],
                [in_parts(each, name) for each in evaluations.values()],
            )
            for name in names
        ],
        recalls=[
            (str(label), _recalls(result, label)) for label in np.unique(first.of_images.y_true)
        ],
        parts=parts,
        cards=_cards(result, disagreements[:N_SHOWN], room),
        n_disagreements=len(disagreements),
        labels=sorted({str(label) for each in evaluations.values() for label in each.classes}),
        about={name: about(each) for name, each in evaluations.items()},
        versions=versions(),
        counted=first.counted(),
    )


def _recalls(result: Comparison, label: object) -> list[tuple[str, str]]:
    found = []
    for each in result.evaluations.values():
        place = np.flatnonzero(each.classes == label)[0]
        found.append(in_parts(each, "recall", place))
    return found


def _disagreements(result: Comparison) -> list[int]:
    """Return the images that some of the models call rightly, and not all, in their order."""
    given = [each.of_images for each in result.evaluations.values()]
    n_right = np.sum([each.y_pred == each.y_true for each in given], axis=0)
    return np.flatnonzero((n_right > 0) & (n_right < len(given))).tolist()


def _cards(result: Comparison, rows: list[int], room: int) -> list[Bunch]:
    first = next(iter(result.evaluations.values()))
    if first.get("images") is None:
        return []
    pictures = Pictures(first.images, result.n_images)
    cards = []
    for row in pictures.kept(rows):
        calls = [
            Bunch(
                model=name,
                called=str(each.of_images.y_pred[row]),
                right=bool(each.of_images.y_pred[row] == each.of_images.y_true[row]),
            )
            for name, each in result.evaluations.items()
        ]
        truth = str(first.of_images.y_true[row])
        wrong = next(call.called for call in calls if not call.right)
        cards.append(pictures.card(row, truth, wrong, calls=calls))
    return cards_that_fit(cards, room)
