"""Which labels are probably wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import Bunch

from wbcclf._labels import check_labels

ROUNDING = 1e-9  # a class of equal probabilities reaches their mean


def find_wrong_labels(y: Any, probabilities: Any) -> Bunch:
    """Find the labels that are probably wrong, by confident learning.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        The labels as they are: text, or whole numbers. Two classes or more.
    probabilities : array-like of shape (n_samples, n_classes)
        Of the classes of `y`, sorted, from models that were **not** trained on the sample, nor on
        another picture of its cell: ``cross_val_predict(model, X, y, groups=groups,
        cv=StratifiedGroupKFold(), method="predict_proba")``. A model that has seen a wrong label
        believes it. So do weights that were trained on these labels.

    Returns
    -------
    Bunch
        With the attributes

        rows : ndarray of shape (n_wrong,), int
            Samples whose labels are probably wrong, the surest first.
        suggested : ndarray of shape (n_samples,)
            For every sample, the most probable class, other than its label.
        confidence : ndarray of shape (n_samples,), float
            Probability of every sample's label. To look at more than `rows`, sort by it.
        noise : ndarray of shape (n_classes, n_classes), float
            Estimated share of all samples by label (row) and true class (column).
        classes : ndarray of shape (n_classes,)

    Raises
    ------
    ValueError
        If the shapes do not fit, there is one class only, or rows are no probabilities.
    TypeError
        If `y` is not array-like.

    Notes
    -----
    Northcutt, Jiang and Chuang (2021) [1]_. The mean probability of a class among its own samples
    is its threshold, so that a model that is unsure of a class, or too sure of it, counts the same.
    A sample counts for the most probable of the classes whose thresholds it reaches. Counts by
    label and by this class, scaled to the number of samples of each label, estimate how many labels
    are wrong. For every pair of classes at most as many samples are listed: those in which the
    other class is more probable than the label by the most ("prune by noise rate"). They are
    ordered by the probability of their label ("self-confidence"), the lowest first.

    This finds single wrong labels. A class that is mostly wrong, or two classes that cannot be told
    apart in the pictures, it does not find. A rare kind of cell can be listed for being rare.

    References
    ----------
    .. [1] C. G. Northcutt, L. Jiang, I. L. Chuang, "Confident learning: estimating uncertainty in
       dataset labels", Journal of Artificial Intelligence Research 70, 1373-1411, 2021,
       https://doi.org/10.1613/jair.1.12125

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import make_blobs
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import StratifiedKFold, cross_val_predict
    >>> from wbcclf.model_selection import find_wrong_labels
    >>> X, y = make_blobs(300, centers=3, random_state=2, cluster_std=0.5)
    >>> y[:5] = (y[:5] + 1) % 3
    >>> cv = StratifiedKFold(5)
    >>> p = cross_val_predict(LogisticRegression(), X, y, cv=cv, method="predict_proba")
    >>> sorted(find_wrong_labels(y, p).rows.tolist())
    [0, 1, 2, 3, 4]
    """
    y = check_labels(y, "y")
    classes, labels = np.unique(y, return_inverse=True)
    p = _check_probabilities(probabilities, len(y), len(classes))
    every = np.arange(len(y))
    own = p[every, labels]
    others = p.copy()
    others[every, labels] = -1
    suggested = others.argmax(axis=1)
    thresholds = np.array([own[labels == k].mean() for k in range(len(classes))])
    reached = np.where(p >= thresholds - ROUNDING, p, -1)
    is_confident = reached.max(axis=1) >= 0
    counts = np.zeros((len(classes), len(classes)))
    np.add.at(counts, (labels[is_confident], reached.argmax(axis=1)[is_confident]), 1)
    # Of every class some sample reaches a threshold: no row is empty.
    counts *= (np.bincount(labels) / counts.sum(axis=1))[:, None]
    rows = _by_noise_rate(p, labels, counts)
    return Bunch(
        rows=rows[own[rows].argsort(kind="stable")],
        suggested=classes[suggested],
        confidence=own,
        noise=counts / len(y),
        classes=classes,
    )


def _check_probabilities(probabilities: Any, n_samples: int, n_classes: int) -> np.ndarray:
    p = np.asarray(probabilities, dtype=float)
    if not n_samples:
        raise ValueError("y is empty: there are no labels to check.")
    if n_classes < 2:
        raise ValueError("y holds one class only: there is no other that a label could be.")
    if p.shape != (n_samples, n_classes):
        raise ValueError(
            f"probabilities must have the shape (n_samples, n_classes) = ({n_samples}, "
            f"{n_classes}), got {p.shape}: one column for each class of y, sorted."
        )
    if not np.isfinite(p).all() or p.min() < 0 or not np.allclose(p.sum(axis=1), 1, atol=1e-3):
        raise ValueError(
            "probabilities must be 0 to 1 and sum to 1 in every row. Give predict_proba, not "
            "decision_function."
        )
    return p


def _by_noise_rate(p: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return samples of each label, as many at most as `counts` has in each other class."""
    chosen = []
    for label in range(len(counts)):
        rows = np.flatnonzero(labels == label)
        for other in range(len(counts)):
            n = round(counts[label, other])
            if other == label or not n:
                continue
            advantage = p[rows, other] - p[rows, label]
            surest = (-advantage).argsort(kind="stable")[:n]
            chosen.append(rows[surest[advantage[surest] > 0]])
    return np.unique(np.concatenate(chosen)) if chosen else np.empty(0, np.intp)
