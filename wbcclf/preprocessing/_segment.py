"""The white cells of one tile."""

from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np

from wbcclf.preprocessing._cell import Cell, overlap
from wbcclf.preprocessing._nuclei import group_nuclei, red_cell_radius
from wbcclf.preprocessing._outline import colour_bins, find_outline, histogram
from wbcclf.preprocessing._stain import FAINTEST, Stain, inside, quantile

# In red cells, which are 7 to 8 micrometres wide; the nucleus of a small lymphocyte is as large as
# one, a platelet is 2 to 3 micrometres wide: a tenth. Lobes and platelets are alike in size, so
# the score looks at the whole cell, too.
SMALLEST_LOBE = 0.045  # area
LIKELY = 0.35  # area of the nucleus times that of the cell, where the score is 0.5
GAP = 0.4  # radii between lobes of one nucleus
FAR = 0.9  # radii from a nucleus: other cells and background

FEWEST = 4  # pixels of radius: smaller nuclei show no shape
PLENTY = 15  # pixels of radius: as many show it well
NUCLEUS = 1.3  # radius of a typical nucleus in those of a red cell
CYTOPLASM = 0.6  # its width in radii of the nucleus
EDGE = 0.5  # of the dye of nuclei: a nucleus ends where half of it is left
ENOUGH = 20_000  # pixels for a histogram
SAME = 0.3  # outlines that share this much of the smaller one are of one cell

_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def segment(tile: np.ndarray, stain: Stain) -> list[Cell]:
    """Return the white cells of a uint8 picture (height, width, 3), in its coordinates."""
    seen = inside(tile)
    # Every fourth pixel tells how large the nuclei are, and so what resolution they need.
    dark = _dark(np.ascontiguousarray(tile[::4, ::4]), seen[::4, ::4], stain)
    areas = cv2.connectedComponentsWithStats(dark)[2][1:, cv2.CC_STAT_AREA]
    size = 4 * np.sqrt(areas.max(initial=0) / np.pi)
    factor = 2 ** max(int(np.log2(size / PLENTY)), 0) if size else 1
    if factor == 1:
        # One pixel of blur takes out the noise and the colour fringes of JPEG.
        return _cells(cv2.GaussianBlur(tile, (5, 5), 1), seen, stain, 1, seen)
    height, width = seen.shape
    rest = (0, -height % factor, 0, -width % factor, cv2.BORDER_REPLICATE)
    tile, scale = cv2.copyMakeBorder(tile, *rest), 1 / factor
    small = cv2.resize(tile, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return _cells(small, np.ascontiguousarray(seen[::factor, ::factor]), stain, factor, seen)


def _dark(pixels: np.ndarray, seen: np.ndarray, stain: Stain) -> np.ndarray:
    """Return where there is as much dye as in nuclei, as uint8 0 or 1."""
    dyed = (stain.dye(pixels) > EDGE * stain.nucleus).astype(np.uint8) & seen
    return np.asarray(cv2.morphologyEx(dyed, cv2.MORPH_OPEN, _CROSS))


def _tight(cell: np.ndarray, nucleus: np.ndarray, top: int, left: int, score: float) -> Cell:
    """Return a cell from masks, of which the corner is at a row and a column of the picture."""
    x, y, width, height = cv2.boundingRect(cell.astype(np.uint8))
    box = np.s_[y : y + height, x : x + width]
    bbox = (top + y, left + x, top + y + height, left + x + width)
    return Cell(bbox, cell[box], nucleus[box], score)


def _cells(tile: np.ndarray, seen: np.ndarray, stain: Stain, factor, full) -> list[Cell]:
    """Return the white cells of a uint8 picture whose nuclei are not much larger than PLENTY."""
    dark = _dark(tile, seen, stain)
    if not dark.any():
        return []
    away = cv2.distanceTransform(1 - dark, cv2.DIST_L2, 3)
    _, parts, stats, _ = cv2.connectedComponentsWithStats(dark)
    areas = stats[:, cv2.CC_STAT_AREA]
    size = float(np.sqrt(areas[1:].max() / np.pi))
    if size < FEWEST:
        return []
    radius = None
    if stain.red is not None:
        dense = (stain.density(tile, 1) > max(stain.red / 2, FAINTEST)).astype(np.uint8)
        # Cytoplasm may be as dense as a red cell, but most of it is near the nucleus.
        radius = red_cell_radius(dense & seen, away > CYTOPLASM * size)
    radius = radius or size / NUCLEUS
    nuclei, count = group_nuclei(parts, areas, GAP * radius, SMALLEST_LOBE * np.pi * radius**2)
    if count == 1:
        return []

    # A tenth of a picture or more is enough of what is no white cell; else what is farthest.
    stride = max(2, round(np.sqrt(seen.size / ENOUGH)))
    some = np.s_[::stride, ::stride]
    distances, pixels = away[some][seen[some] > 0], tile[some][seen[some] > 0]
    far = distances > min(FAR * radius, float(quantile(distances, 0.75)))
    outside = histogram(colour_bins(pixels[far][None], stain)[0])

    def outlined(number: int) -> Cell:
        return _outlined(nuclei, number, tile, seen, stain, outside, radius, factor, full)

    found = {number: outlined(number) for number in range(1, count)}
    while (pair := _same_cell(found)) is not None:
        first, second = pair
        nuclei[nuclei == second] = first
        del found[second]
        found[first] = outlined(first)
    return [cell for cell in found.values() if cell.score >= 0.5]


def _outlined(
    nuclei: np.ndarray,
    number: int,
    tile: np.ndarray,
    seen: np.ndarray,
    stain: Stain,
    outside: np.ndarray,
    radius: float,
    factor: int,
    full: np.ndarray,
) -> Cell:
    """Return the cell around the nucleus of this number."""
    left, top, width, height = cv2.boundingRect((nuclei == number).astype(np.uint8))
    pad = int(1.5 * radius + 0.5 * max(width, height)) + 1
    window = np.s_[max(top - pad, 0) : top + height + pad, max(left - pad, 0) : left + width + pad]
    top, left = max(top - pad, 0), max(left - pad, 0)
    nucleus = (nuclei[window] == number).astype(np.uint8)
    outline = find_outline(tile[window], nucleus, seen[window], stain, outside, radius)
    outline = outline * factor + (factor - 1) / 2
    nucleus = cv2.resize(nucleus * 255, None, fx=factor, fy=factor) > 127
    top, left, radius = top * factor, left * factor, radius * factor
    cell = np.zeros(nucleus.shape, np.uint8)
    cv2.fillPoly(cell, [np.round(outline).astype(np.int32)], 1)
    part = full[top : top + len(cell), left : left + cell.shape[1]]
    cell = cell[: len(part), : part.shape[1]] & part
    nucleus = nucleus[: len(part), : part.shape[1]]
    relative = float(nucleus.sum()) * float(cell.sum()) / (np.pi * radius**2) ** 2
    score = relative**2 / (relative**2 + LIKELY**2)
    return _tight(cell > 0, (nucleus & cell) > 0, top, left, score)


def _same_cell(found: dict[int, Cell]) -> tuple[int, int] | None:
    """Return the numbers of the first two whose outlines share too much to be two cells."""
    for (first, one), (second, other) in combinations(found.items(), 2):
        ours, theirs = overlap(one.bbox, other.bbox)
        shared = (one.cell[ours] & other.cell[theirs]).sum()
        if shared > SAME * min(one.cell.sum(), other.cell.sum()):
            return first, second
    return None
