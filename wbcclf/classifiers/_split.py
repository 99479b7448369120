"""The early-stopping split: originals only, and nothing made from them is trained on."""

from __future__ import annotations

import numpy as np

from wbcclf._resampled import Sources


def validation_split(
    y: np.ndarray,
    used: np.ndarray,
    sources: Sources | None,
    fraction: float,
    random_state: np.random.RandomState,
) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into training and validation rows, class by class.

    Parameters
    ----------
    y : ndarray of shape (n_samples,)
        Labels.
    used : ndarray of int
        The rows to split; the others count as absent.
    sources : Sources or None
        Which rows are originals, and what the others were made from; None if that record was lost.
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
        If the record was lost, no class has two originals, or some class would have nothing left
        to train on.
    """
    instead = "Or pass X_val and y_val to fit, or set early_stopping=False."
    if sources is None:
        raise ValueError(
            "early_stopping=True has to keep copies and synthetics of validation images out of "
            "training, but the record of which rows are copies was lost between the sampler and "
            "the classifier: X was indexed, changed, or resampled by a sampler that does not tell "
            "its sources. Put the samplers directly before the classifier in the Pipeline. "
            f"{instead}"
        )
    is_used = np.zeros(len(y), dtype=bool)
    is_used[used] = True
    chosen = []
    for label in np.unique(y[used]):
        originals = np.flatnonzero((y == label) & sources.original & is_used)
        if len(originals) >= 2:
            n_validation = min(max(1, round(fraction * len(originals))), len(originals) - 1)
            chosen.append(random_state.permutation(originals)[:n_validation])
    if not chosen:
        raise ValueError(
            "early_stopping=True needs a class with at least two original images, to take a "
            f"validation image from. Give more images. {instead}"
        )
    validation = np.sort(np.concatenate(chosen))
    train = np.flatnonzero(is_used & ~sources.made_from_any(validation))
    gone = np.setdiff1d(y[used], y[train])
    if len(gone):
        raise ValueError(
            f"After the validation split no image of class {gone.tolist()[0]!r} is left to train "
            f"on: all were made from validation images. Give more images. {instead}"
        )
    return train, validation
