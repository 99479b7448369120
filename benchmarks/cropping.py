"""Pictures cut around the cell against whole pictures: same network, same budget, same seeds.

Run: WBCCLF_DATA=... python benchmarks/cropping.py train RESULTS CACHE [--part 0/2]
then: python benchmarks/cropping.py table RESULTS

`simple_cnn` (or what is named) with the augmentation, rate and batches of `wbcclf train`, in
bfloat16. Five comparisons:

- official: blood-cells/TRAIN, scored on all of TEST; 96 pixels, the steps of `wbcclf train`, five
  seeds. TEST chose nothing: the way that is scored on it was chosen on the other three.
- pretrained: the same with EfficientNet-Lite0 from ImageNet, all blocks, 300 steps.
- TRAIN: 70% of the cells of blood-cells/TRAIN, scored on the others; 64 pixels, 1,500 steps.
- PBC: 6,000 pictures (seed 0), 70% to train on, byte-identical ones on one side; as TRAIN.
- BCISC: five folds, so that every picture is scored once; 64 pixels, 1,000 steps.

A line of RESULTS (JSON lines) is one training; what it holds already is not trained again, and
`--part 0/2` with `--part 1/2` share the work. CACHE, a folder, keeps the cut pictures.
"""

import argparse
import csv
import json
import time
from pathlib import Path

import numpy as np
from _data import DATA
from shell_defaults import bcisc, pbc
from sklearn.metrics import f1_score
from sklearn.model_selection import GroupShuffleSplit, StratifiedKFold

from wbcclf import Augmenter, CellCropper, CNNClassifier, ImageLoader, Optimizer
from wbcclf.cli import _defaults
from wbcclf.cli._defaults import default_steps

WAYS = {
    "whole": None,
    "nucleus": CellCropper("nucleus"),
    "nucleus, one light": CellCropper("nucleus", background="normalise"),
    "nucleus, cell alone": CellCropper("nucleus", background="remove"),
    "cell": CellCropper("cell"),
    "cell, one light": CellCropper("cell", background="normalise"),
    "cell alone": CellCropper("cell", background="remove"),
}
SCORED = ("whole", "cell, one light")


