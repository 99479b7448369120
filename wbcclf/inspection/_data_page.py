"""The page of an audit: each finding with its pictures, in one file."""

from __future__ import annotations

import base64
import os
from collections import Counter

import cv2
from sklearn.utils import Bunch

from wbcclf._files import replacing
from wbcclf.datasets._decode import read_image
from wbcclf.exceptions import ImageReadError

SIDE, QUALITY = 112, 80  # of a picture on the page: 4 kB or so
MOST_PICTURES = 32  # of a finding
MOST_BYTES = 1_800_000  # of all pictures, so that the page stays below 2 MB


def write_data_page(found: Bunch, path: str | os.PathLike) -> None:
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
    OSError
        If the file cannot be written; an existing one then stays as it is.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from wbcclf import make_blood_cells
    >>> from wbcclf.inspection import write_data_page
    >>> from wbcclf.model_selection import check_data
    >>> cells = make_blood_cells(8, classes=2, image_size=96, random_state=0)
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for k, (image, label) in enumerate(zip(cells.images, cells.target)):
    ...         folder = Path(root, "cells", label)
    ...         folder.mkdir(parents=True, exist_ok=True)
    ...         Image.fromarray(image).save(folder / f"{k}.png")
    ...     write_data_page(check_data(Path(root, "cells")), Path(root, "page.html"))
    ...     "<h1>Audit of the data</h1>" in Path(root, "page.html").read_text()
    True
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("wbcclf.inspection"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
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
    text = environment.get_template("data.html").render(
        findings=findings, classes=found.classes, summary=_summary(found)
    )
    with replacing(path) as temporary:
        # surrogateescape is no choice here: a page that is not UTF-8 is not shown.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def _summary(found: Bunch) -> str:
    counts = Counter(each.severity for each in found.findings)
    if not counts:
        return "Nothing was found."
    parts = [f"{n} {name}{'s' if n > 1 else ''}" for name, n in counts.items()]
    verdict = "Scores will be too high until the leaks are gone." if found.has_leak else ""
    return f"{', '.join(parts)}. {verdict}".strip()


def _picture(path: str) -> Bunch:
    """Return a picture as a data URL, empty if it cannot be read, and its name."""
    name = os.path.join(*path.split(os.sep)[-2:])
    try:
        image, _ = read_image(path)
    except ImageReadError:
        return Bunch(name=name, source="")
    scale = SIDE / max(image.shape[:2])
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    settings = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), settings)[1]
    return Bunch(
        name=name, source=f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
    )
