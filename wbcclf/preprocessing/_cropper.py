"""CellCropper: every image cut around its white cell."""

from __future__ import annotations

import os
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from wbcclf import _spill
from wbcclf._images import (
    Interval,
    StrOptions,
    _fit_context,
    as_images,
    check_value_range,
    images_to_rows,
    validate_images,
    value_range,
)
from wbcclf._parameters import Each, Machine, Training
from wbcclf._threads import n_threads, run_in_threads
from wbcclf._warnings import warn
from wbcclf.preprocessing._cell import Cell
from wbcclf.preprocessing._cells import find_cells
from wbcclf.preprocessing._picture import (
    GREY,
    as_bytes,
    choose,
    covered,
    cut,
    diameter,
    from_bytes,
    in_one_light,
    light_of,
    nucleus_centre,
    resized,
    seen_pixels,
)

_SIDE = Interval(Integral, 1, None, closed="left")
_FACTORS = {"nucleus": 3.0, "cell": 1.5}


class CellCropper(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Cut a square around the white cell of every image.

    The same cell then has the same place and size in every image, whatever the magnification. An
    image in which no white cell is found gives its central square; it is never dropped.

    Parameters
    ----------
    scale : {"nucleus", "cell"} or int, default="nucleus"
        What gives the side of the square: the diameter of the nucleus, the diameter of the whole
        cell (each that of a disk of the same area), or a number of pixels, >= 1.
    factor : float or None, default=None
        The side in these diameters, > 0. None is 3 for nuclei and 1.5 for cells. A number of pixels
        takes no factor.
    which : {"centre", "largest"}, default="centre"
        The white cell to cut out where there are several: the one whose nucleus is nearest the
        centre of the image, or the largest one.
    background : {"keep", "normalise", "remove"}, default="keep"
        ``"normalise"`` brings the light of the empty background to the grey 230 in every channel,
        which takes out white balance and exposure. ``"remove"`` also makes everything outside of
        the cell that grey.
    image_size : int, default=96
        Side in pixels that the square is stretched to.
    image_shape : (height, width, channels) or None, default=None
        Shape of one image if the input is 2-D (rows). None infers it. Ignored for image batches.
    n_jobs : int or None, default=None
        Threads; None or -1 means one per available core. The result does not depend on it.
    spill_dir : path or None, default=None
        An existing folder: the output is a memory-mapped file in it instead of an array in memory.

    Attributes
    ----------
    found_ : ndarray of shape (n_samples,), bool
        The images given to `fit` in which a white cell was found.
    image_shape_ : tuple (height, width, channels)
        Shape of the images given to `fit`.
    value_range_ : tuple (low, high)
        Scale of their values: (0, 255) for uint8.
    n_features_in_ : int
        ``height * width * channels``.

    Raises
    ------
    ValueError
        If a parameter is out of its range, images have another shape or scale than those given to
        `fit`, or `spill_dir` is no folder.
    OSError
        If the disk of `spill_dir` is too full.

    Warns
    -----
    UserWarning
        If there are images in which no white cell is found; the message counts them.

    See Also
    --------
    find_cells : Finds all white cells of one picture.

    Notes
    -----
    Beyond the border of an image and in black wedges (of images that were turned), the square
    shows the mirror image of what is there.

    Examples
    --------
    >>> from wbcclf import CellCropper, make_blood_cells
    >>> cells = make_blood_cells(8, image_size=160, random_state=5)
    >>> cropper = CellCropper(image_size=64)
    >>> cropper.fit_transform(cells.images).shape, int(cropper.found_.sum())
    ((8, 64, 64, 3), 8)
    """

    _parameter_constraints: dict = {
        "scale": [StrOptions({*_FACTORS}), _SIDE],
        "factor": [Interval(Real, 0, None, closed="neither"), None],
        "which": [StrOptions({"centre", "largest"})],
        "background": [StrOptions({"keep", "normalise", "remove"})],
        "image_size": [_SIDE],
        "image_shape": Training([Each(_SIDE), None]),
        "n_jobs": Machine([Integral, None]),
        "spill_dir": Machine([str, os.PathLike, None]),
    }

    def __init__(
        self,
        scale="nucleus",
        *,
        factor=None,
        which="centre",
        background="keep",
        image_size=96,
        image_shape=None,
        n_jobs=None,
        spill_dir=None,
    ):
        self.scale = scale
        self.factor = factor
        self.which = which
        self.background = background
        self.image_size = image_size
        self.image_shape = image_shape
        self.n_jobs = n_jobs
        self.spill_dir = spill_dir

    def fit(self, X: Any, y: Any = None) -> CellCropper:
        """Find the cells, to tell in which images there are none.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width, channels) or (n_samples, n_features)
            Image batch (uint8, 0-255, RGB) or rows.
        y : None
            Ignored.

        Returns
        -------
        CellCropper
            The estimator itself.
        """
        self.fit_transform(X)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """Return the squares of the images to fit on; see :meth:`fit` and :meth:`transform`."""
        n_threads(self.n_jobs)
        images = validate_images(self, X, image_shape=self.image_shape)
        self.image_shape_ = images.shape[1:]
        self.value_range_ = value_range(images)
        self._n_features_out = self.image_size**2 * images.shape[3]
        out, self.found_ = self._crop(images)
        return images_to_rows(out) if as_images(X) is None else out

    def transform(self, X: Any) -> np.ndarray:
        """Cut a square around the white cell of every image.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width, channels) or (n_samples, n_features)
            Images of the size and value range of those given to `fit`.

        Returns
        -------
        ndarray of shape (n_samples, image_size, image_size, channels), or rows
            Of the dtype of `X`.
        """
        check_is_fitted(self)
        images = validate_images(self, X, image_shape=self.image_shape_, reset=False)
        check_value_range(images, self.value_range_)
        out, _ = self._crop(images)
        return images_to_rows(out) if as_images(X) is None else out

    def _crop(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the squares, and in which images a cell was found."""
        side = self.image_size
        out = _spill.empty((len(images), side, side, images.shape[3]), images.dtype, self.spill_dir)
        found = np.zeros(len(images), bool)

        def work(index: int) -> None:
            out[index], found[index] = self._crop_one(images[index])

        run_in_threads(work, len(images), self.n_jobs)
        if not found.all():
            missing = np.flatnonzero(~found)
            warn(
                f"No white cell was found in {len(missing)} of {len(images)} images (first in "
                f"image {missing[0]}); they give their central square."
            )
        return out, found

    def _crop_one(self, image: np.ndarray) -> tuple[np.ndarray, bool]:
        height, width, n_channels = image.shape
        image = np.broadcast_to(image, (height, width, 3))  # grey: no stain, so no cell
        picture = as_bytes(image, self.value_range_)
        cells = find_cells(picture)
        centre, side = np.array([height - 1, width - 1]) / 2, min(height, width)
        if cells:
            cell = choose(cells, (height, width), self.which)
            centre, side = nucleus_centre(cell), self._side(cell)
        seen, white = seen_pixels(picture), covered(cells, (height, width))
        light = light_of(picture, seen)
        if self.background != "keep":
            picture, light = in_one_light(picture, light), np.full(3, GREY)
            if self.background == "remove" and cells:
                picture[~covered([cell], (height, width))] = GREY
        if image.dtype != np.uint8:
            light = from_bytes(light, self.value_range_)
            changed = self.background != "keep"
            picture = from_bytes(picture, self.value_range_) if changed else image.astype(float)
        top, left = np.rint(centre - (side - 1) / 2).astype(int)
        square = resized(cut(picture, seen, white, light, (top, left, side)), self.image_size)
        square = square[..., :n_channels]
        return square if image.dtype.kind == "f" else np.rint(square), bool(cells)

    def _side(self, cell: Cell) -> int:
        if isinstance(self.scale, Integral):
            return int(self.scale)
        factor = _FACTORS[self.scale] if self.factor is None else self.factor
        return max(1, round(factor * diameter(getattr(cell, self.scale))))
