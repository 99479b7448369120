"""What is seen again of a picture, however it was turned, mirrored, resized or recoloured.

SIFT (Lowe 2004, https://doi.org/10.1023/B:VISI.0000029664.99615.94) finds distinct points in a
picture and describes the gradients around each, relative to the point's own direction and scale.
So a description stays the same when the picture is turned, shifted, made larger or smaller, or
brighter. Square roots of descriptions are compared (Arandjelović and Zisserman 2012,
https://doi.org/10.1109/CVPR.2012.6248018).
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

SIDE = 256  # pixels of the longer side that every picture is brought to: all are then as sharp
N_POINTS = 128  # at most, of a picture; the most distinct ones
CONTRAST = 0.02  # of a point, least: half of OpenCV's, for pictures that are dark or pale
BLACK = 8  # grey level up to which pixels are taken for the corners that a turn leaves empty
MARGIN = 9  # pixels beside these corners in which no points are looked for

# A mirrored description is the same numbers in another order: of its 4 x 4 places the rows change
# sides, since the picture is mirrored along the point's own direction, and its 8 directions turn
# the other way round. So no mirrored picture is looked at.
MIRRORED = np.arange(128).reshape(4, 4, 8)[::-1][:, :, -np.arange(8) % 8].ravel()


class Keypoints(NamedTuple):
    """The distinct points of a picture.

    Attributes
    ----------
    points : ndarray of shape (n_points, 2), float32
        Column and row, in pixels of the picture at `SIDE`.
    descriptions : ndarray of shape (n_points, 128), uint8
        As SIFT gives them.
    width : int
        Of the picture at `SIDE`.
    """

    points: np.ndarray
    descriptions: np.ndarray
    width: int

    @classmethod
    def none(cls) -> Keypoints:
        """Return those of a picture without any."""
        return cls(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8), 0)

    def mirrored(self) -> Keypoints:
        """Return the points of the mirrored picture."""
        points = self.points.copy()
        points[:, 0] = self.width - 1 - points[:, 0]
        return Keypoints(points, self.descriptions[:, MIRRORED], self.width)


def find_keypoints(image: np.ndarray) -> Keypoints:
    """Return the distinct points of an image (height, width, 1 or 3), uint8."""
    grey = image[..., 0] if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    seen = cv2.erode((grey > BLACK).astype(np.uint8), np.ones((MARGIN, MARGIN), np.uint8))
    # One for each call: a detector keeps its work space, and threads must not share it.
    detector = cv2.SIFT.create(N_POINTS, contrastThreshold=CONTRAST)
    found, descriptions = detector.detectAndCompute(grey, seen)
    # Where points are equally distinct, OpenCV gives more than it was asked for.
    points = np.array([point.pt for point in found[:N_POINTS]], np.float32).reshape(-1, 2)
    if descriptions is None:
        descriptions = np.zeros((0, 128), np.float32)
    return Keypoints(points, descriptions[:N_POINTS].astype(np.uint8), size[0])


def roots(descriptions: np.ndarray) -> np.ndarray:
    """Return descriptions (n, 128) of length 1 whose products are the overlaps of the originals."""
    sums = descriptions.sum(axis=1, dtype=np.float32, keepdims=True)
    return np.sqrt(descriptions / np.maximum(sums, 1))
