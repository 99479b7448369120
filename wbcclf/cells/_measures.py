"""What is measured of one white cell: shape, colour and texture."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from wbcclf.cells._cell import Cell
from wbcclf.cells._picture import Picture, diameter, nucleus_centre
from wbcclf.cells._red_cells import radius_of_red_cells
from wbcclf.cells._stain import byte_densities

DIAMETER = 48  # pixels that a cell is made wide, so that magnification does not change its texture
LARGEST = 96  # pixels of a cell's diameter in which lobes are told apart
DEPTH = 100  # density of the nucleus in bytes
LEVELS, LEVEL = 32, 5  # grey levels of co-occurrence: each a twentieth of the nucleus' density
GRAINS = {"fine": 1, "coarse": 3}  # radii in pixels of a cell that is DIAMETER wide
WAIST = 2 / 3  # of the narrower lobe's width: a narrower waist separates two lobes
SPECK = 1 / 3  # of the widest lobe's width: what is narrower is no lobe

_DISCS = [
    cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    for radius in GRAINS.values()
]
_SQUARE = np.ones((3, 3), np.uint8)
# A pixel and its neighbour: the straight directions first, then the oblique ones.
_PAIRS = (
    (np.s_[:, :-1], np.s_[:, 1:]),
    (np.s_[:-1], np.s_[1:]),
    (np.s_[:-1, :-1], np.s_[1:, 1:]),
    (np.s_[:-1, 1:], np.s_[1:, :-1]),
)
_LEVEL = np.arange(LEVELS)
_APART = (_LEVEL[:, None] - _LEVEL) ** 2


def measure(picture: Picture, cell: Cell, cells: Sequence[Cell]) -> dict[str, float]:
    """Return the features of one of the cells of a picture by name; what has no value is left out.

    Parameters
    ----------
    picture : Picture
    cell : Cell
    cells : sequence of Cell
        All cells of the picture.
    """
    height, width = picture.size
    top, left, bottom, right = cell.bbox
    radius = radius_of_red_cells(picture, cells)
    reference = np.pi * radius**2 if radius else height * width
    n_cell, n_nucleus = float(cell.cell.sum()), float(cell.nucleus.sum())
    centre = np.argwhere(cell.cell).mean(axis=0) + cell.bbox[:2]
    found = {
        "cell area (reference areas)": n_cell / reference,
        "nucleus area (reference areas)": n_nucleus / reference,
        "reference (1 red cell, 0 picture)": float(radius is not None),
        "nucleus to cell area (ratio)": n_nucleus / n_cell,
        "nucleus off centre (cell radii)": 2
        * float(np.hypot(*(nucleus_centre(cell) - centre)))
        / diameter(cell.cell),
        "cut by the border (1 yes, 0 no)": float(
            min(top, left) == 0 or bottom == height or right == width
        ),
    }
    for name, mask in (("cell", cell.cell), ("nucleus", cell.nucleus)):
        found[f"{name} circularity (0 to 1)"] = circularity(mask)
        found[f"{name} eccentricity (0 to 1)"] = eccentricity(mask)
        found[f"{name} solidity (0 to 1)"] = solidity(mask)
    return found | _stained(picture, cell)


def _stained(picture: Picture, cell: Cell) -> dict[str, float]:
    """Return lobes, colours and textures, from the cell at one size and one depth of stain."""
    top, left, bottom, right = cell.bbox
    size = diameter(cell.cell)
    pixels = _resized(picture[top:bottom, left:right], DIAMETER / size)
    whole, nucleus = (_mask(mask, DIAMETER / size) for mask in (cell.cell, cell.nucleus))
    found = {"nucleus lobes (number)": count_lobes(_mask(cell.nucleus, min(1, LARGEST / size)))}
    densities = np.stack([byte_densities(light) for light in picture.light], axis=1)
    depth = float(np.median(densities[pixels[nucleus][:, 1], 1])) if nucleus.any() else 0.0
    if depth <= 0:
        return found
    found["nucleus green density (OD)"] = depth / np.log(10)
    table = np.clip(np.rint(densities * (DEPTH / depth)), 0, 255).astype(np.uint8)
    density = np.asarray(cv2.LUT(pixels, table[None]))
    for name, mask in (("nucleus", nucleus), ("cytoplasm", whole & ~nucleus)):
        if not mask.any():
            continue
        red, green, blue = np.median(density[mask], axis=0) / DEPTH
        colour = {"red density": red, "blue density": blue}
        if name == "cytoplasm":  # the unit is the green density of the nucleus
            colour |= {"green density": green, "redness": (green + blue) / 2 - red}
        colour["density spread"] = density[mask][:, 1].std() / DEPTH
        found |= {f"{name} {key} (of nucleus green)": float(v) for key, v in colour.items()}
        values = np.ascontiguousarray(density[..., 1])
        texture = haralick(values // LEVEL, mask) | granularity(values, mask)
        found |= {f"{name} {key}": float(value) for key, value in texture.items()}
    return found


def _resized(image: np.ndarray, scale: float) -> np.ndarray:
    size = np.maximum(np.rint(np.array(image.shape[1::-1]) * scale), 1).astype(int)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size.tolist(), interpolation=method))


def _mask(mask: np.ndarray, scale: float) -> np.ndarray:
    return _resized(255 * mask.astype(np.uint8), scale) > 127


def perimeter(mask: np.ndarray) -> float:
    """Return the length of the edge of a mask in pixels, by the formula of Crofton.

    It counts how often lines in four directions cross the edge.
    """
    padded = _padded(mask)
    straight, oblique = (
        sum(np.count_nonzero(padded[one] != padded[other]) for one, other in pairs)
        for pairs in (_PAIRS[:2], _PAIRS[2:])
    )
    return float(np.pi / 8 * (straight + oblique / np.sqrt(2)))


def _padded(mask: np.ndarray) -> np.ndarray:
    return np.asarray(
        cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    )


def circularity(mask: np.ndarray) -> float:
    """Return 4 pi area / perimeter^2, at most 1."""
    return min(1.0, 4 * np.pi * float(mask.sum()) / max(perimeter(mask), 1e-9) ** 2)


def eccentricity(mask: np.ndarray) -> float:
    """Return the eccentricity of the ellipse with the same second moments."""
    moments = cv2.moments(mask.astype(np.uint8), binaryImage=True)
    area = max(moments["m00"], 1e-9)
    # A pixel is a square, whose own second moment is 1/12.
    xx, yy = (moments[name] / area + 1 / 12 for name in ("mu20", "mu02"))
    half, mean = np.hypot((xx - yy) / 2, moments["mu11"] / area), (xx + yy) / 2
    return float(np.sqrt(2 * half / (mean + half)))


def solidity(mask: np.ndarray) -> float:
    """Return the area of a mask over that of its convex hull."""
    outlines, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    hull = np.zeros(mask.shape, np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(np.concatenate(outlines)), 1)
    return float(mask.sum() / hull.sum())


def count_lobes(mask: np.ndarray) -> float:
    """Return the number of parts of a mask that gaps or waists separate.

    These are the maxima of the distance from the edge from which every way to a higher one leads
    through a waist: the h-maxima of its logarithm.
    """
    # From the edge, which lies half a pixel before the first one outside.
    distance = cv2.distanceTransform(_padded(mask), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) - 0.5
    depth = np.float32(-np.log(WAIST))
    height = np.log(np.maximum(distance, np.float32(0.25)))
    lowered = height - depth
    while True:  # reconstruction by dilation
        grown = np.minimum(cv2.dilate(lowered, _SQUARE), height)
        if np.array_equal(grown, lowered):
            break
        lowered = grown
    above = height - lowered
    _, parts = cv2.connectedComponents((above > 1e-4).astype(np.uint8), connectivity=8)
    peaks = (above > depth - 1e-4) & (distance > SPECK * distance.max())
    return float(len(np.unique(parts[peaks])))


def haralick(levels: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Return features of the co-occurrence of levels in neighbours, all directions together."""
    levels = np.where(mask, np.minimum(levels, LEVELS - 1), LEVELS).astype(np.int64)
    codes = [(levels[one] * (LEVELS + 1) + levels[other]).ravel() for one, other in _PAIRS]
    counts = np.bincount(np.concatenate(codes), minlength=(LEVELS + 1) ** 2)
    counts = counts.reshape(LEVELS + 1, -1)[:LEVELS, :LEVELS]  # pairs of which both are inside
    n_pairs = counts.sum()
    if not n_pairs:
        return {}
    share = (counts + counts.T) / (2 * n_pairs)
    level = share.sum(axis=0)
    mean = level @ _LEVEL
    variance = level @ (_LEVEL - mean) ** 2
    contrast = (share * _APART).sum()
    some = share[share > 0]
    return {
        "contrast (levels^2)": contrast,
        # Neighbours differ by twice the variance if they have nothing in common.
        "correlation (-1 to 1)": 1 - contrast / (2 * variance) if variance else 1.0,
        "homogeneity (0 to 1)": (share / (1 + _APART)).sum(),
        "entropy (bits)": max(0.0, -(some @ np.log2(some))),
    }


def granularity(values: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Return what share of the density lies in grains up to two sizes: what openings remove."""
    total = left = float(values[mask].sum())
    found = {}
    for size, disc in zip(GRAINS, _DISCS, strict=True):
        # Only what is in the region counts: what lies outside is neither in the way nor of help.
        eroded = cv2.erode(np.where(mask, values, 255).astype(np.uint8), disc, borderValue=255)
        opened = cv2.dilate(np.where(mask, eroded, 0).astype(np.uint8), disc, borderValue=0)
        remains = float(opened[mask].sum())
        found[f"{size} grains (share)"] = (left - remains) / max(total, 1.0)
        left = remains
    return found
