"""A picture of any size, read in pieces, and squares of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import DTypeLike

from wbcclf.cells._cell import Cell, overlap
from wbcclf.cells._shading import Shading, read_shading
from wbcclf.cells._stain import (
    Stain,
    black,
    read_light,
    read_stain,
    red_cell_densities,
    to_one_stain,
    without_corners,
)

GREY = 230  # what the empty background becomes: bright, as under a microscope, but not clipped
SAMPLE, FEWEST = 1_000_000, 5_000  # pixels, evenly spaced, that give light and stain
NOISY, LEFT = 6, 3  # grey levels of noise: less does no harm; what a blur leaves of more
NEAR = 6  # pixels: how far off a black dot may be to matter in `without_corners`


class Picture:
    """One checked RGB picture, of which any part can be had as uint8; nothing is copied.

    Parameters
    ----------
    image : array-like of shape (height, width, 3)
        Numbers of any type, 0 or more.
    name : str
        The parameter to name in errors.
    """

    def __init__(self, image: Any, name: str = "image") -> None:
        pixels = image if isinstance(image, np.ndarray) else np.asarray(image)
        if pixels.ndim == 0:
            raise ValueError(
                f"{name} must be the pixels of a picture, got {type(image).__name__}. Read a file "
                "first, as ImageLoader does."
            )
        if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
            raise ValueError(
                f"{name} must be one RGB picture of shape (height, width, 3), got an array of "
                f"shape {pixels.shape}. Give pictures of a batch one by one, and leave out an "
                "alpha channel. A grey picture has no stain to find cells by."
            )
        if pixels.dtype.kind not in "uif":
            raise ValueError(f"{name} must hold numbers (uint8, 0-255), got dtype {pixels.dtype}.")
        self.pixels, self.name = pixels, name
        self.size: tuple[int, int] = pixels.shape[:2]
        self.white = 255.0
        if pixels.dtype != np.uint8:
            # Hot pixels of a camera are brighter than white.
            high = float(np.quantile(self._light(self._sampled), 0.999))
            is_byte = pixels.dtype.kind in "ui" and high <= 255
            self.white = 255.0 if is_byte else max(high, 1e-9)

    def _light(self, part: Any) -> np.ndarray:
        """Return a part as it is, if its values can be light."""
        pixels = self.pixels[part]
        low, high = float(pixels.min()), float(pixels.max())
        if not (0 <= low and np.isfinite(high)):  # NaN fails, too
            raise ValueError(
                f"{self.name} must hold finite values of 0 or more, got values from {low:g} to "
                f"{high:g}. Give it as uint8 (0-255), as the loaders do."
            )
        return pixels

    def __getitem__(self, part: tuple[slice, slice]) -> np.ndarray:
        """Return a part as contiguous uint8, in even light and without noise: to find cells in."""
        return self._evened(self._smooth(part), part)

    def evenly_lit(self, part: tuple[slice, slice]) -> np.ndarray:
        """Return a part as contiguous uint8, in even light, with its noise."""
        return self._evened(self.as_lit(part), part)

    def _evened(self, pixels: np.ndarray, part: tuple[slice, slice]) -> np.ndarray:
        return pixels if self.shading is None else self.shading.removed(pixels, part)

    def _smooth(self, part: tuple[slice, slice]) -> np.ndarray:
        """Return a part as it is lit, blurred if there is noise."""
        if not self.blur:
            return self.as_lit(part)
        pad = int(3 * self.blur) + 1
        rows, columns = (slice(*each.indices(n)) for each, n in zip(part, self.size, strict=True))
        top, left = max(rows.start - pad, 0), max(columns.start - pad, 0)
        around = self.as_lit(np.s_[top : rows.stop + pad, left : columns.stop + pad])
        blurred = cv2.GaussianBlur(around, (2 * pad + 1, 2 * pad + 1), self.blur)
        blurred = blurred[rows.start - top : rows.stop - top, columns.start - left :]
        blurred = blurred[:: rows.step, : columns.stop - columns.start : columns.step]
        return np.ascontiguousarray(blurred)

    def as_lit(self, part: tuple[slice, slice]) -> np.ndarray:
        """Return a part as contiguous uint8. Only ratios of light count, whatever the scale was."""
        if self.pixels.dtype == np.uint8:
            return np.ascontiguousarray(self.pixels[part])
        scaled = self._light(part) * np.float32(255 / self.white)
        return np.rint(np.minimum(scaled, 255)).astype(np.uint8)

    def seen(self, rows: slice, columns: slice) -> np.ndarray:
        """Return where a part shows the picture, as bool: everything but black wedges, borders."""
        top, left = max(rows.start - NEAR, 0), max(columns.start - NEAR, 0)
        around = self.as_lit(np.s_[top : rows.stop + NEAR, left : columns.stop + NEAR])
        dark = black(around)
        # Gaps of a few pixels are bridged, where the tips of wedges are black.
        seen = (without_corners(dark) > 0) & (dark == 0)
        return seen[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]

    @property
    def _sampled(self) -> tuple[slice, slice]:
        n_pixels = min(max(FEWEST, np.prod(self.size) / 16), SAMPLE)
        step = max(1, round(np.sqrt(np.prod(self.size) / n_pixels)))
        return np.s_[::step, ::step]

    @cached_property
    def blur(self) -> float:
        """The width of the blur, in pixels, that takes out the noise; 0 where there is little."""
        rows, columns = self._sampled
        few = slice(None, None, 8 * rows.step)  # are enough for a median
        here, beside = (
            self.as_lit((few, slice(start, None, columns.step)))[..., 1] for start in (0, 1)
        )
        if not beside.size:
            return 0.0
        apart = np.abs(np.subtract(here[:, : beside.shape[1]], beside, dtype=np.int16))
        # Most neighbours show the same, so they differ by noise: by sqrt(2) of its standard
        # deviation, the median of the amount being 0.6745 of that.
        unit = np.sqrt(2) * 0.6745
        if 2 * np.count_nonzero(apart > NOISY * unit) < apart.size:
            return 0.0
        # A Gaussian of this width divides noise by 2 sqrt(pi) of it.
        return float(np.median(apart) / unit / (2 * np.sqrt(np.pi) * LEFT))

    @cached_property
    def _read(self) -> tuple[Shading | None, np.ndarray, np.ndarray]:
        """Shading, sample and light: all that is read before any part is looked at."""
        pixels = self._sample()
        bright = _without_black(pixels)
        if not len(bright):
            return None, bright, np.zeros(3, np.float32)
        light = read_light(bright)
        shading = read_shading(pixels, light, self.size)
        if shading is None:
            return None, bright, light
        bright = _without_black(shading.removed(pixels, self._sampled))
        return shading, bright, read_light(bright)

    def _sample(self) -> np.ndarray:
        rows, columns = self._sampled
        if not self.blur:
            return self.as_lit((rows, columns))
        # Row by row: a scan is larger than memory.
        lines = range(0, self.size[0], rows.step)
        return np.concatenate([self._smooth((slice(row, row + 1), columns)) for row in lines])

    @property
    def shading(self) -> Shading | None:
        """What makes the light even; None where it is."""
        return self._read[0]

    @property
    def sample(self) -> np.ndarray:
        """Evenly spaced pixels (n, 3), uint8, in even light, none in or next to black ones."""
        return self._read[1]

    @property
    def light(self) -> np.ndarray:
        """The light (3,) of the empty background, float32; black in a black picture."""
        return self._read[2]

    @cached_property
    def stain(self) -> Stain | None:
        """How the picture is stained; None if no nucleus can be in it."""
        return read_stain(self.sample, self.light)


def _without_black(sample: np.ndarray) -> np.ndarray:
    """Return the pixels (n, 3) of a sample that are neither black nor next to black ones."""
    dark = black(sample)
    if not dark.any():
        return sample.reshape(-1, 3)
    return sample[cv2.dilate(dark, np.ones((3, 3), np.uint8)) == 0]


def as_bytes(image: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Return an image of any scale as uint8."""
    if image.dtype == np.uint8:
        return image
    low, high = limits
    values = (image.astype(float) - low) * (255 / max(high - low, 1e-9))
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def from_bytes(values: np.ndarray, limits: tuple[float, float], dtype: DTypeLike) -> np.ndarray:
    """Return values of 0 to 255 on another scale, as `dtype`."""
    low, high = limits
    scaled = low + values * ((high - low) / 255)
    return (scaled if np.dtype(dtype).kind == "f" else np.rint(scaled)).astype(dtype)


