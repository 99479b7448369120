"""Tables of pandas, which is not a dependency."""

from __future__ import annotations

from typing import Any


def import_pandas() -> Any:
    """Return pandas.

    Raises
    ------
    ImportError
        If it is not installed; the message says how to install it.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError("to_frame needs pandas: pip install pandas.") from error
    return pandas
