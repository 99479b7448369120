"""What all estimators share that look for white cells in every image."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from wbcclf import _spill
from wbcclf._images import (
    Interval,
    _fit_context,
    as_images,
    check_value_range,
    images_to_rows,
    validate_images,
    value_range,
)
from wbcclf._parameters import Each, Machine, Training
from wbcclf._threads import n_threads, run_blocks_in_threads
from wbcclf._warnings import warn
from wbcclf.cells._cell import Cell
from wbcclf.cells._cells import cells_of
from wbcclf.cells._picture import Picture, as_bytes

SIDE = Interval(Integral, 1, None, closed="left")  # of an image, in pixels


class CellEstimator(BaseEstimator):
    """Base of estimators that look for white cells in every image of a batch."""

    _parameter_constraints: dict = {
        "image_shape": Training([Each(SIDE), None]),
        "n_jobs": Machine([Integral, None]),
    }

    def _images_to_fit(self, X: Any) -> np.ndarray:
        """Return the image batch to fit on; keep its shape and scale."""
        n_threads(self.n_jobs)
        images = validate_images(self, X, image_shape=self.image_shape)
        self.image_shape_ = images.shape[1:]
        self.value_range_ = value_range(images)
        return images

    def _images_like_fitted(self, X: Any) -> np.ndarray:
        """Return an image batch of the shape and scale of the one fitted on."""
        check_is_fitted(self)
        images = validate_images(self, X, image_shape=self.image_shape_, reset=False)
        check_value_range(images, self.value_range_)
        return images

    def _picture(self, image: np.ndarray) -> np.ndarray:
        """Return an image as :func:`find_cells` takes it: uint8 and RGB.

        A grey one has no stain, so that no cell is found in it.
        """
        return as_bytes(np.broadcast_to(image, (*image.shape[:2], 3)), self.value_range_)

    def _look(self, images: np.ndarray, work: Callable[[int, Picture, list[Cell]], None]) -> None:
        """Call ``work(index, picture, cells)`` for every image, in threads."""

        def look(block: range) -> None:
            pictures = [Picture(self._picture(images[index])) for index in block]
            for index, picture, cells in zip(block, pictures, cells_of(pictures), strict=True):
                work(index, picture, cells)

        run_blocks_in_threads(look, len(images), self.n_jobs)


class CellTransformer(TransformerMixin, CellEstimator):
    """Base of transformers that give one array for the white cell of every image."""

    _without_cell: str  # what images give in which none is found: the end of the warning

    def _output(self, images: np.ndarray) -> tuple[tuple[int, ...], DTypeLike]:
        """Return shape and dtype of what one of these images gives."""
        raise NotImplementedError

    def _transform_one(self, image: np.ndarray, picture: Picture, cells: list[Cell]) -> np.ndarray:
        """Return what an image gives, which is this picture with these cells."""
        raise NotImplementedError

    def fit(self, X: Any, y: Any = None):
        """Find the cells, to tell in which images there are none.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width, channels) or (n_samples, n_features)
            Image batch (uint8, 0-255, RGB) or rows.
        y : None
            Ignored.

        Returns
        -------
        self
        """
        self.fit_transform(X)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """Fit, and transform the same images; see :meth:`fit` and :meth:`transform`."""
        images = self._images_to_fit(X)
        self._n_features_out = int(np.prod(self._output(images)[0]))
        out, self.found_ = self._transform(images)
        return images_to_rows(out) if as_images(X) is None else out

    def transform(self, X: Any) -> np.ndarray:
        """Transform images of the size and value range of those given to `fit`.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width, channels) or (n_samples, n_features)
            Image batch or rows.

        Returns
        -------
        ndarray
            One item for each image.
        """
        out, _ = self._transform(self._images_like_fitted(X))
        return images_to_rows(out) if as_images(X) is None else out

    def _transform(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what the images give, and in which of them a cell was found."""
        shape, dtype = self._output(images)
        out = _spill.empty((len(images), *shape), dtype, getattr(self, "spill_dir", None))
        found = np.zeros(len(images), bool)

        def work(index: int, picture: Picture, cells: list[Cell]) -> None:
            out[index] = self._transform_one(images[index], picture, cells)
            found[index] = bool(cells)

        self._look(images, work)
        if not found.all():
            missing = np.flatnonzero(~found)
            warn(
                f"No white cell was found in {len(missing)} of {len(images)} images (first in "
                f"image {missing[0]}); they {self._without_cell}."
            )
        return out, found
