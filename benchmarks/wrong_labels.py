"""Wrong labels: how many of those that were swapped on purpose are found.

Run: WBCCLF_DATA=... python benchmarks/wrong_labels.py WEIGHTS [--share 0.03] [--seeds 3]
    [--features FILE.npy] [--page PAGE.html]

All of PBC (13,659 pictures, 8 classes). A share of the labels, drawn at random, becomes another
class, drawn at random. Features are of `compact_cnn` at 128 pixels with WEIGHTS, which must not
have seen the labels: the ImageNet weights of EfficientNet-Lite0, not those of the package. A
logistic regression gives probabilities, in five folds by file (pictures that are the same to the
byte are in one fold). Printed for every seed: precision among the n surest, where n is the number
of swapped labels, and among the 100 surest; and precision and recall of the list that
`find_wrong_labels` gives. A label that was wrong before counts as a false alarm. The last lines are
of the labels as they are; --page writes the first of them with their pictures.
"""

import argparse
from pathlib import Path

import numpy as np
from _data import DATA
from shell_defaults import pbc
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import Bunch

from wbcclf import DeepFeatures, ImageLoader
from wbcclf.cli._wrong_labels import STRENGTH
from wbcclf.inspection import write_audit_page
from wbcclf.model_selection import find_wrong_labels
from wbcclf.model_selection.audit._findings import WARNING, finding

SIZE, BLOCK = 128, 512


def features(paths, weights):
    """Return features of files (n_files, n_features), block by block."""
    loader = ImageLoader(image_size=SIZE)
    network = DeepFeatures("compact_cnn", weights=weights)
    network.fit(loader.transform(paths[:2]))
    starts = range(0, len(paths), BLOCK)
    return np.concatenate(
        [network.transform(loader.transform(paths[k : k + BLOCK])) for k in starts]
    )


def swap(y, share, rng):
    """Return labels of which a share is another class, and the rows of these."""
    classes, labels = np.unique(y, return_inverse=True)
    rows = rng.choice(len(y), round(share * len(y)), replace=False)
    labels[rows] = (labels[rows] + rng.randint(1, len(classes), len(rows))) % len(classes)
    return classes[labels], rows


def look(X, y, files, seed):
    """Return what `find_wrong_labels` says, from probabilities of pictures not trained on."""
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=1000)
    )
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    p = cross_val_predict(model, X, y, groups=files, cv=folds, method="predict_proba")
    return find_wrong_labels(y, p)


def print_row(name, found, rows):
    is_swapped = np.isin(np.arange(len(found.confidence)), rows)
    ranked = found.confidence.argsort(kind="stable")
    listed = is_swapped[found.rows]
    at_n, at_100 = (is_swapped[ranked[:n]].mean() for n in (len(rows), 100))
    print(
        f"{name}: {len(rows)} swapped, precision at {len(rows)} {at_n:.3f}, at 100 {at_100:.2f}; "
        f"list of {len(listed)}: precision {listed.mean():.3f}, "
        f"recall {listed.sum() / len(rows):.3f}",
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("weights")
    parser.add_argument("--share", type=float, default=0.03)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--features", type=Path, help="kept here, or taken from here")
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    paths, y, files = map(np.asarray, pbc(DATA))
    if options.features and options.features.exists():
        X = np.load(options.features)
    else:
        X = features(paths.tolist(), options.weights)
        if options.features:
            np.save(options.features, X)
    for seed in range(options.seeds):
        swapped, rows = swap(y, options.share, np.random.RandomState(seed))
        print_row(f"seed {seed}", look(X, swapped, files, seed), rows)
    found = look(X, y, files, 0)
    print(f"as they are: {len(found.rows)} labels probably wrong")
    for row in found.rows[:20]:
        print(f"{paths[row]} {y[row]} -> {found.suggested[row]} {found.confidence[row]:.4f}")
    if options.page:
        first = finding(
            "wrong labels",
            WARNING,
            f"{len(found.rows)} labels of PBC are probably wrong.",
            "Look at them.",
            [[paths[row]] for row in found.rows],
            [f"{y[row]}, more likely {found.suggested[row]}" for row in found.rows],
        )
        write_audit_page(Bunch(findings=[first], classes=[], has_leak=False), options.page)
