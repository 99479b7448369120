"""How far maps of the packaged model can be believed, at home and elsewhere.

Run: WBCCLF_DATA=... python benchmarks/explaining.py [PICTURES.png]

Pictures that the model was not trained on: 80 of PBC (of those that benchmarks/pretrain.py scores
on) and 80 of Raabin, equally many of each class, chosen with seed 0. It prints the mean scores of
each method. Maps of some of them are drawn side by side if a file is named.
"""

import sys
import warnings

import cv2
import numpy as np
from other_laboratory import laboratory
from pretrain import split_pbc

from wbcclf import load_model
from wbcclf.inspection import explain

N_PICTURES, N_DRAWN = 80, 8
METHODS = ("gradcam", "gradcam++", "occlusion")
SCORES = (
    ("on the cell", "inside"),
    ("cell", "cell_share"),
    ("random", "randomisation"),
    ("chance", "randomisation_by_chance"),
    ("agreement", "agreement"),
    ("chance", "agreement_by_chance"),
    ("drop", "drop"),
)


def chosen(paths, target):
    rng = np.random.RandomState(0)
    labels = np.unique(target)
    n_each = N_PICTURES // len(labels)
    rows = [rng.permutation(np.flatnonzero(target == label))[:n_each] for label in labels]
    return np.concatenate(rows)


def main():
    model = load_model("wbcclf:blood-cells")
    *_, home = split_pbc()
    drawn = []
    for name, (paths, target) in {"PBC": home, "Raabin": laboratory("Raabin")[:2]}.items():
        paths, target = np.asarray(paths), np.asarray(target)
        rows = chosen(paths, target)
        columns = []
        for method in METHODS:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                found = explain(model, paths[rows], method=method)
            means = found.by_class()[-1]
            scores = ", ".join(f"{title} {means[score]:.2f}" for title, score in SCORES)
            n_cells = np.isfinite(found.cell_share).sum()
            right = (found.predicted == target[rows]).mean()
            print(
                f"{name} {method} {found.block}: {scores}; {n_cells} with a cell, {right:.2f} right"
            )
            for warning in caught:
                print(f"  {str(warning.message).splitlines()[0]}")
            some = np.linspace(0, len(rows) - 1, N_DRAWN).astype(int)
            columns.append(np.vstack([found.overlay(row) for row in some]))
        drawn.append(np.hstack([np.vstack(list(found.images[some])), *columns]))
    if len(sys.argv) > 1:
        cv2.imwrite(sys.argv[1], np.hstack(drawn)[..., ::-1])


if __name__ == "__main__":
    main()
