"""Measure training options one at a time against a base, on splits without shared cells.

Run: WBCCLF_DATA=... python benchmarks/training_options.py scratch|transfer [--repeats 3]

Two data sets. `blood-cells`: TRAIN alone, split by the cell that an image shows (cells.csv), so
that no cell is in both parts as far as that is known (3% are uncertain); few cells, many augmented
pictures of each. `pbc`: few images of many cells; byte-identical images on one side. The official
TEST is never looked at. Every option is trained on the same splits as the base, with the split's
number as its seed; the table gives the mean accuracy and macro-F1 on the held-out part, and the
mean difference in accuracy from the base with its standard error over the splits.
"""

import argparse
import csv
import hashlib
import os
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import f1_score
from sklearn.model_selection import GroupShuffleSplit

from wbcclf import (
    Augmenter,
    CNNClassifier,
    Cosine,
    CrossEntropy,
    GradualUnfreezing,
    Head,
    ImageLoader,
    Mixing,
    Optimizer,
    list_image_folder,
)

SIZE = 64


def images_of(paths, target):
    """Read the chosen files."""
    return ImageLoader(image_size=SIZE).fit(paths).transform(paths), target


def blood_cells(root, seed):
    """Return 2,000 training and 1,500 test images of TRAIN, of different cells."""
    with (root / "blood-cells" / "cells.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "TRAIN"]
    paths = np.array([str(root / "blood-cells" / row["path"]) for row in rows])
    target = np.array([path.split("/")[-2] for path in paths])
    cells = np.array([row["cell_id"] for row in rows])
    return split(paths, target, cells, 2000, 1500, seed)


def pbc(root, seed):
    """Return 1,000 training and 2,000 test images of PBC."""
    listing = list_image_folder(root / "pbc" / "train")
    cells = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in listing.paths]
    return split(listing.paths, listing.target, np.array(cells), 1000, 2000, seed)


def split(paths, target, cells, n_train, n_test, seed):
    splitter = GroupShuffleSplit(1, test_size=0.3, random_state=seed)
    train, test = next(splitter.split(paths, target, cells))
    random_state = np.random.RandomState(seed)
    parts = []
    for rows, n_samples in ((train, n_train), (test, n_test)):
        chosen = random_state.permutation(rows)[:n_samples]
        parts.append(images_of(paths[chosen], target[chosen]))
    return parts


