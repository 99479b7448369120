"""SMOTE of this package against imbalanced-learn's: time, memory, and what comes out.

Run: WBCCLF_DATA=... python benchmarks/smote.py [--large]

3,000 blood-cells TRAIN images at 128x128 (1,500, 1,000 and 500 of three classes) become 4,500. With
`--large`, 10,000 images of 256x256 become 14,000, by ours alone: imbalanced-learn would take about
35 GB.
"""

import os
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch  # noqa: F401 (its libraries are not to count as SMOTE's memory)
from _compare import peaks, table
from imblearn import combine, over_sampling, under_sampling
from sklearn.base import clone

from wbcclf import SMOTE, ImageSampler, list_image_folder
from wbcclf.datasets import ImageLoader

TRAIN = Path(os.environ["WBCCLF_DATA"], "blood-cells", "TRAIN")


def cells(counts, image_size):
    """Return so many images of each of the first classes, and their labels."""
    listing = list_image_folder(TRAIN)
    names = listing.target_names[: len(counts)]
    rows = [np.flatnonzero(listing.target == name) for name in names]
    rows = np.concatenate([np.resize(r, n) for r, n in zip(rows, counts, strict=True)])
    return ImageLoader(image_size, n_jobs=1).transform(listing.paths[rows]), listing.target[rows]


def over(sampler, X, y):
    """Return the rows of a fresh clone's output; rows are given and returned as floats or bytes."""
    return clone(sampler).fit_resample(X, y)[0].reshape(-1, np.prod(X.shape[1:]))


def small():
    images, target = cells([1500, 1000, 500], 128)
    rows = images.reshape(len(images), -1)
    floats = rows.astype(np.float32)
    ours, theirs = SMOTE(random_state=0), over_sampling.SMOTE(random_state=0)
    contestants = {
        "wbcclf, uint8": partial(over, ours, images, target),
        "imbalanced-learn, float32": lambda: over(theirs, rows.astype(np.float32), target),
        "wbcclf, float32": partial(over, ours, floats, target),
        "imbalanced-learn, uint8 (wrong values)": partial(over, theirs, rows, target),
    }
    tables = siblings()
    memory = peaks(contestants)
    memory_of_siblings = [peaks(pair) for _, pair in tables]
    title = f"SMOTE, {images.shape} {images.dtype} ({images.nbytes / 1e6:.0f} MB) -> 4,500"
    table(title, contestants, 1500, "new images", 3, memory)
    same = np.array_equal(over(ours, floats, target), over(theirs, floats, target))
    print(f"\nfloat32: equal bit for bit: {same}")
    rounded = np.rint(over(theirs, rows.astype(np.float64), target))
    same = np.array_equal(over(ours, images, target), rounded)
    print(f"uint8: equal to theirs in float64, rounded: {same}")
    for (title, pair), memory in zip(tables, memory_of_siblings, strict=True):
        table(title, pair, 1000, rounds=3, memory=memory)
        mine, other = (function() for function in pair.values())
        print(f"\nequal to theirs in float32, rounded: {np.array_equal(mine, np.rint(other))}")


def siblings():
    """Return (title, contestants) for the samplers that ImageSampler adapts."""
    images, target = cells([500, 300, 200], 64)
    rows = images.reshape(len(images), -1)
    samplers = {
        "RandomOverSampler": over_sampling.RandomOverSampler(random_state=0),
        "RandomUnderSampler": under_sampling.RandomUnderSampler(random_state=0),
        "BorderlineSMOTE": over_sampling.BorderlineSMOTE(random_state=0),
        "ADASYN": over_sampling.ADASYN(random_state=0),
        "SMOTETomek": combine.SMOTETomek(random_state=0),
    }
    return [
        (
            f"{name}, {images.shape} {images.dtype}",
            {
                f"ImageSampler({name}), uint8": partial(
                    over, ImageSampler(sampler), images, target
                ),
                f"{name}, float32": lambda s=sampler: over(s, rows.astype(np.float32), target),
            },
        )
        for name, sampler in samplers.items()
    ]


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
