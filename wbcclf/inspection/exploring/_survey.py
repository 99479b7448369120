"""One pass over many pictures: of each a few numbers, of each class sums; no picture is kept."""

from __future__ import annotations

from threading import Lock

import cv2
import numpy as np

from wbcclf._threads import run_blocks_in_threads
from wbcclf.cells._cells import cells_of
from wbcclf.cells._measures import measure
from wbcclf.cells._picture import Picture, choose
from wbcclf.datasets._decode import read_image
from wbcclf.exceptions import ImageReadError
from wbcclf.preprocessing._features import NAMES as FEATURES

SIDE = 64  # pixels of the mean pictures
N_LEVELS = 256
# What is looked at for outliers, with a standard deviation below which no difference is seen.
LOOKS = {"brightness": 2.0, "focus": 0.05, "stain depth": 0.03, "stain hue": 0.02}


class Survey:
    """Pictures of several classes, and what is kept of them.

    Attributes
    ----------
    reasons : list of str
        Why a file is not read, else empty.
    sizes : ndarray of shape (n_images, 2), int
        Height and width; 0 where a file is not read.
    features : ndarray of shape (n_images, 34), float32
        As of `CellFeatures`; NaN where no white cell is found.
    looks : ndarray of shape (n_images, 4), float32
        LOOKS: green light of the empty background (0 to 255); focus, the logarithm of how strong
        the finest details are, compared with all contrast; and of the nucleus, its density of green
        light, and its density of red light over that. NaN where a picture has none.
    counts : ndarray of shape (n_classes, 3, 256), int64
        Pixels of each level of red, green and blue.
    sums : ndarray of shape (n_classes, SIDE, SIDE, 3), int64
        Of the pictures, stretched to one size.
    n_read : ndarray of shape (n_classes,), int64
    """

    def __init__(
        self,
        paths: list[str] | None,
        arrays: list[np.ndarray] | None,
        target: np.ndarray,
        n_classes: int,
        n_jobs: int | None,
        verbose: int,
    ) -> None:
        self._paths, self._arrays, self._target = paths, arrays, target
        n_images = len(target)
        self.reasons = [""] * n_images
        self.sizes = np.zeros((n_images, 2), np.int64)
        self.features = np.full((n_images, len(FEATURES)), np.nan, np.float32)
        self.looks = np.full((n_images, len(LOOKS)), np.nan, np.float32)
        # Whole numbers, so that the order of the threads does not matter.
        self.counts = np.zeros((n_classes, 3, N_LEVELS), np.int64)
        self.sums = np.zeros((n_classes, SIDE, SIDE, 3), np.int64)
        self.n_read = np.zeros(n_classes, np.int64)
        self._lock = Lock()
        run_blocks_in_threads(self._look, n_images, n_jobs, verbose)

    def _look(self, indices: range) -> None:
        read = [(index, image) for index in indices if (image := self._open(index)) is not None]
        pictures = [Picture(image) for _, image in read]
        for (index, image), picture, cells in zip(read, pictures, cells_of(pictures), strict=True):
            self._add(self._target[index], image)
            self.sizes[index] = image.shape[:2]
            light = picture.light[1]
            found = measure(picture, choose(cells, picture.size, "centre"), cells) if cells else {}
            self.features[index] = [found.get(name, np.nan) for name in FEATURES]
            self.looks[index] = (
                light if light else np.nan,
                focus(image),
                found.get("nucleus green density (OD)", np.nan),
                found.get("nucleus red density (of nucleus green)", np.nan),
            )

    def _open(self, index: int) -> np.ndarray | None:
        if self._arrays is not None:
            image = self._arrays[index]
            return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))
        assert self._paths is not None
        try:
            return read_image(self._paths[index])[0]
        except ImageReadError as error:
            self.reasons[index] = str(error)
            return None

    def _add(self, label: int, image: np.ndarray) -> None:
        counts = [
            np.bincount(image[..., channel].ravel(), minlength=N_LEVELS) for channel in range(3)
        ]
        small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        with self._lock:
            self.counts[label] += counts
            self.sums[label] += small
            self.n_read[label] += 1


def focus(image: np.ndarray) -> float:
    """Return how strong the finest details of green light are, compared with all contrast.

    The logarithm of the standard deviations of the Laplacian (Pech-Pacheco et al. 2000,
    https://doi.org/10.1109/ICPR.2000.903548) and of the picture: NaN in one of a single colour.
    """
    green = image[..., 1].astype(np.float32)
    contrast = green.std()
    details = cv2.Laplacian(green, cv2.CV_32F).std()
    return float(np.log(details / contrast)) if details > 0 and contrast > 0 else np.nan


def robust_scores(values: np.ndarray, kinds: np.ndarray, least: float = 0.0) -> np.ndarray:
    """Return how many standard deviations values are from the median of their kind.

    The standard deviation is read from the median of the absolute deviations, over all kinds, so
    that outliers do not hide themselves; from their mean, where over half are none at all (Iglewicz
    and Hoaglin 1993). It is taken for `least` at least.
    """
    rest = np.full(values.shape, np.nan)
    for kind in np.unique(kinds):
        rows = kinds == kind
        if np.isfinite(values[rows]).any():
            rest[rows] = values[rows] - np.nanmedian(values[rows])
    apart = np.abs(rest[np.isfinite(rest)])
    if not apart.any():
        return 0 * rest  # NaN stays NaN
    spread = np.median(apart) / 0.6745 or apart.mean() * np.sqrt(np.pi / 2)
    return rest / max(spread, least)
