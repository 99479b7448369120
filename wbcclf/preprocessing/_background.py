"""BackgroundRemover: the white cell alone, where it is."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from sklearn.base import ClassNamePrefixFeaturesOutMixin

from wbcclf._images import StrOptions
from wbcclf._parameters import Machine
from wbcclf.cells._cell import Cell
from wbcclf.cells._picture import GREY, Picture, choose, covered, from_bytes
from wbcclf.preprocessing._base import CellTransformer


class BackgroundRemover(ClassNamePrefixFeaturesOutMixin, CellTransformer):
    """Make everything but the white cell of every image one grey.

    Nucleus and cytoplasm stay as and where they are. Plasma, red cells, platelets, other white
    cells and black corners get the grey level 230 (of 255), as in :class:`CellCropper`. It is
    bright, as the empty background of a smear is, and the same in all images. An image in which no
    white cell is found stays as it is.

    Parameters
    ----------
    which : {"centre", "largest"}, default="centre"
        The white cell to keep where there are several: the one whose nucleus is nearest the centre
        of the image, or the largest one. Only one is kept, since the image has one label.
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
    CellCropper : Cuts the image around the cell, too, and can bring all images to one light.

    Examples
    --------
    >>> from wbcclf import BackgroundRemover, make_blood_cells
    >>> images = make_blood_cells(8, image_size=160, random_state=5).images
    >>> alone = BackgroundRemover().fit_transform(images)
    >>> alone.shape, alone[0, 0, 0].tolist()
    ((8, 160, 160, 3), [230, 230, 230])
    """

    _parameter_constraints: dict = {
        "which": [StrOptions({"centre", "largest"})],
        **CellTransformer._parameter_constraints,
        "spill_dir": Machine([str, os.PathLike, None]),
    }
    _without_cell = "stay as they are"

    def __init__(self, which="centre", *, image_shape=None, n_jobs=None, spill_dir=None):
        self.which = which
        self.image_shape = image_shape
        self.n_jobs = n_jobs
        self.spill_dir = spill_dir

    def transform(self, X: Any) -> np.ndarray:
        """Make everything but the white cell of every image grey.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width, channels) or (n_samples, n_features)
            Images of the size and value range of those given to `fit`.

        Returns
        -------
        ndarray of shape (n_samples, height, width, channels), or rows
            Of the dtype of `X`.
        """
        return super().transform(X)

    def _output(self, images: np.ndarray) -> tuple[tuple[int, ...], DTypeLike]:
        return images.shape[1:], images.dtype

    def _transform_one(self, image: np.ndarray, picture: Picture, cells: list[Cell]) -> np.ndarray:
        if not cells:
            return image
        grey = from_bytes(np.array(GREY), self.value_range_, image.dtype)
        kept = covered([choose(cells, picture.size, self.which)], (0, 0, *picture.size))
        return np.where(kept[..., None], image, grey)
