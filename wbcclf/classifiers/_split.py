"""The early-stopping split: originals only, and nothing made from them is trained on."""

from __future__ import annotations

import numpy as np

from wbcclf._resampled import Sources


def validation_split(
    y: np.ndarray, sources: Sources, fraction: float, random_state: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into training and validation rows, class by class.

    Parameters
    ----------
    y : ndarray of shape (n_samples,)
        Labels.
    sources : Sources
        Which rows are originals, and what the others were made from.
    fraction : float
        Share of each class's *original* images to validate on; at least one, if the class has two.
    random_state : numpy.random.RandomState

    Returns
    -------
    train, validation : ndarray of int, sorted
        Validation rows are originals. No training row is one of them, nor a copy of one, nor a
        synthetic with one as a parent. Rows that are neither (copies and synthetics of validation
        images) are left out.

    Raises
    ------
    ValueError
        If no class has two originals, or some class would have nothing left to train on.
    """
    chosen = []
    for label in np.unique(y):
        originals = np.flatnonzero((y == label) & sources.original)
        if len(originals) >= 2:
            n_validation = min(max(1, round(fraction * len(originals))), len(originals) - 1)
            chosen.append(random_state.permutation(originals)[:n_validation])
    if not chosen:
        raise ValueError(
            "early_stopping=True needs a class with at least two original images to take a "
            "validation image from. Pass X_val and y_val to fit, or set early_stopping=False."
        )
    validation = np.sort(np.concatenate(chosen))
    train = np.flatnonzero(~sources.made_from_any(validation))
    return train, validation
