"""The outline of one white cell around its nucleus.

Inside and outside are told apart by colour, by histograms of the picture itself, as GrabCut does
(Rother, Kolmogorov and Blake 2004, 10.1145/1015706.1015720). The outline is star-shaped: one radius
an angle, the closed path with the largest sum of log-likelihood ratios inside, found by dynamic
programming in polar coordinates (Baggett et al. 2005, Cytometry Part A 67A).
"""

from __future__ import annotations

import cv2
import numpy as np

from wbcclf.cells._stain import Stain

ANGLES, STEPS = 64, 64
BINS = 16
# Of red density, green density and dye, in green densities of a red cell: what nuclei have is
# beyond the last bin, and the shades between background, red cells and cytoplasm are told apart.
LIMITS = ((-0.3, 1.5), (-0.2, 1.8), (-0.8, 1.3))
# In red cell radii: what is taken for cytoplasm at first, and how far from the nucleus it may go.
RIM, REACH = 0.22, 0.9
SURE = 4.0  # log-likelihood ratio of a nucleus' pixel, and the limit of all others
# A colour is the cell's only if it is this many times as common in the cell as elsewhere: a red
# cell that touches the nucleus makes its own colour up to twice as common there.
OVERWEIGHT = 3.0
RARE = 1e-4  # share of a colour that was seen nowhere
TURN = 3  # steps that the radius may change from one angle to the next
ROUNDS = 3  # of histograms and outline in turn

_ANGLES = np.linspace(0, 2 * np.pi, ANGLES, endpoint=False, dtype=np.float32)[:, None]
_COS, _SIN = np.cos(_ANGLES), np.sin(_ANGLES)
_STEP = np.ones((1, 2 * TURN + 1), np.uint8)
_MIDDLE = np.arange(8, 8 + ANGLES)  # of a tour that goes a quarter more than once around
_TOUR = np.arange(ANGLES + 16) % ANGLES


def colour_bins(pixels: np.ndarray, stain: Stain) -> np.ndarray:
    """Return the number of the colour bin of each of uint8 `pixels` (height, width, 3), int32."""
    unit = stain.red or stain.nucleus / 3
    number = np.zeros(pixels.shape[:-1], np.int32)
    values = (stain.density(pixels, 0), stain.density(pixels, 1), stain.dye(pixels))
    for shade, (low, high) in zip(values, LIMITS, strict=True):
        scaled = (shade - np.float32(low * unit)) * np.float32(BINS / (unit * (high - low)))
        number = number * BINS + np.clip(scaled, 0, BINS - 1).astype(np.int32)
    return number


