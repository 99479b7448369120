"""Run recipes on the shared data: published figure, published split, honest split, side by side.

Run: WBCCLF_DATA=... python benchmarks/reproduce.py RECIPE [RECIPE ...] [--image-size 64] ...

Prints a line of a markdown table for each recipe. "Published split" repeats how the system's test
images were chosen, "honest split" keeps images of one cell on one side, as far as that is known:

- A: nine classes from PBC's file prefixes (ERB in place of blasts), with the published numbers
  of training images; byte-identical images are left out. One training, two tests. Published: 107
  images in the proportions of the training images. Honest: other images, up to 100 of each class.
- B: PBC, 64/16/20. Published: at random. Honest: byte-identical images on one side. Nothing
  stricter can be shown: PBC does not say which images come from one patient.
- C: blood-cells, TRAIN and TEST pooled, 80/10/10. Published: at random, so that every test image
  has siblings in training. Honest: all images of a cell on one side.
- D: blood-cells, TRAIN against TEST. Published: as it is, a random fifth of TRAIN validates.
  Honest: TEST without the cells that TRAIN shows; validation on cells of its own.
- E: BCISC's eosinophils, lymphocytes, monocytes and neutrophils, whose background the recipe
  removes; 10 test and about 10 validation images of each class. Published: at random, and the
  validation images are the test images. Honest: file names `eosi_3-1_0` hold a number from 1 to
  10 (3), which every class has; two numbers are the test, two others validate.

Cells of C and D whose number is uncertain (`margin` under 0.1) have no part in the honest split.
`--fraction` takes that share of the images of B, C and D at random; A and E are small.
"""

import argparse
import csv
import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

import wbcclf
from wbcclf import ImageLoader, list_image_folder
from wbcclf.recipes import get_recipe, list_recipes, make_recipe

COUNTS = {
    "BNE": 21,
    "BA": 6,
    "ERB": 3,
    "EO": 20,
    "LY": 152,
    "MMY": 20,
    "MO": 24,
    "MY": 7,
    "SNE": 168,
}


@dataclass
class Split:
    """Rows to train on, to validate on (None: the recipe splits some off) and to test on."""

    train: np.ndarray
    validation: np.ndarray | None
    test: np.ndarray


def load(paths, size):
    return ImageLoader(image_size=size).transform(paths)


def pbc(root):
    """Return path, class and content of every image of PBC."""
    listing = list_image_folder(root / "pbc" / "train")
    digests = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in listing.paths]
    return listing.paths, listing.target, np.array(digests)


def hold_out(rows, target, groups, n_splits, seed):
    """Split rows into all but one fold and one fold, by group."""
    splitter = StratifiedGroupKFold(n_splits, shuffle=True, random_state=seed)
    rest, held = next(splitter.split(rows, target[rows], groups[rows]))
    return rows[rest], rows[held]


def nine_classes(root, size, fraction, seed):
    paths, _, digests = pbc(root)
    first = np.sort(np.unique(digests, return_index=True)[1])
    prefix = np.array([Path(path).name.split("_")[0] for path in paths])
    random_state = np.random.RandomState(seed)
    train, few, many = [], [], []
    for label, count in COUNTS.items():
        rows = random_state.permutation(first[prefix[first] == label])
        n_few = max(1, round(count * 107 / sum(COUNTS.values())))
        train.append(rows[:count])
        few.append(rows[count : count + n_few])
        many.append(rows[count + n_few : count + n_few + 100])
    train, few, many = map(np.concatenate, (train, few, many))
    used = np.concatenate([train, few, many])
    images, rows = load(paths[used], size), np.arange(len(used))
    train, few, many = np.split(rows, [len(train), len(train) + len(few)])
    return images, prefix[used], Split(train, None, few), Split(train, None, many)


def eight_classes(root, size, fraction, seed):
    paths, target, digests = pbc(root)
    rows = np.random.RandomState(seed).permutation(len(paths))[: round(fraction * len(paths))]
    paths, target, digests = paths[rows], target[rows], digests[rows]
    rows = np.arange(len(rows))
    train, test = train_test_split(rows, test_size=0.2, stratify=target, random_state=seed)
    published = Split(train, None, test)
    rest, test = hold_out(rows, target, digests, 5, seed)
    train, validation = hold_out(rest, target, digests, 5, seed)
    return load(paths, size), target, published, Split(train, validation, test)