def choose(cells: Sequence[Cell], size: tuple[int, ...], which: str) -> Cell:
    """Return the cell whose nucleus is nearest the centre of a picture, or the largest cell."""
    if which == "largest":
        return max(cells, key=lambda cell: cell.cell.sum())
    middle = (np.array(size) - 1) / 2
    return min(cells, key=lambda cell: np.hypot(*(nucleus_centre(cell) - middle)))


def nucleus_centre(cell: Cell) -> np.ndarray:
    """Return (row, column) of the centre of gravity of a cell's nucleus, in the picture."""
    moments = cv2.moments(cell.nucleus.view(np.uint8), binaryImage=True)
    return np.array([moments["m01"], moments["m10"]]) / moments["m00"] + cell.bbox[:2]


def diameter(mask: np.ndarray) -> float:
    """Return the diameter in pixels of a disk with the area of a mask."""
    return 2 * float(np.sqrt(mask.sum() / np.pi))


def covered(cells: Sequence[Cell], box: tuple[int, int, int, int]) -> np.ndarray:
    """Return where white cells are in a box of a picture, as bool."""
    mask = np.zeros((box[2] - box[0], box[3] - box[1]), bool)
    for cell in cells:
        place, source = overlap(box, cell.bbox)
        mask[place] |= cell.cell[source]
    return mask


