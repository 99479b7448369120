"""Which images a network was trained on: a model that is scored on them looks better than it is."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

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


def restored_digests(digests: np.ndarray) -> np.ndarray:
    """Return digests from a file.

    Raises
    ------
    ValueError
        If they are anything that `fit` does not keep.
    """
    is_sorted = digests.ndim == 1 and (digests[1:] > digests[:-1]).all()
    if digests.dtype != np.uint64 or not is_sorted:
        raise ValueError("trained_on cannot have been kept")
    return digests
