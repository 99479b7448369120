"""Augmenter against albumentations, torchvision and kornia: images a second, and memory.

Run: WBCCLF_DATA=... python benchmarks/augmenting.py

Every contestant flips, turns by up to 180 degrees, shifts, zooms and jitters colours, with
parameters of its own for each of 1,024 blood-cells TRAIN images at 128x128. kornia and our tensors
take batches of 64. Needs `pip install albumentations==2.0.8 kornia`; runs without them, too.
"""

import os
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _compare import table

from wbcclf import Augmenter, list_image_folder
from wbcclf.datasets import ImageLoader

N_IMAGES, BATCH = 1024, 64
NO_COLOURS = dict.fromkeys(["brightness", "contrast", "saturation", "hue"], 0)
LABORATORY = NO_COLOURS | {
    "laboratory": 1,
    "rotation": 0,
    "shift": 0,
    "zoom": 0,
    "horizontal_flip": False,
    "vertical_flip": False,
}


def cells():
    """Return images from all of TRAIN, evenly spaced, as a uint8 batch."""
    listing = list_image_folder(Path(os.environ["WBCCLF_DATA"], "blood-cells", "TRAIN"))
    rows = np.linspace(0, len(listing.paths) - 1, N_IMAGES).astype(int)
    return ImageLoader(128, n_jobs=1).transform(listing.paths[rows])


def channels_first(images):
    """Return a copy, made by NumPy: torch would start threads, before `peaks` forks."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def by_albumentations(images):
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it asks the network on import
    import albumentations as A
    import cv2

    change = A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            A.VerticalFlip(p=0.5),
            A.Affine(
                rotate=(-180, 180),
                translate_percent=(-0.05, 0.05),
                scale=(0.9, 1.1),
                border_mode=cv2.BORDER_REFLECT_101,
                p=1,
            ),
            A.ColorJitter((0.9, 1.1), (0.9, 1.1), (0.9, 1.1), (-0.01, 0.01), p=1),
        ]
    )
    return lambda: [change(image=image)["image"] for image in images]


def by_torchvision(images):
    from torchvision.transforms import InterpolationMode, v2

    change = v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.RandomAffine(
                180, (0.05, 0.05), (0.9, 1.1), interpolation=InterpolationMode.BILINEAR
            ),
            v2.ColorJitter(0.1, 0.1, 0.1, 0.01),
        ]
    )
    tensors = torch.from_numpy(channels_first(images))
    return lambda: [change(image) for image in tensors]


def by_kornia(images):
    import kornia.augmentation as K

    change = K.AugmentationSequential(
        K.RandomHorizontalFlip(),
        K.RandomVerticalFlip(),
        K.RandomAffine(180.0, (0.05, 0.05), (0.9, 1.1), padding_mode="reflection", p=1.0),
        K.ColorJitter(0.1, 0.1, 0.1, 0.01, p=1.0),
        data_keys=["input"],
    )
    floats = torch.from_numpy(channels_first(images) / np.float32(255))
    return lambda: [change(batch) for batch in floats.split(BATCH)]


def by_our_tensors(images, **params):
    batches = torch.from_numpy(images).split(BATCH)
    return lambda: [Augmenter(**params).augment(batch) for batch in batches]


def main():
    images = cells()
    contestants = {
        "wbcclf": partial(Augmenter().augment, images),
        "wbcclf, laboratory=1 and nothing else": partial(Augmenter(**LABORATORY).augment, images),
        "wbcclf, laboratory=1 in place of other colours": partial(
            Augmenter(laboratory=1, **NO_COLOURS).augment, images
        ),
        "wbcclf, laboratory=1 and all else": partial(Augmenter(laboratory=1).augment, images),
    }
    makers = {
        "albumentations, per image": by_albumentations,
        "torchvision v2, per image": by_torchvision,
        f"kornia, batches of {BATCH}": by_kornia,
        f"wbcclf, tensors on the CPU, batches of {BATCH}": by_our_tensors,
        "the same, laboratory=1 and nothing else": partial(by_our_tensors, **LABORATORY),
    }
    for name, make in makers.items():
        try:
            contestants[name] = make(images)
        except ModuleNotFoundError as error:
            print(f"{name}: left out, pip install {error.name} first")
    title = f"Augmenting, {images.shape} {images.dtype}, torch threads: {torch.get_num_threads()}"
    table(title, contestants, len(images))


if __name__ == "__main__":
    main()
