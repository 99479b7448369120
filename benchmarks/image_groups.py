"""Which pictures show the same cell: precision and recall of pairs, and time.

Run: WBCCLF_DATA=... python benchmarks/image_groups.py train|changed|pbc|growth [--pictures N]

`train`: all of blood-cells/TRAIN, classes mixed, labels not used. Truth is cells.csv, without the
files whose margin is under 0.1. In twelve places two photographs overlap, most of one cell, and the
file has two cells (SAME, found by this function, and each looked at): figures are printed with the
file as it is, and with these joined. `changed`: the same with every picture also recoloured,
re-exposed, resized to 70 to 130% and saved as JPEG of quality 60. `pbc`: all of PBC, where hardly
any picture should be linked; links are listed. `growth`: the time for 1, 2, 4, 8 and 16 thousand
pictures of PBC and blood-cells. All times are of the CPU.
"""

import argparse
import csv
import io
import time
from collections import Counter

import cv2
import numpy as np
from _data import DATA
from PIL import Image
from shell_defaults import pbc

from wbcclf.model_selection import find_image_groups

# Nine cells have two numbers in cells.csv, and in three places two cells lie in overlapping fields.
SAME = {
    **{"206": "278", "225": "262", "228": "259", "232": "255", "233": "254", "244": "247"},
    **{"205": "276", "381": "397", "384": "393", "19": "20", "40": "41", "107": "108"},
}


def blood_cells(n_pictures=None):
    """Return files, cells, and which of these are certain."""
    with (DATA / "blood-cells" / "cells.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "TRAIN"]
    order = np.random.RandomState(0).permutation(len(rows))[:n_pictures]
    rows = [rows[k] for k in order]
    paths = [str(DATA / "blood-cells" / row["path"]) for row in rows]
    certain = np.array([float(row["margin"]) >= 0.1 for row in rows])
    return paths, np.array([row["cell_id"] for row in rows]), certain


def change(path, rng):
    """Return a picture in other colours and light, of another size, saved once more."""
    image = cv2.imread(path)[..., ::-1].astype(float)
    image = image * rng.uniform(0.7, 1.1) * rng.uniform(0.85, 1.15, 3)
    image = 255 * (image.clip(0, 255) / 255) ** rng.uniform(0.8, 1.25)
    factor = rng.uniform(0.7, 1.3)
    image = cv2.resize(
        image.astype(np.uint8), None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA
    )
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file))


def pairs(labels):
    counts = Counter(labels)
    return sum(n * (n - 1) // 2 for n in counts.values())


def print_pairs(truth, groups):
    joined = np.array([SAME.get(cell, cell) for cell in truth])
    for name, cells in (("cells.csv", truth), ("twelve pairs joined", joined)):
        right = pairs(zip(cells.tolist(), groups.tolist(), strict=True))
        print(
            f"{name}: precision {right / pairs(groups.tolist()):.5f}, "
            f"recall {right / pairs(cells.tolist()):.4f}, "
            f"{len(set(groups.tolist()))} groups of {len(set(cells.tolist()))} cells",
            flush=True,
        )


def train(n_pictures, is_changed=False):
    paths, cells, certain = blood_cells(n_pictures)
    images = paths
    if is_changed:
        rng = np.random.RandomState(0)
        images = [change(path, rng) for path in paths]
    found, seconds = timed(images)
    print(f"{len(paths)} pictures, {len(found.links)} links, {seconds:.0f} s")
    print_pairs(cells[certain], found.groups[certain])
    for group in np.unique(found.groups[certain]):
        counts = Counter(cells[certain & (found.groups == group)].tolist())
        if len(counts) > 1:
            print("in one group:", ", ".join(f"{n} of cell {cell}" for cell, n in counts.items()))


def timed(images):
    """Return what is found, and the CPU time: other work on the machine adds nothing to it."""
    start = time.process_time()
    found = find_image_groups(images)
    return found, time.process_time() - start


def all_of_pbc(n_pictures):
    paths, _, cells = map(np.asarray, pbc(DATA))
    rows = np.random.RandomState(0).permutation(len(paths))[:n_pictures]
    paths, cells = paths[rows], cells[rows]
    found, seconds = timed(paths)
    print(f"{len(paths)} pictures, {len(found.links)} links, {seconds:.0f} s")
    same = cells[found.links[:, 0]] == cells[found.links[:, 1]]
    print(f"byte for byte the same: {(found.agreeing < 0).sum()} of {len(cells) - len(set(cells))}")
    for k in np.flatnonzero((found.agreeing >= 0) | ~same):
        one, other = (path.split("/")[-1] for path in paths[found.links[k]])
        print(f"{one} {other}: {found.agreeing[k]} points, certainty {found.certainty[k]:.4f}")


def growth():
    paths = [*blood_cells()[0], *pbc(DATA)[0]]
    order = np.random.RandomState(0).permutation(len(paths))
    for thousands in (1, 2, 4, 8, 16):
        _, seconds = timed([paths[k] for k in order[: 1000 * thousands]])
        print(f"{thousands},000 pictures: {seconds:.0f} s, {seconds / thousands:.1f} s a thousand")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=["train", "changed", "pbc", "growth"])
    parser.add_argument("--pictures", type=int, help="so many at random")
    arguments = parser.parse_args()
    n = arguments.pictures
    {
        "train": lambda: train(n),
        "changed": lambda: train(n, is_changed=True),
        "pbc": lambda: all_of_pbc(n),
        "growth": growth,
    }[arguments.command]()
