"""Changes of images, already drawn, and their arithmetic on the CPU.

Two implementations, this one and that for tensors, give bytes within one grey level of each other:
every operation but the last is the same exact arithmetic in both, and the last one ends in a
rounding, before which they are far nearer than one level. Stains need logarithms, which are not
exact, so with them pixels stay floating from the first operation to the last.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import joblib
import numpy as np

from wbcclf._images import integer_limits
from wbcclf.sampling import _laboratory

BORDERS = {
    "reflect": cv2.BORDER_REFLECT_101,
    "nearest": cv2.BORDER_REPLICATE,
    "constant": cv2.BORDER_CONSTANT,
}
# Luma of ITU-R BT.601.
LUMA = (0.299, 0.587, 0.114)
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
    laboratories : Laboratory or None
        Comes first.
    """

    stains: np.ndarray | None
    colours: tuple[np.ndarray, np.ndarray] | None
    warps: np.ndarray | None
    fill: str
    laboratories: _laboratory.Laboratory | None = None


def light_scale(limits: tuple[float, float]) -> tuple[float, float]:
    """Return (dark, width) such that ``(pixel - dark) / width`` is the share of light let through.

    Black has no finite optical density: one grey level of light is let through.
    """
    low, high = limits
    floor = (high - low) / 255 or 1.0
    return low - floor, high - low + floor


def quantised(affine):
    """Return colour coefficients as multiples of 1/1024, which makes their use on bytes exact.

    They are below 8 and offsets below 1024, so every sum of products with bytes is below 2**13 and
    a multiple of 2**-10: float32 holds it. OpenCV uses these 10 bits of RGB coefficients, whatever
    it is given. Their rounding is at most 3 * 255 / 2048 = 0.37 grey levels.
    """
    return np.rint(affine * 1024) / 1024


def level_scale(limits: tuple[float, float]) -> tuple[float, float]:
    """Return (dark, width) such that ``dark + level * width`` is a pixel, and level is 0 to 255."""
    low, high = limits
    return low, (high - low) / 255 or 1.0


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
    n_threads = max(1, min(joblib.cpu_count(), len(starts)))
    with _opencv_unthreaded(), ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(run, starts))


_users = 0
_users_lock = threading.Lock()
_threads_before = 1


@contextmanager
def _opencv_unthreaded():
    """Keep OpenCV from splitting every image among threads of its own, which costs a quarter.

    The number belongs to the process: the first to come sets it, the last to go restores it.
    """
    global _users, _threads_before
    with _users_lock:
        if _users == 0:
            _threads_before = cv2.getNumThreads()
            cv2.setNumThreads(1)
        _users += 1
    try:
        yield
    finally:
        with _users_lock:
            _users -= 1
            if _users == 0:
                cv2.setNumThreads(_threads_before)


def _apply_one(changes, i, image, limits, out):
    if changes.laboratories is not None:
        image = _show(changes.laboratories, i, image, limits)
    if image.dtype == np.uint8 and changes.stains is None:
        _apply_to_bytes(changes, i, image, out)
        return
    if image.dtype not in (np.float32, np.float64):
        image = image.astype(np.float32 if image.dtype == np.uint8 else np.float64)
    if changes.stains is not None:
        image = _stain(image, changes.stains[i], limits)
    if changes.colours is not None:
        affine = _affine(image, changes.colours[0][i], changes.colours[1][i])
        image = cv2.transform(image, affine)
        np.clip(image, *limits, out=image)
    if changes.warps is not None:
        image = _warp(image, changes.warps[i], BORDERS[changes.fill])
    if out.dtype == np.uint8:
        # Pixels are within 0-255 here, give or take a rounding; this rounds half to even.
        cv2.convertScaleAbs(image, dst=out)
    else:
        image = image.reshape(out.shape)
        if out.dtype.kind in "iu":  # a warp computes in float32, which may round beyond 32 bits
            image = np.rint(image).clip(*integer_limits(out.dtype))
        out[...] = image


def _show(laboratories, i, image, limits):
    if image.dtype == np.uint8:
        return _laboratory.apply(laboratories, i, image)
    dark, width = level_scale(limits)
    image = image.astype(np.float32 if image.dtype == np.float32 else np.float64)
    levels = np.rint((image - dark) / width).astype(np.uint8)
    levels = _laboratory.apply(laboratories, i, levels)
    return (levels.astype(image.dtype) * width + dark).clip(*limits)


def _apply_to_bytes(changes, i, image, out):
    if changes.colours is not None:
        affine = _affine(image, changes.colours[0][i], changes.colours[1][i])
        image = cv2.transform(image, quantised(affine))
    if changes.warps is None or out.shape[2] == 1:
        if changes.warps is not None:
            image = _warp(image, changes.warps[i], BORDERS[changes.fill])
        out[...] = image.reshape(out.shape)
        return
    # OpenCV moves four channels faster than three: 84 us against 115 to 125 for 128 x 128 pixels.
    image = _warp(cv2.cvtColor(image, cv2.COLOR_RGB2RGBA), changes.warps[i], BORDERS[changes.fill])
    cv2.cvtColor(image, cv2.COLOR_RGBA2RGB, dst=out)


def _stain(image, matrix, limits):
    dark, width = map(np.float32, light_scale(limits))
    light = (image.astype(np.float32) - dark) / width
    density = cv2.transform(-cv2.log(np.maximum(light, np.float32(DARKEST))), matrix)
    return (cv2.exp(-density) * width + dark).astype(image.dtype).clip(*limits)


def _affine(image, linear, grey_weight):
    """Return the colour map (c, c + 1) of an image; its last column is the mean grey's part."""
    mean = cv2.mean(image)
    grey = mean[0]
    if len(linear) == 3:
        grey = LUMA[0] * mean[0] + LUMA[1] * mean[1] + LUMA[2] * mean[2]
    affine = np.full((len(linear), len(linear) + 1), grey_weight * grey)
    affine[:, :-1] = linear
    return affine


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
