"""Whether something is paths of image files or images in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["check_paths_or_images"]


def check_paths_or_images(
    X: Any, name: str = "X"
) -> tuple[list[str] | None, list[np.ndarray] | None]:
    """Return `X` as a list of paths or as a list of images, and None for the other."""
    if isinstance(X, (str, bytes, os.PathLike)):
        raise TypeError(f"{name} must be an array of paths, got a single one: {X!r}. Give [path].")
    if hasattr(X, "toarray"):
        raise TypeError(
            f"{name} must be an array of paths, got a sparse matrix; sparse is not supported."
        )
    if not np.iterable(X) or isinstance(X, Mapping):
        raise TypeError(f"{name} must be an array of paths or images, got {type(X).__name__}.")
    if not hasattr(X, "shape"):
        X = list(X)
        if X and np.ndim(X[0]) >= 2:
            return None, _check_images(X, name)
        X = np.array(X, dtype=object)  # a list of numbers and paths must not become text
    array = np.asarray(X)
    if array.ndim >= 3 or (array.dtype == object and len(array) and np.ndim(array[0]) >= 2):
        return None, _check_images(array, name)
    if array.size and array.dtype.kind in "buifc":
        raise TypeError(
            f"{name} must hold paths of image files, or images (n_samples, height, width, 1 or "
            f"3), got numbers: shape {array.shape}, dtype {array.dtype}."
        )
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(
            f"{name} must be paths of shape (n_samples,) or (n_samples, 1), got {array.shape}."
        )
    for index, path in enumerate(array):
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(
                f"{name}[{index}] must be a path, got {path!r} ({type(path).__name__})."
            )
    return [os.fspath(path) for path in array], None


def _check_images(X: Any, name: str) -> list[np.ndarray]:
    images = [np.asarray(image) for image in X]
    for index, image in enumerate(images):
        if image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
            raise ValueError(
                f"{name}[{index}] must be an image (height, width, 1 or 3), got an array of shape "
                f"{image.shape}. {_advice(image.shape, name)}"
            )
        if image.dtype != np.uint8:
            raise TypeError(
                f"{name}[{index}] must be uint8 (0-255), like the images of files, got "
                f"{image.dtype}. Give {name}.astype(np.uint8) if its values are 0 to 255, "
                f"(255 * {name}).round().astype(np.uint8) if they are 0 to 1, "
                f"({name} // 257).astype(np.uint8) if they are 0 to 65535."
            )
    return images


def _advice(shape: tuple[int, ...], name: str) -> str:
    if len(shape) == 2 and shape[1] in (1, 3):
        return f"Give a single image as {name}[None]."
    if len(shape) == 2:
        return f"Give grey images without a channel axis as {name}[..., None]."
    if len(shape) == 3 and shape[0] in (1, 3) and shape[2] not in (1, 3):
        return f"Channels come last: give np.moveaxis({name}, 1, -1)."
    return "Convert it to RGB or grey."
