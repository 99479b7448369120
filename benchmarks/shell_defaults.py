"""Choose the defaults of `wbcclf train`: one option at a time, three data sets, equal compute.

Run: WBCCLF_DATA=... python benchmarks/shell_defaults.py train 3 RESULTS [--part 0/2] [--options ..]
then: python benchmarks/shell_defaults.py table RESULTS

Three data sets, each split once into 70% and 30% (seed 0): blood-cells/TRAIN by the cell that an
image shows, PBC with byte-identical images on one side (at most 3,000 of its test images), BCISC by
image. The official TEST of blood-cells is never looked at.

The budget is compute, so that other work on the machine changes nothing: so many minutes of
training on 2 quiet CPU cores, at the images per second below, as whole epochs. Each training is
`simple_cnn` with random_state 0 in bfloat16. A line of RESULTS (JSON lines) is one training; what
it holds already is not trained again, and `--part 0/2` with `--part 1/2` share the work.
"""

import argparse
import csv
import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import f1_score
from sklearn.model_selection import GroupShuffleSplit

from wbcclf import (
    Augmenter,
    CNNClassifier,
    CrossEntropy,
    Head,
    ImageLoader,
    Optimizer,
    list_image_folder,
)

# Measured alone on 2 cores with AVX-512 BF16, batches of 32, by size and whether augmented.
IMAGES_PER_SECOND = {
    (64, False): 1210,
    (64, True): 967,
    (96, False): 655,
    (96, True): 600,
}
BASE = {"image_size": 96, "lr": 3e-3, "optimizer": Optimizer(weight_decay=0.05)}
TURNS = Augmenter(
    rotation="quarter", shift=0, zoom=0, brightness=0, contrast=0, saturation=0, hue=0
)
# The first five settled the augmentation; the others are measured on top of the full one.
OPTIONS = {
    "full augmentation": {"augment": Augmenter()},
    "no augmentation": {"augment": None},
    "flips and quarter turns": {"augment": TURNS},
    "full, but quarter turns": {"augment": Augmenter(rotation="quarter")},
    "full, but no colours": {
        "augment": Augmenter(brightness=0, contrast=0, saturation=0, hue=0),
    },
    "label smoothing 0.1": {"augment": Augmenter(), "loss": CrossEntropy(label_smoothing=0.1)},
    "max pooling": {"augment": Augmenter(), "head": Head("max")},
    "64 px": {"augment": Augmenter(), "image_size": 64},
    "one-cycle to 1e-3": {"augment": Augmenter(), "lr": 1e-3},
}


def blood_cells(root):
    with (root / "blood-cells" / "cells.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "TRAIN"]
    paths = np.array([str(root / "blood-cells" / row["path"]) for row in rows])
    target = np.array([Path(path).parent.name.lower() for path in paths])
    return paths, target, np.array([row["cell_id"] for row in rows])


def pbc(root):
    listing = list_image_folder(root / "pbc" / "train")
    cells = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in listing.paths]
    return listing.paths, listing.target, np.array(cells)


def bcisc(root):
    paths = np.array(sorted(str(path) for path in (root / "bcisc" / "images").iterdir()))
    return paths, np.array([Path(path).name.split("_")[0] for path in paths]), paths


SETS = {"blood-cells": blood_cells, "PBC": pbc, "BCISC": bcisc}


def one_training(root, data_set, option, minutes):
    """Train one option on one data set; return its figures."""
    params = BASE | OPTIONS[option]
    size = params.pop("image_size")
    paths, target, cells = SETS[data_set](root)
    splitter = GroupShuffleSplit(1, test_size=0.3, random_state=0)
    train, test = next(splitter.split(paths, target, cells))
    test = np.random.RandomState(0).permutation(test)[:3000]
    rate = IMAGES_PER_SECOND[size, params["augment"] is not None]
    epochs = max(1, round(minutes * 60 * rate / len(train)))
    loader = ImageLoader(image_size=size)
    clf = CNNClassifier(
        "simple_cnn", max_epochs=epochs, precision="bfloat16", random_state=0, **params
    )
    start = time.perf_counter()
    clf.fit(loader.transform(paths[train]), target[train])
    predicted = clf.predict(loader.transform(paths[test]))
    return {
        "minutes": minutes,
        "option": option,
        "set": data_set,
        "epochs": epochs,
        "n_train": len(train),
        "n_test": len(test),
        "n_cells": len(np.unique(cells[test])),
        "accuracy": float(np.mean(predicted == target[test])),
        "macro_f1": float(f1_score(target[test], predicted, average="macro")),
        "train_loss": clf.history_[-1]["train_loss"],
        "seconds": time.perf_counter() - start,
    }


def train(minutes, results, part, options):
    number, n_parts = map(int, part.split("/"))
    root = Path(os.environ["WBCCLF_DATA"])
    jobs = [(option, name) for option in options or OPTIONS for name in SETS]
    for option, name in jobs[number::n_parts]:
        lines = results.read_text().splitlines() if results.exists() else []
        done = [json.loads(line) for line in lines]
        if any((d["minutes"], d["option"], d["set"]) == (minutes, option, name) for d in done):
            continue
        line = json.dumps(one_training(root, name, option, minutes))
        with results.open("a") as file:
            print(line, file=file)
        print(line, flush=True)


def table(results):
    done = [json.loads(line) for line in results.read_text().splitlines()]
    for minutes in sorted({d["minutes"] for d in done}):
        found = {(d["option"], d["set"]): d for d in done if d["minutes"] == minutes}
        sizes = {d["set"]: d for d in found.values()}
        heads = [
            f"{name} ({sizes[name]['n_train']}; {sizes[name]['n_test']} of "
            f"{sizes[name]['n_cells']} cells)"
            for name in SETS
            if name in sizes
        ]
        print(f"\n{minutes:g} minutes: accuracy, macro-F1 (images to train on; to test on)\n")
        print(f"| option | {' | '.join(heads)} | mean macro-F1 |")
        print("|---" * (len(heads) + 2) + "|")
        for option in OPTIONS:
            rows = [found.get((option, name)) for name in SETS]
            if not any(rows):
                continue
            cells = [f"{r['accuracy']:.3f}, {r['macro_f1']:.3f}" if r else "" for r in rows]
            mean = f"{np.mean([r['macro_f1'] for r in rows]):.3f}" if all(rows) else ""
            print(f"| {option} | {' | '.join(cells)} | {mean} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    training.add_argument("minutes", type=float)
    training.add_argument("results", type=Path)
    training.add_argument("--part", default="0/1")
    training.add_argument("--options", nargs="*", choices=list(OPTIONS))
    printing = commands.add_parser("table")
    printing.add_argument("results", type=Path)
    arguments = vars(parser.parse_args())
    {"train": train, "table": table}[arguments.pop("command")](**arguments)
