"""What a random split hides: the same network on random and on grouped splits, side by side.

Run: WBCCLF_DATA=... python benchmarks/leakage.py [--epochs N] [SEED ...]

blood-cells/TRAIN holds some 40 altered copies of each photograph. A fifth of it is kept for a test:
of the pictures at random, as many publications do, or of the cells. On the rest `simple_cnn` is
trained at 64 pixels, without weights. Each network is scored on its own fifth, and on the official
TEST, of other cells. Pictures whose cell is uncertain in cells.csv are left out, and so are cells
of TEST that TRAIN shows. Five minutes of one core a seed.
"""

import argparse
import csv
import os
import time

import numpy as np
from _data import DATA
from image_groups import SAME
from sklearn.model_selection import train_test_split

from wbcclf import CNNClassifier, ImageLoader
from wbcclf.model_selection import group_bootstrap, train_test_split_cells

SIZE = 64
TEST_SIZE = 0.2


def pictures(split):
    """Return the certain pictures of TRAIN or TEST, their classes and cells."""
    with (DATA / "blood-cells" / "cells.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    rows = [row for row in rows if float(row["margin"]) >= 0.1]
    images = ImageLoader(SIZE).transform([DATA / "blood-cells" / row["path"] for row in rows])
    cells = np.array([SAME.get(row["cell_id"], row["cell_id"]) for row in rows])
    return images, np.array([row["class"] for row in rows]), cells


def splits(target, cells, seed):
    """Return training and test rows of a random split and of one by cell."""
    rows = np.arange(len(target))
    return {
        "random": train_test_split(rows, test_size=TEST_SIZE, stratify=target, random_state=seed),
        "by cell": train_test_split_cells(target, cells, test_size=TEST_SIZE, random_state=seed),
    }


def accuracy_text(y_true, y_pred, groups):
    found = group_bootstrap("accuracy", y_true, y_pred, groups)
    return f"{found.value:.3f} ({found.low:.2f} to {found.high:.2f})"


def main(seeds, epochs):
    images, target, cells = pictures("TRAIN")
    unseen, unseen_target, unseen_cells = pictures("TEST")
    is_new = ~np.isin(unseen_cells, cells)
    unseen, unseen_target, unseen_cells = (
        unseen[is_new],
        unseen_target[is_new],
        unseen_cells[is_new],
    )
    print(f"TRAIN: {len(target)} pictures of {len(set(cells))} cells; {epochs} epochs at {SIZE}px")
    print(f"TEST: {len(unseen)} pictures of {len(set(unseen_cells))} cells that TRAIN lacks")
    print(
        "| seed | split | cells trained on, of those tested on | own test, interval by picture | "
        "own test, interval by cell | official TEST, interval by cell | s |"
    )
    print("|---|---|---|---|---|---|---|")
    scores = {}
    for seed in seeds:
        for name, (train, test) in splits(target, cells, seed).items():
            start = time.perf_counter()
            network = CNNClassifier(
                "simple_cnn", weights=None, max_epochs=epochs, random_state=seed
            ).fit(images[train], target[train])
            own, official = network.predict(images[test]), network.predict(unseen)
            seconds = time.perf_counter() - start
            tested = set(cells[test])
            print(
                f"| {seed} | {name} | {len(tested & set(cells[train]))} of {len(tested)} | "
                f"{accuracy_text(target[test], own, np.arange(len(test)))} | "
                f"{accuracy_text(target[test], own, cells[test])} | "
                f"{accuracy_text(unseen_target, official, unseen_cells)} | {seconds:.0f} |",
                flush=True,
            )
            means = np.mean(target[test] == own), np.mean(unseen_target == official)
            scores.setdefault(name, []).append(means)
    for name, found in scores.items():
        own, official = (
            f"{np.mean(each):.3f} ({min(each):.3f} to {max(each):.3f})"
            for each in zip(*found, strict=True)
        )
        print(f"{name}, mean (range) of {len(found)} seeds: own test {own}, official {official}")
    print(f"{os.cpu_count()} CPU cores")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("seeds", nargs="*", type=int, default=[0, 1])
    parser.add_argument("--epochs", type=int, default=8)
    arguments = parser.parse_args()
    main(arguments.seeds, arguments.epochs)
