"""The light of a picture, if it is not the same everywhere.

Lamp and lens leave corners darker (vignetting), or one side. The logarithm of the light is a smooth
function of place: here a parabola along each side, which fits a ramp as well as a bright spot
anywhere. Shading dims all colours by the same share, and a stain does not. So the colour of a
pixel tells whether it is empty background, however dark it is there.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from wbcclf.cells._stain import FAINTEST, black

PLACES = 8  # a side, the light of which is read
ENOUGH = 6  # pixels of the sample along a side of a place
EMPTY = 0.1  # share of a place that must be background
UNEVEN = 2.5 * FAINTEST  # fall of the light over a picture as a density: less does no harm
ERROR = 0.005  # the least error of the light at a place as a density: one of 200 levels
CERTAIN = 10  # errors of the light where it is least certain that the fall must have
ROUNDS = 4  # of leaving out places that are stained

_LOGS = np.log(np.arange(1, 257)).astype(np.float32)
_PLACE = (np.arange(PLACES) + 0.5) * (2 / PLACES) - 1
_Y, _X = (place.ravel() for place in np.meshgrid(_PLACE, _PLACE, indexing="ij"))
_TERMS = np.stack([np.ones_like(_Y), _Y, _Y**2, _X, _X**2], axis=1)


@dataclass(frozen=True)
class Shading:
    """The factors that make the light of a picture even: one a row, times one a column."""

    rows: np.ndarray  # (height, 3), float32
    columns: np.ndarray  # (width, 3), float32

    def removed(self, pixels: np.ndarray, part: tuple[slice, slice]) -> np.ndarray:
        """Return a part of the picture, uint8, lit as its brightest place; black stays black."""
        factors = zip(self.rows[part[0]].T, self.columns[part[1]].T, strict=True)
        even = [
            cv2.multiply(channel, np.outer(row, column), dtype=cv2.CV_8U)
            for channel, (row, column) in zip(cv2.split(pixels), factors, strict=True)
        ]
        out = np.asarray(cv2.merge(even))
        dark = black(pixels) > 0
        out[dark] = pixels[dark]
        return out


def read_shading(sample: np.ndarray, light: np.ndarray, size: tuple[int, int]) -> Shading | None:
    """Return the shading of a picture, or None where the light is even or cannot be told.

    Parameters
    ----------
    sample : uint8 array of shape (height, width, 3)
        Evenly spaced pixels of it.
    light : array of shape (3,)
        Of its brightest background.
    size : tuple of (height, width)
        Of the picture.
    """
    step = max(1, min(sample.shape[:2]) // (ENOUGH * PLACES))
    sample = np.ascontiguousarray(sample[::step, ::step])
    logs = cv2.LUT(sample, _LOGS)
    red, green, blue = cv2.split(logs)
    white = np.log(light + 1)
    # Cells take away more green than red, or more green than blue, or the other way round.
    stained = np.maximum(
        np.abs(red - green - (white[0] - white[1])), np.abs(blue - green - (white[2] - white[1]))
    )
    empty = cv2.threshold(stained, FAINTEST, 1, cv2.THRESH_BINARY_INV)[1]
    share = _mean(empty).ravel()
    level = _mean(cv2.multiply(logs, cv2.merge([empty] * 3))).reshape(-1, 3)
    # The edge of a black border is dark, too.
    shown = _mean(black(sample)).ravel() == 0
    enough = shown & (share > EMPTY)
    level[enough] /= share[enough, None]
    if not enough.any() or np.ptp(level[enough], axis=0).min() < UNEVEN:
        return None
    coefficients, errors = _fitted(level, enough)
    # Stains take away little of one colour; where the light falls, all colours do.
    fitted = (_TERMS @ coefficients)[shown]
    fall, error = np.ptp(fitted, axis=0).min(), errors[shown].max()
    if fall < max(UNEVEN, CERTAIN * error):
        return None
    top = fitted.max(axis=0)
    y, x = ((np.arange(side)[:, None] + 0.5) * (2 / side) - 1 for side in size)
    rows = top - coefficients[0] - y * coefficients[1] - y**2 * coefficients[2]
    columns = -x * coefficients[3] - x**2 * coefficients[4]
    return Shading(np.exp(rows).astype(np.float32), np.exp(columns).astype(np.float32))


def _mean(values: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.resize(values, (PLACES, PLACES), interpolation=cv2.INTER_AREA))


def _fitted(level: np.ndarray, enough: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return coefficients (5, 3) of the light, and its standard error at each place."""
    known = enough
    for _ in range(ROUNDS):
        terms = _TERMS[known]
        spread = np.linalg.inv(terms.T @ terms + 1e-6 * np.eye(terms.shape[1]))
        coefficients = spread @ (terms.T @ level[known])
        off = (level - _TERMS @ coefficients)[:, 1]
        degrees = max(len(terms) - terms.shape[1], 1)
        error = max(float(np.sqrt((off[known] ** 2).sum() / degrees)), ERROR)
        # Plasma and pale cells make a place darker; nothing makes it brighter.
        known = enough & (off > -1.5 * error) & (off < 3 * error)
    leverage = np.einsum("ij,jk,ik->i", _TERMS, spread, _TERMS)
    return coefficients, error * np.sqrt(leverage)
