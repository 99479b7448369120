"""CellFeatures: the white cell of every image in numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from sklearn.utils.validation import check_is_fitted

from wbcclf._images import StrOptions
from wbcclf.cells._cell import Cell
from wbcclf.cells._measures import measure
from wbcclf.cells._picture import Picture, choose
from wbcclf.preprocessing._base import CellTransformer

NAMES = (
    "cell area (reference areas)",
    "nucleus area (reference areas)",
    "reference (1 red cell, 0 picture)",
    "nucleus to cell area (ratio)",
    "nucleus lobes (number)",
    "nucleus off centre (cell radii)",
    "cell circularity (0 to 1)",
    "cell eccentricity (0 to 1)",
    "cell solidity (0 to 1)",
    "nucleus circularity (0 to 1)",
    "nucleus eccentricity (0 to 1)",
    "nucleus solidity (0 to 1)",
    "nucleus green density (OD)",
    "nucleus red density (of nucleus green)",
    "nucleus blue density (of nucleus green)",
    "nucleus density spread (of nucleus green)",
    "cytoplasm red density (of nucleus green)",
    "cytoplasm green density (of nucleus green)",
    "cytoplasm blue density (of nucleus green)",
    "cytoplasm redness (of nucleus green)",
    "cytoplasm density spread (of nucleus green)",
    "nucleus contrast (levels^2)",
    "nucleus correlation (-1 to 1)",
    "nucleus homogeneity (0 to 1)",
    "nucleus entropy (bits)",
    "nucleus fine grains (share)",
    "nucleus coarse grains (share)",
    "cytoplasm contrast (levels^2)",
    "cytoplasm correlation (-1 to 1)",
    "cytoplasm homogeneity (0 to 1)",
    "cytoplasm entropy (bits)",
    "cytoplasm fine grains (share)",
    "cytoplasm coarse grains (share)",
    "cut by the border (1 yes, 0 no)",
)


class CellFeatures(CellTransformer):
    """Measure the white cell of every image: size, shape, lobes, colour, texture, granules.

    The table has one row per image and one column per feature, with the unit in its name.
    Nothing is learnt. Magnification, light and the depth of the stain are taken out, as far as they
    can be read from the image itself. An image in which no white cell is found gives a row of NaN.

    Parameters
    ----------
    which : {"centre", "largest"}, default="centre"
        The white cell to measure where there are several: the one whose nucleus is nearest the
        centre of the image, or the largest one.
    image_shape : (height, width, channels) or None, default=None
        Shape of one image if the input is 2-D (rows). None infers it. Ignored for image batches.
    n_jobs : int or None, default=None
        Threads; None or -1 means one per available core. The result does not depend on it.

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
        If a parameter is out of its range, or images have another shape or scale than those given
        to `fit`.

    Warns
    -----
    UserWarning
        If there are images in which no white cell is found; the message counts them.

    See Also
    --------
    find_cells : Finds the cells, with the outlines that are measured here.
    DeepFeatures : Features from a network; they have no meaning in words.

    Notes
    -----
    | feature (unit) | range | meaning |
    |---|---|---|
    | cell area (reference areas) | 0 up | of nucleus and cytoplasm together |
    | nucleus area (reference areas) | 0 up | of all lobes together |
    | reference (1 red cell, 0 picture) | 0 to 1 | 1: the unit of area is the median red cell of the image; 0: too few red cells are seen, and the unit is the whole image |
    | nucleus to cell area (ratio) | 0 to 1 | nucleus over whole cell |
    | nucleus lobes (number) | 0 up | parts of the nucleus that are separated by gaps, or by waists of less than 2/3 of the narrower part's width; specks of less than 1/3 of the widest part's width are left out |
    | nucleus off centre (cell radii) | 0 up | distance from the centre of the cell to that of the nucleus; the radius is that of a disk of the cell's area |
    | cell circularity (0 to 1) | 0 to 1 | 4 pi area / perimeter^2: 1 for a disk [1]_ |
    | cell eccentricity (0 to 1) | 0 to 1 | of the ellipse with the same second moments: 0 for a disk |
    | cell solidity (0 to 1) | 0 to 1 | area over that of the convex hull |
    | nucleus circularity (0 to 1) | 0 to 1 | as of the cell, with the edges of all lobes |
    | nucleus eccentricity (0 to 1) | 0 to 1 | as of the cell |
    | nucleus solidity (0 to 1) | 0 to 1 | as of the cell |
    | nucleus green density (OD) | 0 to 2.41 | median optical density of green light, log10(background / pixel) [2]_ |
    | nucleus red density (of nucleus green) | 0 to 2.55 | median density of red light over that of green light |
    | nucleus blue density (of nucleus green) | 0 to 2.55 | the same of blue light |
    | nucleus density spread (of nucleus green) | 0 to 1.28 | standard deviation of the green density |
    | cytoplasm red density (of nucleus green) | 0 to 2.55 | median density of red light over that of green light in the nucleus: high in blue cytoplasm |
    | cytoplasm green density (of nucleus green) | 0 to 2.55 | the same of green light |
    | cytoplasm blue density (of nucleus green) | 0 to 2.55 | the same of blue light |
    | cytoplasm redness (of nucleus green) | -2.55 to 2.55 | mean of green and blue density minus red density: above 0 is red, below 0 is blue (basophilic) |
    | cytoplasm density spread (of nucleus green) | 0 to 1.28 | standard deviation of the green density |
    | nucleus contrast (levels^2) | 0 to 961 | mean squared difference of neighbours [3]_ |
    | nucleus correlation (-1 to 1) | -1 to 1 | of neighbours [3]_ |
    | nucleus homogeneity (0 to 1) | 0 to 1 | inverse difference moment: 1 where all is one level [3]_ |
    | nucleus entropy (bits) | 0 to 10 | of the levels of pairs of neighbours: 0 where all is one level [3]_ |
    | nucleus fine grains (share) | 0 to 1 | share of the green density that lies in grains narrower than 1/16 of the cell's diameter [4]_ |
    | nucleus coarse grains (share) | 0 to 1 | the same of wider grains, narrower than 1/7 of the cell's diameter |
    | cytoplasm contrast (levels^2) | 0 to 961 | as of the nucleus |
    | cytoplasm correlation (-1 to 1) | -1 to 1 | as of the nucleus |
    | cytoplasm homogeneity (0 to 1) | 0 to 1 | as of the nucleus |
    | cytoplasm entropy (bits) | 0 to 10 | as of the nucleus |
    | cytoplasm fine grains (share) | 0 to 1 | as of the nucleus |
    | cytoplasm coarse grains (share) | 0 to 1 | as of the nucleus |
    | cut by the border (1 yes, 0 no) | 0 to 1 | the cell reaches the border of the image: its areas and shape are those of the part that is seen |

    For colour and texture, the cell is scaled to a diameter of 48 pixels. Neighbours are pixels that
    touch there, in all eight directions. A level is 1/20 of the green density of the nucleus; the last
    of 32 holds everything above. Waists are found by the h-maxima of the distance from the edge [5]_.

    Features of the cytoplasm are NaN where the nucleus fills the cell. Texture also depends on focus
    and resolution, so compare it only within one laboratory.

    References
    ----------
    .. [1] D. Legland, K. Kieu, M.-F. Devaux, "Computation of Minkowski measures on 2D and 3D binary
       images", Image Analysis and Stereology 26, 2007 (perimeter by Crofton's formula).
       https://doi.org/10.5566/ias.v26.p83-92
    .. [2] A. C. Ruifrok, D. A. Johnston, "Quantification of histochemical staining by color
       deconvolution", Analytical and Quantitative Cytology and Histology 23, 2001.
    .. [3] R. M. Haralick, K. Shanmugam, I. Dinstein, "Textural features for image classification",
       IEEE Transactions on Systems, Man, and Cybernetics 3, 1973.
       https://doi.org/10.1109/TSMC.1973.4309314
    .. [4] P. Maragos, "Pattern spectrum and multiscale shape representation", IEEE Transactions on
       Pattern Analysis and Machine Intelligence 11, 1989. https://doi.org/10.1109/34.192465
    .. [5] P. Soille, "Morphological Image Analysis", 2nd edition, Springer, 2003.
       https://doi.org/10.1007/978-3-662-05088-0

    Examples
    --------
    >>> from wbcclf import CellFeatures, make_blood_cells
    >>> cells = make_blood_cells(8, image_size=160, random_state=5)
    >>> features = CellFeatures().set_output(transform="pandas")
    >>> table = features.fit_transform(cells.images)
    >>> table.shape
    (8, 34)
    >>> table["nucleus to cell area (ratio)"].between(0.2, 1).all()
    np.True_
    """  # noqa: E501

    _parameter_constraints: dict = {
        "which": [StrOptions({"centre", "largest"})],
        **CellTransformer._parameter_constraints,
    }
    _without_cell = "give a row of NaN"

    def __init__(self, which="centre", *, image_shape=None, n_jobs=None):
        self.which = which
        self.image_shape = image_shape
        self.n_jobs = n_jobs

    def transform(self, X: Any) -> np.ndarray:
        """Measure the white cell of every image.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width, channels) or (n_samples, n_features)
            Images of the size and value range of those given to `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_features_out), float64
            NaN where no white cell is found. A data frame after ``set_output(transform="pandas")``.
        """
        return super().transform(X)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the features, each with its unit.

        Parameters
        ----------
        input_features : None
            Ignored.

        Returns
        -------
        ndarray of str objects
        """
        check_is_fitted(self)
        return np.array(NAMES, object)

    def _output(self, images: np.ndarray) -> tuple[tuple[int, ...], DTypeLike]:
        return (len(NAMES),), np.float64

    def _transform_one(self, image: np.ndarray, picture: Picture, cells: list[Cell]) -> np.ndarray:
        if not cells:
            return np.full(len(NAMES), np.nan)
        found = measure(picture, choose(cells, picture.size, self.which), cells)
        return np.array([found.get(name, np.nan) for name in NAMES])

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags
