"""A differential count from fields against the truth, by a classifier that never saw their cells.

Run: WBCCLF_DATA=... python benchmarks/counting.py

Fields are those of BCCD in which all white cells are of one type, so that the type of every box is
known (labels.csv of blood-cells; 279 fields, 282 cells; the field of a single basophil is left
out). Five folds of fields; fields that show the same cell are in one fold. A small network is
trained on the cells of four folds, cut out by find_cells, and counts the fields of the fifth.
Nothing was chosen by these figures.
"""

import csv
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from _data import DATA
from cells import overlap, white_cells
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline

from wbcclf import (
    Augmenter,
    CellCropper,
    ImageLoader,
    SimpleCNNClassifier,
    count_cells,
    find_cells,
    save_model,
)
from wbcclf.fields._statistics import correct, wilson
from wbcclf.inspection import evaluate_predictions

N_FOLDS = 5
SIDE = 64  # of a cell that is cut out, in pixels
NEAR = 3  # pixels: a box that comes as near to the border was drawn as cut by it
SETS, FIELDS = 1000, 100  # sets of fields that limits of agreement are for, and fields in each


def read_table(name):
    with open(DATA / "blood-cells" / name, newline="") as file:
        return list(csv.DictReader(file))


def fields_of_one_type():
    """Return the files, the type and the boxes of every field, and which show the same cell."""
    types = {int(row["Image"]): row["Category"].split(",") for row in read_table("labels.csv")}
    same = {int(row["original_id"]): int(row["cell_id"]) for row in read_table("cells.csv")}
    files, labels, boxes, groups = [], [], [], []
    for path in sorted((DATA / "bccd" / "Annotations").iterdir()):
        number = int(path.stem[-5:])
        named = [name.strip().lower() for name in types.get(number, []) if name.strip()]
        truth = white_cells(path)
        if len(set(named)) == 1 and len(named) == len(truth):
            files.append(str(path.parent.parent / "JPEGImages" / f"{path.stem}.jpg"))
            labels.append(named[0])
            boxes.append(truth)
            groups.append(same.get(number, number))
    common = [number for number, label in enumerate(labels) if labels.count(label) >= N_FOLDS]
    boxes = [boxes[number] for number in common]
    return np.array(files)[common], np.array(labels)[common], boxes, np.array(groups)[common]


def cut_out(files):
    """Return the cells that are found in each field, cut out as the models cut them."""
    pictures = (ImageLoader().transform([file])[0] for file in files)
    return [CellCropper(image_size=SIDE).crop_cells(field, find_cells(field)) for field in pictures]


