"""CellFeatures and MultiCellDetector on real pictures: medians a class, accuracy, one or several.

Run: WBCCLF_DATA=... python benchmarks/cell_features.py

Forests are trained on the table of CellFeatures alone, with scikit-learn's defaults but for class
weights; nothing is chosen on what is scored. Folds are by cell: every picture shows another one,
pictures of PBC that are there twice are left out. (What the colours are relative to was chosen
with forests from each of PBC, BCISC and Raabin to the others.)
"""

import time
from collections import defaultdict
from functools import partial

import cv2
import numpy as np
import pandas as pd
from _compare import table
from _data import DATA, unique_images
from cells import FIELDS, all_of, white_cells
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.metrics import balanced_accuracy_score, recall_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from wbcclf import CellFeatures, ImageLoader, MultiCellDetector, find_cells, list_image_folder

FULL = {
    "baso": "basophil",
    "eosi": "eosinophil",
    "lymp": "lymphocyte",
    "mono": "monocyte",
    "neut": "neutrophil",
}
SHOWN = {  # and the class that should have most of it
    "nucleus to cell area (ratio)": "lymphocyte",
    "nucleus lobes (number)": "neutrophil",
    "cytoplasm redness (of nucleus green)": "eosinophil",
    "cytoplasm fine grains (share)": "basophil",
    "cytoplasm contrast (levels^2)": "basophil",
    "cell area (reference areas)": "monocyte",
}
# Fields of BCCD by their numbers, as their pictures show them: 113 has a platelet among its white
# cells; 133 and 228 have a cell at the border, 134 and 242 a second one, that are not annotated.
ONE, SEVERAL = ("113", "133", "228"), ("134", "242")


def pictures(name, per_class=250, seed=0):
    """Return images and full class names of a data set, at most `per_class` of a class."""
    if name == "bcisc":
        paths = np.array([str(path) for path in sorted((DATA / "bcisc" / "images").glob("*.jpg"))])
        labels = np.array([FULL[path.split("/")[-1][:4]] for path in paths])
    else:
        listing = list_image_folder(DATA / name)
        paths, labels = listing.paths, listing.target.astype(str)
    order = np.random.RandomState(seed).permutation(len(paths))
    rows = [order[labels[order] == label][:per_class] for label in np.unique(labels)]
    rows = np.concatenate(rows)
    size = {"pbc/train": 128, "bcisc": 256, "raabin": 192}[name]
    images = ImageLoader(size).transform(paths[rows])
    once = unique_images(images, labels[rows])
    return images[once], labels[rows][once]


def interval(truth, predicted, score, rounds=1000):
    """Return a score with its 95% interval from resampled cells."""
    random = np.random.RandomState(0)
    draws = [random.randint(0, len(truth), len(truth)) for _ in range(rounds)]
    scores = [score(truth[rows], predicted[rows]) for rows in draws if len(set(truth[rows])) > 1]
    low, high = np.percentile(scores, [2.5, 97.5])
    return f"{score(truth, predicted):.3f} ({low:.3f} to {high:.3f})"


def haematology(tables):
    """Print medians a class, and whether the class that should be first is."""
    for name, (features, labels) in tables.items():
        print(f"\n{name}: medians (of lobes: means) of {len(labels)} pictures\n")
        groups = features.groupby(labels)
        medians = groups.median()
        lobes = "nucleus lobes (number)"
        medians[lobes] = groups[lobes].mean()
        print("| |", " | ".join(medians.index), "| first should be |")
        print("|" + "---|" * (len(medians) + 2))
        five = medians.loc[list(FULL.values())]
        for feature, first in SHOWN.items():
            holds = "holds" if five[feature].idxmax() == first else f"is {five[feature].idxmax()}"
            shown = " | ".join(f"{value:.2f}" for value in medians[feature])
            print(f"| {feature} | {shown} | {first}: {holds} |")


