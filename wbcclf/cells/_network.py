"""The outline of a white cell by a small network.

The stain method knows a cell by the colours of its own picture. The network knows what cells look
like: where cytoplasm is pale, or has the colour of red cells, it still sees an edge. It sees rays
from the centre of the nucleus, as optical densities in units of a red cell, at the scale of the
nucleus, and says of every sample how likely it is in the cell. The stain method has a vote in
that. The outline is the best closed path, as in `_outline.py`.

`benchmarks/outline_network.py` trains the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from wbcclf.cells._cell import Cell
from wbcclf.cells._outline import best_paths
from wbcclf.cells._picture import diameter, nucleus_centre
from wbcclf.cells._segment import View

RAYS = STEPS = 64
FOLD = 4  # samples a side of those that the network takes for one place
REACH = 1.75  # diameters of the nucleus
SURE = 6.0  # log-odds of a nucleus' pixel, and the limit of all others
VOTE = 1.0  # log-odds that the stain method adds in what it takes for the cell, or else takes away
LIMITS = (-2, 6)  # of densities, in red cells
PAD = 8  # pixels around the samples, more than their averages reach
WEIGHTS = Path(__file__).with_name("outline.npz")

_ANGLES = np.linspace(0, 2 * np.pi, RAYS, endpoint=False, dtype=np.float32)[:, None]


@cache
def shipped() -> Mapping[str, np.ndarray]:
    """Return the weights and biases of this package's network, float32."""
    with np.load(WEIGHTS, allow_pickle=False) as file:
        return dict(file)


