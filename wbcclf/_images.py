"""What an image batch is, and the only place where scikit-learn's private helpers are imported.

An image batch is an ``ndarray (n_samples, height, width, channels)`` with 1 or 3 channels (grey or
RGB). A row is the same image flattened. Every estimator of the package takes both: 2-D input is
always rows.
"""

from __future__ import annotations

import math
import os
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils import _param_validation
from sklearn.utils._param_validation import HasMethods, Options, StrOptions
from sklearn.utils.validation import _check_sample_weight, _num_samples, validate_data

__all__ = [
    "HasMethods",
    "Interval",
    "Options",
    "StrOptions",
    "_check_sample_weight",
    "_fit_context",
    "_num_samples",
    "as_images",
    "check_image_size",
    "check_images",
    "check_value_range",
    "images_to_rows",
    "infer_image_shape",
    "integer_limits",
    "numpy_columns",
    "rounded_columns",
    "rows_to_images",
    "validate_data",
    "validate_images",
    "value_range",
]

CHANNELS = (1, 3)
LONGEST_SIDE = 2**16 - 1  # that a JPEG can have


class Interval(_param_validation.Interval):
    """Numbers between two bounds. True is none: to scikit-learn's own interval, it is a 1."""

    def is_satisfied_by(self, val: Any) -> bool:
        """Return whether a value is such a number."""
        return not isinstance(val, bool) and super().is_satisfied_by(val)


def check_image_size(image_size: Any, name: str = "image_size") -> tuple[int, int] | None:
    """Return ``(height, width)`` for an int, a pair of ints or None (kept as None)."""
    if image_size is None:
        return None
    pair = (image_size, image_size) if np.ndim(image_size) == 0 else tuple(image_size)
    if len(pair) != 2 or not all(map(_is_side, pair)):
        raise ValueError(
            f"{name} must be a positive int or a pair (height, width) of them, each at most "
            f"{LONGEST_SIDE}, got {image_size!r}."
        )
    return int(pair[0]), int(pair[1])


def _is_side(value: Any) -> bool:
    # NaN and infinity fail the last comparison; numpy's booleans are not Real.
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return is_number and 1 <= value <= LONGEST_SIDE and value % 1 == 0


def _shape_text(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape)


def check_images(X: Any, name: str = "X") -> np.ndarray:
    """Check that `X` is an image batch and return it as an ndarray (no copy).

    Parameters
    ----------
    X : array-like of shape (n_samples, height, width, channels)
        Integer or floating images with 1 or 3 channels.
    name : str
        The parameter to name in errors.

    Returns
    -------
    ndarray of shape (n_samples, height, width, channels)

    Raises
    ------
    ValueError
        If the number of dimensions or channels is wrong, an image has no pixels, the values are
        not numbers, or a floating image holds NaN or infinity.
    """
    try:
        images = np.asarray(X)
    except ValueError as error:
        raise ValueError(
            f"{name} must hold images of one size, got images of different shapes. "
            "Load them with image_size=(height, width)."
        ) from error
    if images.ndim != 4:
        raise ValueError(
            f"{name} must be an image batch (n_samples, height, width, channels) or rows "
            f"(n_samples, n_features), got an array of shape {images.shape}. Use X[None] for a "
            "single image and X[..., None] for grey images without a channel axis."
        )
    if images.shape[3] not in CHANNELS:
        raise ValueError(
            f"{name} must have 1 channel (grey) or 3 (RGB) on its last axis, got "
            f"{images.shape[3]} in an array of shape {images.shape}."
        )
    if 0 in images.shape[1:3]:
        raise ValueError(f"{name} holds images without pixels: shape {images.shape}.")
    if images.dtype.kind not in "uif":
        raise ValueError(f"{name} must hold numbers (uint8, 0-255), got dtype {images.dtype}.")
    # One reduction instead of a mask of the batch's size: a sum is finite only if every term is,
    # and the rare overflow of finite float values is settled by the exact test behind it.
    if images.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            suspicious = not np.isfinite(images.sum(dtype=np.float64))
        if suspicious and not np.isfinite(images).all():
            where = np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))
            raise ValueError(
                f"{name} contains NaN or infinity, first in image {where[0]} "
                f"({len(where)} of {len(images)} images). Remove or repair them."
            )
    return images


