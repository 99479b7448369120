"""Loading image files: this package against torchvision's ImageFolder, Pillow and OpenCV.

Run: WBCCLF_DATA=... python benchmarks/loading.py

1. 2,000 JPEG files of 320x240 (blood-cells TRAIN) to 128x128, each file from disk, in turn.
2. The same with `memory=`: a second run against the first way.
3. JPEG files of 360x363 (PBC, original size) to 64x64, where the JPEG decoder's own scaling
   pays, against OpenCV's full decoding; and how far the images are apart.
"""

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torchvision
from _compare import peaks, table
from PIL import Image

from wbcclf import list_image_folder
from wbcclf.datasets import ImageLoader

DATA = Path(os.environ["WBCCLF_DATA"])


def image_folder(paths, side):
    """Return what torchvision's ImageFolder with Resize gives, as one array."""
    data = torchvision.datasets.ImageFolder(
        DATA / "blood-cells" / "TRAIN", torchvision.transforms.Resize((side, side))
    )
    chosen = set(paths)
    data.samples = [sample for sample in data.samples if sample[0] in chosen]
    return np.stack([np.asarray(image) for image, _ in data])


def with_pillow(path, side):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))


def with_opencv(path, side):
    image = cv2.resize(cv2.imread(path), (side, side), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def in_threads(read, paths, side):
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.stack(list(pool.map(partial(read, side=side), paths)))


def some(folder, n_images):
    paths = list_image_folder(folder).paths
    return np.sort(np.random.RandomState(0).permutation(paths)[:n_images]).tolist()


def main(cache):
    cells = some(DATA / "blood-cells" / "TRAIN", 2000)
    large = some(DATA / "pbc" / "original-size", 400)  # there are 120
    ours = partial(ImageLoader(128).transform, cells)
    first = {
        "wbcclf": ours,
        "torchvision ImageFolder + Resize": partial(image_folder, cells, 128),
        "Pillow, threads": partial(in_threads, with_pillow, cells, 128),
        "OpenCV, threads": partial(in_threads, with_opencv, cells, 128),
    }
    second = {
        "wbcclf, second run with memory=": partial(ImageLoader(128, memory=cache).transform, cells),
        "wbcclf": ours,
    }
    third = {
        "wbcclf": partial(ImageLoader(64).transform, large),
        "OpenCV, threads": partial(in_threads, with_opencv, large, 64),
    }
    second["wbcclf"]()
    memory = [peaks(each) for each in (first, second, third)]
    table("2,000 JPEG, 320x240 -> 128x128", first, len(cells), memory=memory[0])
    table("The same again", second, len(cells), memory=memory[1])
    table(f"{len(large)} JPEG, 360x363 -> 64x64", third, len(large), memory=memory[2])
    apart = np.abs(third["wbcclf"]().astype(int) - third["OpenCV, threads"]())
    print(f"\ngrey levels between the two: {apart.mean():.2f} on average, {apart.max()} at most")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(folder)
