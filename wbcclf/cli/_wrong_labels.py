"""Labels that are probably wrong, as a finding of `wbcclf audit`."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import Bunch

import wbcclf
from wbcclf._progress import progress_bar
from wbcclf.cli import _defaults
from wbcclf.cli._output import require
from wbcclf.cli._shared import CHUNK
from wbcclf.datasets._decode import MAX_PIXELS
from wbcclf.datasets._reading import read_images
from wbcclf.model_selection import find_wrong_labels
from wbcclf.model_selection.audit._findings import NOTE, WARNING, finding

SIZE = (_defaults.IMAGE_SIZE, _defaults.IMAGE_SIZE)
N_FOLDS = 5
STRENGTH = 0.01  # of the logistic regression, the inverse of its penalty
ADVICE = (
    "Look at these pictures, the first ones first, and correct the labels that are wrong. Many "
    "will be right: rare and doubtful cells are listed, too. Never correct one without looking, "
    "and never in the test set alone."
)


def load_network(weights: str) -> wbcclf.DeepFeatures:
    """Return what sees the pictures; fails, before they are read, if the weights cannot be used."""
    image = np.zeros((1, *SIZE, 3), dtype=np.uint8)
    return wbcclf.DeepFeatures(_defaults.BACKBONE, weights=weights).fit(image)


def wrong_labels(listing: Bunch, found: Bunch, network: wbcclf.DeepFeatures) -> Bunch:
    """Return the finding: pictures whose labels are probably wrong, the surest first.

    Parameters
    ----------
    listing : Bunch
        Pictures, as `Source.list` returns them.
    found : Bunch
        What `check_data` returned for them.
    network : DeepFeatures
        Whose features the labels are predicted from.
    """
    broken = {path for path, _ in found.skipped}
    rows = np.array([path not in broken for path in listing.paths.tolist()])
    cells_of = {row.label: row.n_cells for row in found.classes}
    # A class with one cell is in no training part of the fold that holds it.
    several = [label for label, n_cells in cells_of.items() if n_cells > 1]
    require(
        len(several) > 1,
        "--labels needs two classes of two cells or more; see the table of classes.",
    )
    rows &= np.isin(listing.target, several)
    paths, y = listing.paths[rows], listing.target[rows]
    folds = StratifiedGroupKFold(
        min(N_FOLDS, min(cells_of[label] for label in several)), shuffle=True, random_state=0
    )
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=1000)
    )
    probabilities = cross_val_predict(
        model,
        features(paths.tolist(), network),
        y,
        groups=found.groups[rows],
        cv=folds,
        method="predict_proba",
    )
    wrong = find_wrong_labels(y, probabilities)
    agreement = float((wrong.classes[probabilities.argmax(axis=1)] == y).mean())
    return finding(
        "wrong labels",
        WARNING if len(wrong.rows) else NOTE,
        f"{len(wrong.rows)} of {len(y)} labels are probably wrong "
        f"({len(wrong.rows) / len(y):.1%}). Models of other cells say so; they agree with "
        f"{agreement:.1%} of all labels.",
        ADVICE if len(wrong.rows) else "Nothing to do: no label stands out.",
        [[path] for path in paths[wrong.rows].tolist()],
        [
            f"{y[row]} has a probability of {wrong.confidence[row]:.3f}, more likely "
            f"{wrong.suggested[row]}"
            for row in wrong.rows
        ],
        n=len(wrong.rows),
        n_labels=len(y),
        agreement=agreement,
        suggested=wrong.suggested[wrong.rows].tolist(),
        confidence=wrong.confidence[wrong.rows].tolist(),
    )


def features(paths: list[str], network: wbcclf.DeepFeatures) -> np.ndarray:
    """Return what a network sees in pictures (n_pictures, n_features)."""
    # The weights of the package were trained on such squares.
    is_packaged = network.weights == _defaults.PACKAGED_WEIGHTS
    crop = wbcclf.CellCropper("nucleus", background="normalise") if is_packaged else None
    parts = []
    with progress_bar() as bar:
        for start in bar.track(range(0, len(paths), CHUNK), description="Looking at labels"):
            read = read_images(
                paths[start : start + CHUNK],
                SIZE,
                crop=crop,
                n_jobs=None,
                max_pixels=MAX_PIXELS,
                verbose=0,
                # Silent about pictures without a cell, of which a label may be the cause.
                on_error=None,
            )
            parts.append(network.transform(read.images))
    return np.concatenate(parts)