def infer_image_shape(n_features: int) -> tuple[int, int, int]:
    """Return the image shape that a row of `n_features` values stands for.

    ``3 * s * s`` features are an RGB image of ``s x s``, ``s * s`` a grey one; any other number is
    a grey strip one pixel high.

    Examples
    --------
    >>> infer_image_shape(48), infer_image_shape(16), infer_image_shape(5)
    ((4, 4, 3), (4, 4, 1), (1, 5, 1))
    """
    if n_features % 3 == 0 and math.isqrt(n_features // 3) ** 2 * 3 == n_features:
        side = math.isqrt(n_features // 3)
        return side, side, 3
    if math.isqrt(n_features) ** 2 == n_features:
        side = math.isqrt(n_features)
        return side, side, 1
    return 1, n_features, 1


def rows_to_images(rows: np.ndarray, image_shape: tuple[int, int, int] | None = None) -> np.ndarray:
    """View rows ``(n_samples, n_features)`` as an image batch; no copy."""
    shape = infer_image_shape(rows.shape[1]) if image_shape is None else tuple(image_shape)
    if (
        len(shape) != 3
        or not all(isinstance(side, Integral) and side > 0 for side in shape)
        or shape[2] not in CHANNELS
    ):
        raise ValueError(
            "image_shape must be (height, width, channels) with 1 channel (grey) or 3 (RGB), "
            f"got {image_shape!r}."
        )
    if np.prod(shape) != rows.shape[1]:
        raise ValueError(
            f"image_shape={_shape_text(shape)} has {np.prod(shape)} values, but the rows of X "
            f"have {rows.shape[1]}."
        )
    return rows.reshape(len(rows), *shape)


def images_to_rows(images: np.ndarray) -> np.ndarray:
    """View an image batch as rows ``(n_samples, height * width * channels)``."""
    return images.reshape(len(images), int(np.prod(images.shape[1:])))


def as_images(X: Any) -> np.ndarray | None:
    """Return `X` as a checked image batch, or None if it is anything but an array of 3+ axes."""
    if hasattr(X, "iloc") or hasattr(X, "toarray"):  # data frames and sparse matrices are rows
        return None
    if not hasattr(X, "ndim") and isinstance(X, (list, tuple)):
        # A list of images: lists of numbers or of rows are left to scikit-learn's own checks.
        if not (len(X) and np.ndim(X[0]) >= 2):
            return None
        return check_images(X)
    return check_images(X) if getattr(X, "ndim", 2) > 2 else None


def numpy_columns(X: Any) -> Any:
    """Return a data frame of numbers with one dtype of NumPy's for all columns, their common one.

    So bytes in nullable columns (UInt8, pyarrow's) stay bytes; scikit-learn makes floats of them.
    Everything else is returned as it is.

    Raises
    ------
    ValueError
        If a nullable column lacks a value.
    """
    given = set(X.dtypes) if hasattr(X, "columns") else set()
    # The masked dtypes and pyarrow's say which of NumPy's they stand for.
    plain = {getattr(dtype, "numpy_dtype", dtype) for dtype in given}
    are_numbers = all(isinstance(dtype, np.dtype) and dtype.kind in "uifb" for dtype in plain)
    if not are_numbers or (len(given) < 2 and given == plain):
        return X
    missing = X.isna().to_numpy() if given != plain else np.zeros((1, 1))
    if missing.any():
        row, column = np.argwhere(missing)[0]
        raise ValueError(
            f"X holds {missing.sum()} missing values (NA), first in row {row} of column "
            f"{X.columns[column]!r}. Remove or fill them."
        )
    return X.astype(np.result_type(*plain))


def rounded_columns(rows: np.ndarray, frame: Any) -> np.ndarray:
    """Return `rows` with the columns rounded that hold integers in a data frame."""
    if rows.dtype.kind != "f":
        return rows
    return np.where([dtype.kind in "uib" for dtype in frame.dtypes], np.rint(rows), rows)


def validate_images(
    estimator: Any,
    X: Any,
    y: Any = "no_validation",
    *,
    image_shape: tuple[int, int, int] | None = None,
    reset: bool = True,
    **check_params: Any,
) -> Any:
    """Run scikit-learn's ``validate_data`` on rows or on an image batch.

    Returns the image batch ``(n_samples, height, width, channels)`` without a copy where the
    input allows it, or a tuple of it and `y`. Sets ``n_features_in_`` (the length of a row) and,
    for data frames, ``feature_names_in_`` when `reset` is true. `image_shape` is the shape that
    rows stand for, and the one that images must have when `reset` is false.
    """
    if _holds_paths(X):
        raise ValueError(
            f"X holds paths, but {type(estimator).__name__} takes images. Put a loader in front: "
            "make_pipeline(ImageLoader(image_size=...), ...), or give the images of "
            "load_image_folder."
        )
    images = as_images(X)
    if images is not None:
        if not reset and image_shape is not None and images.shape[1:] != tuple(image_shape):
            raise ValueError(
                f"X holds images of {_shape_text(images.shape[1:])} (height x width x channels), "
                f"but {type(estimator).__name__} works on {_shape_text(image_shape)}. Load them "
                f"with image_size={tuple(image_shape)[:2]}, as the training images were."
            )
        image_shape = images.shape[1:]
        X = images_to_rows(images)
    X = numpy_columns(X)
    checked = validate_data(estimator, X, y, reset=reset, **check_params)
    rows, *rest = checked if isinstance(checked, tuple) else (checked,)
    batch = rows_to_images(rows, image_shape)
    return (batch, *rest) if rest else batch


def _holds_paths(X: Any) -> bool:
    """Return whether `X` is a path, or a column of them: text is no image."""
    first = X
    if not isinstance(X, (str, os.PathLike)):
        if not isinstance(X, (list, tuple)) and not (hasattr(X, "dtype") and np.ndim(X) == 1):
            return False
        first = next(iter(X), None)
    return isinstance(first, (str, os.PathLike))


def value_range(images: np.ndarray) -> tuple[float, float]:
    """Return the scale ``(low, high)`` that the pixel values of a batch are on.

    Integers within 0-255 are on (0, 255), whatever their extremes. Floating images within 0-1 are
    on (0, 1), brighter ones within 0-255 on (0, 255); everything else, such as values up to 3, is
    on its own minimum and maximum.
    """
    if images.dtype == np.uint8:
        return 0.0, 255.0
    low, high = float(images.min()), float(images.max())
    if images.dtype.kind == "f" and low >= 0 and high <= 1:
        return 0.0, 1.0
    # No batch of photographs has nothing brighter than a tenth of white.
    if low >= 0 and high <= 255 and (images.dtype.kind != "f" or high > 25.5):
        return 0.0, 255.0
    return low, high


def integer_limits(dtype: np.dtype) -> tuple[float, float]:
    """Return the least and the largest float that an integer `dtype` holds.

    The largest of 64 bits, as a float, is one more than they hold: cast, it wraps around.
    """
    info = np.iinfo(dtype)
    high = float(info.max)
    return float(info.min), high if high <= info.max else math.nextafter(high, 0)


def check_value_range(images: np.ndarray, fitted: tuple[float, float]) -> None:
    """Refuse a batch that is plainly on another scale than the one `fitted` on.

    Raises
    ------
    ValueError
        The message names both ranges.
    """
    low, high = fitted
    if not len(images) or (images.dtype == np.uint8 and fitted == (0.0, 255.0)):
        return
    smallest, largest = float(images.min()), float(images.max())
    width = high - low
    # A batch may go beyond the training values (interpolation overshoots; unseen images are
    # brighter), but by a whole width only on another scale. On a scale that starts at 0, neither
    # plain negatives nor a batch within a fiftieth of it are such images: 0-1 or standardised ones
    # under 0-255, 8-bit under 16-bit. Bytes under 0-255 may really be that dark.
    beyond = smallest < low - width or largest > high + width
    negative = low == 0 and smallest < -0.1 * width
    dark = max(-smallest, largest) < 0.02 * width and largest > 0
    shrunk = low == 0 and dark and (images.dtype.kind == "f" or width > 255)
    if width > 0 and (beyond or negative or shrunk):
        raise ValueError(
            f"X is on another scale than the images given to fit: its values go from {smallest:g} "
            f"to {largest:g}, it was fitted on {low:g} to {high:g}. Give both as uint8 "
            "(0-255), as the loaders do."
        )
