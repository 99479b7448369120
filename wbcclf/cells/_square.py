"""The square around a white cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from wbcclf._files import some
from wbcclf._warnings import warn
from wbcclf.cells._cell import Cell
from wbcclf.cells._cells import cells_of
from wbcclf.cells._picture import (
    GREY,
    Picture,
    choose,
    covered,
    cut,
    diameter,
    in_one_light,
    in_one_stain,
    mirror,
    nucleus_centre,
    resized,
)
from wbcclf.cells._red_cells import radius_of_red_cells

LARGEST = 16  # sides of the picture that a square may have: beyond is nothing to see
FACTORS = {"nucleus": 3.0, "cell": 1.5, "red cell": 3.0}
# Most white cells are 1.2 to 3 times as wide as red cells, twice as a rule: docs/cells.md. Outside
# of this, something else was probably taken for red cells.
USUAL, NARROWEST, WIDEST = 2.0, 1.15, 3.1
AROUND = 10  # cell diameters: side of the square around the cell whose red cells give the scale

_SQUARE = np.ones((5, 5), np.uint8)


@dataclass(frozen=True)
class Crop:
    """How squares are cut: parameters of :class:`CellCropper`, which are checked already."""

    scale: str | int
    factor: float | None
    which: str
    background: str
    stain: str
    image_size: int

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
        if not isinstance(self.scale, str) and int(self.scale) > LARGEST * max(size):
            raise ValueError(
                f"scale={self.scale} gives a square of {self.scale} pixels, more than {LARGEST} "
                f"times as wide as {name}, which is {size[0]}x{size[1]}. Give a smaller scale."
            )

    def squares(self, pictures: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """Return the square of each picture, uint8, and where a white cell was found, bool.

        Raises
        ------
        ValueError
            If one is no RGB picture, or too small for the square.
        """
        checked = [Picture(each, f"pictures[{k}]") for k, each in enumerate(pictures)]
        for picture in checked:
            self.check_size(picture.size, picture.name)
        squares = np.empty((len(checked), self.image_size, self.image_size, 3), np.uint8)
        found = np.zeros(len(checked), bool)
        for number, (picture, cells) in enumerate(zip(checked, cells_of(checked), strict=True)):
            squares[number], found[number] = self.chosen(picture, cells), bool(cells)
        return squares, found

    def chosen(self, picture: Picture, cells: list[Cell]) -> np.ndarray:
        """Return the square around one of the cells of a picture, or the central one."""
        cell = choose(cells, picture.size, self.which) if cells else None
        return self.around(picture, cell, cells)

    def around(self, picture: Picture, cell: Cell | None, cells: Sequence[Cell]) -> np.ndarray:
        """Return the square around a cell, or the central one; no mirror image shows `cells`."""
        if cell is None:
            centre, side = (np.array(picture.size) - 1) / 2, min(picture.size)
        else:
            centre, side = nucleus_centre(cell), self._side(picture, cell, cells)
        top, left = np.rint(centre - (side - 1) / 2).astype(int)
        box = (top, left, top + side, left + side)
        stained = cell if self.stain == "normalise" else None  # whose stain is taken out
        even = stained is not None or self.background != "keep"
        square, known = cut(picture, box, even)
        square = resized(square, self.image_size)
        if not known.all():
            # Mirrored when small, which is faster. What is known in part is not known.
            known, others = self._shrunk(known), self._shrunk(covered(cells, box))
            # Blur spreads the rim of a cell beyond its outline.
            mirror(square, known == 255, cv2.dilate(others, _SQUARE) == 0)
        if stained is not None:
            square = in_one_stain(square, picture, stained)
        if self.background != "keep":
            square = in_one_light(square, picture.light)
            if self.background == "remove" and cell is not None:
                square[self._shrunk(covered([cell], box)) < 128] = GREY
        return square

    def _shrunk(self, mask: np.ndarray) -> np.ndarray:
        """Return how much of each pixel of the output a mask covers, uint8: 255 for all of it."""
        return resized(255 * mask.astype(np.uint8), self.image_size)

    def _side(self, picture: Picture, cell: Cell, cells: Sequence[Cell]) -> int:
        if not isinstance(self.scale, str):
            return int(self.scale)
        if self.scale == "red cell":
            unit = _red_cell_diameter(picture, cell, cells)
        else:
            unit = diameter(getattr(cell, self.scale))
        factor = FACTORS[self.scale] if self.factor is None else self.factor
        return max(1, round(factor * unit))


def _red_cell_diameter(picture: Picture, cell: Cell, cells: Sequence[Cell]) -> float:
    """Return how wide red cells are around a white cell, or would be if some were seen there."""
    width = diameter(cell.cell)
    centre, reach = nucleus_centre(cell), AROUND * width / 2
    top, left = np.maximum(centre - reach, 0).astype(int)
    bottom, right = np.minimum(np.ceil(centre + reach).astype(int) + 1, picture.size)
    radius = radius_of_red_cells(picture, cells, (top, left, bottom, right))
    if radius and NARROWEST <= width / (2 * radius) <= WIDEST:
        return 2 * radius
    return width / USUAL


def warn_of_missing_cells(names: Sequence[str], found: np.ndarray) -> None:
    """Warn once of all pictures in which no white cell was found."""
    missing = [name for name, is_found in zip(names, found, strict=True) if not is_found]
    if missing:
        warn(
            f"No white cell was found in {len(missing)} of {len(names)} images; they are cut "
            f"to their central square:\n  {some(missing, 5, chr(10) + '  ')}"
        )