def in_one_light(pixels: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Return uint8 `pixels` with the background brought to one grey, by a factor a channel.

    A factor leaves optical density as it is: white balance and exposure go, the stain stays.
    """
    factor = GREY / np.maximum(light, 1)
    table = np.minimum(np.rint(np.arange(256)[:, None] * factor), 255).astype(np.uint8)
    return np.asarray(cv2.LUT(pixels, table[None]))


def in_one_stain(pixels: np.ndarray, picture: Picture, cell: Cell) -> np.ndarray:
    """Return uint8 `pixels` of a picture in the same light, as if its stain were the usual one.

    The nucleus of `cell` and the red cells get the same two densities in every picture.
    """
    assert picture.stain is not None  # or no cell would have been found
    top, left, bottom, right = cell.bbox
    light = (picture.light + 1).astype(np.float32)
    tables = np.log(light / np.arange(1, 257, dtype=np.float32)[:, None])[None]  # of densities
    nucleus = picture.evenly_lit(np.s_[top:bottom, left:right])[cell.nucleus]
    matrix = to_one_stain(
        cv2.LUT(nucleus[None], tables)[0].mean(axis=0),
        red_cell_densities(picture.sample, picture.stain),
    )
    density = cv2.transform(cv2.LUT(pixels, tables), matrix.astype(np.float32))
    return np.rint(np.clip(light * np.exp(-density) - 1, 0, 255)).astype(np.uint8)


def cut(
    picture: Picture, box: tuple[int, int, int, int], even: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return a box of a picture, uint8, and where it shows the picture, bool; the rest is light.

    The box is in `even` light, or as it is.
    """
    place, part = overlap(box, (0, 0, *picture.size))
    known = np.zeros((box[2] - box[0], box[3] - box[1]), bool)
    known[place] = picture.seen(*part)
    out = np.empty((*known.shape, 3), np.uint8)
    out[place] = picture.evenly_lit(part) if even else picture.as_lit(part)
    if not known.all():
        out[~known] = np.rint(picture.light)
    return out, known


def mirror(image: np.ndarray, known: np.ndarray, free: np.ndarray) -> None:
    """Let what is not `known` of an image show the mirror image of what is `free`, in place."""
    if not known.any():
        return
    height, width = known.shape
    _, nearest = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    edge = np.empty(known.sum() + 1, int)
    edge[nearest[known]] = np.flatnonzero(known)
    unknown = np.flatnonzero(~known)
    centre = np.divmod(edge[nearest.ravel()[unknown]], width)
    row, column = (2 * a - b for a, b in zip(centre, np.divmod(unknown, width), strict=True))
    fits = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    fits[fits] = (known & free)[row[fits], column[fits]]
    image.reshape(-1, 3)[unknown[fits]] = image[row[fits], column[fits]]


def resized(square: np.ndarray, side: int) -> np.ndarray:
    """Return a square image with another side: averaged where it shrinks, else interpolated."""
    if len(square) == side:
        return square
    method = cv2.INTER_AREA if len(square) > side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(square, (side, side), interpolation=method))
