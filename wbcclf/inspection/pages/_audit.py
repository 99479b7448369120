"""The page of an audit: each finding with its pictures, in one file."""

from __future__ import annotations

import os
from collections import Counter

from sklearn.utils import Bunch

from wbcclf.datasets._decode import read_image
from wbcclf.exceptions import ImageReadError
from wbcclf.inspection.pages._html import (
    MOST_BYTES,
    check_made_by,
    picture_source,
    short_name,
    write_page,
)

MOST_PICTURES = 32  # of a finding


def write_audit_page(found: Bunch, path: str | os.PathLike) -> None:
    """Write what :func:`wbcclf.model_selection.check_data` found as a page with pictures.

    One HTML file, below 2 MB, which holds its pictures, asks for nothing from a network, has no
    scripts and prints well. Each finding shows up to 32 pictures, the surest first.

    Parameters
    ----------
    found : Bunch
        What `check_data` returned. The files must still be there; those that are not are named
        without a picture.
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
    >>> from PIL import Image
    >>> from wbcclf import make_blood_cells
    >>> from wbcclf.inspection import write_audit_page
    >>> from wbcclf.model_selection import check_data
    >>> cells = make_blood_cells(8, classes=2, image_size=96, random_state=0)
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for k, (image, label) in enumerate(zip(cells.images, cells.target)):
    ...         folder = Path(root, "cells", label)
    ...         folder.mkdir(parents=True, exist_ok=True)
    ...         Image.fromarray(image).save(folder / f"{k}.png")
    ...     write_audit_page(check_data(Path(root, "cells")), Path(root, "page.html"))
    ...     "<h1>Audit of the data</h1>" in Path(root, "page.html").read_text()
    True
    """
    check_made_by(found, "findings", "check_data")
    room = MOST_BYTES
    findings = []
    for each in found.findings:
        shown: list[Bunch] = []
        notes = each.notes or [""] * len(each.files)
        n_together = max(map(len, each.files), default=1)
        first = list(zip(each.files, notes, strict=True))[: MOST_PICTURES // n_together]
        for together, note in first:
            pictures = [_picture(file) for file in together]
            room -= sum(len(picture.source) + len(picture.name) for picture in pictures)
            if room < 0:
                break
            shown.append(Bunch(pictures=pictures, note=note))
        findings.append({**each, "shown": shown, "n_more": len(each.files) - len(shown)})
    write_page(
        path, "audit.html", findings=findings, classes=found.classes, summary=_summary(found)
    )


def _summary(found: Bunch) -> str:
    counts = Counter(each.severity for each in found.findings)
    if not counts:
        return "Nothing was found."
    parts = [f"{n} {name}{'s' if n > 1 else ''}" for name, n in counts.items()]
    verdict = "Scores will be too high until the leaks are gone." if found.has_leak else ""
    return f"{', '.join(parts)}. {verdict}".strip()


def _picture(path: str) -> Bunch:
    """Return a picture as a data URL, empty if it cannot be read, and its name."""
    name = short_name(path)
    try:
        image, _ = read_image(path)
    except ImageReadError:
        return Bunch(name=name, source="")
    return Bunch(name=name, source=picture_source(image))
