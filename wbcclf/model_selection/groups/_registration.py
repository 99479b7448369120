"""Whether two pictures show the same: how many points of one lie where a map puts the other's."""

from __future__ import annotations

import cv2
import numpy as np

from wbcclf.model_selection.groups._keypoints import Keypoints, roots

DISTINCT = 0.85  # a point's match is this much nearer than the second best, or it is none
TOLERANCE = 3  # pixels that a point may lie beside its place
TRIALS = 500  # maps that are tried
LARGEST = 2.5  # factor of sizes between two pictures of a cell
SHEAR = 1.8  # longest over shortest axis that a circle may become
N_FOR_MAP = 3  # points that an affine map needs; as many always agree with it


def count_agreeing(one: Keypoints, other: Keypoints) -> int:
    """Return how many points of two pictures agree with one affine map of one to the other.

    RANSAC (Fischler and Bolles 1981, https://doi.org/10.1145/358669.358692) finds the map. 0 where
    no map is likely: fewer than four matches, or a map that no copy of a picture is made by.
    """
    if min(len(one.points), len(other.points)) <= N_FOR_MAP:
        return 0
    likeness = roots(one.descriptions) @ roots(other.descriptions).T
    nearest = likeness.argmax(axis=1)
    second, best = np.partition(likeness, -2, axis=1)[:, -2:].T
    # Squared distances of vectors of length 1 are 2 - 2 times their product.
    is_match = (1 - best < DISTINCT**2 * (1 - second)) & (
        likeness.argmax(axis=0)[nearest] == np.arange(len(nearest))
    )
    if is_match.sum() <= N_FOR_MAP:
        return 0
    # OpenCV begins every call with the same random numbers.
    affine, agrees = cv2.estimateAffine2D(
        one.points[is_match],
        other.points[nearest[is_match]],
        ransacReprojThreshold=TOLERANCE,
        maxIters=TRIALS,
    )
    if affine is None or np.linalg.det(affine[:, :2]) <= 0:  # mirrored ones are tried apart
        return 0
    long, short = np.linalg.svd(affine[:, :2], compute_uv=False)
    is_likely = max(long, 1 / short) < LARGEST and long / short < SHEAR
    return int(agrees.sum()) if is_likely else 0
