"""The white cell of a picture, and the ground that it lies on."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.ndimage import distance_transform_edt

from wbcclf.preprocessing._cell import Cell
from wbcclf.preprocessing._stain import BLACK, inside, read_light

GREY = 230  # what the empty background becomes: bright, as under a microscope, but not clipped


def as_bytes(image: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Return an image of any scale as contiguous uint8."""
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    low, high = limits
    values = (image.astype(float) - low) * (255 / max(high - low, 1e-9))
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def from_bytes(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Return values of 0 to 255 on another scale, float64."""
    low, high = limits
    return low + values * ((high - low) / 255)


def choose(cells: list[Cell], size: tuple[int, ...], which: str) -> Cell:
    """Return the cell whose nucleus is nearest the centre of a picture, or the largest cell."""
    if which == "largest":
        return max(cells, key=lambda cell: cell.cell.sum())
    middle = (np.array(size) - 1) / 2
    return min(cells, key=lambda cell: np.hypot(*(nucleus_centre(cell) - middle)))


def covered(cells: list[Cell], size: tuple[int, ...]) -> np.ndarray:
    """Return where white cells are in a picture of this size, as bool."""
    mask = np.zeros(size, bool)
    for cell in cells:
        top, left, bottom, right = cell.bbox
        mask[top:bottom, left:right] |= cell.cell
    return mask


def nucleus_centre(cell: Cell) -> np.ndarray:
    """Return (row, column) of the centre of gravity of a cell's nucleus, in the picture."""
    return np.argwhere(cell.nucleus).mean(axis=0) + cell.bbox[:2]


def diameter(mask: np.ndarray) -> float:
    """Return the diameter in pixels of a disk with the area of a mask."""
    return 2 * float(np.sqrt(mask.sum() / np.pi))


def seen_pixels(picture: np.ndarray) -> np.ndarray:
    """Return where a uint8 picture is, as bool: everything but its black wedges and borders."""
    # `inside` bridges gaps of a few pixels, where the tips of wedges are black.
    return (inside(picture) > 0) & (picture.max(axis=2) > BLACK)


def light_of(picture: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return the light (3,) of the empty background of a uint8 picture, float32."""
    return read_light(picture[seen] if seen.any() else picture.reshape(-1, 3))


def in_one_light(picture: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Return a uint8 picture with its background brought to one grey, by a factor a channel.

    A factor leaves optical density as it is: white balance and exposure go, the stain stays.
    """
    factor = GREY / np.maximum(light, 1)
    table = np.minimum(np.rint(np.arange(256)[:, None] * factor), 255).astype(np.uint8)
    return cv2.LUT(picture, table[None]).reshape(picture.shape)


def cut(
    image: np.ndarray,
    seen: np.ndarray,
    cells: np.ndarray,
    light: np.ndarray,
    square: tuple[int, int, int],
) -> np.ndarray:
    """Return a square of an image, of which a part may lie outside of what is seen.

    That part shows the mirror image of what is seen, and where this would be a white cell or
    is not known, empty background.

    Parameters
    ----------
    image : ndarray of shape (height, width, channels)
    seen, cells : ndarrays of shape (height, width), bool
        False in black wedges; True in white cells.
    light : ndarray of shape (channels,)
        Of the empty background.
    square : tuple (top, left, side) of int

    Returns
    -------
    ndarray of shape (side, side, channels)
    """
    top, left, side = square
    inner = np.s_[max(top, 0) : top + side, max(left, 0) : left + side]
    known = np.zeros((side, side), bool)
    place = np.s_[
        max(-top, 0) : max(-top, 0) + seen[inner].shape[0],
        max(-left, 0) : max(-left, 0) + seen[inner].shape[1],
    ]
    known[place] = seen[inner]
    out = np.empty((side, side, image.shape[2]), image.dtype)
    out[...] = light
    out[place] = image[inner]
    if known.all():
        return out
    out[~known] = light
    if not known.any():
        return out
    mirrored = 2 * distance_transform_edt(
        ~known, return_distances=False, return_indices=True
    ) - np.indices((side, side))
    rows, columns = mirrored[:, ~known]
    fits = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
    free = known.copy()
    free[place] &= ~cells[inner]
    fits[fits] = free[rows[fits], columns[fits]]
    target = np.argwhere(~known)[fits]
    out[target[:, 0], target[:, 1]] = out[rows[fits], columns[fits]]
    return out


def resized(square: np.ndarray, side: int) -> np.ndarray:
    """Return a square image with another side: averaged where it shrinks, else interpolated."""
    if len(square) == side:
        return square
    method = cv2.INTER_AREA if len(square) > side else cv2.INTER_LINEAR
    return cv2.resize(square, (side, side), interpolation=method).reshape(side, side, -1)