def blood_cells(root, size, fraction, seed):
    """Return images, class, cell (empty if uncertain) and set of blood-cells."""
    with (root / "blood-cells" / "cells.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] in ("TRAIN", "TEST")]
    order = np.random.RandomState(seed).permutation(len(rows))[: round(fraction * len(rows))]
    rows = [rows[number] for number in order]
    cells = [row["cell_id"] if float(row["margin"]) >= 0.1 else "" for row in rows]
    images = load([root / "blood-cells" / row["path"] for row in rows], size)
    target, sets = ([row[column] for row in rows] for column in ("class", "split"))
    return images, np.array(target), np.array(cells), np.array(sets)


def pooled(root, size, fraction, seed):
    images, target, cells, _ = blood_cells(root, size, fraction, seed)
    rows = np.arange(len(target))
    train, test = train_test_split(rows, test_size=0.1, stratify=target, random_state=seed)
    rest, held = hold_out(rows[cells != ""], target, cells, 10, seed)
    honest_train, validation = hold_out(rest, target, cells, 9, seed)
    return images, target, Split(train, None, test), Split(honest_train, validation, held)


def official(root, size, fraction, seed):
    images, target, cells, sets = blood_cells(root, size, fraction, seed)
    published = Split(np.flatnonzero(sets == "TRAIN"), None, np.flatnonzero(sets == "TEST"))
    certain = np.flatnonzero((sets == "TRAIN") & (cells != ""))
    train, validation = hold_out(certain, target, cells, 5, seed)
    unseen = ~np.isin(cells, cells[sets == "TRAIN"])  # uncertain cells are in TRAIN, too
    return (
        images,
        target,
        published,
        Split(train, validation, np.flatnonzero((sets == "TEST") & unseen)),
    )


def four_classes(root, size, fraction, seed):
    paths = sorted(root.glob("bcisc/images/*"))
    paths = [path for path in paths if not path.name.startswith("baso")]
    images = load(paths, size)
    target, numbers = np.array([path.stem.split("-")[0].split("_") for path in paths]).T
    rows = np.arange(len(paths))
    held = np.random.RandomState(seed).permutation(np.unique(numbers))[:4]
    test, validation = np.isin(numbers, held[:2]), np.isin(numbers, held[2:])
    honest = Split(rows[~test & ~validation], rows[validation], rows[test])
    # As many images in each part, so that the figures differ by the split alone.
    train, others = train_test_split(
        rows, train_size=len(honest.train), stratify=target, random_state=seed
    )
    test = train_test_split(
        others, train_size=len(honest.test), stratify=target[others], random_state=seed
    )[0]
    return images, target, Split(train, test, test), honest


SYSTEMS = {"A": nine_classes, "B": eight_classes, "C": pooled, "D": official, "E": four_classes}


def run(name, args, seed):
    """Return accuracy on the published split, accuracy and macro-F1 on the honest one, images."""
    data = Path(os.environ["WBCCLF_DATA"])
    system = SYSTEMS[get_recipe(name).system[0]]
    images, target, *splits = system(data, args.image_size, args.fraction, seed)
    given = {"max_epochs": args.epochs, "precision": args.precision}
    if make_recipe(name)[-1].weights is not None:  # not the ones from scratch
        given["weights"] = args.weights
    overrides = {f"clf__{key}": value for key, value in given.items() if value is not None}
    accuracies, trained_on = [], None
    for split in splits:
        if split.train is not trained_on:
            trained_on, fit_params = split.train, {}
            pipeline = make_recipe(
                name, random_state=seed, clf__input_size=args.image_size, **overrides
            )
            if split.validation is not None:
                validation = images[split.validation]
                if "background" in pipeline.named_steps:
                    validation = pipeline["background"].fit_transform(validation)
                fit_params = {"clf__X_val": validation, "clf__y_val": target[split.validation]}
            pipeline.fit(images[split.train], target[split.train], **fit_params)
        predicted = pipeline.predict(images[split.test])
        accuracies.append(accuracy_score(target[split.test], predicted))
    macro_f1 = f1_score(target[split.test], predicted, average="macro")
    clf = pipeline[-1]
    what = (
        f"{len(split.train)} + {len(split.test)}, {args.image_size}x{args.image_size}, "
        f"{clf.n_iter_} of {clf.max_epochs}"
    )
    return [*accuracies, macro_f1], what


def main(args):
    print(
        "| recipe | published | published split | honest split | macro-F1, honest | training + "
        "test images, size, epochs (honest) | minutes |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in args.recipes:
        start, figures = time.perf_counter(), []
        for seed in range(args.seed, args.seed + args.repeats):
            row, what = run(name, args, seed)
            figures.append(row)
        means, deviations = np.mean(figures, axis=0), np.std(figures, axis=0)
        texts = [f"{mean:.3f}" for mean in means]
        if args.repeats > 1:
            texts = [f"{text} ± {sd:.3f}" for text, sd in zip(texts, deviations, strict=True)]
        print(
            f"| `{name}` | {get_recipe(name).published} | {' | '.join(texts)} | {what} | "
            f"{(time.perf_counter() - start) / 60:.1f} |",
            flush=True,
        )
    print(
        f"\nwbcclf {wbcclf.__version__}, {os.cpu_count()} CPU cores, seed {args.seed}, "
        f"{args.repeats} split(s), fraction {args.fraction:g}, {args.precision}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recipes", nargs="+", metavar="RECIPE", choices=list_recipes())
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--fraction", type=float, default=1.0, help="of the images of B, C and D")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=1, help="splits, with seeds one by one")
    parser.add_argument("--weights", help="file with ImageNet weights of the recipe's network")
    parser.add_argument("--precision", default="float32", help="or bfloat16, which is faster")
    given = parser.parse_args()
    if not 0 < given.fraction <= 1 or given.repeats < 1:
        parser.error("--fraction must be above 0, up to 1; --repeats at least 1.")
    if "WBCCLF_DATA" not in os.environ:
        parser.error("the environment variable WBCCLF_DATA must name the folder of the data sets.")
    main(given)
