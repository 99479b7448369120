"""The white cells of one tile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from wbcclf.cells._cell import Cell, overlap
from wbcclf.cells._limit import check_number
from wbcclf.cells._nuclei import group_nuclei
from wbcclf.cells._outline import colour_bins, find_outline, histogram
from wbcclf.cells._red_cells import red_cell_radius
from wbcclf.cells._stain import FAINTEST, Stain, inside, quantile

# In red cells, which are 7 to 8 micrometres wide; the nucleus of a small lymphocyte is as large as
# one, a platelet is 2 to 3 micrometres wide: a tenth. Lobes and platelets are alike in size, so
# the score looks at the whole cell, too.
SMALLEST_LOBE = 0.045  # area
LIKELY = 0.35  # area of the nucleus times that of the cell, where the score is 0.5
GAP = 0.4  # radii between lobes of one nucleus
FAR = 0.9  # radii from a nucleus: other cells and background

# Where no red cell gives the scale: a nucleus is as wide as a red cell or wider, which is at least
# 1/20 of a small picture and 20 pixels of a large one. Platelets alone are smaller.
CROP, LEAST = 40, 12  # radii of red cells: in a picture's side; in pixels

FEWEST = 4  # pixels of radius: smaller nuclei show no shape
PLENTY = 15  # pixels of radius: as many show it well
NUCLEUS = 1.3  # radius of a typical nucleus in those of a red cell
CYTOPLASM = 0.6  # its width in radii of the nucleus
EDGE = 0.5  # of the dye of nuclei: a nucleus ends where half of it is left
ENOUGH = 5_000  # pixels for a histogram
SAME = 0.3  # outlines that share this much of the smaller one are of one cell

_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


class View(NamedTuple):
    """A picture or a tile of one, and its white cells."""

    tile: np.ndarray  # uint8 (height, width, 3)
    seen: np.ndarray  # uint8 (height, width): 1 where the picture is, 0 in black corners
    stain: Stain
    cells: list[Cell]  # in coordinates of the tile


def segment(tile: np.ndarray, stain: Stain, rough: bool = False) -> View:
    """Find the white cells of a uint8 picture (height, width, 3) by the stain.

    `rough` outlines are for a network that draws them again.
    """
    seen = inside(tile)
    # Every fourth pixel tells how large the nuclei are, and so what resolution they need.
    dark = _dark(np.ascontiguousarray(tile[::4, ::4]), seen[::4, ::4], stain)
    factor = 2 ** max(int(np.log2(max(4 * _largest(dark)[0], 1) / PLENTY)), 0)
    # Averages of blocks, or one pixel of blur, take out the noise and the colour fringes of JPEG.
    if factor == 1:
        small = cv2.GaussianBlur(tile, (5, 5), 1)
    else:
        height, width = seen.shape
        rest = (0, -height % factor, 0, -width % factor, cv2.BORDER_REPLICATE)
        small = cv2.copyMakeBorder(tile, *rest)
        scale = 1 / factor
        small = cv2.resize(small, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    shown = np.ascontiguousarray(seen[::factor, ::factor])
    return View(tile, seen, stain, _cells(_Scene(small, shown, seen, factor, stain, rough)))


@dataclass(frozen=True)
class _Scene:
    """A tile at the resolution that its nuclei are looked for at, and at its own."""

    pixels: np.ndarray  # uint8 (height, width, 3), without noise
    seen: np.ndarray  # uint8: 1 where the picture is
    full: np.ndarray  # the same at the resolution of the tile
    factor: int  # pixels of the tile for one here
    stain: Stain
    rough: bool


def _dark(pixels: np.ndarray, seen: np.ndarray, stain: Stain) -> np.ndarray:
    """Return where there is as much dye as in nuclei, as uint8 0 or 1."""
    dyed = (stain.dye(pixels) > EDGE * stain.nucleus).astype(np.uint8) & seen
    return np.asarray(cv2.morphologyEx(dyed, cv2.MORPH_OPEN, _CROSS))


def _largest(mask: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the radius of the largest part of a mask; the number of each pixel's part; areas."""
    _, parts = cv2.connectedComponents(mask)
    areas = np.bincount(parts.ravel())  # cv2's own statistics take four times as long
    return float(np.sqrt(areas[1:].max(initial=0) / np.pi)), parts, areas


