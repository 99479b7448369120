"""Changes of images, already drawn, and their arithmetic on the CPU.

Pixels stay floating from the first operation to the last, so that bytes are rounded once: results
of two implementations that are each within half a grey level before rounding differ by at most one
after it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import joblib
import numpy as np

BORDERS = {
    "reflect": cv2.BORDER_REFLECT_101,
    "nearest": cv2.BORDER_REPLICATE,
    "constant": cv2.BORDER_CONSTANT,
}
# Luma of ITU-R BT.601.
LUMA = np.array([0.299, 0.587, 0.114])
DARKEST = 1e-6  # share of light below which optical density is cut off
_BLOCK = 32  # images handed to a thread at a time: even if one is slow, the others stay busy


@dataclass(frozen=True)
class Changes:
    """What to do to each of n images, in this order; None leaves an operation out.

    Attributes
    ----------
    stains : ndarray of shape (n, 3, 4) or None
        Affine maps of optical density.
    colours : tuple of ndarrays of shapes (n, c, c) and (n,), or None
        Linear maps of the c channels, and the weight at which the mean grey is added.
    warps : ndarray of shape (n, 2, 3) or None
        Affine maps from output to input pixels (x, y).
    fill : {"reflect", "nearest", "constant"}
    """

    stains: np.ndarray | None
    colours: tuple[np.ndarray, np.ndarray] | None
    warps: np.ndarray | None
    fill: str


def light_scale(limits: tuple[float, float]) -> tuple[float, float]:
    """Return (dark, width) such that ``(pixel - dark) / width`` is the share of light let through.

    Black has no finite optical density: one grey level of light is let through.
    """
    low, high = limits
    floor = (high - low) / 255 or 1.0
    return low - floor, high - low + floor


def apply(changes, images, sources, limits, out) -> None:
    """Write ``images[sources[i]]`` after the i-th change to ``out[i]``, for every i.

    Parameters
    ----------
    changes : Changes
    images : ndarray of shape (n_images, height, width, channels)
    sources : ndarray of shape (n,), int
    limits : (float, float)
        Smallest and largest value a pixel may take.
    out : ndarray of shape (n, height, width, channels)
        Of the dtype of `images`.
    """
    out = np.asarray(out)  # OpenCV writes into plain arrays

    def run(start):
        for i in range(start, min(start + _BLOCK, len(out))):
            _apply_one(changes, i, images[sources[i]], limits, out[i])

    # OpenCV releases the interpreter lock, so threads use all cores without copying images.
    starts = range(0, len(out), _BLOCK)
    with ThreadPoolExecutor(max(1, min(joblib.cpu_count(), len(starts)))) as pool:
        list(pool.map(run, starts))


def _apply_one(changes, i, image, limits, out):
    if image.dtype == np.uint8:
        image = image.astype(np.float32)
    elif image.dtype not in (np.float32, np.float64):
        image = image.astype(np.float64)
    if changes.stains is not None:
        image = _stain(image, changes.stains[i], limits)
    if changes.colours is not None:
        image = _colour(image, changes.colours[0][i], changes.colours[1][i], limits)
    if changes.warps is not None:
        image = _warp(image, changes.warps[i], BORDERS[changes.fill])
    if out.dtype == np.uint8:
        # Pixels are within 0-255 here, give or take a rounding; this rounds half to even.
        cv2.convertScaleAbs(image, dst=out)
    else:
        image = image.reshape(out.shape)
        out[...] = np.rint(image) if out.dtype.kind in "iu" else image


def _stain(image, matrix, limits):
    dark, width = map(np.float32, light_scale(limits))
    light = (image.astype(np.float32) - dark) / width
    density = cv2.transform(-cv2.log(np.maximum(light, np.float32(DARKEST))), matrix)
    return (cv2.exp(-density) * width + dark).astype(image.dtype).clip(*limits)


def _colour(image, linear, grey_weight, limits):
    mean = np.array(cv2.mean(image)[: len(linear)])
    mean_grey = LUMA @ mean if len(linear) == 3 else mean[0]
    affine = np.empty((len(linear), len(linear) + 1))
    affine[:, :-1] = linear
    affine[:, -1] = grey_weight * mean_grey
    image = cv2.transform(image, affine)
    return np.clip(image, *limits, out=image)


def _warp(image, matrix, border):
    if image.dtype == np.float64 and (matrix != np.rint(matrix)).any():
        # OpenCV rounds positions in float64 images to 1/32 pixel, up to 8 grey levels of noise; in
        # float32 ones it does not. Scaled, because float64 holds more than float32.
        scale = np.abs(image).max() or 1.0
        return _warp((image / scale).astype(np.float32), matrix, border) * scale
    return cv2.warpAffine(
        image,
        matrix,
        image.shape[1::-1],
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=border,
    )
