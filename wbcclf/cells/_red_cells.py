"""Red cells, which give the scale: normal ones are 7 to 8 micrometres wide."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from wbcclf.cells._cell import Cell
from wbcclf.cells._picture import Picture, covered
from wbcclf.cells._stain import FAINTEST, byte_densities, inside, quantile

_SQUARE = np.ones((5, 5), np.uint8)
_BLURRED = np.ones((7, 7), np.uint8)  # the edge of a white cell is no outline of a red cell
ENOUGH = 20  # points of outlines
ARC = 0.6  # radii between the points that a circle is drawn through
STRAIGHT = 2.5  # radii


def radius_of_red_cells(
    picture: Picture, cells: Sequence[Cell], box: tuple[int, int, int, int] | None = None
) -> float | None:
    """Return the radius of the red cells in pixels, or None where too few are seen.

    They are what is stained outside of the white cells.

    Parameters
    ----------
    picture : Picture
    cells : sequence of Cell
        All white cells of the picture.
    box : (top, left, bottom, right) or None
        The part of the picture that is looked at; None is all of it.
    """
    top, left, bottom, right = box = box or (0, 0, *picture.size)
    blurred = cv2.GaussianBlur(picture[top:bottom, left:right], (5, 5), 1)
    seen = inside(blurred)
    white = covered(cells, box).astype(np.uint8)
    others = (cv2.dilate(white, _BLURRED) == 0) & (seen > 0)
    table = np.clip(100 * byte_densities(picture.light[1]), 0, 255).astype(np.uint8)
    green = np.asarray(cv2.LUT(np.ascontiguousarray(blurred[..., 1]), table))
    if not others.any():
        return None
    level, _ = cv2.threshold(green[others], 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    dense = (green > max(level, 100 * FAINTEST)).astype(np.uint8) & seen
    return red_cell_radius(dense, others[::2, ::2])


def red_cell_radius(stained: np.ndarray, away: np.ndarray) -> float | None:
    """Return the radius of red cells in pixels, or None where too few are seen.

    It is the median radius of the circles through three points of an outline that bulges there. So
    neither pale centres nor clumps and rolls of red cells matter, whose outlines are their arcs.

    Parameters
    ----------
    stained : uint8 array of shape (height, width)
        1 in what is stained.
    away : bool array of shape (ceil(height / 2), ceil(width / 2))
        At every second pixel, whether no white cell can be there: outlines count only there.
    """
    # A first guess, in every second pixel: half as thick as red cells are.
    distance = cv2.distanceTransform(np.ascontiguousarray(stained[::2, ::2]), cv2.DIST_L2, 3)
    peaks = distance[(distance == cv2.dilate(distance, _SQUARE)) & (distance > 1) & away]
    if not len(peaks):
        return None
    radius = 2 * float(quantile(peaks, 0.8))
    outlines, _ = cv2.findContours(stained, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    last = 0
    for _ in range(3):
        step = max(3, round(ARC * radius))
        if step == last:  # it would find the same
            break
        last = step
        long = [outline for outline in outlines if len(outline) >= 4 * step]
        radii = _bulges(long, step, away, stained.shape)
        # The sides of rolls and clumps are nearly straight.
        radii = radii[radii < STRAIGHT * radius]
        if len(radii) < ENOUGH:
            return None
        radius = float(quantile(radii, 0.5))
    return radius


def _bulges(
    outlines: list[np.ndarray], step: int, away: np.ndarray, size: tuple[int, ...]
) -> np.ndarray:
    """Return the radii of the circles through points `step` apart where outlines bulge."""
    if not outlines:
        return np.empty(0)
    # Every second point, and those `step` before and after it on the same closed outline.
    lengths = np.array([len(outline) for outline in outlines])
    points = np.concatenate(outlines)[:, 0].astype(np.float32)
    first = np.repeat(np.cumsum(lengths) - lengths, lengths)[::2]
    length = np.repeat(lengths, lengths)[::2]
    number = np.arange(0, len(points), 2) - first
    here = points[::2]
    before = points[first + (number - step) % length] - here
    after = points[first + (number + step) % length] - here
    area = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    # The picture's border cuts cells along straight lines.
    inner = ((here > step) & (here < np.array(size[::-1]) - 1 - step)).all(axis=1)
    x, y = here.astype(int).T
    bulges = inner & away[y // 2, x // 2] & (area > 0)
    before, after, area = before[bulges], after[bulges], area[bulges]
    sides = [np.hypot(side[:, 0], side[:, 1]) for side in (before, after, before - after)]
    return sides[0] * sides[1] * sides[2] / (2 * area)
