"""Parameters of changes as tensors."""

from __future__ import annotations

import numpy as np
import torch


def on_device(
    parameters: np.ndarray, dtype: torch.dtype, device: torch.device | str
) -> torch.Tensor:
    """Return an array as a tensor; pinned memory lets the copy run beside the GPU's work."""
    tensor = torch.as_tensor(parameters).to(dtype)
    if torch.device(device).type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
