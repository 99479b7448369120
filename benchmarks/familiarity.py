"""What a model knows of not knowing: another laboratory, its own errors, and no cells at all.

Run: WBCCLF_DATA=... python benchmarks/familiarity.py train RESULTS CACHE [--models ...]
then: python benchmarks/familiarity.py table RESULTS

Laboratories are those of `other_laboratory.py`, cut around the cell in one light and their own
stain, 64 pixels. The cells of home are split by cell: 60% to train on, 15% to validate on, 25% to
test, each cell once where it is scored. `simple_cnn`, 1,000 steps of 32 in bfloat16, seed 0, 600
pictures of each class and laboratory, with replacement where there are fewer. Batches of 20 are
drawn 2,000 times.

The features, their number and the weight of strangeness in the certainty were chosen on models of
another split of the same cells (PBC, 8 classes; BCISC and Raabin; seed 0) and on all laboratories
elsewhere, so the AUROC may be flattered. The limit of the warning follows from its false alarms.

Non-cells are drawn: corners of PBC's pictures with nothing but red cells, lymphocytes of PBC
smeared out, windows of two photographs (a temple and a flower, of scikit-learn), and noise.
Platelets and, for the model of five classes, erythroblasts and immature granulocytes are PBC's.

A line of RESULTS (JSON lines) is one model. CACHE keeps the cuts and the trained models.
"""

import argparse
import json
import warnings
from pathlib import Path

import cv2
import numpy as np
from _data import DATA
from other_laboratory import CELL, CLASSES, SIZE, laboratory
from PIL import Image
from shell_defaults import pbc
from sklearn.datasets import load_sample_images
from sklearn.metrics import roc_auc_score

from wbcclf import (
    Augmenter,
    CellCropper,
    CNNClassifier,
    ImageLoader,
    Optimizer,
    load_model,
    save_model,
)
from wbcclf.cli import _defaults

STEPS, DRAWN, BATCH, N_DRAWS, REJECTION = 1000, 600, 20, 2000, 0.05
CROP = CellCropper(**CELL)  # as `wbcclf train --weights random` cuts
LABORATORIES = ("PBC", "BCCD", "BCISC", "Raabin")
USUAL = {"max_steps": STEPS, "augment": Augmenter()}
MODELS = {
    "PBC, 8 classes": {"home": ("PBC",), "all_classes": True},
    "PBC, 5 classes": {"home": ("PBC",)},
    "BCISC and Raabin": {"home": ("BCISC", "Raabin")},
    # The worst case for false alarms: little data learnt by heart, and nothing to compare with.
    "PBC, 40 of each class, no augmentation, no validation": {
        "home": ("PBC",),
        "drawn": 40,
        "validates": False,
        "params": {"max_epochs": 40},
    },
}


def cut(name, cache):
    """Return images, classes and cells of a laboratory, PBC's with all eight classes."""
    file = cache / f"{name}.npz"
    if not file.exists():
        paths, target, cells = map(np.asarray, pbc(DATA) if name == "PBC" else laboratory(name))
        images = ImageLoader(SIZE, crop=CROP).transform(paths)
        np.savez(file, images=images, target=target.astype(str), cells=cells)
    with np.load(file) as kept:
        return kept["images"], kept["target"], kept["cells"]


def once(cells, rows):
    """Return the first of the rows of each cell."""
    return rows[np.unique(cells[rows], return_index=True)[1]]


def parts_of(cells):
    """Return rows to train on, to validate on and to test on, by cell."""
    _, number = np.unique(cells, return_inverse=True)
    order = np.random.RandomState(0).permutation(number.max() + 1)
    part = np.searchsorted([0.6, 0.75], order[number] / len(order), side="right")
    train, valid, test = (np.flatnonzero(part == k) for k in range(3))
    return train, once(cells, valid), once(cells, test)


