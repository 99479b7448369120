"""The outline of one white cell around its nucleus.

Inside and outside are told apart by colour, by histograms of the picture itself, as GrabCut does
(Rother, Kolmogorov and Blake 2004, 10.1145/1015706.1015720). The outline is star-shaped: one radius
an angle, the closed path with the largest sum of log-likelihood ratios inside, found by dynamic
programming in polar coordinates (Baggett et al. 2005, 10.1002/cyto.a.20172).
"""

from __future__ import annotations

import cv2
import numpy as np

from wbcclf.preprocessing._stain import Stain

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
_TOUR = np.arange(ANGLES * 3 // 2) % ANGLES  # one and a half times around


def colour_bins(pixels: np.ndarray, stain: Stain) -> np.ndarray:
    """Return the number of the colour bin of each of uint8 `pixels` (..., 3), as int64."""
    unit = stain.red or stain.nucleus / 3
    number = np.zeros(pixels.shape[:-1], np.int64)
    values = (stain.density(pixels, 0), stain.density(pixels, 1), stain.dye(pixels))
    for shade, (low, high) in zip(values, LIMITS, strict=True):
        scaled = (shade / unit - low) * (BINS / (high - low))
        number = number * BINS + np.clip(scaled, 0, BINS - 1).astype(np.int64)
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
    """
    edges, _ = cv2.findContours(nucleus, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.convexHull(np.concatenate(edges))[:, 0].astype(np.float32)
    outline = _grown(hull, RIM * radius)
    for turn in range(ROUNDS):
        centre = _centre(outline)
        reach = float(np.hypot(*(hull - centre).T).max()) + REACH * radius
        step = np.float32(reach / STEPS)
        radii = (np.arange(STEPS, dtype=np.float32) + np.float32(0.5)) * step
        xs, ys = centre[0] + _COS * radii, centre[1] + _SIN * radii
        in_nucleus = cv2.remap(nucleus, xs, ys, cv2.INTER_NEAREST) > 0
        in_picture = cv2.remap(seen, xs, ys, cv2.INTER_NEAREST) > 0
        colour = colour_bins(cv2.remap(pixels, xs, ys, cv2.INTER_NEAREST), stain)
        last = np.zeros(nucleus.shape, np.uint8)
        cv2.fillPoly(last, [np.rint(outline).astype(np.int32)], 1)
        cytoplasm = cv2.remap(last, xs, ys, cv2.INTER_NEAREST) > 0
        cytoplasm &= in_picture & ~in_nucleus
        # A sample stands for an area that grows with the radius.
        cell = histogram(colour[cytoplasm], np.broadcast_to(radii, colour.shape)[cytoplasm])
        ratio = np.log((cell + RARE) / (OVERWEIGHT * (outside + RARE)))[colour]
        ratio = np.where(in_picture, np.clip(ratio, -SURE, SURE), 0)
        gain = np.cumsum(np.where(in_nucleus, SURE, ratio) * radii, axis=1)
        # The outline goes around the nucleus.
        farthest = np.where(in_nucleus.any(1), STEPS - in_nucleus[:, ::-1].argmax(1), 0)
        gain[np.arange(STEPS) < farthest[:, None] - 1] = -1e6
        if turn < ROUNDS - 1:  # rough is enough for the histograms
            length = (gain + np.roll(gain, 1, axis=0) + np.roll(gain, -1, axis=0)).argmax(axis=1)
        else:
            length = _best_path(gain)
        ends = (length[:, None] + np.float32(1)) * step
        outline = np.hstack([centre[0] + _COS * ends, centre[1] + _SIN * ends]).astype(np.float32)
    return outline


def _grown(hull: np.ndarray, by: float) -> np.ndarray:
    away = hull - _centre(hull)
    return hull + np.float32(by) * away / np.maximum(np.hypot(*away.T)[:, None], 1e-6)


def _centre(outline: np.ndarray) -> np.ndarray:
    """Return the centre of gravity of a polygon, or of its corners if it has no area."""
    moments = cv2.moments(outline)
    if moments["m00"] < 1:
        return outline.mean(axis=0)
    return np.array([moments["m10"], moments["m01"]], np.float32) / np.float32(moments["m00"])


def _best_path(gain: np.ndarray) -> np.ndarray:
    """Return the step of each angle on the closed path with the largest sum of `gain`.

    The path runs half a time around more than once; in the middle its ends no longer matter.
    """
    rows = gain[_TOUR]
    padded = np.full((len(rows), STEPS + 2 * TURN), -np.inf)
    best = padded[:, TURN:-TURN]
    best[0] = rows[0]
    for angle in range(1, len(rows)):
        # The largest of 7 neighbours, by windows of 2, 4 and 7.
        pair = np.maximum(padded[angle - 1, :-1], padded[angle - 1, 1:])
        four = np.maximum(pair[:-2], pair[2:])
        np.add(rows[angle], np.maximum(four[:-3], four[3:]), out=best[angle])
    path = np.empty(len(rows), np.int64)
    path[-1] = best[-1].argmax()
    for angle in range(len(rows) - 1, 0, -1):
        window = padded[angle - 1, path[angle] : path[angle] + 2 * TURN + 1]
        path[angle - 1] = path[angle] - TURN + window.argmax()
    middle = np.arange(ANGLES // 4, ANGLES // 4 + ANGLES)
    closed = np.empty(ANGLES, np.int64)
    closed[middle % ANGLES] = path[middle]
    return closed
