"""Make the model that comes with the package, and measure it.

Run: WBCCLF_DATA=... python benchmarks/pretrain.py train MODEL CACHE
then: python benchmarks/pretrain.py score MODEL CACHE
and: python benchmarks/pretrain.py start MODEL CACHE

`train` fits `compact_cnn`, from ImageNet's weights of EfficientNet-Lite0, to eight classes of three
laboratories whose pictures are openly licensed, and of drawn cells: four fifths of PBC, BCCD (the
photographs behind blood-cells/TRAIN, but none of a cell that TEST shows, too), and BCISC; a quarter
is drawn. It is trained in two cycles, each of which starts with a new head. A tenth of PBC, of
BCCD's cells and of BCISC's is not trained on: it tells how familiar pictures are, and which calls
are certain. It saves its state in CACHE after every epoch: killed, the same command goes on. It
writes the weights in half precision.

`score` classifies what it has never seen: the rest of PBC, the cells of TEST, and a fourth
laboratory, Raabin. `start` compares it as the start of other trainings with ImageNet's weights and
a random start: four classes (TRAIN, scored on TEST) and nine (421 pictures of PBC, as unequal as
the published ones, drawn from the fifth that was held back, and scored on the rest of it).
"""

import argparse
import csv
import json
import time
from itertools import product
from pathlib import Path

import numpy as np
from _data import DATA
from imblearn.pipeline import Pipeline
from other_laboratory import LITE0, NUCLEUS, bccd, figures, laboratory
from reproduce import COUNTS
from shell_defaults import pbc
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from wbcclf import (
    Augmenter,
    CNNClassifier,
    CrossEntropy,
    ImageLoader,
    Optimizer,
    adapt,
    list_image_folder,
    load_model,
    make_blood_cells,
    save_model,
)
from wbcclf._model_file import open_model_file, write_model_file
from wbcclf.classifiers.data._batches import ImageData
from wbcclf.classifiers.training._describing import describe_training

SIZE, SEEDS = 96, range(5)
CYCLES = ((6000, 1e-3), (3600, 5e-4))  # steps, and the highest learning rate
SHARES = {"PBC": 1 / 2, "BCCD": 1 / 4, "BCISC": 1 / 4}  # of the photographs
N_DRAWN = 6000  # cells; they are shown as often as makes a quarter of all pictures
OPTIONS = {
    "backbone": "compact_cnn",
    "optimizer": Optimizer(weight_decay=0.05),
    "loss": CrossEntropy(label_smoothing=0.05),
    "augment": Augmenter(laboratory=1, zoom=0.25),
    "averaging": 0.999,
    "batch_size": 32,
    "verbose": 1,
}


def split_pbc():
    """Return files and classes of PBC: trained on, validated on, and scored on.

    What is validated on tells how familiar pictures are and which calls are certain; no weight is
    chosen by it.
    """
    paths, target, cells = map(np.asarray, pbc(DATA))
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    train, held = next(folds.split(paths, target, cells))
    # Of pictures that are there twice, also under another class, the first counts.
    _, first = np.unique(cells[held], return_index=True)
    held = np.random.RandomState(0).permutation(held[np.sort(first)])
    parts = train, *np.array_split(held, 2)
    return [(paths[rows], target[rows]) for rows in parts]


def of_test():
    """Return the cells of blood-cells/TEST."""
    with (DATA / "blood-cells" / "cells.csv").open() as file:
        return {row["cell_id"] for row in csv.DictReader(file) if row["split"] != "TRAIN"}


