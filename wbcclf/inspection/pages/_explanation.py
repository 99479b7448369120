"""The page of an explanation: whether the network looks at the cells, and each map."""

from __future__ import annotations

import os

from sklearn.utils import Bunch

from wbcclf.inspection.explaining._explanation import Explanation
from wbcclf.inspection.pages._html import (
    MOST_BYTES,
    check_made_by,
    picture_source,
    short_name,
    write_page,
)


def write_explanation_page(found: Explanation, path: str | os.PathLike) -> None:
    """Write what :func:`explain` found as a page with pictures and maps.

    One HTML file, below 2 MB, which holds its pictures, asks for nothing from a network, has no
    scripts and prints well. It shows as many pictures as there is room for, some 200.

    Parameters
    ----------
    found : Explanation
        What `explain` returned.
    path : str or path
        File to write.

    Raises
    ------
    TypeError
        If `found` is of another function.
    OSError
        If the file cannot be written; an existing one then stays as it is.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from wbcclf import SimpleCNNClassifier, make_blood_cells
    >>> from wbcclf.inspection import explain, write_explanation_page
    >>> cells = make_blood_cells(40, classes=2, image_size=64, random_state=0)
    >>> clf = SimpleCNNClassifier(max_epochs=1, device="cpu", random_state=0)
    >>> found = explain(clf.fit(cells.images, cells.target), cells.images[:3])
    >>> with tempfile.TemporaryDirectory() as root:
    ...     write_explanation_page(found, Path(root, "page.html"))
    ...     "What the network looks at" in Path(root, "page.html").read_text()
    True
    """
    check_made_by(found, "randomisation", "explain")
    room, shown = MOST_BYTES, []
    for row, name in enumerate(found.names()):
        each = Bunch(
            name=short_name(name),
            picture=picture_source(found.images[row]),
            map=picture_source(found.overlay(row)),
            caption=found.caption(row),
            figures=found.figures(row),
        )
        room -= sum(len(text) for text in each.values())
        if room < 0:
            break
        shown.append(each)
    *classes, total = found.by_class()
    write_page(
        path,
        "explanation.html",
        answer=found.answer(),
        classes=classes,
        total=total,
        method=found.method,
        block=found.block,
        shown=shown,
        n_more=len(found) - len(shown),
    )