def histogram(bins: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the smoothed frequencies of colour bins (n,), of shape (BINS**3,)."""
    counts = np.bincount(bins, weights, minlength=BINS**3).astype(np.float32)
    # Two axes as those of a picture whose channels are the third; then the third.
    blurred = cv2.GaussianBlur(counts.reshape(BINS, BINS, BINS), (5, 5), 1)
    blurred = cv2.GaussianBlur(blurred.reshape(BINS * BINS, BINS), (5, 1), 1)
    return np.asarray(blurred).ravel() / max(float(blurred.sum()), 1e-9)


def find_outline(
    pixels: np.ndarray,
    nucleus: np.ndarray,
    seen: np.ndarray,
    stain: Stain,
    outside: np.ndarray,
    radius: float,
    rough: bool,
) -> np.ndarray:
    """Return the outline of the cell around a nucleus, float32 (ANGLES, 2) of x and y.

    Parameters
    ----------
    pixels : uint8 array of shape (height, width, 3)
    nucleus, seen : uint8 arrays of shape (height, width)
        1 in this nucleus, and where the picture is.
    stain : Stain
    outside : array of shape (BINS**3,)
        The histogram of what is no white cell.
    radius : float
        The radius of a red cell in pixels.
    rough : bool
        Each angle for itself, by the first histogram, in a third of the time.
    """
    edges, _ = cv2.findContours(nucleus, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.convexHull(np.concatenate(edges))[:, 0].astype(np.float32)

    def around(centre: np.ndarray) -> _Polar:
        reach = float(np.hypot(*(hull - centre).T).max()) + REACH * radius
        return _Polar(pixels, nucleus, seen, stain, centre, reach)

    polar = around(_centre(hull))
    cell = polar.histogram(polar.inside(_grown(hull, RIM * radius)))
    for _ in range(ROUNDS - 1):
        gain = polar.gain(cell, outside)
        length = (gain + np.roll(gain, 1, axis=0) + np.roll(gain, -1, axis=0)).argmax(axis=1)
        if rough:
            return polar.outline(length)
        cell = polar.histogram(np.arange(STEPS) <= length[:, None])
    outline = polar.outline(length)
    polar = around(_centre(outline))
    cell = polar.histogram(polar.inside(outline))
    (path,) = best_paths(polar.gain(cell, outside)[None])
    return polar.outline(path)


class _Polar:
    """A picture in polar coordinates: samples (ANGLES, STEPS) around a centre."""

    def __init__(
        self,
        pixels: np.ndarray,
        nucleus: np.ndarray,
        seen: np.ndarray,
        stain: Stain,
        centre: np.ndarray,
        reach: float,
    ) -> None:
        self.centre, self.size = centre, nucleus.shape
        self.step = np.float32(reach / STEPS)
        self.radii = (np.arange(STEPS, dtype=np.float32) + np.float32(0.5)) * self.step
        self.places = centre[0] + _COS * self.radii, centre[1] + _SIN * self.radii
        self.in_nucleus = self._sampled(nucleus) > 0
        self.in_picture = self._sampled(seen) > 0
        self.colour = colour_bins(self._sampled(pixels), stain)

    def _sampled(self, picture: np.ndarray) -> np.ndarray:
        return np.asarray(cv2.remap(picture, *self.places, cv2.INTER_NEAREST))

    def inside(self, outline: np.ndarray) -> np.ndarray:
        """Return which samples are inside of a polygon."""
        filled = np.zeros(self.size, np.uint8)
        cv2.fillPoly(filled, [np.rint(outline).astype(np.int32)], 1)
        return self._sampled(filled) > 0

    def histogram(self, cell: np.ndarray) -> np.ndarray:
        """Return the histogram of the cytoplasm of what is taken for the cell."""
        cytoplasm = cell & self.in_picture & ~self.in_nucleus
        # A sample stands for an area that grows with the radius.
        weights = np.broadcast_to(self.radii, cytoplasm.shape)
        return histogram(self.colour[cytoplasm], weights[cytoplasm])

    def gain(self, cell: np.ndarray, outside: np.ndarray) -> np.ndarray:
        """Return what an outline gains from each angle that ends at each step."""
        ratio = np.log((cell + RARE) / (OVERWEIGHT * (outside + RARE)))
        ratio = np.where(self.in_picture, np.clip(ratio, -SURE, SURE)[self.colour], 0)
        gain = np.cumsum(np.where(self.in_nucleus, SURE, ratio) * self.radii, axis=1)
        # The outline goes around the nucleus.
        farthest = np.where(self.in_nucleus.any(1), STEPS - self.in_nucleus[:, ::-1].argmax(1), 0)
        gain[np.arange(STEPS) < farthest[:, None] - 1] = -1e6
        return gain

    def outline(self, length: np.ndarray) -> np.ndarray:
        """Return the polygon (ANGLES, 2) that ends at a step of each angle."""
        ends = (length[:, None] + np.float32(1)) * self.step
        ends = np.hstack([self.centre[0] + _COS * ends, self.centre[1] + _SIN * ends])
        return ends.astype(np.float32)


def _grown(hull: np.ndarray, by: float) -> np.ndarray:
    away = hull - _centre(hull)
    return hull + np.float32(by) * away / np.maximum(np.hypot(*away.T)[:, None], 1e-6)


def _centre(outline: np.ndarray) -> np.ndarray:
    """Return the centre of gravity of a polygon, or of its corners if it has no area."""
    moments = cv2.moments(outline)
    if moments["m00"] < 1:
        return outline.mean(axis=0)
    return np.array([moments["m10"], moments["m01"]], np.float32) / np.float32(moments["m00"])


def best_paths(gain: np.ndarray) -> np.ndarray:
    """Return the closed paths (n, angles) of steps with the largest sum of each of `gain`.

    `gain` (n, angles, steps), float32, is what each path gains from each angle that ends at each
    step. Paths run a quarter more than once around; in the middle their ends no longer matter.
    """
    best = np.take(gain.transpose(1, 0, 2), _TOUR, axis=0)
    for angle in range(1, len(best)):  # all paths together, since one is too little work for a call
        best[angle] += cv2.dilate(best[angle - 1], _STEP)  # the best neighbour
    closed = np.empty(gain.shape[:2], np.intp)
    for number in range(len(gain)):
        path = [int(best[-1, number].argmax())]
        for row in best[-2::-1, number]:
            low = max(path[-1] - TURN, 0)
            path.append(low + int(row[low : path[-1] + TURN + 1].argmax()))
        closed[number, _MIDDLE % ANGLES] = np.array(path[::-1])[_MIDDLE]
    return closed
