"""The groups that early stopping watches, and how good the model is on them."""

from __future__ import annotations

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


def held_out_text(y_true: np.ndarray, y_pred: np.ndarray, groups: list) -> str:
    """Return how good a model is on the images that early stopping watched, with an interval."""
    what = f"Early stopping watched {len(set(groups))} groups, in {len(groups)} images"
    if len(set(groups)) == 1:
        return f"{what}: too few to say how good the model is."
    accuracy = group_bootstrap("accuracy", y_true, y_pred, groups)
    return (
        f"{what}: accuracy {accuracy.value:.3f} (95% interval by group {accuracy.low:.2f} to "
        f"{accuracy.high:.2f}). The epoch was chosen on them, so it is somewhat too high."
    )
