"""White cells in crops and in whole fields."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from wbcclf.cells._cell import Cell
from wbcclf.cells._limit import check_number
from wbcclf.cells._network import redrawn
from wbcclf.cells._picture import Picture
from wbcclf.cells._segment import View, segment

TILE = 2048  # pixels a side, so that a tile's arrays take some 200 MB
MARGIN = 512  # that neighbouring tiles share: no cell is wider


def find_cells(image: np.ndarray, *, method: str = "network") -> list[Cell]:
    """Find the white blood cells of a picture, each with its outline and its nucleus.

    The smear must have a Romanowsky stain, such as May-Grünwald-Giemsa or Wright. The light of the
    background, the colour of the red cells and the depth of the stain are read from the picture
    itself. So white balance, exposure and magnification need not be known.

    Parameters
    ----------
    image : array-like of shape (height, width, 3)
        RGB, uint8 (0-255) or other numbers of 0 or more, such as uint16, of one cell or of a whole
        field. A memory-mapped array of any size is read in tiles of 2,048 pixels. Black corners,
        which pictures have that were turned, are left out.
    method : {"network", "stain"}, default="network"
        What draws the outlines. ``"stain"`` tells the cell from its surroundings by the colours of
        the picture; nothing is trained. ``"network"`` adds a small network, which comes with this
        package and also sees the edge of pale cytoplasm. It is more accurate, and takes 1.3 times
        as long. Both find the same nuclei.

    Returns
    -------
    list of Cell
        From top to bottom, then from left to right; empty where there is no white cell. Cells that
        the border cuts are among them. So are most nucleated red cells (erythroblasts), since
        they have a nucleus. Platelets are not.

    Raises
    ------
    ValueError
        If `image` is not a picture with three channels of such numbers, or `method` is
        neither of the two.

    Notes
    -----
    Light that falls smoothly by more than a fifth is made even, and much noise is blurred. Pictures
    are turned into optical density, which takes out light and exposure [1]_. A nucleus absorbs much
    more green light than blue light; a red cell absorbs both. Their ratio in red cells is estimated
    from the picture, as stain vectors are in [2]_, and the threshold is that of [3]_. Lobes near
    each other count as one nucleus. What is small against the red cells is a platelet. A giant
    platelet, as large as a red cell, may be taken for a cell. Around the nucleus, colour histograms
    of the picture separate the cell from its surroundings, as in [4]_. The outline is found by
    dynamic programming [5]_: every ray from the centre of the nucleus crosses it once.

    The network is a U-Net [6]_ with 70,000 weights. It sees the picture along these rays. It was
    trained on synthetic cells and on the public set BCISC (268 cells with masks, Apache-2.0).

    A cell wider than 512 pixels may be missed in a picture wider than 2,048. No cell is found in a
    picture without colour, or without empty background (a nucleus may fill it), because its light
    cannot be estimated.

    References
    ----------
    .. [1] A. C. Ruifrok, D. A. Johnston, "Quantification of histochemical staining by color
       deconvolution", Analytical and Quantitative Cytology and Histology 23, 2001.
    .. [2] M. Macenko et al., "A method for normalizing histology slides for quantitative
       analysis", ISBI 2009. https://doi.org/10.1109/ISBI.2009.5193250
    .. [3] T. W. Ridler, S. Calvard, "Picture thresholding using an iterative selection method",
       IEEE Transactions on Systems, Man, and Cybernetics 8, 1978.
       https://doi.org/10.1109/TSMC.1978.4310039
    .. [4] C. Rother, V. Kolmogorov, A. Blake, "GrabCut", ACM Transactions on Graphics 23, 2004.
       https://doi.org/10.1145/1015706.1015720
    .. [5] D. Baggett et al., "Whole cell segmentation in tissue sections using dynamic
       programming", Cytometry Part A 67A, 2005.
    .. [6] O. Ronneberger, P. Fischer, T. Brox, "U-Net: convolutional networks for biomedical image
       segmentation", MICCAI 2015. https://doi.org/10.1007/978-3-319-24574-4_28

    Examples
    --------
    >>> from wbcclf import find_cells, make_blood_cells
    >>> image = make_blood_cells(5, image_size=160, random_state=0).images[0]
    >>> (cell,) = find_cells(image)
    >>> cell.nucleus.sum() < cell.cell.sum()
    np.True_
    """
    if method not in ("stain", "network"):
        raise ValueError(f"method must be 'stain' or 'network', got {method!r}.")
    (cells,) = cells_of([Picture(image)], method)
    return cells


def cells_of(pictures: Sequence[Picture], method: str = "network") -> list[list[Cell]]:
    """Return the cells of each of several pictures that are checked."""
    found: list[list[Cell]] = [[] for _ in pictures]
    for batch in _batches(_views(pictures, rough=method == "network")):
        views = [view for *_, view in batch]
        if method == "network":
            outlined = redrawn(views)
        else:
            outlined = [view.cells for view in views]
        for (number, rows, columns, _), cells in zip(batch, outlined, strict=True):
            found[number] += _whole(cells, rows, columns, pictures[number].size)
            check_number(len(found[number]) // 4)  # where tiles overlap, four at most have a cell
    whole = [_without_doubles(cells) for cells in found]
    for cells in whole:
        check_number(len(cells))
    return whole


_Place = tuple[int, slice, slice, View]  # of a tile: number of the picture, rows, columns


def _views(pictures: Sequence[Picture], rough: bool) -> Iterator[_Place]:
    """Give every tile of some pictures in which there may be a cell."""
    for number, picture in enumerate(pictures):
        if picture.stain is None:
            continue
        for rows, columns in product(*map(_tiles, picture.size)):
            yield number, rows, columns, segment(picture[rows, columns], picture.stain, rough)


def _batches(places: Iterable[_Place]) -> Iterator[list[_Place]]:
    """Put small tiles together until they have as many pixels as a large one.

    The outlines of all cells of a batch are drawn together, which is faster.
    """
    batch: list[_Place] = []
    for place in places:
        batch.append(place)
        if sum(view.seen.size for *_, view in batch) >= TILE**2:
            yield batch
            batch = []
    if batch:
        yield batch


def _whole(
    cells: Sequence[Cell], rows: slice, columns: slice, size: tuple[int, int]
) -> Iterator[Cell]:
    """Move cells of a tile into its picture; leave out those that are whole in the next tile."""
    for cell in cells:
        top, left, bottom, right = cell.bbox
        box = top + rows.start, left + columns.start, bottom + rows.start, right + columns.start
        cut = (
            (top == 0 < rows.start)
            or (left == 0 < columns.start)
            or (box[2] == rows.stop < size[0])
            or (box[3] == columns.stop < size[1])
        )
        if not cut:
            yield replace(cell, bbox=box)


def _without_doubles(cells: list[Cell]) -> list[Cell]:
    """Return cells in reading order, each one once that two tiles have found."""
    cells = sorted(cells, key=lambda cell: (-cell.score, cell.bbox))
    boxes = np.array([cell.bbox for cell in cells]).reshape(-1, 4)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    first: list[int] = []
    for number, box in enumerate(boxes):
        before = boxes[first]
        shared = np.minimum(box[2:], before[:, 2:]) - np.maximum(box[:2], before[:, :2])
        common = np.clip(shared, 0, None).prod(axis=1)
        if not (common > 0.5 * np.minimum(areas[number], areas[first])).any():
            first.append(number)
    return sorted((cells[number] for number in first), key=lambda cell: cell.bbox)


def _tiles(length: int) -> Iterator[slice]:
    """Cut a side into slices of at most TILE pixels, each sharing MARGIN with the next."""
    for start in range(0, max(length - MARGIN, 1), TILE - MARGIN):
        yield slice(start, min(start + TILE, length))
