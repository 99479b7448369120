"""A differential count from fields against the truth, by a classifier that never saw their cells.

Run: WBCCLF_DATA=... python benchmarks/counting.py

Fields are those of BCCD in which all white cells are of one type, so that the type of every box is
known (labels.csv of blood-cells; 280 fields, 283 cells). Five folds of fields, and fields that show
the same cell are in one fold: a small network is trained on the cells of four folds, cut out by
find_cells, and counts the fields of the fifth. Nothing was chosen by these figures.
"""

import csv
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from _data import DATA
from cells import white_cells
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
from wbcclf.inspection import evaluate_predictions

N_FOLDS = 5
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
    return np.array(files), np.array(labels), boxes, np.array(groups)


def train(files, labels, seed):
    """Return a model for fields, trained on the cells of these."""
    cropper = CellCropper()
    crops, target = [], []
    for file, label in zip(files, labels, strict=True):
        [picture] = ImageLoader().transform([file])
        cells = find_cells(picture)
        crops.append(cropper.set_params(image_size=64).crop_cells(picture, cells))
        target += [label] * len(cells)
    classifier = SimpleCNNClassifier(
        max_steps=600, augment=Augmenter(), class_weight="balanced", random_state=seed
    )
    classifier.fit(np.concatenate(crops), np.array(target))
    return make_pipeline(ImageLoader(64, crop=cropper), classifier)
