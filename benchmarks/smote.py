"""SMOTE of this package against imbalanced-learn's: time, memory, and what comes out.

Run: WBCCLF_DATA=... python benchmarks/smote.py [--large]

3,000 blood-cells TRAIN images at 128x128 (1,500, 1,000 and 500 of three classes) become 4,500. With
`--large`, 10,000 images of 256x256 become 14,000, by ours alone: imbalanced-learn would take about
35 GB.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
import torch  # noqa: F401 (its libraries are not to count as SMOTE's memory)
from _compare import peaks, table
from imblearn import over_sampling

from wbcclf import SMOTE, list_image_folder
from wbcclf.datasets import ImageLoader

TRAIN = Path(os.environ["WBCCLF_DATA"], "blood-cells", "TRAIN")


def cells(counts, image_size):
    """Return so many images of each of the first classes, and their labels."""
    listing = list_image_folder(TRAIN)
    names = listing.target_names[: len(counts)]
    rows = [np.flatnonzero(listing.target == name) for name in names]
    rows = np.concatenate([np.resize(r, n) for r, n in zip(rows, counts, strict=True)])
    return ImageLoader(image_size, n_jobs=1).transform(listing.paths[rows]), listing.target[rows]


def small():
    images, target = cells([1500, 1000, 500], 128)
    rows = images.reshape(len(images), -1)
    floats = rows.astype(np.float32)
    contestants = {
        "wbcclf, uint8": lambda: SMOTE(random_state=0).fit_resample(images, target),
        "imbalanced-learn, float32": lambda: over_sampling.SMOTE(random_state=0).fit_resample(
            rows.astype(np.float32), target
        ),
        "wbcclf, float32": lambda: SMOTE(random_state=0).fit_resample(floats, target),
        "imbalanced-learn, uint8 (wrong values)": lambda: over_sampling.SMOTE(
            random_state=0
        ).fit_resample(rows, target),
    }
    title = f"SMOTE, {images.shape} {images.dtype} ({images.nbytes / 1e6:.0f} MB) -> 4,500"
    table(title, contestants, 1500, unit="new images", rounds=3)
    theirs = over_sampling.SMOTE(random_state=0).fit_resample(floats, target)[0]
    ours = SMOTE(random_state=0).fit_resample(floats, target)[0]
    print(f"\nfloat32: equal bit for bit: {np.array_equal(ours, theirs)}")
    theirs = over_sampling.SMOTE(random_state=0).fit_resample(rows.astype(np.float64), target)[0]
    images_out = contestants["wbcclf, uint8"]()[0].reshape(len(theirs), -1)
    print(f"uint8: equal to theirs in float64, rounded: {np.array_equal(images_out, np.rint(theirs))}")


def large():
    images, target = cells([3000, 3000, 1500, 2500], 256)
    strategy = dict.fromkeys(np.unique(target), 3500)

    def ours():
        start = time.perf_counter()
        new = SMOTE(sampling_strategy=strategy, random_state=0).fit_resample(images, target)[0]
        print(f"{images.shape} -> {new.shape} in {time.perf_counter() - start:.1f} s")

    (peak, before) = peaks({"ours": ours})["ours"]
    print(f"peak {peak:,.0f} MB, of which {before:,.0f} MB were there before (input and libraries)")


if __name__ == "__main__":
    large() if "--large" in sys.argv else small()
