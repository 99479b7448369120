"""How often a set of labels holds the true one, where several pictures show one cell.

Run: WBCCLF_DATA=... python benchmarks/conformal.py simulate
and: WBCCLF_DATA=... python benchmarks/conformal.py real CACHE

`simulate` draws cells of four classes, of 1 to 40 pictures each; most have few. The pictures of a
cell are alike: of the variance of a logit, 0.8 is the cell's. Where it says so, cells that are easy
or hard to tell have the most pictures. Sets are learnt from so many cells of each class, 5,000
times, and measured on 100,000 new cells of each class, one picture of each. Chance moves a coverage
by 0.13 points (standard deviation) where 9 cells are learnt from, by 0.1 where there are more.

`real` takes the model of the package, and cells that it was not trained on: a fifth of PBC (one
picture a cell), the official TEST (71 cells), Raabin. A random half of the cells is learnt from and
the other half measured, 200 times; each cell counts the same. "Slides": of Raabin, halves of the
days of the slides instead. "From PBC": learnt from all of PBC's, used elsewhere. CACHE keeps the
probabilities, which take five minutes on one core.

Compared are ways to count several pictures, and a second score: the adaptive one of Romano, Sesia
and Candes 2020 (https://arxiv.org/abs/2006.02544), randomised.
"""

import argparse
import csv
import math
import warnings
from pathlib import Path

import numpy as np
from _data import DATA
from other_laboratory import raabin
from pretrain import split_pbc
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin

from wbcclf import ConformalClassifier, load_model

LEVEL, LARGEST = 0.9, 40
COUNTS = ((250, 99, 42, 9), (50, 19, 12, 9))
EASY = {"any cells": 0, "of easy cells": 2, "of hard cells": -2}
N_FITS, N_NEW, N_SPLITS = 5000, 100_000, 200


class Given(ClassifierMixin, BaseEstimator):
    """Predicts the probabilities that it is given."""

    def fit(self, X, y=None):
        """Count the classes."""
        self.classes_ = np.arange(X.shape[1])
        return self

    def predict_proba(self, X):
        """Return what it is given."""
        return X


# ---------------------------------------------------------------- ways to learn thresholds
# Each takes scores, high for what is in few sets, with the class and the cell of each picture. It
# returns the largest score of each class that is in a set.


def ours(scores, target, cells, random, by_class=True, level=LEVEL):
    sets = ConformalClassifier(
        Given().fit(scores),
        confidence_level=level,
        class_conditional=by_class,
        random_state=int(random.integers(2**31)),
    )
    return -sets.fit(-scores, target, cells).thresholds_


def over_all_classes(*given):
    return ours(*given, by_class=False)


def at_99(*given):
    return ours(*given, level=0.99)


def with_weights(weigh):
    """Return a way in which pictures have weights; `weigh` returns them and their sum."""

    def way(scores, target, cells, random):
        found = np.zeros(scores.shape[1])
        for number in np.unique(target):
            rows = np.flatnonzero(target == number)
            weights, total = weigh(cells[rows], random)
            order = np.argsort(-scores[rows, number])
            # In are p-values above 1 - LEVEL.
            is_in = 1 + np.cumsum(weights[order]) > (1 - LEVEL) * (total + 1) + 1e-9
            if 1 <= (1 - LEVEL) * (total + 1) + 1e-9:
                found[number] = scores[rows, number][order][is_in.argmax()]
        return found

    return way


@with_weights
def mean_p_value(cells, random, n_draws=20):
    weights = np.zeros(len(cells))
    for _ in range(n_draws):
        order = random.permutation(len(cells))
        weights[order[np.unique(cells[order], return_index=True)[1]]] += 1 / n_draws
    return weights, len(np.unique(cells))


@with_weights
def weighted(cells, random):
    _, number, n_pictures = np.unique(cells, return_inverse=True, return_counts=True)
    return 1 / n_pictures[number], len(n_pictures)


@with_weights
def every_picture(cells, random):
    return np.ones(len(cells)), len(cells)


WAYS = {
    "one picture a cell": ours,
    "mean p-value of 20 draws": mean_p_value,
    "all pictures, a cell weighs 1": weighted,
    "every picture as a cell": every_picture,
}


def least_ambiguous(probabilities, random):
    return -probabilities


def adaptive(probabilities, random):
    order = np.argsort(-probabilities, axis=1)
    ordered = np.take_along_axis(probabilities, order, axis=1)
    above = ordered.cumsum(axis=1) - ordered * random.random((len(ordered), 1))
    scores = np.empty_like(above)
    np.put_along_axis(scores, order, above, axis=1)
    return scores - 1  # below 0: 0 is in every set


# ---------------------------------------------------------------- simulated cells


def draw(counts, easy, random, largest=LARGEST):
    """Return probabilities of pictures, and the class and the cell of each."""
    target = np.repeat(np.arange(4), counts)
    size = random.random(len(target))
    n_pictures = np.rint(largest**size).astype(int)
    of_cell = random.normal(size=(len(target), 4))
    usual = np.array([3.5, 3.0, 2.5, 2.0])[target]
    of_cell[np.arange(len(target)), target] += usual + easy * (size - 0.5)
    cells = np.repeat(np.arange(len(target)), n_pictures)
    logits = of_cell[cells] + random.normal(scale=0.5, size=(len(cells), 4))
    return softmax(1.5 * logits, axis=1), target[cells], cells