def cross_fit(files, labels, groups):
    """Return what was counted, fold by fold, by models that did not see the fields, and a model."""
    crops = cut_out(files)
    counts = []
    splitter = StratifiedGroupKFold(N_FOLDS, shuffle=True, random_state=0)
    for fold, (seen, unseen) in enumerate(splitter.split(files, labels, groups)):
        start = time.perf_counter()
        classifier = SimpleCNNClassifier(
            max_steps=300, augment=Augmenter(), class_weight="balanced", random_state=fold
        )
        target = np.repeat(labels[seen], [len(crops[k]) for k in seen])
        classifier.fit(np.concatenate([crops[k] for k in seen]), target)
        model = make_pipeline(ImageLoader(SIDE, crop=CellCropper()), classifier)
        counts.append(count_cells(model, files[unseen].tolist()))
        print(f"fold {fold}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return counts, model


def matches(found, truth):
    """Return which found boxes are a true cell each: an overlap (IoU) of one half."""
    left, hit = list(truth), []
    for box in found:
        overlaps = [overlap(box, other) for other in left]
        hit.append(bool(overlaps) and max(overlaps) >= 0.5)
        if hit[-1]:
            left.pop(int(np.argmax(overlaps)))
    return np.array(hit, bool)


def cells_of(counts, files, labels, boxes):
    """Return every found cell: its field and fold, status, label, probability and true type."""
    columns = defaultdict(list)
    place = {file: number for number, file in enumerate(files)}
    for fold, count in enumerate(counts):
        cells = count.cells
        sides = np.stack([cells[side] for side in ("min_row", "min_col", "max_row", "max_col")], 1)
        for file in count.fields:
            mine = cells["field"] == file
            is_cell = matches(sides[mine], boxes[place[file]])
            columns["truth"].append(np.where(is_cell, labels[place[file]], "none"))
            columns["fold"].append(np.full(mine.sum(), fold))
            columns["field"].append(np.full(mine.sum(), place[file]))
            columns["cut"].append((sides[mine] % (480, 640, 480, 640) == 0).any(axis=1))
            for name in ("status", "label", "probability"):
                columns[name].append(cells[name][mine])
    return {name: np.concatenate(values) for name, values in columns.items()}


def per_field(cells, labels, boxes, classes):
    """Return the true and the called cells (n_fields, n_classes) of each field."""
    true, called = np.zeros((2, len(labels), len(classes)), int)
    for number, (label, truth) in enumerate(zip(labels, boxes, strict=True)):
        # The border's rule holds for the true boxes as well.
        is_inside = (truth[:, 2:] < np.array([480, 640]) - NEAR).all(axis=1)
        true[number, classes.index(label)] = is_inside.sum()
    for number, status, label in zip(cells["field"], cells["status"], cells["label"], strict=True):
        if status == "called":
            called[number, classes.index(label)] += 1
    return true, called


def agreement(true, called, cells, classes):
    """Print the table of a laboratory beside the truth, and limits of agreement."""
    print(f"\nAll {len(true)} fields as one smear; limits for {SETS:,} sets of {FIELDS} of them\n")
    print(
        "| | true cells | called | uncertain | true % | called % | 95% interval | "
        "for all classes | bias, points | limits of agreement |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")

    def span(low, high):
        return f"{low:.1f} to {high:.1f}"

    n_true, n_called = true.sum(axis=0), called.sum(axis=0)
    single = 100 * wilson(n_called, n_called.sum())
    jointly = 100 * wilson(n_called, n_called.sum(), len(classes))
    rows = np.random.default_rng(0).integers(len(true), size=(SETS, FIELDS))
    drawn = [100 * n[rows].sum(axis=1) / n[rows].sum(axis=(1, 2))[:, None] for n in (called, true)]
    difference = drawn[0] - drawn[1]
    bias, half = difference.mean(axis=0), 1.96 * difference.std(axis=0)
    for k, name in enumerate(classes):
        uncertain = np.sum((cells["status"] == "uncertain") & (cells["truth"] == name))
        print(
            f"| {name} | {n_true[k]} | {n_called[k]} | {uncertain} | "
            f"{100 * n_true[k] / n_true.sum():.1f} | {100 * n_called[k] / n_called.sum():.1f} | "
            f"{span(*single[k])} | {span(*jointly[k])} | {bias[k]:+.1f} | "
            f"{span(bias[k] - half[k], bias[k] + half[k])} |"
        )
    print("\nCells in each field, called and true: bias and limits of agreement\n")
    for k, name in enumerate(classes):
        d = called[:, k] - true[:, k]
        low, high = d.mean() - 1.96 * d.std(), d.mean() + 1.96 * d.std()
        print(f"{name}: {d.mean():+.3f} ({low:+.2f} to {high:+.2f})")


def corrected(cells, true, folds, classes):
    """Print the per cent of one half of the folds, corrected by what the other half shows."""
    print("\nCorrected by the confusion matrix of the other half of the folds: per cent\n")
    print("| half | | true | predicted | corrected | 95% interval |")
    print("|---|---|---|---|---|---|")
    half = cells["fold"] % 2
    for part in (0, 1):
        mine = (half == part) & (cells["status"] != "border")
        other = (half != part) & (cells["truth"] != "none")
        confusion = evaluate_predictions(cells["truth"][other], cells["label"][other]).confusion
        counts = np.array([np.sum(cells["label"][mine] == name) for name in classes])
        shares, limits = correct(counts, confusion, 0)
        truth = true[folds % 2 == part].sum(axis=0)
        for k, name in enumerate(classes):
            print(
                f"| {part} | {name} | {100 * truth[k] / truth.sum():.1f} | "
                f"{100 * counts[k] / counts.sum():.1f} | {100 * shares[k]:.1f} | "
                f"{100 * limits[k, 0]:.1f} to {100 * limits[k, 1]:.1f} |"
            )


def certainty(cells, n_true):
    """Print what is found, and how often cells of each kind are right."""
    is_cell = cells["truth"] != "none"
    print(
        f"\nFound: {is_cell.sum()} of {n_true} true cells (boxes that overlap by half), and "
        f"{np.sum(~is_cell)} others\n"
    )
    right = cells["truth"] == cells["label"]
    for what, rows in (("whole", ~cells["cut"]), ("cut by the border", cells["cut"])):
        rows = rows & is_cell
        print(f"{what}: {rows.sum()} cells, {right[rows].mean():.3f} right")
    print("\n| min_probability | uncertain | right of those called |")
    print("|---|---|---|")
    for threshold in (0, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        sure = is_cell & (cells["probability"] >= threshold)
        share = np.sum(is_cell & ~sure) / is_cell.sum()
        print(f"| {threshold} | {100 * share:.1f}% | {right[sure].mean():.3f} ({sure.sum()}) |")


def speed(model, files):
    """Print fields a second, and the peak of memory by the number of fields."""
    print("\n`wbcclf count`, one process for each row\n")
    print("| fields | fields/s | peak MB |")
    print("|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, Path(folder, "model.wbcclf"))
        code = "from wbcclf.cli import main; main()"
        for n_fields in (16, len(files)):
            command = [sys.executable, "-c", code, "count", f"{folder}/model.wbcclf"]
            start = time.perf_counter()
            done = subprocess.Popen(
                [*command, *files[:n_fields], "-o", f"{folder}/count.csv"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            _, status, used = os.wait4(done.pid, 0)
            seconds = time.perf_counter() - start
            assert status == 0
            print(f"| {n_fields} | {n_fields / seconds:.1f} | {used.ru_maxrss / 1000:.0f} |")


if __name__ == "__main__":
    files, labels, boxes, groups = fields_of_one_type()
    print(f"{len(files)} fields, {sum(map(len, boxes))} cells: {dict(Counter(labels.tolist()))}")
    counts, model = cross_fit(files, labels, groups)
    cells = cells_of(counts, files, labels, boxes)
    classes = sorted(set(labels.tolist()))
    true, called = per_field(cells, labels, boxes, classes)
    folds = np.zeros(len(files), int)
    for fold, count in enumerate(counts):
        folds[np.isin(files, count.fields)] = fold
    agreement(true, called, cells, classes)
    corrected(cells, true, folds, classes)
    certainty(cells, sum(map(len, boxes)))
    speed(model, files.tolist())
