"""Which images a network was trained on: a model that is scored on them looks better than it is."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from wbcclf.backbones import WeightsReport

_SIDE = 32  # values of an image in each direction that are looked at


def image_digests(images: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """Return a number (n_rows,), uint64, for each image, which other images do not have.

    BLAKE2b of 64 bits, of a grid of 32x32 pixels: that any two of a million different ones have the
    same has a probability of 3e-8. Values count, not their type: bytes that became floats are
    known again.

    Parameters
    ----------
    images : ndarray of shape (n, height, width, channels)
        Which may be larger than the memory: one is looked at after the other.
    rows : ndarray of int or None
        None means all.
    """
    down, along = (-(-side // _SIDE) for side in images.shape[1:3])
    digests = b"".join(
        blake2b(images[row, ::down, ::along].astype(np.float32).tobytes(), digest_size=8).digest()
        for row in (range(len(images)) if rows is None else rows)
    )
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def with_images(
    earlier: np.ndarray | None, images: np.ndarray, rows: np.ndarray | None = None
) -> np.ndarray | None:
    """Return digests with those of some images; None if what was trained on before is unknown."""
    return None if earlier is None else np.union1d(earlier, image_digests(images, rows))


def trained_on_before(report: WeightsReport | None) -> np.ndarray:
    """Return the digests of the images that loaded weights were trained on, as far as known."""
    if report is None:
        return np.empty(0, dtype=np.uint64)
    from wbcclf.backbones._weights import read_trained_on  # brings torch

    return read_trained_on(Path(report.source))
