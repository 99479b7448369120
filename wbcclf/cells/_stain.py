"""Optical density, and in it the dye of the white cells apart from the red of the red cells.

By the law of Beer and Lambert, ``-log(light / background light)`` adds up over what the light
passes (Ruifrok and Johnston 2001, Anal. Quant. Cytol. Histol. 23:291). Dividing by the background
takes out white balance and exposure. Haemoglobin takes away blue (its Soret band, 415 nm) about as
much as green; azure B and eosin take away green, and hardly any blue. So ``green - slope * blue``
is zero in a red cell and large in a nucleus, whatever the camera. The slope is read from the red
cells of the picture itself, as Macenko et al. (2009, 10.1109/ISBI.2009.5193250) read their stain
vectors from the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

BLACK = 16  # of 255: darker in all channels is no stain but the edge of a turned picture
# Green over blue density of red cells until some are seen: 1.0 to 2.5 at four laboratories.
SLOPE = 1.8
FAINTEST = 0.1  # density: less than a tenth of the light taken away is not a stain
# Densities (red, green, blue) that nuclei and red cells have in the one stain that pictures are
# brought to: typical ones, between those of four laboratories.
NUCLEUS, RED_CELL = np.array([0.9, 1.6, 0.4]), np.array([0.25, 0.45, 0.28])
RIDGE = 1e-3  # of unit vectors: felt where they are less than 3 degrees apart


@dataclass(frozen=True)
class Stain:
    """How one picture was lit and stained."""

    light: np.ndarray  # (3,) RGB of the empty background
    slope: float  # green over blue density of red cells
    nucleus: float  # dye of nuclei
    red: float | None  # green density of red cells; None where there are none

    @cached_property
    def _densities(self) -> np.ndarray:
        return np.log((self.light[:, None] + 1) / np.arange(1, 257)).astype(np.float32)

    def density(self, pixels: np.ndarray, channel: int) -> np.ndarray:
        """Return the optical density of one channel of uint8 `pixels`, float32."""
        return cv2.LUT(pixels[..., channel], self._densities[channel])

    def dye(self, pixels: np.ndarray) -> np.ndarray:
        """Return what dye there is in uint8 `pixels` beside haemoglobin: 0 in red cells."""
        return self.density(pixels, 1) - np.float32(self.slope) * self.density(pixels, 2)


def black(image: np.ndarray) -> np.ndarray:
    """Return where there is no light, as uint8 0 or 255."""
    return np.asarray(cv2.inRange(image, (0, 0, 0), (BLACK, BLACK, BLACK)))


def inside(image: np.ndarray) -> np.ndarray:
    """Return where the picture is: everything but black wedges and borders, as uint8 0 or 1."""
    return without_corners(black(image))


def without_corners(dark: np.ndarray) -> np.ndarray:
    """Return the same from where the picture is black."""
    if not dark.any():
        return np.ones(dark.shape, np.uint8)
    square = np.ones((5, 5), np.uint8)
    # Small black dots are dirt or pigment; resampling greys a wedge's edge over two pixels.
    dark = cv2.dilate(cv2.morphologyEx(dark, cv2.MORPH_OPEN, square), square)
    return (dark == 0).astype(np.uint8)


def read_light(pixels: np.ndarray) -> np.ndarray:
    """Return the light (3,) of the empty background among uint8 `pixels` (n, 3), float32."""
    green = np.ascontiguousarray(pixels[:, 1])
    lowest, highest = quantile(green, 0.88), quantile(green, 0.98)
    brightest = pixels[(green >= lowest) & (green <= highest)]
    return np.array([quantile(channel, 0.5) for channel in brightest.T], np.float32)


def read_stain(pixels: np.ndarray, light: np.ndarray) -> Stain | None:
    """Return the stain of uint8 `pixels` (n, 3), or None if no nucleus can be among them."""
    if not len(pixels):
        return None
    stain = Stain(light, SLOPE, 0.0, None)
    red_light, green, blue = (stain.density(pixels, channel).ravel() for channel in range(3))
    # Blue cytoplasm takes away as much red light as green, or more; red cells do not.
    may_be_red = (green > FAINTEST) & (red_light < green)
    slope, red = SLOPE, None
    for _ in range(3):
        nucleus = _level(green - slope * blue, 0.999)
        # What is stained without the dye is red cells.
        others = may_be_red & (green - slope * blue < nucleus / 4)
        if others.mean() < 0.02:
            break
        red = _level(green[others], 0.5)
        red_cells = others & (green > red / 2)
        last = slope
        slope = 1 / float(np.clip(quantile(blue[red_cells] / green[red_cells], 0.5), 0.4, 1.0))
        if abs(slope - last) < 0.01:  # red cells differ more from each other
            break
    nucleus = _level(green - slope * blue, 0.999)
    if nucleus < 2 * FAINTEST:
        return None
    return Stain(light, slope, nucleus, red)


def red_cell_densities(pixels: np.ndarray, stain: Stain) -> np.ndarray | None:
    """Return the density (3,) of red cells among uint8 `pixels` (n, 3); None where there are none.

    Their edges have less, and their pale centres: it is the median of what has at least half of
    the green density of all.
    """
    if stain.red is None:
        return None
    red_light, green, blue = (stain.density(pixels, channel).ravel() for channel in range(3))
    in_red = (green > stain.red / 2) & (green - stain.slope * blue < stain.nucleus / 4)
    in_red &= red_light < green
    if not in_red.any():
        return None
    return np.array([np.median(each[in_red]) for each in (red_light, green, blue)])


def to_one_stain(nucleus: np.ndarray, red_cells: np.ndarray | None) -> np.ndarray:
    """Return the matrix (3, 3) that takes two densities (3,) to NUCLEUS and RED_CELL.

    Densities of dyes add up, so any change of dyes is linear. Two densities leave a choice: of all
    matrices, this is the one nearest to making all densities deeper by one factor. Where both have
    nearly the same colour, `RIDGE` keeps it from making much of their difference.
    """
    deeper = np.linalg.norm(NUCLEUS) / np.linalg.norm(nucleus)
    seen, wanted = [nucleus], [NUCLEUS]
    if red_cells is not None:
        seen, wanted = [nucleus, red_cells], [NUCLEUS, RED_CELL]
    lengths = np.linalg.norm(seen, axis=1)
    ours, theirs = np.transpose(seen) / lengths, np.transpose(wanted) / lengths
    gram = ours.T @ ours + RIDGE * np.eye(len(seen))
    return deeper * np.eye(3) + (theirs - deeper * ours) @ np.linalg.solve(gram, ours.T)


def _level(values: np.ndarray, start: float) -> float:
    """Return the mean of what is above half of this mean, starting at a quantile.

    It is the method of Ridler and Calvard (1978, 10.1109/TSMC.1978.4310039) with a background of
    zero. Otsu's threshold splits the background where nuclei are one pixel in a thousand.
    """
    # Counted once in steps of 1/1000: that is faster than a mask for each of the means.
    counts = np.bincount(np.maximum(values * 1000, 0).astype(np.int32))
    above = np.cumsum(counts[::-1])[::-1]
    sums = np.cumsum((counts * np.arange(len(counts)))[::-1])[::-1]
    level = int(np.flatnonzero(above >= (1 - start) * len(values))[-1])
    for _ in range(20):
        half = level // 2 + 1
        if level == 0 or half >= len(counts):
            return 0.0
        level, last = round(sums[half] / above[half]), level
        if level == last:
            break
    return level / 1000


def quantile(values: np.ndarray, share: float) -> np.generic:
    """Return one of the values, five times as fast as np.quantile for ten thousand of them."""
    place = int(share * (len(values) - 1))
    return np.partition(values, place)[place]


def byte_densities(light: float) -> np.ndarray:
    """Return the optical density (natural logarithm) of all bytes (256,) under a light."""
    return np.log((light + 1) / (np.arange(256) + 1))
