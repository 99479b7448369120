"""A model on slides of another laboratory, after it was adapted to a few of its cells.

Run: WBCCLF_DATA=... python benchmarks/adapting.py train FOLDER
then: python benchmarks/adapting.py curve FOLDER [--left-out NAME ...]
then: python benchmarks/adapting.py table FOLDER

One laboratory is left out at a time, as in other_laboratory.py, whose training this is:
`simple_cnn` at 64 pixels, cells cut around the nucleus in one light. So many labelled cells of each
class of that laboratory are drawn by a seed (at most half of a class); the others are scored. One
picture of each cell. Of PBC and Raabin, 600 cells are drawn once. `adapt` was developed on BCISC
and Raabin; PBC and BCCD were only scored.

A line of FOLDER/curve.jsonl is one adaptation; what it holds already is not done again. The rows:

- old: the model as it was trained.
- linear head: a logistic regression on the old network's features, its strength chosen by
  cross-validation: DeepFeatures with a linear head.
- head pulled to the old one: the same, but its weights are drawn to those of the old head.
- trained on: what `adapt` does with labels, without the comparison that may keep the old model.
- views: "trained on" with test_time_augmentation.
"""

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from other_laboratory import BATCH, NAMES, NUCLEUS, SIZE, STEPS, balanced, laboratory
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.model_selection import StratifiedKFold

from wbcclf import Augmenter, CNNClassifier, ImageLoader, Optimizer, load_model, save_model
from wbcclf.adapting import _adapted
from wbcclf.classifiers.options._settings import Settings
from wbcclf.classifiers.training._adapt import fine_tune
from wbcclf.cli import _defaults

SHOTS, SEEDS = (1, 5, 10, 20), 5
MOST_CELLS = 600
PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4)  # of the heads