def _cells(scene: _Scene) -> list[Cell]:
    stain, seen = scene.stain, scene.seen
    dark = _dark(scene.pixels, seen, stain)
    size, parts, areas = _largest(dark)
    if size < FEWEST:
        return []
    # Every second pixel tells how far nuclei are, in a quarter of the time.
    away = 2 * cv2.distanceTransform(1 - dark[::2, ::2], cv2.DIST_L2, 3)
    radius = None
    if stain.red is not None:
        dense = (stain.density(scene.pixels, 1) > max(stain.red / 2, FAINTEST)).astype(np.uint8)
        # Cytoplasm may be as dense as a red cell, but most of it is near the nucleus.
        radius = red_cell_radius(dense & seen, away > CYTOPLASM * size)
    if radius is None:
        # No scale: a nucleus is at least so large, and what is smaller is a platelet.
        least = min(np.sqrt(scene.full.size) / CROP, LEAST) / scene.factor
        radius = max(size / NUCLEUS, least)
    nuclei = group_nuclei(parts, areas, GAP * radius, SMALLEST_LOBE * np.pi * radius**2)
    boxes = _boxes(nuclei)
    if not boxes:
        return []
    check_number(len(boxes))

    # A tenth of a picture or more is enough of what is no white cell; else what is farthest.
    stride = max(1, round(np.sqrt(away.size / ENOUGH)))
    away, shown = away[::stride, ::stride], seen[:: 2 * stride, :: 2 * stride] > 0
    if not shown.any():  # a few pixels of picture in much black
        return []
    far = shown & (away > min(FAR * radius, float(quantile(away[shown], 0.75))))
    if not far.any():
        return []
    pixels = scene.pixels[:: 2 * stride, :: 2 * stride][far]
    outside = histogram(colour_bins(pixels[None], stain)[0])

    def outlined(number: int) -> Cell:
        return _outlined(scene, nuclei, number, boxes[number], outside, radius)

    found = {number: outlined(number) for number in boxes}
    while pairs := _same_cells(found):
        grown = set()
        for first, second in pairs:
            if not {first, second} <= found.keys():  # it has just gone; the next round sees to it
                continue
            part = nuclei[boxes[second]]
            part[part == second] = first
            boxes[first] = tuple(
                slice(min(one.start, other.start), max(one.stop, other.stop))
                for one, other in zip(boxes[first], boxes[second], strict=True)
            )
            del found[second]
            grown.add(first)
        found |= {number: outlined(number) for number in grown & found.keys()}
    return [cell for cell in found.values() if cell.score >= 0.5]


def _boxes(nuclei: np.ndarray) -> dict[int, tuple[slice, ...]]:
    """Return the rows and columns of each nucleus by its number."""
    rows, columns = np.nonzero(nuclei)
    numbers = nuclei[rows, columns]
    n_numbers = numbers.max(initial=0) + 1

    def sides(places: np.ndarray) -> list[slice]:
        starts, stops = np.full(n_numbers, nuclei.size), np.zeros(n_numbers, int)
        np.minimum.at(starts, numbers, places)
        np.maximum.at(stops, numbers, places + 1)
        return [slice(*side) for side in zip(starts.tolist(), stops.tolist(), strict=True)]

    every = enumerate(zip(sides(rows), sides(columns), strict=True))
    return {number: box for number, box in every if number}  # 0 is no nucleus


def _outlined(
    scene: _Scene,
    nuclei: np.ndarray,
    number: int,
    box: tuple[slice, ...],
    outside: np.ndarray,
    radius: float,
) -> Cell:
    """Return the cell around the nucleus of this number, at the resolution of the tile."""
    pad = int(1.5 * radius + 0.5 * max(side.stop - side.start for side in box)) + 1
    top, left = (max(side.start - pad, 0) for side in box)
    window = np.s_[top : box[0].stop + pad, left : box[1].stop + pad]
    nucleus = (nuclei[window] == number).astype(np.uint8)
    seen = scene.seen[window]
    outline = find_outline(
        scene.pixels[window], nucleus, seen, scene.stain, outside, radius, scene.rough
    )
    factor = scene.factor
    top, left, radius = factor * top, factor * left, factor * radius
    full = scene.full[top : top + factor * len(nucleus), left : left + factor * nucleus.shape[1]]
    cell = np.zeros(full.shape, np.uint8)
    cv2.fillPoly(cell, [np.rint(outline * factor + (factor - 1) / 2).astype(np.int32)], 1)
    cell &= full
    nucleus = cv2.resize(255 * nucleus, None, fx=factor, fy=factor)[: len(full), : full.shape[1]]
    nucleus = (nucleus > 127) & (cell > 0)
    x, y, width, height = cv2.boundingRect(cell)
    tight = np.s_[y : y + height, x : x + width]
    relative = float(nucleus.sum()) * float(cell.sum()) / (np.pi * radius**2) ** 2
    return Cell(
        bbox=(top + y, left + x, top + y + height, left + x + width),
        cell=cell[tight] > 0,
        nucleus=nucleus[tight],
        score=relative**2 / (relative**2 + LIKELY**2),
    )


def _same_cells(found: dict[int, Cell]) -> list[tuple[int, int]]:
    """Return the numbers of those whose outlines share too much to be two cells."""
    numbers = list(found)
    boxes = np.array([cell.bbox for cell in found.values()])
    starts, stops = boxes[:, None, :2], boxes[:, None, 2:]
    meet = np.maximum(starts, boxes[:, :2]) < np.minimum(stops, boxes[:, 2:])
    pairs = []
    for i, j in np.argwhere(np.triu(meet.all(axis=2), 1)):
        one, other = found[numbers[i]], found[numbers[j]]
        ours, theirs = overlap(one.bbox, other.bbox)
        shared = np.count_nonzero(one.cell[ours] & other.cell[theirs])
        if shared > SAME * min(np.count_nonzero(one.cell), np.count_nonzero(other.cell)):
            pairs.append((numbers[i], numbers[j]))
    return pairs
