"""CellCropper: every image cut around its white cell."""

from __future__ import annotations

import os
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from sklearn.base import ClassNamePrefixFeaturesOutMixin

from wbcclf._images import Interval, StrOptions
from wbcclf._parameters import Machine
from wbcclf.cells._cell import Cell
from wbcclf.cells._picture import Picture, from_bytes
from wbcclf.cells._square import FACTORS, LARGEST, Crop
from wbcclf.preprocessing._base import SIDE, CellTransformer


class CellCropper(ClassNamePrefixFeaturesOutMixin, CellTransformer):
    """Cut a square around the white cell of every image.

    The cell is then in the centre of every image, and its size does not depend on the
    magnification. An image in which no white cell is found gives its central square; it is never
    dropped.

    Parameters
    ----------
    scale : {"nucleus", "cell", "red cell"} or int, default="nucleus"
        What gives the side of the square: the diameter of the nucleus, the diameter of the whole
        cell (each that of a disk of the same area), that of the red cells around it (the median),
        or a number of pixels, >= 1. Normal red cells are 7 to 8 micrometres wide, so with
        ``"red cell"`` a lymphocyte usually stays smaller than a monocyte. In micro- or macrocytic
        anaemia the scale is off. Where too few red cells are seen, or the white cell seems less
        than 1.15 or more than 3.1 times as wide as they are, it counts as twice as wide.
    factor : float or None, default=None
        The side in these diameters, above 0 and at most 16. None is 3 for nuclei, 1.5 for cells and
        3 for red cells. A number of pixels takes no factor.
    which : {"centre", "largest"}, default="centre"
        The white cell to cut out where there are several: the one whose nucleus is nearest the
        centre of the image, or the largest one.
    background : {"keep", "normalise", "remove"}, default="keep"
        ``"normalise"`` brings the empty background to the grey level 230 (of 255) in every channel,
        which takes out white balance and exposure. ``"remove"`` also makes everything outside the
        cell that grey.
    stain : {"keep", "normalise"}, default="keep"
        ``"normalise"`` gives the nucleus and the red cells of every picture the same two colours.
        So pictures of different stains and cameras look more alike. How dark a nucleus is beside
        those of other cells is lost. See Notes.
    image_size : int, default=96
        Side in pixels that the square is scaled to. A loader that cuts (its parameter `crop`) uses
        its own `image_size` instead.
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
    ImageLoader : With `crop`, cuts every file at its own size.

    Notes
    -----
    Beyond the border of an image and in its black corners (if it was turned), the square shows a
    mirror image of what is beside them, but no white cell a second time. Images of other dtypes
    than uint8 are cut in 256 levels of their scale.

    ``stain="normalise"`` multiplies optical densities, in which dyes add up [1]_, by one 3x3 matrix
    for each picture. It takes the mean density of the nucleus, and the median one of the red cells,
    to fixed ones. So the colours to start from are read from the picture, as in [2]_. Where there
    are no red cells, the nucleus decides. Where there is no white cell, the stain is kept.

    References
    ----------
    .. [1] A. C. Ruifrok, D. A. Johnston, "Quantification of histochemical staining by color
       deconvolution", Analytical and Quantitative Cytology and Histology 23, 2001.
    .. [2] M. Macenko et al., "A method for normalizing histology slides for quantitative
       analysis", ISBI 2009. https://doi.org/10.1109/ISBI.2009.5193250

    Examples
    --------
    >>> from wbcclf import CellCropper, make_blood_cells
    >>> cells = make_blood_cells(8, image_size=160, random_state=5)
    >>> cropper = CellCropper(image_size=64)
    >>> cropper.fit_transform(cells.images).shape, int(cropper.found_.sum())
    ((8, 64, 64, 3), 8)
    """

    _parameter_constraints: dict = {
        "scale": [StrOptions({*FACTORS}), SIDE],
        "factor": [Interval(Real, 0, LARGEST, closed="right"), None],
        "which": [StrOptions({"centre", "largest"})],
        "background": [StrOptions({"keep", "normalise", "remove"})],
        "stain": [StrOptions({"keep", "normalise"})],
        "image_size": [SIDE],
        **CellTransformer._parameter_constraints,
        "spill_dir": Machine([str, os.PathLike, None]),
    }
    _without_cell = "are cut to their central square"
    # Raised with every change of the squares that pictures give: loaders keep them in `memory`.
    _version = 3

    def __init__(
        self,
        scale="nucleus",
        *,
        factor=None,
        which="centre",
        background="keep",
        stain="keep",
        image_size=96,
        image_shape=None,
        n_jobs=None,
        spill_dir=None,
    ):
        self.scale = scale
        self.factor = factor
        self.which = which
        self.background = background
        self.stain = stain
        self.image_size = image_size
        self.image_shape = image_shape
        self.n_jobs = n_jobs
        self.spill_dir = spill_dir

    def _validate_params(self) -> None:
        super()._validate_params()
        if isinstance(self.scale, Integral) and self.factor is not None:
            raise ValueError(
                f"factor must be None where scale is a number of pixels, got factor={self.factor} "
                f"and scale={self.scale}."
            )

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
        return super().transform(X)

    def check_size(self, size: tuple[int, int], name: str) -> None:
        """Raise an error if a square of `scale` pixels shows next to nothing but background.

        Parameters
        ----------
        size : tuple of (height, width)
            Of the picture, in pixels.
        name : str
            What the error calls it.

        Raises
        ------
        ValueError
            If the square is more than 16 times as wide as the longer side of the picture.
        """
        self._how().check_size(size, name)

    def crop_pictures(self, pictures: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """Cut a square around the white cell of each of several pictures; this needs no `fit`.

        Parameters
        ----------
        pictures : sequence of array-like of shape (height, width, 3)
            Of any size, as :func:`find_cells` takes them: RGB, uint8.

        Returns
        -------
        squares : ndarray of shape (len(pictures), image_size, image_size, 3), uint8
            The square around the white cell, or the central square, of each picture.
        found : ndarray of shape (len(pictures),), bool
            Whether a white cell was found.

        Raises
        ------
        ValueError
            If a parameter is out of its range, one of `pictures` is no RGB picture, or a square of
            `scale` pixels is more than 16 times as wide as one of them.
        """
        self._validate_params()
        return self._how().squares(pictures)

    def crop_cells(self, picture: Any, cells: Sequence[Cell]) -> np.ndarray:
        """Cut a square around each of the white cells of one picture; this needs no `fit`.

        Parameters
        ----------
        picture : array-like of shape (height, width, 3)
            Of any size, as :func:`find_cells` takes it: RGB, uint8.
        cells : sequence of Cell
            What :func:`find_cells` found in it, or some of these. With ``scale="red cell"`` give
            all: others would be taken for red cells.

        Returns
        -------
        ndarray of shape (len(cells), image_size, image_size, 3), uint8
            In the order of `cells`.

        Raises
        ------
        ValueError
            If a cell is not inside the picture.
        """
        self._validate_params()
        checked, how = Picture(picture, "picture"), self._how()
        how.check_size(checked.size, "picture")
        height, width = checked.size
        if not isinstance(cells, Sequence) or not all(isinstance(cell, Cell) for cell in cells):
            raise ValueError("cells must be a list of Cell, as find_cells returns it.")
        for number, cell in enumerate(cells):
            top, left, bottom, right = cell.bbox
            if not (0 <= top < bottom <= height and 0 <= left < right <= width):
                raise ValueError(
                    f"cells must be of this picture of {height}x{width} pixels, "
                    f"got bbox={cell.bbox} of cells[{number}]. Give what find_cells(picture) found."
                )
        out = np.empty((len(cells), self.image_size, self.image_size, 3), np.uint8)
        for number, cell in enumerate(cells):
            out[number] = how.around(checked, cell, cells)
        return out

    def _output(self, images: np.ndarray) -> tuple[tuple[int, ...], DTypeLike]:
        self.check_size(images.shape[1:3], "every image")
        return (self.image_size, self.image_size, images.shape[3]), images.dtype

    def _transform_one(self, image: np.ndarray, picture: Picture, cells: list[Cell]) -> np.ndarray:
        square = self._how().chosen(picture, cells)
        if image.dtype != np.uint8:
            square = from_bytes(square, self.value_range_, image.dtype)
        return square[..., : image.shape[2]]

    def _how(self) -> Crop:
        return Crop(
            self.scale, self.factor, self.which, self.background, self.stain, self.image_size
        )
