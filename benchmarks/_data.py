"""Real images for the benchmarks, from the folder that WBCCLF_DATA names."""

import os
from pathlib import Path

import numpy as np

from wbcclf import ImageLoader, list_image_folder

DATA = Path(os.environ["WBCCLF_DATA"])
# Training images of PBC's eight classes, as unequal as those of the published nine-class system.
COUNTS = (150, 150, 20, 20, 20, 6, 6, 3)
N_TEST = 300  # other images of each class
SQUEEZENET = DATA.parent / "weights" / "squeezenet1_1_features.npz"


def blood_cells(n_images, size, seed=0):
    """Return images (n_images, size, size, 3) of blood-cells TRAIN, and their classes."""
    listing = list_image_folder(DATA / "blood-cells" / "TRAIN")
    rows = np.random.RandomState(seed).permutation(len(listing.paths))[:n_images]
    return ImageLoader(image_size=size).transform(listing.paths[rows]), listing.target[rows]


def unique_images(images, target):
    """Return the rows of images that no other row repeats, and the first of those of one class."""
    rows_of = {}
    for row, image in enumerate(images):
        rows_of.setdefault(image.tobytes(), []).append(row)
    return np.array([rows[0] for rows in rows_of.values() if len(set(target[rows])) == 1])


def draw_unequal(rows, target, random_state):
    """Return training rows (COUNTS, in an order of classes that is drawn) and test rows."""
    train, test = [], []
    for count, label in zip(COUNTS, random_state.permutation(np.unique(target)), strict=True):
        members = random_state.permutation(rows[target[rows] == label])
        train.append(members[:count])
        test.append(members[count : count + N_TEST])
    return np.concatenate(train), np.concatenate(test)
