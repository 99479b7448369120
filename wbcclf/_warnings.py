"""Warnings that name the line of the caller, however many libraries lie in between."""

from __future__ import annotations

import sys
import warnings

# Packages whose frames are passed over: they call us, or we call ourselves through them.
_LIBRARIES = {
    *("wbcclf", "sklearn", "imblearn", "skorch", "torch", "joblib", "typer", "click", "rich"),
    *("contextlib", "functools", "threading", "concurrent"),
}


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line outside of this package and its libraries that led here.

    Parameters
    ----------
    message : str
    category : type of Warning, default=UserWarning
    """
    frame, level = sys._getframe(1), 2  # that of our caller
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _LIBRARIES:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
