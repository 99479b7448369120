"""The early-stopping split: originals only, and nothing made from them is trained on."""

from __future__ import annotations

from typing import Any

import numpy as np

from wbcclf._resampled import Sources, have_common_sources, row_digests
from wbcclf._warnings import warn


def validation_split(
    images: np.ndarray,
    y: np.ndarray,
    used: np.ndarray,
    sources: Sources | None,
    fraction: float,
    random_state: np.random.RandomState,
) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into training and validation rows, class by class.

    Parameters
    ----------
    images : ndarray of shape (n_samples, ...)
        Of several that are equal to the last byte, one may be validated on, and none is trained on
        then. The others are left out, so that every image counts once.
    y : ndarray of shape (n_samples,)
        Labels.
    used : ndarray of int
        The rows to split; the others count as absent.
    sources : Sources or None
        Which rows are originals, and what the others were made from; None if that record was lost.
    fraction : float
        Share of each class's different *original* images to validate on; at least one, if the
        class has two.
    random_state : numpy.random.RandomState

    Returns
    -------
    train, validation : ndarray of int, sorted
        Validation rows are originals. No training row holds an image of theirs, nor a copy of
        one, nor a synthetic with one as a parent. Rows that are neither (copies and synthetics of
        validation images, and their doubles) are left out.

    Raises
    ------
    ValueError
        If the record was lost, no class has two originals, or some class would have nothing left
        to train on.
    """
    instead = "Or pass X_val and y_val to fit, or set early_stopping=False."
    if sources is None:
        raise ValueError(
            "early_stopping=True has to keep copies and synthetics of validation images out of "
            "training, but the record of which rows are copies was lost between the sampler and "
            "the classifier: X holds other rows than a sampler returned and y other labels (both "
            "were joined, or moved and changed), or a sampler does not record its sources. Put "
            "the samplers directly before the classifier in the Pipeline. "
            f"{instead}"
        )
    is_used = np.zeros(len(y), dtype=bool)
    is_used[used] = True
    digests = row_digests(images)
    chosen = []
    for label in np.unique(y[used]):
        originals = np.flatnonzero((y == label) & sources.original & is_used)
        originals = originals[np.sort(np.unique(digests[originals], return_index=True)[1])]
        if len(originals) >= 2:
            n_validation = min(max(1, round(fraction * len(originals))), len(originals) - 1)
            chosen.append(random_state.permutation(originals)[:n_validation])
    if not chosen:
        raise ValueError(
            "early_stopping=True needs a class with at least two different original images, "
            f"to take a validation image from. Give more images. {instead}"
        )
    validation = np.sort(np.concatenate(chosen))
    same = np.flatnonzero(np.isin(digests, digests[validation]))
    train = np.flatnonzero(is_used & ~sources.made_from_any(same))
    gone = np.setdiff1d(y[used], y[train])
    if len(gone):
        raise ValueError(
            f"After the validation split no image of class {gone.tolist()[0]!r} is left to train "
            f"on: all are validation images, or were made from them. Give more images. {instead}"
        )
    return train, validation


def warn_of_doubles(
    X: Any, images: np.ndarray, used: np.ndarray, X_val: Any, val: np.ndarray
) -> None:
    """Warn if images that are validated on, or others made from them, are trained on, too.

    Parameters
    ----------
    X, X_val : array-like
        As they were handed over: a record may travel with them.
    images, val : ndarray of shape (n_samples, ...)
        The numbers in them.
    used : ndarray of int
        The rows of `images` that are trained on.
    """
    is_double = np.isin(row_digests(val), row_digests(images)[used])
    is_double |= have_common_sources(X, images, X_val, val)
    if is_double.any():
        warn(
            f"{is_double.sum()} of the {len(is_double)} images of X_val are in X, too, identical "
            "byte for byte, or X holds images that were made from the same originals: scores on "
            "them say little about new cells. Split by cell, before resampling."
        )
