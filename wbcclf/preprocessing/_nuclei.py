"""Nuclei in the picture of the dye, and the red cells that give the scale."""

from __future__ import annotations

import cv2
import numpy as np


def red_cell_radius(stained: np.ndarray) -> float | None:
    """Return the radius of red cells in pixels, or None where fewer than four are seen.

    Parameters
    ----------
    stained : uint8 array of shape (height, width)
        1 in what is stained and no white cell; changed in place.
    """
    first = _thickness(stained)
    if first is None:
        return None
    # Pale centres make rings of red cells: fill the holes that are no wider than a cell.
    outlines, tree = cv2.findContours(stained, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for outline, (_, _, _, parent) in zip(outlines, tree[0], strict=True):
        if parent >= 0 and cv2.contourArea(outline) < np.pi * (2 * first) ** 2:
            cv2.drawContours(stained, [outline], -1, 1, cv2.FILLED)
    return _thickness(stained)


def _thickness(mask: np.ndarray) -> float | None:
    """Return the 80th percentile of the peaks of the distance to the mask's edge."""
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    peaks = distance[(distance == cv2.dilate(distance, np.ones((9, 9)))) & (distance > 2)]
    return float(np.percentile(peaks, 80)) if len(peaks) > 3 else None


def group_nuclei(dark: np.ndarray, gap: float, smallest: float) -> tuple[np.ndarray, int]:
    """Return the number of each nucleus; parts nearer than `gap` pixels are lobes of one.

    Parameters
    ----------
    dark : uint8 array of shape (height, width)
        1 where the dye of nuclei is.
    gap : float
        In pixels.
    smallest : float
        Area in pixels; smaller parts are platelets and dirt.

    Returns
    -------
    int32 array of shape (height, width)
        The number of the nucleus that a pixel belongs to, from 1; 0 elsewhere.
    int
        How many numbers there are, with 0.
    """
    _, parts, stats, _ = cv2.connectedComponentsWithStats(dark)
    large = stats[:, cv2.CC_STAT_AREA] >= smallest
    large[0] = False
    kept = large[parts].astype(np.uint8)
    if large.sum() < 2:
        return kept.astype(np.int32), 1 + int(large.sum())
    near = cv2.distanceTransform(1 - kept, cv2.DIST_L2, 3) <= gap / 2
    count, group = cv2.connectedComponents(near.astype(np.uint8))
    return np.where(kept, group, 0), count
