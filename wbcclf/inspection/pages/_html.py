"""What all pages share: the frame, and how pictures and figures come into it."""

from __future__ import annotations

import base64
import io
import os
import re
import warnings
from hashlib import sha256
from typing import Any

import cv2
import jinja2
import numpy as np
from markupsafe import Markup

from wbcclf._files import replacing

SIDE, QUALITY = 112, 80  # of a picture: 4 kB or so
MOST_BYTES = 1_800_000  # of all pictures of a page, which then stays below 2 MB

# Every name and text is escaped; what is missing is an error, not an empty place.
PAGES = jinja2.Environment(
    loader=jinja2.PackageLoader("wbcclf.inspection.pages"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_page(
    path: str | os.PathLike, template: str, *, script: str | None = None, **values: Any
) -> None:
    """Write a page; an existing one stays as it is if that fails."""
    text = render_page(PAGES, template, script=script, **values)
    with replacing(path) as temporary:
        # Names of files may hold bytes that are no text: a page that is not UTF-8 is not shown.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def render_page(
    pages: jinja2.Environment, template: str, *, script: str | None = None, **values: Any
) -> str:
    """Return a page.

    `script` names a template that is JavaScript. The page allows no other, by its digest.
    """
    code = None if script is None else pages.get_template(script).render()
    allowed = "" if code is None else base64.b64encode(sha256(code.encode()).digest()).decode()
    return pages.get_template(template).render(
        values, script=None if code is None else Markup(code), script_digest=allowed
    )


def check_made_by(found: Any, attribute: str, maker: str) -> None:
    """Fail if what is to be shown is not what a function returned."""
    if not hasattr(found, attribute):
        raise TypeError(
            f"found must be what {maker} returned, got {type(found).__name__} without {attribute}."
        )


def short_name(path: str) -> str:
    """Return the folder and the name of a file, which tell pictures of a set apart."""
    return os.path.join(*path.split(os.sep)[-2:])


def picture_source(image: np.ndarray) -> str:
    """Return a small JPEG of an RGB image, uint8, as a data URL."""
    scale = SIDE / max(image.shape[:2])
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    settings = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), settings)[1]
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"


def drawing(figure: Any, name: str) -> Markup:
    """Return a matplotlib figure as SVG in a page; matplotlib escapes its text.

    `name` tells its parts from those of the page's other figures: an id is there once.
    """
    import matplotlib as mpl

    file = io.StringIO()
    # Letters stay letters: small, and readable by a screen reader. The salt makes ids the same in
    # every page.
    with (
        mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "wbcclf"}),
        warnings.catch_warnings(),
    ):
        # The reader's fonts draw the letters, not those that matplotlib measures with.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()[file.getvalue().index("<svg") :]
    return Markup(re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text))
