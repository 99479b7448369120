"""A network run over many images, in batches that the device has memory for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from wbcclf.exceptions import OutOfMemoryError


def run_in_batches(
    run: Callable[[torch.Tensor], torch.Tensor], X: Any, batch_size: int, device: Any
) -> np.ndarray:
    """Return ``run(batch)`` for all rows of `X`, halving the batch while the device lacks memory.

    A batch of an array is a copy (it may be a view, or read-only) of uint8 or float32, as torch
    wants.

    Raises
    ------
    OutOfMemoryError
        If a single image is too much.
    """
    start, parts = 0, []
    while start < len(X):
        batch = X[start : start + batch_size]
        if not isinstance(batch, torch.Tensor):
            batch = torch.from_numpy(
                np.array(batch, dtype=np.uint8 if X.dtype == np.uint8 else np.float32)
            )
        try:
            parts.append(run(batch).cpu().numpy())
        except torch.OutOfMemoryError as error:
            if batch_size == 1:
                raise OutOfMemoryError(
                    f"The device {device} has too little memory for a single image of "
                    f"{tuple(X.shape[1:])}. Use a smaller input_size or device='cpu'."
                ) from error
            batch_size //= 2
            continue
        start += batch_size
    return np.concatenate(parts)
