"""Parameters compared by their values."""

from __future__ import annotations

from pickle import PicklingError
from typing import Any

import joblib
import numpy as np


def digest(value: Any) -> str:
    """Return a digest of a parameter's value: equal ones have equal digests, in any process.

    Values that cannot be pickled are taken for equal if they are of one class.
    """
    if isinstance(value, np.generic):
        value = value.item()
    try:
        return joblib.hash(value)
    except (PicklingError, AttributeError, TypeError):  # a lambda, a lock, a generator
        return f"{type(value).__module__}.{type(value).__qualname__}"
