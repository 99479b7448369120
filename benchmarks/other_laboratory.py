"""A model on slides of a laboratory that it has never seen: one laboratory left out at a time.

Run: WBCCLF_DATA=... python benchmarks/other_laboratory.py train RESULTS CACHE [--rows ...]
then: python benchmarks/other_laboratory.py table RESULTS

Four laboratories: PBC, BCCD (the photographs of blood-cells, each cell once where it is scored),
BCISC and Raabin. Five classes that they share: basophil (BCCD has none), eosinophil, lymphocyte,
monocyte, neutrophil. `simple_cnn`, 64 pixels, 1,500 steps of 32, bfloat16, seed 0; laboratories and
classes are equally frequent in training. From the third row on, each row changes one thing of "the
cell, one light and stain", or one thing of "compact_cnn, from ImageNet", which is trained as the
packaged model is: 96 pixels, 600 steps, float32, a quarter of synthetic cells.

Some rows use the networks of another (`FROM`). In them "the pictures seen" are those that the
network is scored on, without labels. CORAL (Sun, Feng and Saenko 2016, AAAI) gives the features of
the training pictures the mean and the covariance of those of the pictures seen.

A line of RESULTS (JSON lines) is one row of one laboratory; what it holds already is not trained
again. CACHE keeps the cuts, and the networks that adapting.py begins with.
"""

import argparse
import csv
import json
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from _data import DATA
from shell_defaults import bcisc, pbc
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, recall_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from wbcclf import (
    Augmenter,
    CellCropper,
    CNNClassifier,
    DeepFeatures,
    ImageLoader,
    Mixing,
    Optimizer,
    adapt,
    list_image_folder,
    make_blood_cells,
    save_model,
)
from wbcclf.backbones import get_backbone, register_backbone
from wbcclf.cli import _defaults

CLASSES = ("basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil")
SIZE, STEPS, BATCH = 64, 1500, 32
DRAWN = 600  # training pictures of each class of each laboratory, with replacement if it has fewer
COPIES = 4  # of each cell of BCCD that are trained on: its photographs are there many times


def bccd(copies=COPIES):
    """Return files, classes and cells of blood-cells, up to so many of each cell."""
    seen = defaultdict(int)
    rows = []
    with (DATA / "blood-cells" / "cells.csv").open() as file:
        for row in csv.DictReader(file):
            if float(row["margin"]) >= 0.1 and seen[row["cell_id"]] < copies:
                seen[row["cell_id"]] += 1
                rows.append(row)
    rows.sort(key=lambda row: row["cell_id"])
    paths = [str(DATA / "blood-cells" / row["path"]) for row in rows]
    return paths, [row["class"].lower() for row in rows], [row["cell_id"] for row in rows]


def raabin():
    listing = list_image_folder(DATA / "raabin")
    return listing.paths, listing.target, listing.paths


def laboratory(name):
    """Return files, classes and cells of the shared classes of a laboratory."""
    load = {"PBC": lambda: pbc(DATA), "BCISC": lambda: bcisc(DATA), "BCCD": bccd, "Raabin": raabin}
    paths, target, cells = map(np.asarray, load[name]())
    full = np.array([next((c for c in CLASSES if c.startswith(t)), "") for t in target])
    return paths[full != ""], full[full != ""], cells[full != ""]


