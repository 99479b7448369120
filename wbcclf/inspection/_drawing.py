"""Axes to draw on."""

from __future__ import annotations

from typing import Any


def check_axes(ax: Any) -> None:
    """Fail before the work, not after it, if nothing can be drawn.

    Raises
    ------
    ImportError
        If matplotlib is not installed; the message says how to install it.
    TypeError
        If `ax` is neither axes nor None.
    """
    try:
        from matplotlib.axes import Axes
    except ImportError as error:
        raise ImportError("Drawing needs matplotlib: pip install 'wbcclf[plot]'.") from error
    if ax is not None and not isinstance(ax, Axes):
        raise TypeError(
            f"ax must be matplotlib axes or None, got {ax!r}. To write the picture to a file, draw "
            "it, then call ax.figure.savefig(path)."
        )


def get_axes(ax: Any, figsize: tuple[float, float]) -> Any:
    """Return `ax`, or the axes of a new pyplot figure of that size in inches."""
    check_axes(ax)
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt  # as scikit-learn's displays: a notebook shows the figure

    return plt.subplots(figsize=figsize, layout="constrained")[1]
