"""The groups that early stopping watches, and how good the model is on them."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.utils import Bunch

from wbcclf.cli._output import require
from wbcclf.model_selection import group_bootstrap


def hold_out(listing: Bunch, fraction: float, seed: int) -> np.ndarray:
    """Return the rows of about that share of the groups, with every class left to train on."""
    n_groups = {
        label: len(set(listing.groups[listing.target == label].tolist()))
        for label in listing.target_names
    }
    rarest = min(n_groups, key=n_groups.__getitem__)
    n_folds = min(max(2, round(1 / fraction)), n_groups[rarest])
    require(
        n_folds >= 2,
        f"--early-stopping with --groups needs at least two groups of every class; {rarest} has "
        f"{n_groups[rarest]}. Leave out --early-stopping.",
    )
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    folds = splitter.split(listing.target, listing.target, listing.groups)
    for train_rows, held in folds:
        if set(listing.target[train_rows]) == set(listing.target_names):
            return held
    raise ValueError(
        "--early-stopping with --groups: every split by group leaves no images of some class to "
        "train on. Leave out --early-stopping."
    )


def score_held_out(y_true: np.ndarray, y_pred: np.ndarray, groups: list) -> dict[str, Any]:
    """Return how good a model is on the images that early stopping watched.

    Of one group there is no accuracy, nor an interval: it is too little to tell.
    """
    figures: dict[str, Any] = {
        "n_groups": len(set(groups)),
        "n_images": len(groups),
        "accuracy": None,
        "accuracy_interval": None,
    }
    if figures["n_groups"] > 1:
        accuracy = group_bootstrap("accuracy", y_true, y_pred, groups)
        figures["accuracy"] = accuracy.value
        figures["accuracy_interval"] = (accuracy.low, accuracy.high)
    return figures


def held_out_text(figures: dict[str, Any]) -> str:
    """Return what :func:`score_held_out` found, as a line."""
    what = f"Early stopping watched {figures['n_groups']} groups, in {figures['n_images']} images"
    if figures["accuracy"] is None:
        return f"{what}: too few to say how good the model is."
    low, high = figures["accuracy_interval"]
    return (
        f"{what}: accuracy {figures['accuracy']:.3f} (95% interval by group {low:.2f} to "
        f"{high:.2f}). The epoch was chosen on them, so it is somewhat too high."
    )