SCRATCH_BASE = {
    "backbone": "simple_cnn",
    "max_epochs": 10,
    "lr": 3e-3,
    "lr_schedule": "onecycle",
    "optimizer": Optimizer(weight_decay=0.05),
    "augment": Augmenter(),
    "precision": "bfloat16",
}
SCRATCH = {
    "base: adamw, one-cycle to 3e-3, weight decay 0.05, dropout 0.2, augmenter": {},
    "constant lr 1e-3": {"lr_schedule": "constant", "lr": 1e-3},
    "constant lr 3e-3": {"lr_schedule": "constant"},
    "cosine with 1 warm-up epoch": {"lr_schedule": Cosine(warmup_epochs=1)},
    "one-cycle to 1e-3": {"lr": 1e-3},
    "one-cycle to 1e-2": {"lr": 1e-2},
    "weight decay 0": {"optimizer": "adamw"},
    "adam": {"optimizer": "adam"},
    "sgd, one-cycle to 0.05": {"optimizer": Optimizer("sgd", weight_decay=5e-4), "lr": 0.05},
    "rmsprop, one-cycle to 1e-3": {"optimizer": "rmsprop", "lr": 1e-3},
    "batch 64": {"batch_size": 64},
    "batch 16": {"batch_size": 16},
    "dropout 0": {"head": Head(dropout=0.0)},
    "dropout 0.5": {"head": Head(dropout=0.5)},
    "max pooling": {"head": Head("max")},
    "no augmentation": {"augment": None},
    "label smoothing 0.1": {"loss": CrossEntropy(label_smoothing=0.1)},
    "focal loss": {"loss": "focal"},
    "mixup 0.2": {"mixing": Mixing(mixup=0.2)},
    "cutmix 1": {"mixing": Mixing(cutmix=1.0)},
    "gradient norm 1": {"optimizer": Optimizer(weight_decay=0.05, max_grad_norm=1.0)},
    "average 0.99": {"averaging": 0.99},
    "balanced batches": {"balanced_batches": True},
    "eight views in prediction": {"test_time_augmentation": True},
}
TRANSFER_BASE = {
    "backbone": "squeezenet1_1",
    "unfrozen_layers": 1,
    "max_epochs": 10,
    "lr": 1e-3,
    "lr_schedule": "onecycle",
    "augment": Augmenter(),
    "precision": "bfloat16",
}
TRANSFER = {
    "base: adamw, one-cycle to 1e-3, 1 block unfrozen, average pooling, augmenter": {},
    "0 blocks": {"unfrozen_layers": 0},
    "0 blocks, 1e-2": {"unfrozen_layers": 0, "lr": 1e-2},
    "3 blocks": {"unfrozen_layers": 3},
    "all blocks": {"unfrozen_layers": "all"},
    "1 block, 1e-4": {"lr": 1e-4},
    "1 block, 3e-3": {"lr": 3e-3},
    "3 blocks, 1e-4": {"unfrozen_layers": 3, "lr": 1e-4},
    "all blocks, 1e-4": {"unfrozen_layers": "all", "lr": 1e-4},
    "all blocks, 3e-4": {"unfrozen_layers": "all", "lr": 3e-4},
    "all blocks, layer_lr_decay 0.7": {
        "unfrozen_layers": "all",
        "optimizer": Optimizer(layer_lr_decay=0.7),
    },
    "all blocks, gradual, 1 epoch a block": {"unfrozen_layers": GradualUnfreezing()},
    "all blocks, random weights": {"unfrozen_layers": "all", "weights": None},
    "constant lr": {"lr_schedule": "constant"},
    "max pooling": {"head": Head("max")},
    "flatten": {"head": Head("flatten")},
    "hidden 128": {"head": Head(hidden=(128,))},
    "no augmentation": {"augment": None},
    "weight decay 0.05": {"optimizer": Optimizer(weight_decay=0.05)},
}


def main(part, repeats):
    root = Path(os.environ["WBCCLF_DATA"])
    if part == "scratch":
        base, options = SCRATCH_BASE, SCRATCH
    else:
        weights = root.parent / "weights" / "squeezenet1_1_features.npz"
        base, options = TRANSFER_BASE | {"weights": weights}, TRANSFER
    for name, load in (("pbc", pbc), ("blood-cells", blood_cells)):
        splits = [load(root, seed) for seed in range(repeats)]
        (train, _), (test, _) = splits[0]
        print(
            f"\n{name}: {len(train)} images to train on, {len(test)} to test on, {SIZE}x{SIZE}, "
            f"{base['max_epochs']} epochs, {repeats} splits, {base['backbone']}, bfloat16, "
            f"{os.cpu_count()} CPU cores\n"
        )
        print("| option | accuracy | macro-F1 | difference | seconds |")
        print("|---|---|---|---|---|", flush=True)
        reference = None
        for text, change in options.items():
            start, scores = time.perf_counter(), []
            for seed, ((X, y), (X_test, y_test)) in enumerate(splits):
                clf = CNNClassifier(**(base | change), random_state=seed).fit(X, y)
                predicted = clf.predict(X_test)
                f1 = f1_score(y_test, predicted, average="macro")
                scores.append([np.mean(predicted == y_test), f1])
            scores = np.array(scores)
            reference = scores if reference is None else reference
            gain = scores[:, 0] - reference[:, 0]
            error = gain.std(ddof=1) / repeats**0.5 if repeats > 1 else np.nan
            accuracy, f1 = scores.mean(axis=0)
            seconds = (time.perf_counter() - start) / repeats
            print(
                f"| {text} | {accuracy:.3f} | {f1:.3f} | {gain.mean():+.3f} ± {error:.3f} | "
                f"{seconds:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=["scratch", "transfer"])
    parser.add_argument("--repeats", type=int, default=3)
    main(**vars(parser.parse_args()))
