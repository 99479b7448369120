"""The features that images are described by, from what one pass of the network gives."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from wbcclf.classifiers.familiarity._description import WIDTH
from wbcclf.classifiers.network._network import CellNetwork

_LOW = 2  # blocks below the style that is described, if more are not frozen


def place_of_tap(network: CellNetwork) -> int:
    """Return the number of stages below the first part of the features.

    Not in the frozen part, whose lower blocks do not run where its activations are kept.
    """
    return max(network.cut, min(_LOW, len(network.backbone)))


def joined(logits: torch.Tensor, style: torch.Tensor, top: torch.Tensor) -> torch.Tensor:
    """Return logits and features as one matrix (n, n_classes + 2 * WIDTH), float32."""
    return torch.cat([logits, _sketch(style, 0), _sketch(top, 1)], 1)


def _sketch(x: torch.Tensor, seed: int) -> torch.Tensor:
    """Return WIDTH sums of all columns with random signs, which need no room in a model's file.

    Such sums keep the distances between rows (Achlioptas 2003,
    https://doi.org/10.1016/S0022-0000(03)00025-4).
    """
    return x @ torch.from_numpy(_signs(x.shape[1], seed)).to(x.device)


@lru_cache(maxsize=8)
def _signs(n_columns: int, seed: int) -> np.ndarray:
    # RandomState's numbers are the same in all versions of NumPy.
    signs = np.random.RandomState(seed).randint(2, size=(n_columns, WIDTH)) * 2 - 1
    return (signs / np.sqrt(n_columns)).astype(np.float32)
