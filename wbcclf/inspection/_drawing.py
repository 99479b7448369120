"""Pictures in files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from wbcclf._files import replacing


@contextmanager
def drawing(path: str | os.PathLike, width: float, height: float) -> Iterator[Any]:
    """Give matplotlib axes to draw on, width x height inches; write them to `path` after it.

    Raises
    ------
    ImportError
        If matplotlib is not installed; the message says how to install it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Drawing needs matplotlib: pip install 'wbcclf[plot]'.") from error
    figure = Figure(figsize=(width, height), layout="constrained")  # no pyplot: no window, no state
    yield figure.add_subplot()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
