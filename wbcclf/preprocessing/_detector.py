"""MultiCellDetector: images that do not show exactly one white cell."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import OutlierMixin

from wbcclf._images import _fit_context
from wbcclf.cells._cell import Cell
from wbcclf.cells._picture import Picture
from wbcclf.cells._red_cells import radius_of_red_cells
from wbcclf.preprocessing._base import CellEstimator

# Red cell areas of an outline that is as likely two cells as one: the largest white cells are some
# 20 micrometres wide, red cells 7.5; two of the former have the area of 14 of the latter.
TWO_CELLS, STEEPNESS = 14, 4


class MultiCellDetector(OutlierMixin, CellEstimator):
    """Tell images with exactly one white cell (1) from those with several or none (-1).

    An image with one label should show one cell. Nothing is learnt: the cells are those of
    :func:`find_cells`. The threshold is fixed and does not depend on a share of outliers (there is
    no `contamination`).

    A cell that the border of the image cuts counts as one, since a classifier sees it, too. Its
    score grows with the area that is seen, so a sliver does not count. Black corners, which images
    have that were turned, cut cells as borders do.

    Parameters
    ----------
    image_shape : (height, width, channels) or None, default=None
        Shape of one image if the input is 2-D (rows). None infers it. Ignored for image batches.
    n_jobs : int or None, default=None
        Threads; None or -1 means one per available core. The result does not depend on it.

    Attributes
    ----------
    offset_ : float
        The score above which an image counts as one of exactly one white cell: 0.5.
    image_shape_ : tuple (height, width, channels)
        Shape of the images given to `fit`.
    value_range_ : tuple (low, high)
        Scale of their values: (0, 255) for uint8.
    n_features_in_ : int
        ``height * width * channels``.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or images have another shape or scale than those given
        to `fit`.

    See Also
    --------
    find_cells : Finds all white cells of one picture.
    CellCropper : Cuts out one of several.

    Notes
    -----
    The score is the probability of exactly one cell if the scores of the cells are taken as
    independent probabilities: the sum, over the cells, of the score of each times one minus that of
    every other one. An outline counts less if it is so large, compared with red cells, that it may
    hold two white cells.

    Examples
    --------
    >>> import numpy as np
    >>> from wbcclf import MultiCellDetector, make_blood_cells
    >>> one = make_blood_cells(8, image_size=160, random_state=5).images
    >>> images = np.stack([one[0], one[1], np.full_like(one[0], 230)])  # the last one is empty
    >>> MultiCellDetector().fit_predict(images)
    array([ 1,  1, -1])
    """

    _parameter_constraints: dict = {**CellEstimator._parameter_constraints}

    def __init__(self, *, image_shape=None, n_jobs=None):
        self.image_shape = image_shape
        self.n_jobs = n_jobs

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> MultiCellDetector:
        """Learn the images' shape and value range.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width, channels) or (n_samples, n_features)
            Image batch (uint8, 0-255, RGB) or rows.
        y : None
            Ignored.

        Returns
        -------
        MultiCellDetector
            The estimator itself.
        """
        self._images_to_fit(X)
        self.offset_ = 0.5
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Return how certain it is that images show exactly one white cell.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width, channels) or (n_samples, n_features)
            Images of the size and value range of those given to `fit`.

        Returns
        -------
        ndarray of shape (n_samples,), float64
            0 to 1; 0 where no white cell is found.
        """
        images = self._images_like_fitted(X)
        scores = np.empty(len(images))

        def work(index: int, picture: Picture, cells: list[Cell]) -> None:
            scores[index] = _exactly_one(picture, cells)

        self._look(images, work)
        return scores

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the scores less `offset_`: negative for several white cells, or none.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width, channels) or (n_samples, n_features)
            Images of the size and value range of those given to `fit`.

        Returns
        -------
        ndarray of shape (n_samples,), float64
            -0.5 to 0.5.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """Return 1 for images with exactly one white cell, -1 for those with several or none.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width, channels) or (n_samples, n_features)
            Images of the size and value range of those given to `fit`.

        Returns
        -------
        ndarray of shape (n_samples,), int
        """
        return np.where(self.decision_function(X) >= 0, 1, -1)


def _exactly_one(picture: Picture, cells: list[Cell]) -> float:
    """Return the probability that a picture, with these cells, shows exactly one."""
    if not cells:
        return 0.0
    radius = radius_of_red_cells(picture, cells)
    score = np.array([cell.score for cell in cells])
    single = score.copy()
    if radius:
        areas = np.array([cell.cell.sum() for cell in cells]) / (np.pi * radius**2)
        single /= 1 + (areas / TWO_CELLS) ** STEEPNESS
    others = [np.prod(np.delete(1 - score, number)) for number in range(len(cells))]
    return float(single @ others)