def simulate():
    print("| cells of each class | most pictures | way | 1 | 2 | 3 | 4 | all |")
    print("|---|---|---|---|---|---|---|---|")
    for name, easy in EASY.items():
        random = np.random.default_rng(0)
        new, of_new, _ = draw([N_NEW] * 4, easy, random, largest=1)
        of_true = [np.sort(-new[of_new == k, k]) for k in range(4)]
        for counts in COUNTS:
            found = {way: [] for way in WAYS}
            for _ in range(N_FITS):
                pictures, *rest = draw(counts, easy, random)
                for way, learn in WAYS.items():
                    limits = learn(-pictures, *rest, random)
                    inside = map(np.searchsorted, of_true, limits, ["right"] * 4)
                    found[way].append([n / N_NEW for n in inside])
            ranks = [math.ceil(round((m + 1) * LEVEL, 9)) / (m + 1) for m in counts]
            for way, of_fits in ({"one picture a cell, in theory": [ranks]} | found).items():
                mean = np.mean(of_fits, axis=0)
                figures = [*mean, np.average(mean, weights=counts)]
                columns = " | ".join(f"{100 * figure:.1f}" for figure in figures)
                print(f"| {', '.join(map(str, counts))} | {name} | {way} | {columns} |", flush=True)


# ---------------------------------------------------------------- real cells


def of_test():
    with (DATA / "blood-cells" / "cells.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "TEST"]
    paths = [str(DATA / "blood-cells" / row["path"]) for row in rows]
    return paths, [row["class"].lower() for row in rows], [row["cell_id"] for row in rows]


def of_pbc():
    _, *held = split_pbc()
    paths, target = map(np.concatenate, zip(*held, strict=True))
    return paths, target, paths


def predicted(cache):
    """Return probabilities, class numbers and cells of the pictures of each laboratory."""
    model = load_model("wbcclf:blood-cells")
    found = {}
    for name, load in {"PBC": of_pbc, "TEST": of_test, "Raabin": raabin}.items():
        file = cache / f"{name}.npz"
        paths, target, cells = map(np.asarray, load())
        if not file.exists():
            np.savez(file, probabilities=model.predict_proba(paths))
        with np.load(file) as kept:
            found[name] = kept["probabilities"], np.searchsorted(model.classes_, target), cells
    probabilities, target, paths = found["Raabin"]
    days = np.array([Path(path).name[:8] for path in paths])
    return model.classes_, found | {"Raabin, slides": (probabilities, target, days)}


def figures(scores, limits, target, cells):
    """Return what sets are worth, each cell counting the same.

    Classes with too few cells are in every set. Returned are the coverage, the number of other
    labels in a set, the shares of sets with one and with none of these, the number of classes in
    every set, and the coverage of each other class.
    """
    is_in = scores <= limits
    learnt = limits < 0
    _, number, n_pictures = np.unique(cells, return_inverse=True, return_counts=True)
    weights = 1 / n_pictures[number]
    holds, n_labels = is_in[np.arange(len(target)), target], is_in[:, learnt].sum(axis=1)
    of_classes = np.full(len(limits), np.nan)
    for k in np.intersect1d(target, np.flatnonzero(learnt)):
        of_classes[k] = np.average(holds[target == k], weights=weights[target == k])
    columns = [holds, n_labels, n_labels == 1, n_labels == 0]
    means = [np.average(column, weights=weights) for column in columns]
    return [*means, np.count_nonzero(~learnt), *of_classes]


def row(name, way, found, classes):
    coverage, n_labels, single, empty, n_always, *of_classes = np.nanmean(found, axis=0)
    worst = int(np.nanargmin(of_classes))
    print(
        f"| {name} | {way} | {100 * coverage:.1f} | {100 * of_classes[worst]:.1f} "
        f"({classes[worst]}) | {n_always:.1f} | {n_labels:.2f} | {single:.0%} | {empty:.0%} |",
        flush=True,
    )


def real(cache):
    cache.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")  # of classes with too few cells, and of another laboratory
    classes, laboratories = predicted(cache)
    usual = {
        "one picture a cell, by class": (least_ambiguous, ours),
        "over all classes": (least_ambiguous, over_all_classes),
        "every picture as a cell, by class": (least_ambiguous, every_picture),
        "adaptive, by class": (adaptive, ours),
    }
    # The others have too few cells for this level.
    pbc = usual | {"one picture a cell, by class, at 0.99": (least_ambiguous, at_99)}
    print(
        "| pictures | sets | coverage | of the worst class | in every set | others | one | none |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, (probabilities, target, groups) in laboratories.items():
        cells = groups if name != "Raabin, slides" else np.arange(len(target))
        ways = pbc if name == "PBC" else usual
        found = {way: [] for way in ways}
        random = np.random.default_rng(0)
        for _ in range(N_SPLITS):
            names = random.permutation(np.unique(groups))
            is_learnt = np.isin(groups, names[: len(names) // 2])
            for way, (score, learn) in ways.items():
                scores = score(probabilities, random)
                limits = learn(scores[is_learnt], target[is_learnt], groups[is_learnt], random)
                measured = scores[~is_learnt], limits, target[~is_learnt], cells[~is_learnt]
                found[way].append(figures(*measured))
        for way, of_splits in found.items():
            row(name, way, of_splits, classes)
    random = np.random.default_rng(0)
    scores, target, cells = laboratories["PBC"]
    limits = ours(-scores, target, cells, random)
    for name in ("TEST", "Raabin"):
        probabilities, target, cells = laboratories[name]
        found = figures(-probabilities, limits, target, cells)
        row(f"{name}, learnt from PBC", "one picture a cell, by class", [found], classes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("simulate")
    commands.add_parser("real").add_argument("cache", type=Path)
    arguments = vars(parser.parse_args())
    {"simulate": simulate, "real": real}[arguments.pop("command")](**arguments)
