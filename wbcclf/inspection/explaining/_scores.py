"""Whether a map can be believed: how it is compared with others, and with the white cell."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata, wilcoxon

from wbcclf.cells._cells import cells_of
from wbcclf.cells._picture import Picture, choose

FEWEST = 10  # pictures that a warning needs: of fewer, chance explains too much
LEVEL = 0.05  # of its test


def correlations(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation of each map (n, height, width) with the other of its row.

    NaN where one of the two has the same value everywhere.
    """
    ranks = [rankdata(each.reshape(len(each), -1), axis=1) for each in (maps, others)]
    one, other = (each - each.mean(axis=1, keepdims=True) for each in ranks)
    with np.errstate(invalid="ignore"):
        return (one * other).sum(axis=1) / np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))


def of_other_pictures(maps: np.ndarray) -> np.ndarray:
    """Return the maps, each at another picture's place; NaN if there is no other."""
    return np.roll(maps, len(maps) // 2, axis=0) if len(maps) > 1 else np.full_like(maps, np.nan)


def mean_of_known(scores: list[np.ndarray]) -> np.ndarray:
    """Return the mean of several scores of each map without those that are NaN; NaN if all are."""
    values = np.array(scores)
    known = np.isfinite(values)
    n_known = known.sum(axis=0)
    sums = np.where(known, values, 0).sum(axis=0)
    return np.divide(sums, n_known, out=np.full(len(n_known), np.nan), where=n_known > 0)


def cell_masks(images: np.ndarray) -> np.ndarray:
    """Return where the white cell nearest the centre of each picture is (n, height, width), bool.

    False everywhere where none is found.
    """
    masks = np.zeros(images.shape[:3], bool)
    for mask, image in zip(masks, images, strict=True):
        picture = Picture(image)
        (cells,) = cells_of([picture])
        if cells:
            cell = choose(cells, picture.size, "centre")
            top, left, bottom, right = cell.bbox
            mask[top:bottom, left:right] = cell.cell
    return masks


def shares_inside(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return the share of each map's mass in its mask; NaN if the map or the mask is empty."""
    total, area = maps.sum(axis=(1, 2)), masks.sum(axis=(1, 2))
    with np.errstate(invalid="ignore"):
        shares = (maps * masks).sum(axis=(1, 2)) / total
    return np.where(area > 0, shares, np.nan)


def beside_the_cell(inside: np.ndarray, cell_share: np.ndarray, target: np.ndarray) -> str:
    """Return of which classes the maps are not clearly more on the cell than even ones would be.

    By Wilcoxon's signed-rank test, one-sided at 5%, of the pictures of each class that has ten with
    a cell; if none has, of all. Each picture counts as another cell.
    """
    excess = (inside - cell_share).astype(float)
    known = np.isfinite(excess) & (cell_share < 1)
    kinds = {f"of the class {label}": known & (target == label) for label in np.unique(target)}
    enough = {name: rows for name, rows in kinds.items() if rows.sum() >= FEWEST}
    if not enough and known.sum() >= FEWEST:
        enough = {"of all classes": known}
    return ", ".join(
        f"{name}: {inside[rows].mean():.0%} on the cell, which covers {cell_share[rows].mean():.0%}"
        for name, rows in enough.items()
        if wilcoxon(excess[rows], alternative="greater").pvalue >= LEVEL
    )
