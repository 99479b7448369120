r"""A model on slides of another laboratory, after it was adapted to some of its cells.

Run: WBCCLF_DATA=... python benchmarks/other_laboratory.py train RESULTS CACHE --rows \
         "compact_cnn, from ImageNet"
then: WBCCLF_DATA=... python benchmarks/adapting.py curve CURVE CACHE [--left-out NAME ...]
then: python benchmarks/adapting.py table CURVE

The networks are those of the first command, one for each laboratory that is left out. So many
labelled cells of each class of that laboratory are drawn by a seed (at most half of a class); the
others are scored. One picture of each cell; of PBC and Raabin, 600 cells are drawn once. `adapt`
was developed on BCISC and Raabin; PBC and BCCD were only scored.

A line of CURVE (JSON lines) is one draw; what it holds already is not done again. The rows:

- old: the model as it was trained.
- without labels: `adapt` with all pictures, those that are scored included.
- linear head: a logistic regression on the old network's features.
- trained on: what `adapt` does with labels, without the comparison that may keep the old model.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from other_laboratory import COMPACT, NAMES, laboratory
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from wbcclf import DeepFeatures, ImageLoader, adapt, load_model
from wbcclf.classifiers.options._settings import Settings
from wbcclf.classifiers.training._adapt import fine_tune

SHOTS, SEEDS = (0, 1, 5, 10, 20), 5
MOST_CELLS = 600


def cells_of(name, cache):
    """Return images and classes of a laboratory, one image of each cell."""
    paths, target, cells = laboratory(name)
    _, once = np.unique(cells, return_index=True)
    once = np.random.RandomState(1).permutation(once)[:MOST_CELLS]
    loader = ImageLoader(COMPACT["size"], crop=COMPACT["crop"], memory=cache)
    return loader.transform(paths[once]), target[once]


def drawn(target, n_each, seed):
    """Return so many rows of each class, at most half of it."""
    rng = np.random.RandomState(seed)
    members = [np.flatnonzero(target == label) for label in np.unique(target)]
    return np.concatenate([rng.choice(m, min(n_each, len(m) // 2), replace=False) for m in members])


def adaptations(clf, features, images, target, few, seed):
    """Yield a name and the classes that are predicted of all images."""
    if len(few) == 0:
        yield "old", clf.predict(images)
        yield "without labels", adapt(clf, images).predict(images)
        return
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced"))
    yield "linear head", head.fit(features[few], target[few]).predict(features)
    numbers = np.searchsorted(clf.classes_, target[few])
    clf.net_ = fine_tune(clf.net_, Settings.of(clf), images[few], numbers, seed)
    yield "trained on", clf.predict(images)


def curve(results, cache, left_out):
    for name in left_out:
        images, target = cells_of(name, cache)
        model = cache / f"{name}.wbcclf"
        features = DeepFeatures(COMPACT["backbone"], weights=model).fit_transform(images)
        for seed in range(SEEDS):
            for n_each in SHOTS if seed == 0 else SHOTS[1:]:
                lines = results.read_text().splitlines() if results.exists() else []
                done = [(d["left out"], d["shots"], d["seed"]) for d in map(json.loads, lines)]
                if (name, n_each, seed) in done:
                    continue
                start = time.perf_counter()
                few = drawn(target, n_each, seed)
                rest = np.setdiff1d(np.arange(len(target)), few)
                clf = load_model(model)
                present = np.unique(target[rest])  # not what is predicted alone, either
                recall = {
                    row: recall_score(
                        target[rest], predicted[rest], labels=present, average="macro"
                    )
                    for row, predicted in adaptations(clf, features, images, target, few, seed)
                }
                line = {"left out": name, "shots": n_each, "seed": seed, "recall": recall}
                line |= {"n_scored": len(rest), "seconds": time.perf_counter() - start}
                with results.open("a") as file:
                    print(json.dumps(line), file=file)
                print(json.dumps(line), flush=True)


def table(results):
    done = [json.loads(line) for line in results.read_text().splitlines()]
    print(f"| labelled cells a class | row | {' | '.join(NAMES)} |")
    print("|---" * (len(NAMES) + 2) + "|")
    for n_each in SHOTS:
        of_shots = [d for d in done if d["shots"] == n_each]
        for row in of_shots[0]["recall"]:
            columns = []
            for name in NAMES:
                found = [d["recall"][row] for d in of_shots if d["left out"] == name]
                spread = f" ± {np.std(found):.3f}" if len(found) > 1 else ""
                columns.append(f"{np.mean(found):.3f}{spread}" if found else "-")
            print(f"| {n_each} | {row} | {' | '.join(columns)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    drawing = commands.add_parser("curve")
    drawing.add_argument("results", type=Path)
    drawing.add_argument("cache", type=Path)
    drawing.add_argument("--left-out", nargs="+", choices=NAMES, default=NAMES)
    printing = commands.add_parser("table")
    printing.add_argument("results", type=Path)
    arguments = vars(parser.parse_args())
    {"curve": curve, "table": table}[arguments.pop("command")](**arguments)