NAMES = ("PBC", "BCCD", "BCISC", "Raabin")
LITE0 = DATA.parent / "weights" / "tf_efficientnet_lite0.safetensors"
CELL = {"scale": "cell", "background": "normalise"}
ONE_CELL = CellCropper(**CELL, stain="normalise")
NUCLEUS = CellCropper("nucleus", background="normalise")
RED_CELLS = CellCropper("red cell", background="normalise", stain="normalise")
# As the packaged model is trained. float32, since depthwise convolutions are slow in bfloat16 on
# CPUs; and fewer steps, which take longer than the others' 1,500.
COMPACT = {
    "backbone": "compact_cnn",
    "weights": None,
    "size": 96,
    "lr": 1e-3,
    "precision": "float32",
    "max_steps": 600,
    "augment": Augmenter(laboratory=1, zoom=0.25),
    "crop": NUCLEUS,
    "synthetic": 0.25,
}
IMAGENET = "compact_cnn, from ImageNet"
LINEAR = "ImageNet's features, a linear head"
VIEWS, ADAPTED, CORAL = (
    "laboratory=1, the mean of 8 views",
    f"{IMAGENET}, adapted to the pictures seen",
    f"{LINEAR}, CORAL to the pictures seen",
)
FROM = {VIEWS: "laboratory=1", ADAPTED: IMAGENET, CORAL: LINEAR}
NO_COLOURS = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}
ROWS = {
    "whole pictures": {"crop": None},
    "the cell, one light and stain": {},
    "the scale of the red cells": {"crop": RED_CELLS},
    "nothing but the cell": {"crop": CellCropper("cell", background="remove", stain="normalise")},
    "trained on PBC alone": {"only": ("PBC",)},
    "no changes of colour": {"augment": Augmenter(**NO_COLOURS)},
    "laboratory=0.5": {"augment": Augmenter(laboratory=0.5)},
    "laboratory=1": {"augment": Augmenter(laboratory=1)},
    "laboratory=1 instead of one stain": {
        "augment": Augmenter(laboratory=1),
        "crop": CellCropper(**CELL),
    },
    "MixUp 0.2": {"mixing": Mixing(mixup=0.2)},
    "synthetic cells alone": {"only": (), "synthetic": 1},
    "synthetic cells first": {"begins": True},
    "a quarter of synthetic cells": {"synthetic": 0.25},
    "laboratory=1, a quarter of synthetic cells": {
        "augment": Augmenter(laboratory=1),
        "synthetic": 0.25,
    },
    "laboratory=1, a quarter of synthetic cells, the scale of the red cells": {
        "augment": Augmenter(laboratory=1),
        "synthetic": 0.25,
        "crop": RED_CELLS,
    },
    "laboratory=1, half of synthetic cells, the scale of the red cells": {
        "augment": Augmenter(laboratory=1),
        "synthetic": 0.5,
        "crop": RED_CELLS,
    },
    VIEWS: {},
    "BatchNorm instead of GroupNorm": {"backbone": "simple_cnn_batchnorm"},
    "compact_cnn, random start": COMPACT,
    IMAGENET: COMPACT | {"weights": LITE0},
    ADAPTED: {},
    f"{IMAGENET}, one stain": COMPACT
    | {
        "weights": LITE0,
        "crop": CellCropper("nucleus", background="normalise", stain="normalise"),
    },
    f"{IMAGENET}, around the cell": COMPACT | {"weights": LITE0, "crop": CellCropper(**CELL)},
    LINEAR: {"size": COMPACT["size"]},
    CORAL: {},
}
BASE = {
    "crop": ONE_CELL,
    "augment": Augmenter(),
    "only": NAMES,
    "synthetic": 0,
    "begins": False,
    "backbone": "simple_cnn",
    "lr": _defaults.LR,
    "size": SIZE,
    "precision": "bfloat16",
    "max_steps": STEPS,
}


def batch_normalised():
    """Return simple_cnn with BatchNorm where it has GroupNorm."""
    spec = get_backbone("simple_cnn")

    def build():
        network = spec.build()
        for block in network.children():
            block[2] = nn.BatchNorm2d(block[2].num_channels)
        return network

    return replace(spec, name="simple_cnn_batchnorm", build=build, version=None)


def balanced(paths, target, rng):
    """Return DRAWN files of each class."""
    rows = []
    for label in np.unique(target):
        members = np.flatnonzero(target == label)
        rows.append(rng.choice(members, DRAWN, replace=len(members) < DRAWN))
    rows = np.concatenate(rows)
    return paths[rows], target[rows]


def drawn_cells(n_images, crop, size, seed):
    """Return pictures and classes of synthetic cells."""
    cells = make_blood_cells(n_images, classes=list(CLASSES), image_size=160, random_state=seed)
    return ImageLoader(size, crop=crop).transform(list(cells.images)), cells.target


def one_training(cache, row, left_out, seed=0):
    """Train on all laboratories but one, score on it; yield figures, also of rows FROM this one."""
    options = BASE | ROWS[row]
    crop, only, synthetic, begins, size = (
        options.pop(key) for key in ("crop", "only", "synthetic", "begins", "size")
    )
    loader = ImageLoader(size, crop=crop, memory=cache)
    rng = np.random.RandomState(seed)
    images, target = [], []
    for name in only:
        if name != left_out:
            paths, labels, _ = laboratory(name)
            paths, labels = balanced(paths, labels, rng)
            images.append(loader.transform(paths))
            target.append(labels)
    if synthetic:
        n_real = sum(map(len, target))
        n_images = round(n_real * synthetic / (1 - synthetic)) if n_real else DRAWN * len(CLASSES)
        drawn, labels = drawn_cells(n_images, crop, size, seed)
        images.append(drawn)
        target.append(labels)
    images, target = np.concatenate(images), np.concatenate(target)
    paths, truth, cells = laboratory(left_out)
    _, once = np.unique(cells, return_index=True)
    truth, seen = truth[once], loader.transform(paths[once])
    start = time.perf_counter()
    if row == LINEAR:
        found = linear_heads(images, target, seen)
    else:
        clf = CNNClassifier(
            optimizer=Optimizer(weight_decay=_defaults.WEIGHT_DECAY),
            batch_size=BATCH,
            random_state=seed,
            **options,
        )
        if begins:
            first = clone(clf).fit(*drawn_cells(DRAWN * len(CLASSES), crop, size, seed))
            save_model(first, cache / "synthetic.wbcclf")
            clf.weights = cache / "synthetic.wbcclf"
        found = {row: clf.fit(images, target).predict_proba(seen)}
        if row == FROM[VIEWS]:
            found[VIEWS] = clf.set_params(test_time_augmentation=True).predict_proba(seen)
        if row == IMAGENET:
            save_model(clf, cache / f"{left_out}.wbcclf")
            found[ADAPTED] = adapt(clf, seen).predict_proba(seen)
    seconds = time.perf_counter() - start
    for name, probabilities in found.items():
        line = {"row": name, "left out": left_out, "seed": seed}
        yield line | figures(truth, probabilities, np.unique(target), seconds)