def pictures(seed=0):
    """Return files and classes: trained on, and validated on.

    Trained on: laboratories in their shares, the classes of each equally frequent. Validated on:
    a tenth of the cells of each, one picture of a cell, as they are.
    """
    (paths, target), validated, _ = split_pbc()
    pools, held = {"PBC": (paths, target)}, [validated]
    rng = np.random.RandomState(seed)
    for name, columns in (("BCCD", bccd(copies=12)), ("BCISC", laboratory("BCISC"))):
        paths, target, cells = map(np.asarray, columns)
        rows = np.flatnonzero(~np.isin(cells, list(of_test())))
        names = np.unique(cells[rows])
        is_held = np.isin(cells, rng.choice(names, len(names) // 10, replace=False))
        _, once = np.unique(cells, return_index=True)
        once = np.intersect1d(once, np.intersect1d(rows, np.flatnonzero(is_held)))
        held.append((paths[once], target[once]))
        rows = rows[~is_held[rows]]
        pools[name] = paths[rows], target[rows]
    drawn = []
    for name, (paths, target) in pools.items():
        n_drawn = round(2 * len(pools["PBC"][0]) * SHARES[name])
        for label in np.unique(target):
            members = rng.permutation(np.flatnonzero(target == label))
            rows = np.resize(members, round(n_drawn / len(np.unique(target))))
            drawn.append((paths[rows], target[rows]))
    return [[*map(np.concatenate, zip(*parts, strict=True))] for parts in (drawn, held)]


def drawn_cells(n_pictures, cache):
    """Return pictures and classes of drawn cells of all classes, each as often as the others."""
    file = cache / "drawn.npz"
    if not file.exists():
        cells = make_blood_cells(N_DRAWN, classes=8, image_size=160, random_state=0)
        images = ImageLoader(SIZE, crop=NUCLEUS).transform(list(cells.images))
        np.savez(file, images=images, target=cells.target)
    with np.load(file) as kept:
        rows = np.resize(np.arange(N_DRAWN), n_pictures)
        return kept["images"][rows], kept["target"][rows]


def train(model, cache):
    (paths, target), (held, held_target) = pictures()
    loader = ImageLoader(SIZE, crop=NUCLEUS, memory=cache)
    start = time.perf_counter()
    photographs, held = loader.transform(paths), loader.transform(held)
    drawn, drawn_target = drawn_cells(len(paths) // 3, cache)
    images = np.concatenate([photographs, drawn])
    print(f"{len(images)} pictures, {time.perf_counter() - start:.0f} s", flush=True)
    weights = LITE0
    for cycle, (steps, lr) in enumerate(CYCLES, start=1):
        classifier = CNNClassifier(
            **OPTIONS,
            weights=weights,
            lr=lr,
            max_steps=steps,
            checkpoint_dir=cache / f"cycle{cycle}",
            random_state=0,
        )
        classifier.fit(
            images, np.concatenate([target, drawn_target]), X_val=held, y_val=held_target
        )
        weights = cache / f"cycle{cycle}.wbcclf"
        save_model(classifier, weights)
        print(f"cycle {cycle}: {time.perf_counter() - start:.0f} s, {classifier.history_[-1]}")
    # Drawn cells are of any laboratory: what is familiar is described by the photographs alone.
    described = tuple(
        ImageData(X, np.searchsorted(classifier.classes_, y))
        for X, y in ((photographs, target), (held, held_target))
    )
    _, once = np.unique(paths, return_index=True)
    once = np.sort(once)
    n_seen = 30 * len(once)  # as many as are described at most
    classifier._description = describe_training(classifier.net_, described, described, once, n_seen)
    # What a clone of it is trained with: not thousands of steps, and from these weights.
    classifier.set_params(
        max_steps=None,
        lr=3e-4,
        averaging=False,
        augment=Augmenter(),
        weights="blood-cells",
        verbose=0,
        test_time_augmentation=True,
    )
    save_model(
        Pipeline([("loader", ImageLoader(SIZE, crop=NUCLEUS)), ("classifier", classifier)]), model
    )
    halve(model)


def halve(path):
    """Write the weights of a model in half precision."""
    with open_model_file(path) as (document, arrays):
        halved = dict(arrays)
    for name, array in halved.items():
        # Not what BatchNorm and the description hold, which is little.
        if name.startswith("network/") and array.ndim > 1:
            halved[name] = array.astype(np.float16)
    write_model_file(path, document, halved)


def score(model, cache):
    loader, classifier = (step for _, step in load_model(model).steps)
    loader.set_params(memory=cache)
    *_, (paths, target) = split_pbc()
    bccd_paths, bccd_target, cells = map(np.asarray, bccd(copies=1))
    seen = np.isin(cells, list(of_test()))
    sets = {
        "PBC, eight classes": (paths, target),
        "BCCD, cells of TEST": (bccd_paths[seen], bccd_target[seen]),
        "Raabin, never trained on": laboratory("Raabin")[:2],
    }
    certainty, is_right = [], []
    for name, (paths, target) in sets.items():
        images = loader.transform(paths)
        found = print_score(name, classifier.set_params(rejection=0.05), images, target)
        certainty, is_right = np.append(certainty, found[0]), np.append(is_right, found[1])
        auroc = roc_auc_score(is_right, certainty)
        print(f"right and wrong told apart, up to here together: AUROC {auroc:.3f}", flush=True)
    classifier.set_params(rejection=None)
    print_score("Raabin, adapted without labels", adapt(classifier, images), images, target)
    for seed in SEEDS:
        random_state = np.random.RandomState(seed)
        members = [np.flatnonzero(target == label) for label in np.unique(target)]
        few = np.concatenate([random_state.choice(rows, 10, replace=False) for rows in members])
        rest = np.setdiff1d(np.arange(len(target)), few)
        adapted = adapt(classifier, images[few], target[few])
        name = f"Raabin, adapted to ten cells a class, seed {seed}"
        print_score(name, adapted, images[rest], target[rest])


def print_score(name, classifier, images, target):
    """Print figures; return how certain the model is of each cell, and where it is right."""
    prediction = classifier._predict(images, classifier.rejection)  # which warns of nothing
    called = prediction.labels(classifier.classes_) != "uncertain"
    is_right = classifier.classes_[prediction.probabilities.argmax(axis=1)] == target
    found = {
        "set": name,
        "familiarity": float(prediction.familiarity.mean()),
        "uncertain": float(1 - called.mean()),
        "wrong_of_called": float(1 - is_right[called].mean()),
    }
    found |= figures(target, prediction.probabilities, classifier.classes_, 0)
    print(json.dumps(found), flush=True)
    return prediction.certainty, is_right


def start(model, cache, results):
    """Compare starts of other trainings."""
    starts = {"blood-cells": model, "ImageNet": LITE0, "random": None}
    for (weights, file), task, seed in product(starts.items(), (four_classes, nine_classes), SEEDS):
        done = results.read_text().splitlines() if results.exists() else []
        key = {"task": task.__name__, "seed": seed, "weights": weights}
        if any(key.items() <= json.loads(line).items() for line in done):
            continue
        train, test = task(cache, seed)
        classifier = CNNClassifier(
            **OPTIONS | {"verbose": 0, "averaging": False, "augment": Augmenter()},
            weights=file,
            lr=3e-4 if weights == "blood-cells" else 1e-3,
            max_steps=300,
            random_state=seed,
        ).fit(*train)
        predicted = classifier.predict(test[0])
        line = key | {
            "accuracy": accuracy_score(test[1], predicted),
            "macro_f1": f1_score(test[1], predicted, average="macro"),
        }
        with results.open("a") as table:
            print(json.dumps(line), file=table)
        print(line, flush=True)


def four_classes(cache, seed):
    """Return the pictures and classes of blood-cells/TRAIN and TEST."""
    del seed  # the split is the published one
    loader = ImageLoader(SIZE, crop=NUCLEUS, memory=cache)
    sets = []
    for name in ("TRAIN", "TEST"):
        listing = list_image_folder(DATA / "blood-cells" / name)
        sets.append((loader.transform(listing.paths), listing.target))
    return sets


def nine_classes(cache, seed):
    """Return 421 pictures of PBC and their finer classes, and those of the rest that is held."""
    _, (validated, _), (scored, _) = split_pbc()
    paths = np.concatenate([validated, scored])
    prefix = np.array([Path(path).name.split("_")[0] for path in paths])
    random_state = np.random.RandomState(seed)
    train, test = [], []
    for label, count in COUNTS.items():
        rows = random_state.permutation(np.flatnonzero(prefix == label))
        train.append(rows[:count])
        test.append(rows[count : count + 100])
    images = ImageLoader(SIZE, crop=NUCLEUS, memory=cache).transform(paths)
    return [(images[rows], prefix[rows]) for rows in map(np.concatenate, (train, test))]


def print_starts(results):
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    print("| start | four classes, accuracy | nine classes, macro F1 |")
    print("|---|---|---|")
    for weights in ("blood-cells", "ImageNet", "random"):
        cells = []
        for task, figure in (("four_classes", "accuracy"), ("nine_classes", "macro_f1")):
            values = [d[figure] for d in lines if (d["task"], d["weights"]) == (task, weights)]
            cells.append(
                f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
            )
        print(f"| {weights} | {' | '.join(cells)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=["train", "score", "start"])
    parser.add_argument("model", type=Path)
    parser.add_argument("cache", type=Path, help="folder for cut pictures and states of training")
    arguments = parser.parse_args()
    if arguments.command == "train":
        train(arguments.model, arguments.cache)
    elif arguments.command == "score":
        score(arguments.model, arguments.cache)
    else:
        results = arguments.cache / "starts.jsonl"
        start(arguments.model, arguments.cache, results)
        print_starts(results)