def cuts(folder, name):
    """Return images, classes and cells of a laboratory; what was cut once is kept in the folder."""
    file = folder / f"{name}.npz"
    if not file.exists():
        paths, target, cells = laboratory(name)
        images = ImageLoader(112, crop=NUCLEUS).transform(paths)
        np.savez(file, images=images, target=target, cells=cells)
    kept = np.load(file)
    images = [
        cv2.resize(each, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for each in kept["images"]
    ]
    return np.stack(images), kept["target"], kept["cells"]


def train(folder, seed=0):
    for left_out in NAMES:
        file = folder / f"{left_out}.wbcclf"
        if file.exists():
            continue
        rng = np.random.RandomState(seed)
        images, target = [], []
        for name in NAMES:
            if name != left_out:
                own, labels, _ = cuts(folder, name)
                rows, labels = balanced(np.arange(len(own)), labels, rng)
                images.append(own[rows])
                target.append(labels)
        clf = CNNClassifier(
            _defaults.BACKBONE,
            lr=_defaults.LR,
            optimizer=Optimizer(weight_decay=_defaults.WEIGHT_DECAY),
            augment=Augmenter(),
            batch_size=BATCH,
            max_steps=STEPS,
            precision="bfloat16",
            random_state=seed,
        )
        save_model(clf.fit(np.concatenate(images), np.concatenate(target)), file)


def drawn(target, n_each, seed):
    """Return so many rows of each class, at most half of it."""
    rng = np.random.RandomState(seed)
    members = [np.flatnonzero(target == number) for number in np.unique(target)]
    return np.concatenate([rng.choice(m, min(n_each, len(m) // 2), replace=False) for m in members])


def macro_recall(target, predicted):
    return float(np.mean([(predicted == target)[target == k].mean() for k in np.unique(target)]))


def features(clf, images):
    network = clf.net_.module_.eval()
    with torch.inference_mode():
        parts = [
            network.head[0](network.backbone(network.preprocessing(torch.from_numpy(part))))
            for part in np.array_split(images, -(-len(images) // 256))
        ]
    return torch.cat(parts).numpy().astype(float)


def head(X, target, weight, bias, penalty):
    """Return the weights and bias of a logistic regression, which are drawn to those given."""
    n_classes, n_features = weight.shape
    counts = np.bincount(target, minlength=n_classes)
    share = 1 / counts[target] / (counts > 0).sum()
    truth = np.eye(n_classes)[target]

    def loss(flat):
        change = flat.reshape(n_classes, n_features + 1)
        log_p = log_softmax(X @ (weight + change[:, :-1]).T + bias + change[:, -1], axis=1)
        slope = share[:, None] * (np.exp(log_p) - truth)
        gradient = np.c_[slope.T @ X, slope.sum(axis=0)] + 2 * penalty * change
        value = -(share[:, None] * truth * log_p).sum() + penalty * (change**2).sum()
        return value, gradient.ravel()

    start = np.zeros(n_classes * (n_features + 1))
    change = minimize(loss, start, jac=True, method="L-BFGS-B").x.reshape(n_classes, -1)
    return weight + change[:, :-1], bias + change[:, -1]


def best_head(X, target, weight, bias):
    """Return a head with the penalty of the lowest loss on cells that were held out."""
    n_folds = min(5, np.bincount(target)[np.unique(target)].min())
    if n_folds < 2:
        return head(X, target, weight, bias, 1e-2)
    losses = []
    for penalty in PENALTIES:
        logits = np.empty((len(X), len(weight)))
        for rows, held in StratifiedKFold(n_folds, shuffle=True, random_state=0).split(X, target):
            new, offset = head(X[rows], target[rows], weight, bias, penalty)
            logits[held] = X[held] @ new.T + offset
        losses.append(-log_softmax(logits, axis=1)[np.arange(len(X)), target].mean())
    return head(X, target, weight, bias, PENALTIES[int(np.argmin(losses))])


def adaptations(clf, images, target, few, seed):
    """Yield a name and the class numbers that are predicted of all images."""
    yield "old", clf.predict_proba(images).argmax(axis=1)
    X, last = features(clf, images), clf.net_.module_.head[-1]
    weight, bias = (each.detach().numpy().astype(float) for each in (last.weight, last.bias))
    scale = np.sqrt(X[few].var(axis=0).sum())
    X, weight = X / scale, weight * scale
    for name, start in (("linear head", 0), ("head pulled to the old one", 1)):
        new, offset = best_head(X[few], target[few], start * weight, start * bias)
        yield name, (X @ new.T + offset).argmax(axis=1)
    net = fine_tune(clf.net_, Settings.of(clf), images[few], target[few], seed)
    adapted = _adapted(clf, net)
    yield "trained on", adapted.predict_proba(images).argmax(axis=1)
    adapted.test_time_augmentation = True
    yield "views", adapted.predict_proba(images).argmax(axis=1)


def curve(folder, left_out):
    results = folder / "curve.jsonl"
    for seed in range(SEEDS):
        for name in left_out:
            clf = load_model(folder / f"{name}.wbcclf")
            images, target, cells = cuts(folder, name)
            _, once = np.unique(cells, return_index=True)
            once = np.random.RandomState(1).permutation(once)[:MOST_CELLS]
            images, target = images[once], np.searchsorted(clf.classes_, target[once])
            for n_each in SHOTS:
                lines = results.read_text().splitlines() if results.exists() else []
                done = [(d["left out"], d["shots"], d["seed"]) for d in map(json.loads, lines)]
                if (name, n_each, seed) in done:
                    continue
                start = time.perf_counter()
                few = drawn(target, n_each, seed)
                rest = np.setdiff1d(np.arange(len(target)), few)
                recall = {
                    row: macro_recall(target[rest], predicted[rest])
                    for row, predicted in adaptations(clf, images, target, few, seed)
                }
                line = {"left out": name, "shots": n_each, "seed": seed, "recall": recall}
                line |= {"n_scored": len(rest), "seconds": time.perf_counter() - start}
                with results.open("a") as file:
                    print(json.dumps(line), file=file)
                print(json.dumps(line), flush=True)


def table(folder):
    done = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
    print(f"| labelled cells a class | row | {' | '.join(NAMES)} |")
    print("|---" * (len(NAMES) + 2) + "|")
    for n_each in SHOTS:
        for row in done[0]["recall"]:
            columns = []
            for name in NAMES:
                found = [
                    d["recall"][row] for d in done if (d["left out"], d["shots"]) == (name, n_each)
                ]
                text = f"{np.mean(found):.3f} ± {np.std(found):.3f}" if found else "-"
                columns.append(text)
            print(f"| {n_each} | {row} | {' | '.join(columns)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (train, curve, table):
        asked = commands.add_parser(command.__name__)
        asked.add_argument("folder", type=Path)
        asked.set_defaults(run=command)
        if command is curve:
            asked.add_argument("--left-out", nargs="+", choices=NAMES, default=NAMES)
    arguments = vars(parser.parse_args())
    arguments.pop("command")
    arguments.pop("run")(**arguments)
