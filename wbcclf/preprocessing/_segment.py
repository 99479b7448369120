"""The white cells of one tile."""

from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np

from wbcclf.preprocessing._cell import Cell
from wbcclf.preprocessing._nuclei import group_nuclei, red_cell_radius
from wbcclf.preprocessing._outline import colour_bins, find_outline, histogram
from wbcclf.preprocessing._stain import FAINTEST, Stain, density, inside

# Areas of a red cell, which is 7 to 8 micrometres wide. The nucleus of a small lymphocyte is as
# large as a red cell, a platelet is 2 to 3 micrometres wide: a tenth.
LIKELY = 0.35  # the score is 0.5 here
SMALLEST_LOBE = 0.08
# Red cell radii.
GAP = 0.5  # between lobes of one nucleus
FAR = 1.2  # from a nucleus: other cells and background

SAME = 0.3  # outlines that share this much of the smaller one are of one cell


def segment(tile: np.ndarray, stain: Stain) -> list[Cell]:
    """Return the white cells of a uint8 picture (height, width, 3), in its coordinates."""
    seen = inside(tile)
    # One pixel of blur takes out the noise and the colour fringes of JPEG.
    depth = density(cv2.GaussianBlur(tile, (0, 0), 1), stain.light)
    green = depth[..., 1]
    dye = green - np.float32(stain.slope) * depth[..., 2]
    dark = ((dye > stain.threshold) & (seen > 0)).astype(np.uint8)
    dark = cv2.morphologyEx(
        dark, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    )
    if not dark.any():
        return []
    away = cv2.distanceTransform(1 - dark, cv2.DIST_L2, 3)
    size = float(np.sqrt(dark.sum() / np.pi))
    radius = None
    if stain.red is not None:
        red = (green > max(stain.red / 2, FAINTEST)) & (seen > 0) & (away > 0.3 * size)
        radius = red_cell_radius(red.astype(np.uint8))
    radius = radius or size
    area = np.pi * radius**2

    bins = colour_bins(depth, dye, float(np.median(green[dark > 0])))
    others = (away > FAR * radius) & (seen > 0)
    if others.mean() < 0.1:  # a crop: what is farthest from the nuclei
        others = (away > np.percentile(away, 75)) & (seen > 0)
    outside = histogram(bins[others])

    nuclei, count = group_nuclei(dark, GAP * radius, SMALLEST_LOBE * area)

    def outlined(number: int) -> Cell:
        return _outlined(nuclei, number, bins, seen, outside, radius)

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
    bins: np.ndarray,
    seen: np.ndarray,
    outside: np.ndarray,
    radius: float,
) -> Cell:
    """Return the cell around the nucleus of this number."""
    left, top, width, height = cv2.boundingRect((nuclei == number).astype(np.uint8))
    pad = int(1.5 * radius + 0.5 * max(width, height)) + 1
    top, left, bottom, right = (
        max(top - pad, 0),
        max(left - pad, 0),
        top + height + pad,
        left + width + pad,
    )
    window = np.s_[top:bottom, left:right]
    nucleus = (nuclei[window] == number).astype(np.uint8)
    outline = find_outline(bins[window], nucleus, seen[window], outside, radius)
    cell = np.zeros_like(nucleus)
    cv2.fillPoly(cell, [np.round(outline).astype(np.int32)], 1)
    cell &= seen[window]
    x, y, width, height = cv2.boundingRect(cell)
    box = np.s_[y : y + height, x : x + width]
    top, left = top + y, left + x
    relative = float(nucleus.sum()) / (np.pi * radius**2)
    return Cell(
        bbox=(top, left, top + height, left + width),
        cell=cell[box] > 0,
        nucleus=(nucleus & cell)[box] > 0,
        score=relative**2 / (relative**2 + LIKELY**2),
    )


def _same_cell(found: dict[int, Cell]) -> tuple[int, int] | None:
    """Return the numbers of the first two whose outlines share too much to be two cells."""
    for (first, one), (second, other) in combinations(found.items(), 2):
        top, left = np.maximum(one.bbox[:2], other.bbox[:2])
        bottom, right = np.minimum(one.bbox[2:], other.bbox[2:])
        if top >= bottom or left >= right:
            continue
        shared = [
            cell.cell[top - row : bottom - row, left - column : right - column]
            for cell in (one, other)
            for row, column in [cell.bbox[:2]]
        ]
        smaller = min(one.cell.sum(), other.cell.sum())
        if (shared[0] & shared[1]).sum() > SAME * smaller:
            return first, second
    return None
