"""The features that images are described by: what the head is given, and their style."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from wbcclf.classifiers.familiarity._description import N_STYLE, WIDTH


def joined(logits: torch.Tensor, top: torch.Tensor, *styles: torch.Tensor) -> torch.Tensor:
    """Return logits, sums of what the head was given, and style, if given, as one matrix."""
    return torch.cat([logits, _sketch(top), *styles], 1)


def parted(given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return logits (n, n_classes) and features (n, WIDTH + N_STYLE) of one such matrix."""
    width = WIDTH + N_STYLE
    return given[:, :-width], given[:, -width:]


def _sketch(x: torch.Tensor) -> torch.Tensor:
    """Return WIDTH sums of all columns with random signs, which need no room in a model's file.

    Such sums keep the distances between rows (Achlioptas 2003,
    https://doi.org/10.1016/S0022-0000(03)00025-4).
    """
    return x @ torch.from_numpy(_signs(x.shape[1])).to(x.device)


@lru_cache(maxsize=8)
def _signs(n_columns: int) -> np.ndarray:
    # RandomState's numbers are the same in all versions of NumPy.
    signs = np.random.RandomState(1).randint(2, size=(n_columns, WIDTH)) * 2 - 1
    return (signs / np.sqrt(n_columns)).astype(np.float32)
