"""Parameters compared by their values."""

from __future__ import annotations

from pickle import PicklingError
from typing import Any

import joblib
import numpy as np


def digest(value: Any) -> str:
    """Return a digest of a parameter's value: equal ones have equal digests, in any process.

    A value that cannot be pickled is equal to itself alone, in this process, for as long as it
    lives.
    """
    try:
        return exact_digest(value)
    except TypeError:
        return f"{type(value).__module__}.{type(value).__qualname__} {id(value)}"


def exact_digest(value: Any) -> str:
    """Return a digest of a parameter's value.

    Raises
    ------
    TypeError
        If it cannot be pickled, like a lambda, a lock or a generator.
    """
    if isinstance(value, np.generic):
        value = value.item()
    try:
        return joblib.hash(value)
    except (PicklingError, AttributeError) as error:
        raise TypeError(str(error)) from error
