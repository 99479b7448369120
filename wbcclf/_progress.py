"""The progress bar of everything that takes long, on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


def progress_bar() -> Progress:
    """Return a bar with the time left; tasks are added to it."""
    from importlib.util import find_spec

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Eta

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Eta())
    # In a notebook without ipywidgets rich would not draw, but warn ten times a second.
    in_notebook = None if find_spec("ipywidgets") else False
    return Progress(*columns, console=Console(stderr=True, force_jupyter=in_notebook))