def classification(tables):
    """Print how well forests tell classes by the features alone."""
    print("\nClasses by features alone: macro recall (95% interval by cell)\n")
    print("| trained on | tested on | classes | cells | random forest | gradient boosting |")
    print("|---|---|---|---|---|---|")
    models = (
        RandomForestClassifier(class_weight="balanced", random_state=0),
        HistGradientBoostingClassifier(class_weight="balanced", random_state=0),
    )
    for name, (features, labels) in tables.items():
        folds = StratifiedKFold(5, shuffle=True, random_state=0)
        scores = [
            interval(
                labels,
                cross_val_predict(model, features, labels, cv=folds),
                balanced_accuracy_score,
            )
            for model in models
        ]
        n_classes = len(set(labels))
        print(f"| {name} | 5 folds | {n_classes} | {len(labels)} | {' | '.join(scores)} |")
    features, labels = tables["pbc/train"]
    shared = np.isin(labels, list(FULL.values()))
    for other in ("bcisc", "raabin"):
        unseen, truth = tables[other]
        scores = [
            interval(
                truth,
                model.fit(features[shared], labels[shared]).predict(unseen),
                balanced_accuracy_score,
            )
            for model in models
        ]
        print(f"| pbc/train | {other} | 5 | {len(truth)} | {' | '.join(scores)} |")


def one_or_several(images):
    """Print how well fields and collages of several cells are told from single cells."""
    print(
        "\nExactly one white cell: ROC AUC (95% interval by picture), and share of it told right\n"
    )
    print("| pictures | one | several or none | AUC | one: right | several or none: right |")
    print("|---|---|---|---|---|---|")

    def line(name, truth, scores):
        right = [
            recall_score(truth, scores >= 0.5, pos_label=label, zero_division=0)
            for label in (True, False)
        ]
        auc = interval(truth, scores, roc_auc_score)
        print(
            f"| {name} | {truth.sum()} | {(~truth).sum()} | {auc} | "
            f"{right[0]:.3f} | {right[1]:.3f} |"
        )

    paths = sorted(FIELDS.iterdir())
    names = [str(path.parent.parent / "JPEGImages" / f"{path.stem}.jpg") for path in paths]
    fields = ImageLoader((480, 640)).transform(names)
    numbers = np.array([path.stem[-3:] for path in paths])
    n_boxes = np.array([len(white_cells(path)) for path in paths])
    scores = MultiCellDetector().fit(fields).score_samples(fields)
    some = n_boxes > 0
    line("BCCD fields with boxes, as annotated", n_boxes[some] == 1, scores[some])
    seen = (n_boxes == 1) & ~np.isin(numbers, SEVERAL) | np.isin(numbers, ONE)
    line("BCCD fields, as seen", seen, scores)
    print("wrong as seen:", ", ".join(numbers[(scores >= 0.5) != seen]), end="\n\n")
    for name, (batch, labels) in images.items():
        white = batch[np.isin(labels, list(FULL.values()))]
        order = np.random.RandomState(0).permutation(len(white))
        single, left, right = (
            white[rows] for rows in order[: len(order) // 3 * 3].reshape(3, -1)[:, :100]
        )
        pair = np.concatenate([left, right], axis=2)
        detect = [MultiCellDetector().fit(each).score_samples(each) for each in (single, pair)]
        line(
            f"{name}, one beside another",
            np.repeat([True, False], len(single)),
            np.concatenate(detect),
        )


def speed(images):
    """Print images a second of one thread, beside find_cells alone."""
    cv2.setNumThreads(1)
    for name, (batch, _) in images.items():
        some = batch[::10]
        features, detector = (cls(n_jobs=1).fit(some) for cls in (CellFeatures, MultiCellDetector))
        contestants = {
            "CellFeatures": partial(features.transform, some),
            "MultiCellDetector": partial(detector.predict, some),
            "find_cells": partial(all_of, find_cells, some),
        }
        table(f"{name} {some.shape}, one thread", contestants, len(some))


if __name__ == "__main__":
    images, tables = {}, defaultdict(tuple)
    for name in ("pbc/train", "bcisc", "raabin"):
        images[name] = pictures(name)
        batch, labels = images[name]
        start = time.perf_counter()
        features = CellFeatures().set_output(transform="pandas").fit_transform(batch)
        print(f"{name}: {len(batch) / (time.perf_counter() - start):.0f} images/s, all cores")
        tables[name] = pd.DataFrame(features), labels
    haematology(tables)
    classification(tables)
    one_or_several(images)
    speed(images)
