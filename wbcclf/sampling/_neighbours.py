"""The nearest neighbours of byte images, exactly, in little memory, on a GPU where there is one."""

from __future__ import annotations

import numpy as np
import torch

# Rows of a tile of the distance matrix: a few arrays of 1024 x 1024 numbers of 8 bytes at a time.
_TILE = 1024
# Distances do not change when 128 is taken from every byte. The products of what is left, -128 to
# 127, are whole numbers of at most 2**14, so that any partial sum of 1024 of them, in any order, is
# a whole number of at most 2**24: float32 holds them all. Blocks are summed in float64, which is
# exact up to 2**53.
_BLOCK = 1024


def nearest_neighbours(
    X: np.ndarray, n_neighbors: int, rows: np.ndarray | None = None, device: str | None = None
) -> np.ndarray:
    """Return, for each of some byte rows, the nearest others of them.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features), uint8
        Never copied, nor are all of `rows`: of a tile's rows, 1024 features at a time.
    n_neighbors : int
        Less than the number of `rows`.
    rows : ndarray of shape (n_rows,), int, or None
        The rows of `X` to search; None means all.
    device : str or None
        Where to compute; None takes a CUDA device if there is one. The result does not depend on
        it.

    Returns
    -------
    ndarray of shape (n_rows, n_neighbors), intp
        Positions in `rows`, by Euclidean distance; of equally near ones, the first come first. No
        row is its own neighbour.

    Examples
    --------
    >>> import numpy as np
    >>> nearest_neighbours(np.array([[0], [10], [19]], dtype=np.uint8), 1).ravel()
    array([1, 2, 1])
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = np.arange(len(X)) if rows is None else rows
    n = len(rows)
    # A distance and a position make one number, so that ties are settled by the position and every
    # way to sort agrees. The largest distance is 255**2 * n_features: 2**63 is out of reach below
    # 10**14 / n_features rows.
    nearest = torch.full((n, n_neighbors), torch.iinfo(torch.int64).max, device=device)
    norms = _squared_norms(X, rows, device)
    for i in range(0, n, _TILE):
        for j in range(i, n, _TILE):
            here, there = slice(i, min(i + _TILE, n)), slice(j, min(j + _TILE, n))
            inner = _inner_products(X, rows[here], rows[there], device)
            distances = (norms[here, None] + norms[there] - 2 * inner).long()
            if i == j:
                _update(nearest[here], distances, i, n, own=True)
            else:  # the matrix is symmetric: a tile serves both its rows and its columns
                _update(nearest[here], distances, j, n)
                _update(nearest[there], distances.T, i, n)
    return (nearest % n).cpu().numpy().astype(np.intp)


def _update(
    nearest: torch.Tensor, distances: torch.Tensor, first: int, n: int, own: bool = False
) -> None:
    """Merge a tile into the nearest so far; its columns are the positions from `first` on."""
    positions = torch.arange(first, first + distances.shape[1], device=distances.device)
    keys = distances * n + positions
    if own:
        keys.fill_diagonal_(torch.iinfo(torch.int64).max)
    candidates = torch.cat([nearest, keys], dim=1)
    nearest[:] = candidates.topk(nearest.shape[1], largest=False).values


def _inner_products(X: np.ndarray, here: np.ndarray, there: np.ndarray, device: str):
    """Return the inner products of two sets of rows, less 128, as exact float64."""
    total = torch.zeros((len(here), len(there)), dtype=torch.float64, device=device)
    same = np.array_equal(here, there)
    for block in _blocks(X):
        left = _centred(X, here, block, device)
        right = left if same else _centred(X, there, block, device)
        total += left @ right.T
    return total


def _squared_norms(X: np.ndarray, rows: np.ndarray, device: str):
    """Return the squared norms of rows, less 128, as exact float64."""
    norms = torch.zeros(len(rows), dtype=torch.float64, device=device)
    for start in range(0, len(rows), _TILE):
        tile = slice(start, start + _TILE)
        for block in _blocks(X):
            norms[tile] += _centred(X, rows[tile], block, device).square().sum(dim=1)
    return norms


def _blocks(X: np.ndarray):
    return (slice(start, start + _BLOCK) for start in range(0, X.shape[1], _BLOCK))


def _centred(X: np.ndarray, rows: np.ndarray, block: slice, device: str):
    """Return some features of some rows, less 128.

    In float32, as argued above, on a CPU. A GPU may be set to multiply float32 with TF32 units,
    whose sums are not promised to be exact, so float64 it is there.
    """
    dtype = torch.float32 if device == "cpu" else torch.float64
    return torch.from_numpy(X[rows, block]).to(device).to(dtype).sub_(128)
