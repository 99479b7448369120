"""Nuclei in the picture of the dye."""

from __future__ import annotations

import cv2
import numpy as np


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
            # Given all outlines, the call would copy all of them for each one that it draws.
            cv2.drawContours(kept, outlines[number : number + 1], 0, 1, cv2.FILLED)
    if large.sum() < 2:
        return kept.astype(np.int32)
    near = cv2.distanceTransform(1 - kept, cv2.DIST_L2, 3) <= gap / 2
    _, group = cv2.connectedComponents(near.astype(np.uint8))
    return np.where(kept, group, 0)
