"""The outline of one white cell around its nucleus.

Inside and outside are told apart by colour, by histograms of the picture itself, as GrabCut does
(Rother, Kolmogorov and Blake 2004, 10.1145/1015706.1015720). The outline is star-shaped: one radius
an angle, the closed path with the largest sum of log-likelihood ratios inside, found by dynamic
programming in polar coordinates (Baggett et al. 2005, 10.1002/cyto.a.20172).
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter

ANGLES, STEPS = 64, 64
BINS = 16
SURE = 4.0  # log-likelihood ratio of a nucleus' pixel, and the limit of all others
# A colour is the cell's only if it is this many times as common in the cell as elsewhere: a red
# cell that touches the nucleus makes its own colour up to twice as common there.
OVERWEIGHT = 3.0
TURN = 3  # steps that the radius may change from one angle to the next

_DIRECTIONS = np.linspace(0, 2 * np.pi, ANGLES, endpoint=False)
_COS, _SIN = np.cos(_DIRECTIONS)[:, None], np.sin(_DIRECTIONS)[:, None]


def colour_bins(density: np.ndarray, dye: np.ndarray, nucleus: float) -> np.ndarray:
    """Return the number of each pixel's colour bin (of red, green and dye), as uint16.

    `nucleus` is the green density of nuclei, the unit: bins mean the same at any depth of stain.
    """
    limits = ((density[..., 0], -0.1, 0.5), (density[..., 1], -0.05, 0.6), (dye, -0.25, 0.45))
    number = np.zeros(dye.shape, np.float32)
    for values, low, high in limits:
        scaled = values * np.float32(BINS / (high - low) / nucleus) - np.float32(
            low * BINS / (high - low)
        )
        number = number * BINS + np.floor(np.clip(scaled, 0, BINS - 1))
    return number.astype(np.uint16)


def histogram(bins: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the smoothed frequencies of colour bins, of shape (BINS**3,)."""
    counts = np.bincount(bins.ravel(), weights, minlength=BINS**3)
    counts = gaussian_filter(counts.astype(np.float32).reshape(BINS, BINS, BINS), 1.0).ravel()
    return counts / max(float(counts.sum()), 1e-9)


def find_outline(
    bins: np.ndarray,
    nucleus: np.ndarray,
    seen: np.ndarray,
    outside: np.ndarray,
    radius: float,
) -> np.ndarray:
    """Return the outline of the cell around a nucleus, float32 (ANGLES, 2) of x and y.

    Parameters
    ----------
    bins : uint16 array of shape (height, width)
        What `colour_bins` returned.
    nucleus, seen : uint8 arrays of shape (height, width)
        1 in this nucleus, and where the picture is.
    outside : array of shape (BINS**3,)
        The histogram of what is no white cell.
    radius : float
        The radius of a red cell in pixels.
    """
    y, x = np.nonzero(nucleus)
    hull = cv2.convexHull(np.stack([x, y], axis=1).astype(np.int32))[:, 0].astype(np.float32)
    outline = _grown(hull, 0.3 * radius)
    for _ in range(3):
        centre = outline.mean(axis=0)
        reach = float(np.hypot(*(hull - centre).T).max()) + 1.2 * radius
        step = reach / STEPS
        radii = (np.arange(STEPS, dtype=np.float32) + 0.5) * np.float32(step)
        xs = (centre[0] + _COS * radii).astype(np.float32)
        ys = (centre[1] + _SIN * radii).astype(np.float32)

        def sample(values: np.ndarray, xs: np.ndarray = xs, ys: np.ndarray = ys) -> np.ndarray:
            return cv2.remap(values, xs, ys, cv2.INTER_NEAREST, borderValue=0)

        in_nucleus, in_picture, colour = sample(nucleus) > 0, sample(seen) > 0, sample(bins)
        # The last outline, in these polar coordinates.
        last = np.zeros(nucleus.shape, np.uint8)
        cv2.fillPoly(last, [np.round(outline).astype(np.int32)], 1)
        within = (sample(last) > 0) & in_picture & ~in_nucleus
        area = np.broadcast_to(radii, within.shape)
        cell = histogram(colour[within], area[within])
        ratio = np.log((cell + 1e-4) / (OVERWEIGHT * (outside + 1e-4)))[colour]
        ratio = np.where(in_picture, np.clip(ratio, -SURE, SURE), 0)
        gain = np.cumsum(np.where(in_nucleus, SURE, ratio) * radii, axis=1)
        # What is beyond the nucleus' far edge stays out of reach of the path, not the nucleus.
        farthest = np.where(in_nucleus.any(1), STEPS - in_nucleus[:, ::-1].argmax(1), 0)
        gain[np.arange(STEPS) < farthest[:, None] - 1] = -1e6
        length = (_best_path(gain) + 1) * step
        outline = np.stack(
            [centre[0] + _COS[:, 0] * length, centre[1] + _SIN[:, 0] * length], axis=1
        )
    return outline.astype(np.float32)


def _grown(hull: np.ndarray, by: float) -> np.ndarray:
    centre = hull.mean(axis=0)
    away = hull - centre
    return hull + by * away / np.maximum(np.hypot(*away.T)[:, None], 1e-6)


def _best_path(gain: np.ndarray) -> np.ndarray:
    """Return the step of each angle on the closed path with the largest sum of `gain`."""
    # Twice around; the middle of it is closed, for the ends no longer matter there.
    rows = np.concatenate([gain, gain])
    best = np.empty_like(rows)
    best[0] = rows[0]
    padded = np.full(STEPS + 2 * TURN, -np.inf)
    for angle in range(1, len(rows)):
        padded[TURN:-TURN] = best[angle - 1]
        best[angle] = rows[angle] + np.lib.stride_tricks.sliding_window_view(
            padded, 2 * TURN + 1
        ).max(axis=1)
    path = np.empty(len(rows), int)
    path[-1] = best[-1].argmax()
    for angle in range(len(rows) - 1, 0, -1):
        low = max(path[angle] - TURN, 0)
        path[angle - 1] = low + best[angle - 1, low : path[angle] + TURN + 1].argmax()
    middle = np.arange(ANGLES // 2, ANGLES // 2 + ANGLES)
    closed = np.empty(ANGLES, int)
    closed[middle % ANGLES] = path[middle]
    return closed
