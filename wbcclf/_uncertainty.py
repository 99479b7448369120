"""Images that a model does not call, and what is said of those that it does not know."""

from __future__ import annotations

import numpy as np

UNCERTAIN = "uncertain"
_UNCERTAIN_NUMBER = -1
# With so many images or more, a mean familiarity below the limit is no accident: of images from
# home it is 0.5, of other laboratories 0.00 to 0.03 was measured (docs/familiarity.md). What lies
# between may be home: new cells, if several pictures of each cell were trained on.
FEWEST_TESTED = 20
LEAST_FAMILIAR = 0.1
# Fewer images from home than this share are as far away: whatever the network says of such an image
# is not called.
STRANGE = 0.01
# Of a batch. At home one image in a hundred is strange; one in four where a model was trained on
# several images of each of a few cells, since it compares new cells with those.
MANY_STRANGE = 1 / 2


def labels_of(
    probabilities: np.ndarray, is_uncertain: np.ndarray, classes: np.ndarray
) -> np.ndarray:
    """Return the most probable labels (n,), and what stands for uncertain."""
    labels = classes[probabilities.argmax(axis=1)]
    if not is_uncertain.any():
        return labels
    stands_for_it = uncertain_label(classes)
    # Not a longer text cut to the longest label.
    labels = labels.astype(np.result_type(labels, np.array([stands_for_it])))
    labels[is_uncertain] = stands_for_it
    return labels


def unfamiliar(
    familiarity: np.ndarray, rejection: float | None = None, what: str = "images"
) -> str | None:
    """Return what a warning says of a batch of images that are no longer those of home, or None.

    The first test is of the mean. Neither a rare image nor chance in a batch of 20 raises it, nor
    another mixture of classes, since every image is compared with those of its class. The second
    finds images of another laboratory, or none of cells, among those of home.
    """
    n_images = len(familiarity)
    # Not `>=`: nan, of a model that cannot tell, is no reason to warn.
    if n_images < FEWEST_TESTED:
        return None
    bound = ""
    if rejection is not None:
        bound = f" The bound of {100 * rejection:g}% wrong calls does not hold for them."
    unlike = "do not look like those that the model was trained on (stain, scale, focus)"
    if familiarity.mean() < LEAST_FAMILIAR:
        return (
            f"These {n_images} {what} {unlike}: their mean familiarity is {familiarity.mean():.2f},"
            f" where {what} from the same laboratory have 0.50. Expect the model to be wrong; try "
            f"wbcclf adapt with some labelled cells.{bound}"
        )
    n_strange = int((familiarity < STRANGE).sum())
    if n_strange > MANY_STRANGE * n_images:
        return (
            f"{n_strange} of these {n_images} {what} {unlike}: their familiarity is below "
            f"{STRANGE}; of {what} from the same laboratory only 1 in 100 is. Are they from "
            f"another laboratory, or not of cells? Expect the model to be wrong on them.{bound}"
        )
    return None


def uncertain_label(classes: np.ndarray) -> str | int:
    """Return what `predict` gives instead of a label.

    Text for text. -1 for numbers, as scikit-learn's clusterings label what belongs to no cluster:
    an array of numbers and text would be one of text, in which 3 is "3" and equals no label.

    Raises
    ------
    ValueError
        If it would be taken for a class, or the labels are neither text nor numbers.
    """
    stands_for_it = UNCERTAIN if classes.dtype.kind in "OU" else _UNCERTAIN_NUMBER
    if classes.dtype.kind in "bu":
        raise ValueError(
            f"With rejection, an uncertain image has the label {stands_for_it}, which labels of "
            f"{classes.dtype} cannot be. Give fit labels that are text or signed integers."
        )
    if stands_for_it in classes.tolist():
        raise ValueError(
            f"With rejection, an uncertain image has the label {stands_for_it!r}, but a class is "
            "called so. Give this class another label."
        )
    return stands_for_it