def log_odds(channels: np.ndarray, weights: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return log-odds (RAYS, STEPS) of the first five channels that `samples` gives.

    The network is a U-Net (Ronneberger et al. 2015, 10.1007/978-3-319-24574-4_28) of 70,000
    weights. Its first and last steps fold squares of 4x4 samples into channels: few large
    convolutions are faster than many small ones.
    """

    def block(x: np.ndarray, name: str) -> np.ndarray:
        return _convolved(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    rays, steps = RAYS // FOLD, STEPS // FOLD
    folded = channels[:5].reshape(5, rays, FOLD, steps, FOLD).transpose(1, 3, 0, 2, 4)
    top = block(block(folded.reshape(rays, steps, -1), "top.0"), "top.1")
    halved = top.reshape(rays // 2, 2, steps // 2, 2, -1).max(axis=(1, 3))
    bottom = block(block(halved, "bottom.0"), "bottom.1")
    enlarged = bottom.repeat(2, axis=0).repeat(2, axis=1)
    up = block(np.concatenate([top, enlarged], axis=2), "up")
    odds = up @ weights["head.weight"][..., 0, 0].T + weights["head.bias"]
    return odds.reshape(rays, steps, FOLD, FOLD).transpose(0, 2, 1, 3).reshape(RAYS, STEPS)


def _convolved(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Convolve x (rays, steps, channels), 3x3, with ReLU; the rays close to a circle."""
    padded = np.pad(np.concatenate([x[-1:], x, x[:1]]), ((0, 0), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))
    sums = windows.reshape(x.shape[0] * x.shape[1], -1) @ weight.reshape(len(weight), -1).T
    return np.maximum(sums + bias, 0).reshape(*x.shape[:2], -1)


def redrawn(
    views: Sequence[View], weights: Mapping[str, np.ndarray] | None = None, vote: float = VOTE
) -> list[list[Cell]]:
    """Return the cells of each view with better outlines."""
    every = [(view, cell, *around(cell)) for view in views for cell in view.cells]
    if not every:
        return [[] for _ in views]
    channels = np.stack(
        [samples(view, cell, rays(centre, reach), reach) for view, cell, centre, reach in every]
    )
    # One by one: sums may be rounded differently in batches of other sizes.
    odds = np.stack([log_odds(one, weights or shipped()) for one in channels])
    paths = best_paths(_gain(odds, channels, vote))
    drawn = (
        _drawn(cell, _outline(path, centre, reach), view.seen)
        for (view, cell, centre, reach), path in zip(every, paths, strict=True)
    )
    return [list(islice(drawn, len(view.cells))) for view in views]


def around(cell: Cell) -> tuple[np.ndarray, float]:
    """Return the centre (x, y) of a cell's nucleus in the picture, and how far its rays go."""
    return nucleus_centre(cell)[::-1], REACH * diameter(cell.nucleus)


def rays(
    centre: np.ndarray, reach: float, turn: float = 0.0, flip: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y (RAYS, STEPS) of samples on rays from a point, float32."""
    radii = (np.arange(STEPS, dtype=np.float32) + np.float32(0.5)) * np.float32(reach / STEPS)
    angles = _ANGLES + np.float32(turn)
    xs = np.float32(centre[0]) + np.float32(flip) * np.cos(angles) * radii
    return xs, np.float32(centre[1]) + np.sin(angles) * radii


def samples(
    view: View, cell: Cell, places: tuple[np.ndarray, np.ndarray], reach: float
) -> np.ndarray:
    """Return channels (6, ...) at places x, y of a picture, float32.

    They are the densities of red and green and the dye of nuclei, in those of a red cell; then,
    0 to 1, the nucleus, what is outside of the picture, and the cell by the stain method.
    """
    (tile, seen, stain, _), (xs, ys) = view, places
    left, top = max(int(xs.min()) - PAD, 0), max(int(ys.min()) - PAD, 0)
    part = tile[top : int(ys.max()) + PAD + 1, left : int(xs.max()) + PAD + 1]
    # A sample stands for the pixels around it: averages of blocks, which are fast, then a blur.
    step = max(reach / STEPS, 0.7)
    block = 2 ** max(int(np.log2(step)), 0)
    height, width = (side - side % block for side in part.shape[:2])
    size = width // block, height // block
    part = cv2.resize(part[:height, :width], size, interpolation=cv2.INTER_AREA)
    part = cv2.GaussianBlur(part, (5, 5), step / block)
    pixels = cv2.remap(
        part,
        (xs - np.float32(left - 0.5)) / np.float32(block) - np.float32(0.5),
        (ys - np.float32(top - 0.5)) / np.float32(block) - np.float32(0.5),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )

    def share(mask: np.ndarray, box: tuple[int, ...]) -> np.ndarray:
        at = xs - np.float32(box[1]), ys - np.float32(box[0])
        bytes_ = 255 * mask.view(np.uint8)
        return cv2.remap(bytes_, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)

    shown = cv2.remap(seen, xs, ys, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
    planes = share(cell.nucleus, cell.bbox), 255 - 255 * shown, share(cell.cell, cell.bbox)
    unit = np.float32(stain.red or stain.nucleus / 3)
    shades = np.stack([stain.density(pixels, 0), stain.density(pixels, 1), stain.dye(pixels)])
    return np.concatenate([np.clip(shades / unit, *LIMITS), np.stack(planes) / np.float32(255)])


def _gain(odds: np.ndarray, channels: np.ndarray, vote: float) -> np.ndarray:
    """Return what outlines gain from each ray that ends at each step, (n, RAYS, STEPS)."""
    nucleus, outside, by_stain = np.moveaxis(channels[:, 3:], 1, 0)
    odds = np.clip(odds + vote * (2 * by_stain - 1), -SURE, SURE)
    odds[outside > 0.5] = 0
    in_nucleus = nucleus > 0.5
    odds[in_nucleus] = SURE
    # A sample stands for an area that grows with the radius.
    gain = np.cumsum(odds * (np.arange(STEPS, dtype=np.float32) + np.float32(0.5)), axis=2)
    # The outline goes around the nucleus.
    beyond = np.cumsum(in_nucleus[..., ::-1], axis=2)[..., ::-1] > 0
    gain[..., :-1][beyond[..., 1:]] = -1e6
    return gain


def _outline(path: np.ndarray, centre: np.ndarray, reach: float) -> np.ndarray:
    """Return the corners (RAYS, 2) of x and y of an outline that ends at a step of each ray."""
    ends = (path[:, None] + 1) * (reach / STEPS)
    return centre + np.hstack([np.cos(_ANGLES), np.sin(_ANGLES)]) * ends


def _drawn(cell: Cell, outline: np.ndarray, seen: np.ndarray) -> Cell:
    """Return a cell with another outline, in its picture."""
    corners = np.rint(outline).astype(np.int32)
    top, left, bottom, right = cell.bbox
    low = np.maximum(np.minimum(corners.min(axis=0), (left, top)), 0)
    high = np.minimum(np.maximum(corners.max(axis=0) + 1, (right, bottom)), seen.shape[::-1])
    nucleus = np.zeros((high - low)[::-1], np.uint8)
    nucleus[top - low[1] : bottom - low[1], left - low[0] : right - low[0]] = cell.nucleus
    mask = cv2.fillPoly(np.zeros_like(nucleus), [corners - low.astype(np.int32)], 1)
    mask = (mask | nucleus) & seen[low[1] : high[1], low[0] : high[0]]
    x, y, width, height = cv2.boundingRect(mask)
    box = np.s_[y : y + height, x : x + width]
    y, x = int(low[1]) + y, int(low[0]) + x
    return Cell((y, x, y + height, x + width), mask[box] > 0, nucleus[box] > 0, cell.score)