def linear_heads(images, target, seen):
    """Return probabilities from a linear head on frozen features, as they are and aligned."""
    features = DeepFeatures(COMPACT["backbone"], weights=LITE0).fit(images[:1])
    X, Z = features.transform(images).astype(float), features.transform(seen).astype(float)

    def root(values, power):
        # Of the covariance, with 1 added on the diagonal, as the paper does.
        value, vector = np.linalg.eigh(np.cov(values.T) + np.eye(values.shape[1]))
        return vector * value**power @ vector.T

    aligned = (X - X.mean(0)) @ root(X, -0.5) @ root(Z, 0.5) + Z.mean(0)
    head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return {
        name: clone(head).fit(columns, target).predict_proba(Z)
        for name, columns in ((LINEAR, X), (CORAL, aligned))
    }


def figures(truth, probabilities, classes, seconds):
    """Return macro recall with a 95% interval by cell, calibration, and what a threshold leaves."""
    predicted, sure = classes[probabilities.argmax(1)], probabilities.max(1)
    labels = np.unique(truth)
    recall = recall_score(truth, predicted, labels=labels, average=None)
    rng = np.random.RandomState(0)
    right = [(predicted == truth)[truth == label].astype(float) for label in labels]
    drawn = [np.mean([rng.choice(r, len(r)).mean() for r in right]) for _ in range(1000)]
    bins = np.minimum((sure * 15).astype(int), 14)
    hits = predicted == truth
    error = sum(
        abs(hits[bins == b].mean() - sure[bins == b].mean()) * (bins == b).mean()
        for b in np.unique(bins)
    )
    called = sure >= 0.9
    return {
        "n_cells": len(truth),
        "accuracy": float(hits.mean()),
        "recall": dict(zip(labels.tolist(), recall.tolist(), strict=True)),
        "macro_recall": float(recall.mean()),
        "interval": np.quantile(drawn, [0.025, 0.975]).tolist(),
        "log_loss": float(log_loss(truth, probabilities, labels=classes)),
        "calibration_error": float(error),
        "declined": float(1 - called.mean()),
        "right_of_called": float(hits[called].mean()) if called.any() else None,
        "seconds": seconds,
    }


def train(results, cache, rows):
    for row in rows:
        for left_out in NAMES:
            lines = results.read_text().splitlines() if results.exists() else []
            done = [(d["row"], d["left out"]) for d in map(json.loads, lines)]
            if (row, left_out) in done or ROWS[row].get("only") == (left_out,):
                continue
            for found in one_training(cache, row, left_out):
                line = json.dumps(found)
                with results.open("a") as file:
                    print(line, file=file)
                print(line, flush=True)


def table(results):
    done = [json.loads(line) for line in results.read_text().splitlines()]
    print(f"| macro recall, of laboratory | {' | '.join(NAMES)} | mean |")
    print("|---" * (len(NAMES) + 2) + "|")
    for row in ROWS:
        found = {d["left out"]: d for d in done if d["row"] == row}
        if not found:
            continue
        columns = [
            "{:.3f} ({:.3f} to {:.3f})".format(found[n]["macro_recall"], *found[n]["interval"])
            if n in found
            else "-"
            for n in NAMES
        ]
        mean = np.mean([d["macro_recall"] for d in found.values()])
        print(f"| {row} | {' | '.join(columns)} | {f'{mean:.3f}' if len(found) == 4 else '-'} |")
    print("\n| row | calibration error | log loss | below 0.9, declined | right of the others |")
    print("|---|---|---|---|---|")
    for row in ROWS:
        found = [d for d in done if d["row"] == row]
        if found:
            values = [
                np.mean([d[key] for d in found])
                for key in ("calibration_error", "log_loss", "declined", "right_of_called")
            ]
            print(f"| {row} | {' | '.join(f'{value:.3f}' for value in values)} |")


if __name__ == "__main__":
    register_backbone(batch_normalised())
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    training.add_argument("results", type=Path)
    training.add_argument("cache", type=Path)
    trained = [row for row in ROWS if row not in FROM]
    training.add_argument("--rows", nargs="+", choices=trained, default=trained)
    printing = commands.add_parser("table")
    printing.add_argument("results", type=Path)
    arguments = vars(parser.parse_args())
    {"train": train, "table": table}[arguments.pop("command")](**arguments)
