"""Cost over the number of images: loading, augmenting, and SMOTE in its two parts.

Run: WBCCLF_DATA=... python benchmarks/scaling.py

Prints the median seconds of three rounds at n, 2n and 4n images of 128x128, and the growth from
step to step: 2 is linear, 4 is quadratic.
"""

import itertools
import os
from pathlib import Path
from unittest.mock import patch

import numpy as np
from _compare import times

from wbcclf import SMOTE, Augmenter, list_image_folder
from wbcclf.datasets import ImageLoader
from wbcclf.sampling import _neighbours

SIZES = (1000, 2000, 4000)


def contestants(images, paths):
    """Return what is measured on a batch and on its files."""
    n = len(images)
    rows = images.reshape(n, -1)
    target = np.repeat([0, 1], [n, n // 2])  # half as many of the second class: n / 2 to make
    batch = np.concatenate([images, images[: n // 2]])

    def without_search(X, n_neighbors, members):
        return np.roll(np.arange(len(members)), 1)[:, None]

    def smote_without_search():
        with patch.object(_neighbours, "nearest_neighbours", without_search):
            SMOTE(random_state=0).fit_resample(batch, target)

    return {
        "load": lambda: ImageLoader(128).transform(paths),
        "augment": lambda: Augmenter().augment(images, 0),
        "SMOTE, neighbours of a class": lambda: _neighbours.nearest_neighbours(rows, 5),
        "SMOTE, all else": smote_without_search,
    }


def main():
    listing = list_image_folder(Path(os.environ["WBCCLF_DATA"], "blood-cells", "TRAIN"))
    paths = listing.paths[: SIZES[-1]]
    images = ImageLoader(128).transform(paths)
    # One after the other, not in turn: memory that lay idle is slow to come back on some machines.
    seconds = {
        f"{name}|{n}": np.median(times({name: function}, rounds=3)[name])
        for n in SIZES
        for name, function in contestants(images[:n], paths[:n]).items()
    }
    print(f"blood-cells TRAIN at 128x128; {os.cpu_count()} CPU cores\n")
    print("| | " + " | ".join(f"{n:,} images" for n in SIZES) + " | growth |")
    print("|---|" + "---|" * (len(SIZES) + 1))
    for name in dict.fromkeys(key.split("|")[0] for key in seconds):
        spent = [seconds[f"{name}|{n}"] for n in SIZES]
        growth = ", ".join(f"{b / a:.2f}" for a, b in itertools.pairwise(spent))
        print(f"| {name} | " + " | ".join(f"{s:.2f} s" for s in spent) + f" | {growth} |")


if __name__ == "__main__":
    main()