def corners(n_corners, rng):
    """Return the corners of PBC's pictures that have nothing dark in them, mirrored to full size.

    A third of the side, where there is no nucleus and no platelet: background and red cells.
    """
    paths, _, _ = pbc(DATA)
    found, darkest = [], []
    for path in rng.permutation(paths)[: 4 * n_corners]:
        picture = np.asarray(Image.open(path).convert("RGB"))
        height, width = picture.shape[:2]
        corner = picture[: height // 3, : width // 3]
        margins = (0, height - len(corner), 0, width - corner.shape[1])
        found.append(cv2.copyMakeBorder(corner, *margins, cv2.BORDER_REFLECT))
        darkest.append(np.quantile(corner[..., 1], 0.01))
    return np.stack(found)[np.argsort(darkest)[-n_corners:]]


def smeared(images, rng):
    """Return images warped and drawn out in one direction, as a smudged nucleus is."""
    side = images.shape[1]
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    result = []
    for image in images:
        shifts = [cv2.GaussianBlur(rng.randn(side, side), (0, 0), 6) * 50 for _ in range(2)]
        where = [
            (axis + s).astype(np.float32) for axis, s in zip((columns, rows), shifts, strict=True)
        ]
        warped = cv2.remap(image, *where, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        kernel = np.zeros((17, 17), np.float32)
        angle = rng.uniform(0, np.pi)
        for step in np.linspace(-7, 7, 60):
            kernel[round(8 + step * np.sin(angle)), round(8 + step * np.cos(angle))] = 1
        result.append(cv2.filter2D(warped, -1, kernel / kernel.sum()))
    return np.stack(result)


def windows_of_photographs(n_windows, rng):
    photographs = load_sample_images().images
    found = []
    for number in range(n_windows):
        picture = photographs[number % len(photographs)]
        side = rng.randint(100, 400)
        top, left = (rng.randint(length - side + 1) for length in picture.shape[:2])
        window = picture[top : top + side, left : left + side]
        found.append(cv2.resize(window, (160, 160), interpolation=cv2.INTER_AREA))
    return np.stack(found)


def no_cells(cache):
    """Return pictures of no cells by name, cut as cells are."""
    rng = np.random.RandomState(0)
    loader = ImageLoader(SIZE, crop=CROP)
    images, target, _ = cut("PBC", cache)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no white cell was found
        return {
            "red cells alone": loader.transform(list(corners(200, rng))),
            "smeared nuclei": smeared(rng.permutation(images[target == "lymphocyte"])[:200], rng),
            "photographs": loader.transform(list(windows_of_photographs(200, rng))),
            "noise": rng.randint(256, size=(200, SIZE, SIZE, 3)).astype(np.uint8),
        }


def alarms(familiarity, groups, rng):
    """Return the share of batches of BATCH with a warning, drawn from each group of rows."""
    from wbcclf._uncertainty import unfamiliar

    found = []
    for rows in groups:
        if len(rows) >= BATCH:
            batches = (rng.choice(rows, BATCH, replace=False) for _ in range(N_DRAWS))
            found.append(np.mean([unfamiliar(familiarity[batch]) is not None for batch in batches]))
    return found


def one_model(name, cache):
    options = {"all_classes": False, "drawn": DRAWN, "validates": True, "params": USUAL}
    options |= MODELS[name]
    data = {lab: cut(lab, cache) for lab in LABORATORIES}
    if not options["all_classes"]:
        for lab, columns in data.items():
            rows = np.isin(columns[1], CLASSES)
            data[lab] = tuple(column[rows] for column in columns)
    rng = np.random.RandomState(0)
    train, valid, test = [], [], []
    for lab in options["home"]:
        images, target, cells = data[lab]
        to_train, to_validate, to_test = parts_of(cells)
        for label in np.unique(target):
            rows = to_train[target[to_train] == label]
            rows = rng.choice(rows, options["drawn"], replace=len(rows) < options["drawn"])
            train.append((images[rows], target[rows]))
        valid.append((images[to_validate], target[to_validate]))
        test.append((images[to_test], target[to_test]))
    train, valid, test = (
        [np.concatenate(column) for column in zip(*p, strict=True)] for p in (train, valid, test)
    )
    file = cache / f"{name}.wbcclf"
    if not file.exists():
        clf = CNNClassifier(
            "simple_cnn",
            lr=_defaults.LR,
            optimizer=Optimizer(weight_decay=_defaults.WEIGHT_DECAY),
            precision="bfloat16",
            random_state=0,
            **options["params"],
        )
        given = {"X_val": valid[0], "y_val": valid[1]} if options["validates"] else {}
        save_model(clf.fit(*train, **given), file)
    clf = load_model(file)
    clf.rejection = REJECTION if options["validates"] else None

    def look(images, target=None):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            seen = clf._predict(images, clf.rejection)
        labels = clf.classes_[seen.probabilities.argmax(1)]
        return seen, labels, None if target is None else labels == target

    home, labels, home_right = look(*test)
    groups = [np.flatnonzero(test[1] == label) for label in clf.classes_]
    everything = [np.arange(len(test[1]))]
    result = {
        "model": name,
        "n_train": len({image.tobytes() for image in train[0]}),
        "n_valid": len(valid[0]) if options["validates"] else 0,
        "n_home": len(test[1]),
        "accuracy": home_right.mean(),
        "familiarity": home.familiarity.mean(),
        "false_alarms": alarms(home.familiarity, everything, rng)[0],
        "false_alarms_one_class": max(alarms(home.familiarity, groups, rng)),
        "home": calls(home, home_right),
        "auroc_home": auroc([home], [home_right]),
        "elsewhere": {},
        "no_cells": {},
    }
    pictures = no_cells(cache)
    images, target, cells = cut("PBC", cache)
    for label in np.setdiff1d(target, clf.classes_) if "PBC" in options["home"] else ["platelet"]:
        pictures[label] = images[rng.permutation(np.flatnonzero(target == label))[:200]]
    everywhere, all_right = [home], [home_right]
    for lab in LABORATORIES:
        if lab in options["home"]:
            continue
        images, target, cells = data[lab]
        rows = once(cells, np.arange(len(cells)))
        seen, _, right = look(images[rows], target[rows])
        groups = [np.flatnonzero(target[rows] == label) for label in np.unique(target)]
        result["elsewhere"][lab] = {
            "n": len(rows),
            "accuracy": right.mean(),
            "familiarity": seen.familiarity.mean(),
            "power": alarms(seen.familiarity, [np.arange(len(rows))], rng)[0],
            "power_one_class": min(alarms(seen.familiarity, groups, rng)),
            "calls": calls(seen, right),
            "auroc": auroc([home, seen], [home_right, right]),
        }
        everywhere.append(seen)
        all_right.append(right)
    result["auroc_all"] = auroc(everywhere, all_right)
    for kind, images in pictures.items():
        seen, labels, _ = look(images)
        names, counts = np.unique(labels, return_counts=True)
        result["no_cells"][kind] = {
            "n": len(images),
            "familiarity": seen.familiarity.mean(),
            "declined": seen.is_uncertain.mean(),
            "most": str(names[counts.argmax()]),
        }
    return result


def calls(seen, right):
    called = ~seen.is_uncertain
    return {
        "declined": 1 - called.mean(),
        "n_called": int(called.sum()),
        "wrong": float(1 - right[called].mean()) if called.any() else None,
    }


def auroc(seen, right):
    """Return how well right is told from wrong: by probability, familiarity, and certainty."""
    right = np.concatenate(right)
    scores = {
        "probability": np.concatenate([s.probabilities.max(1) for s in seen]),
        "familiarity": np.concatenate([s.familiarity for s in seen]),
        "certainty": np.concatenate([s.certainty for s in seen]),
    }
    return {name: float(roc_auc_score(right, score)) for name, score in scores.items()}


def train(results, cache, models):
    cache.mkdir(parents=True, exist_ok=True)
    for name in models:
        lines = results.read_text().splitlines() if results.exists() else []
        if name not in [json.loads(line)["model"] for line in lines]:
            line = json.dumps(one_model(name, cache), default=float)
            with results.open("a") as file:
                print(line, file=file)
            print(line, flush=True)


def table(results):
    done = [json.loads(line) for line in results.read_text().splitlines()]
    print("| model | cells | accuracy | familiarity | false alarms | the worst class alone |")
    print("|---|---|---|---|---|---|")
    for d in done:
        print(
            f"| {d['model']} | {d['n_home']} | {d['accuracy']:.3f} | {d['familiarity']:.2f} | "
            f"{d['false_alarms']:.2%} | {d['false_alarms_one_class']:.2%} |"
        )
    print(
        "\n| model | elsewhere | cells | accuracy | familiarity | power | the worst class alone |"
    )
    print("|---|---|---|---|---|---|---|")
    for d in done:
        for lab, e in d["elsewhere"].items():
            print(
                f"| {d['model']} | {lab} | {e['n']} | {e['accuracy']:.3f} | {e['familiarity']:.2f} "
                f"| {e['power']:.3f} | {e['power_one_class']:.3f} |"
            )
    print("\n| model | right or wrong, AUROC | probability | familiarity | certainty |")
    print("|---|---|---|---|---|")
    for d in done:
        rows = {"home": d["auroc_home"]}
        rows |= {f"home and {lab}": e["auroc"] for lab, e in d["elsewhere"].items()}
        for where, a in (rows | {"all": d["auroc_all"]}).items():
            columns = " | ".join(f"{value:.3f}" for value in a.values())
            print(f"| {d['model']} | {where} | {columns} |")
    print("\n| model | rejection 0.05 | declined | called | wrong of the called |")
    print("|---|---|---|---|---|")
    for d in done:
        rows = {"home": d["home"]} | {lab: e["calls"] for lab, e in d["elsewhere"].items()}
        for where, c in rows.items() if d["n_valid"] else ():
            wrong = "-" if c["wrong"] is None else f"{c['wrong']:.1%}"
            print(f"| {d['model']} | {where} | {c['declined']:.1%} | {c['n_called']} | {wrong} |")
    print("\n| model | no cells | pictures | familiarity | declined | most are called |")
    print("|---|---|---|---|---|---|")
    for d in done:
        for kind, e in d["no_cells"].items() if d["n_valid"] else ():
            print(
                f"| {d['model']} | {kind} | {e['n']} | {e['familiarity']:.3f} | "
                f"{e['declined']:.1%} | {e['most']} |"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    training.add_argument("results", type=Path)
    training.add_argument("cache", type=Path)
    training.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    printing = commands.add_parser("table")
    printing.add_argument("results", type=Path)
    arguments = vars(parser.parse_args())
    {"train": train, "table": table}[arguments.pop("command")](**arguments)
