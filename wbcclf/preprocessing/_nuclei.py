"""Nuclei in the picture of the dye, and the red cells that give the scale."""

from __future__ import annotations

import cv2
import numpy as np

from wbcclf.preprocessing._stain import quantile

_SQUARE = np.ones((5, 5), np.uint8)
ENOUGH = 20  # points of outlines
ARC = 0.6  # radii between the points that a circle is drawn through
STRAIGHT = 2.5  # radii


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


def group_nuclei(parts: np.ndarray, areas: np.ndarray, gap: float, smallest: float) -> np.ndarray:
    """Return the number of each nucleus; parts nearer than `gap` pixels are lobes of one.

    Parameters
    ----------
    parts : int32 array of shape (height, width)
        The number of the connected part that a pixel with the dye of nuclei is in; 0 elsewhere.
    areas : array of shape (n_parts,)
        In pixels; the first is that of 0.
    gap : float
        In pixels.
    smallest : float
        Area in pixels; smaller parts are platelets and dirt.

    Returns
    -------
    int32 array of shape (height, width)
        The number of the nucleus that a pixel belongs to, from 1; 0 elsewhere.
    """
    large = areas >= smallest
    large[0] = False
    kept = np.take(large.astype(np.uint8), parts)
    # Bright chromatin and vacuoles are holes of a nucleus that are smaller than its lobes.
    outlines, tree = cv2.findContours(kept, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for number in range(len(outlines)):
        if tree[0, number, 3] >= 0 and cv2.contourArea(outlines[number]) < smallest:
            cv2.drawContours(kept, outlines, number, 1, cv2.FILLED)
    if large.sum() < 2:
        return kept.astype(np.int32)
    near = cv2.distanceTransform(1 - kept, cv2.DIST_L2, 3) <= gap / 2
    _, group = cv2.connectedComponents(near.astype(np.uint8))
    return np.where(kept, group, 0)
