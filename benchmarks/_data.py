"""Real images for the benchmarks, from the folder that WBCCLF_DATA names."""

import os
from pathlib import Path

import numpy as np

from wbcclf import ImageLoader, list_image_folder

DATA = Path(os.environ["WBCCLF_DATA"])
SQUEEZENET = DATA.parent / "weights" / "squeezenet1_1_features.npz"


def blood_cells(n_images, size, seed=0):
    """Return images (n_images, size, size, 3) of blood-cells TRAIN, and their classes."""
    listing = list_image_folder(DATA / "blood-cells" / "TRAIN")
    rows = np.random.RandomState(seed).permutation(len(listing.paths))[:n_images]
    return ImageLoader(image_size=size).transform(listing.paths[rows]), listing.target[rows]