def official(root):
    """Return files of TRAIN and TEST, classes, cells, and (train, test) rows of one split."""
    with (root / "blood-cells" / "cells.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] in ("TRAIN", "TEST")]
    paths = np.array([str(root / "blood-cells" / row["path"]) for row in rows])
    target = np.array([row["class"].lower() for row in rows])
    cells = np.array([row["cell_id"] for row in rows])
    is_test = np.array([row["split"] == "TEST" for row in rows])
    return paths, target, cells, [(np.flatnonzero(~is_test), np.flatnonzero(is_test))]


def train_alone(root):
    """Return the same for a split of TRAIN by cell."""
    paths, target, cells, [(rows, _)] = official(root)
    paths, target, cells = paths[rows], target[rows], cells[rows]
    splitter = GroupShuffleSplit(1, test_size=0.3, random_state=0)
    return paths, target, cells, list(splitter.split(paths, target, cells))


def pbc_half(root):
    paths, target, cells = pbc(root)
    rows = np.sort(np.random.RandomState(0).permutation(len(paths))[:6000])
    splitter = GroupShuffleSplit(1, test_size=0.3, random_state=0)
    split = splitter.split(rows, target[rows], cells[rows])
    return paths[rows], target[rows], cells[rows], list(split)


def bcisc_folds(root):
    paths, target, cells = bcisc(root)
    folds = StratifiedKFold(5, shuffle=True, random_state=0).split(paths, target)
    return paths, target, cells, list(folds)


SCRATCH = {
    "backbone": "simple_cnn",
    "lr": _defaults.LR,
    "optimizer": Optimizer(weight_decay=_defaults.WEIGHT_DECAY),
}
PRETRAINED = {
    "backbone": "timm:tf_efficientnet_lite0",
    "weights": DATA.parent / "weights" / "tf_efficientnet_lite0.safetensors",
    "unfrozen_layers": "all",
    "lr": 1e-3,
}
# How it is split, pixels, network, steps (None: those of `wbcclf train`), ways, seeds.
SETS = {
    "official": (official, _defaults.IMAGE_SIZE, SCRATCH, None, SCORED, range(5)),
    "pretrained": (official, _defaults.IMAGE_SIZE, PRETRAINED, 300, SCORED, range(5)),
    "TRAIN": (train_alone, 64, SCRATCH, 1500, tuple(WAYS), range(1)),
    "PBC": (pbc_half, 64, SCRATCH, 1500, tuple(WAYS), range(1)),
    "BCISC": (bcisc_folds, 64, SCRATCH, 1000, SCORED, range(1)),
}


def one_training(cache, name, way, seed):
    """Train and score one way on one data set; return its figures."""
    split, size, network, steps, _, _ = SETS[name]
    paths, target, cells, splits = split(DATA)
    images = ImageLoader(size, crop=WAYS[way], memory=cache).transform(paths)
    scored, predicted, start = [], [], time.perf_counter()
    for train, test in splits:
        clf = CNNClassifier(
            **network,
            batch_size=_defaults.BATCH_SIZE,
            max_steps=steps or default_steps(len(train), _defaults.BATCH_SIZE, is_random=True),
            augment=Augmenter(),
            precision="bfloat16",
            random_state=seed,
        )
        predicted.append(clf.fit(images[train], target[train]).predict(images[test]))
        scored.append(test)
    rows, predicted = np.concatenate(scored), np.concatenate(predicted)
    right = predicted == target[rows]
    by_cell = [right[cells[rows] == cell].mean() for cell in np.unique(cells[rows])]
    return {
        "set": name,
        "way": way,
        "seed": seed,
        "n_test": len(rows),
        "n_cells": len(np.unique(cells[rows])),
        "accuracy": float(right.mean()),
        "accuracy_by_cell": float(np.mean(by_cell)),
        "macro_f1": float(f1_score(target[rows], predicted, average="macro")),
        "recall": {
            str(label): float(right[target[rows] == label].mean()) for label in np.unique(target)
        },
        "seconds": time.perf_counter() - start,
    }


def train(results, cache, part, sets):
    number, n_parts = map(int, part.split("/"))
    jobs = [(name, way, seed) for name in sets for seed in SETS[name][-1] for way in SETS[name][-2]]
    for job in jobs[number::n_parts]:
        lines = results.read_text().splitlines() if results.exists() else []
        done = [json.loads(line) for line in lines]
        if any((d["set"], d["way"], d["seed"]) == job for d in done):
            continue
        line = json.dumps(one_training(cache, *job))
        with results.open("a") as file:
            print(line, file=file)
        print(line, flush=True)


def spread(values):
    """Return mean ± standard deviation."""
    sd = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{sd}"


def table(results):
    done = [json.loads(line) for line in results.read_text().splitlines()]
    for name, (*_, ways, _) in SETS.items():
        rows = [d for d in done if d["set"] == name]
        if not rows:
            continue
        print(f"\n{name}: {rows[0]['n_test']} pictures of {rows[0]['n_cells']} cells\n")
        print("| pictures | seeds | accuracy | each seed | by cell | macro-F1 | recall |")
        print("|---|---|---|---|---|---|---|")
        for way in ways:
            found = sorted((d for d in rows if d["way"] == way), key=lambda d: d["seed"])
            if not found:
                continue
            scores = [d["accuracy"] for d in found]
            each = " ".join(f"{score:.3f}" for score in scores)
            f1 = np.mean([d["macro_f1"] for d in found])
            recall = ", ".join(
                f"{label} {np.mean([d['recall'][label] for d in found]):.2f}"
                for label in found[0]["recall"]
            )
            print(
                f"| {way} | {len(found)} | {spread(scores)} | {each} | "
                f"{spread([d['accuracy_by_cell'] for d in found])} | {f1:.3f} | {recall} |"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    training.add_argument("results", type=Path)
    training.add_argument("cache", type=Path)
    training.add_argument("--part", default="0/1")
    training.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    printing = commands.add_parser("table")
    printing.add_argument("results", type=Path)
    arguments = vars(parser.parse_args())
    {"train": train, "table": table}[arguments.pop("command")](**arguments)
