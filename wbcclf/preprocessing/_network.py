"""The outline of a white cell by a small network.

The stain method knows a cell by the colours of its own picture. The network knows what cells look
like: where cytoplasm is pale, or has the colour of red cells, it still sees an edge. It sees rays
from the centre of the nucleus, as optical densities in units of a red cell, at the scale of the
nucleus, and says of every sample how likely it is in the cell. The stain method has a vote in
that. The outline is the best closed path, as in `_outline.py`.

`benchmarks/outline_network.py` trains the weights.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from wbcclf.preprocessing._cell import Cell, overlap
from wbcclf.preprocessing._outline import _best_path as best_path
from wbcclf.preprocessing._stain import Stain, inside

RAYS = STEPS = 64
REACH = 1.75  # diameters of the nucleus
SURE = 6.0  # log-odds of a nucleus' pixel, and the limit of all others
VOTE = 1.0  # log-odds that the stain method adds in what it takes for the cell, or else takes away
LIMITS = (-2, 6)  # of densities, in red cells
WEIGHTS = Path(__file__).with_name("outline.safetensors")

if hasattr(os, "register_at_fork"):
    # A forked process has none of the threads that OpenMP started, but would wait for them.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))

_ANGLES = np.linspace(0, 2 * np.pi, RAYS, endpoint=False, dtype=np.float32)[:, None]


class Block(nn.Module):
    """Convolution, batch normalisation, ReLU; the rays close to a circle."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, padding=(0, 1), bias=False)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return features (n, after, rays, steps)."""
        x = torch.cat([x[:, :, -1:], x, x[:, :, :1]], dim=2)
        return F.relu(self.norm(self.conv(x)))


class OutlineNet(nn.Module):
    """A U-Net (Ronneberger et al. 2015, 10.1007/978-3-319-24574-4_28) of 109,000 weights.

    Its first and last steps fold squares of 2x2 samples into channels, for speed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.top = nn.Sequential(Block(20, 16), Block(16, 16))
        self.middle = nn.Sequential(Block(16, 32), Block(32, 32))
        self.bottom = nn.Sequential(Block(32, 64), Block(64, 64))
        self.up_middle = Block(96, 32)
        self.up_top = Block(48, 16)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return log-odds (n, RAYS, STEPS) of the first five channels that `samples` gives."""
        top = self.top(F.pixel_unshuffle(x[:, :5], 2))
        middle = self.middle(F.max_pool2d(top, 2))
        bottom = self.bottom(F.max_pool2d(middle, 2))
        middle = self.up_middle(torch.cat([middle, F.interpolate(bottom, scale_factor=2)], 1))
        top = self.up_top(torch.cat([top, F.interpolate(middle, scale_factor=2)], 1))
        return F.pixel_shuffle(self.head(top), 2)[:, 0]


@cache
def shipped() -> OutlineNet:
    """Return the network of this package."""
    net = OutlineNet().eval()
    net.load_state_dict({name: value.float() for name, value in load_file(WEIGHTS).items()})
    for block in net.modules():
        if isinstance(block, Block):
            block.conv = fuse_conv_bn_eval(block.conv, block.norm)
            block.norm = nn.Identity()  # type: ignore[assignment]
    return net.to(memory_format=torch.channels_last)


def redrawn(
    tile: np.ndarray,
    stain: Stain,
    cells: list[Cell],
    net: OutlineNet | None = None,
    vote: float = VOTE,
) -> list[Cell]:
    """Return the cells that the stain method found in a uint8 picture, with better outlines."""
    if not cells:
        return []
    seen = inside(tile)
    places = [around(cell) for cell in cells]
    seen_by_net = [
        samples(tile, seen, stain, cell, rays(*place), place[1])
        for cell, place in zip(cells, places, strict=True)
    ]
    with torch.inference_mode():
        batch = torch.from_numpy(np.stack(seen_by_net)).to(memory_format=torch.channels_last)
        odds = (net or shipped())(batch).numpy()
    return [
        _drawn(cell, _best_outline(*each), seen)
        for cell, *each in zip(cells, odds, seen_by_net, places, [vote] * len(cells), strict=True)
    ]


def around(cell: Cell) -> tuple[np.ndarray, float]:
    """Return the centre (x, y) of a cell's nucleus in the picture, and how far its rays go."""
    rows, columns = np.nonzero(cell.nucleus)
    centre = np.array([cell.bbox[1] + columns.mean(), cell.bbox[0] + rows.mean()])
    return centre, REACH * 2 * float(np.sqrt(len(rows) / np.pi))


def rays(
    centre: np.ndarray, reach: float, turn: float = 0.0, flip: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y (RAYS, STEPS) of samples on rays from a point, float32."""
    radii = (np.arange(STEPS, dtype=np.float32) + np.float32(0.5)) * np.float32(reach / STEPS)
    angles = _ANGLES + np.float32(turn)
    xs = np.float32(centre[0]) + np.float32(flip) * np.cos(angles) * radii
    return xs, np.float32(centre[1]) + np.sin(angles) * radii


def samples(
    tile: np.ndarray,
    seen: np.ndarray,
    stain: Stain,
    cell: Cell,
    places: tuple[np.ndarray, np.ndarray],
    reach: float,
) -> np.ndarray:
    """Return channels (6, ...) at places x, y of a picture, float32.

    They are the densities of red and green and the dye of nuclei, in those of a red cell; then,
    0 to 1, the nucleus, what is outside of the picture, and the cell by the stain method.
    """
    xs, ys = places
    pad = 8  # pixels, more than the blur reaches
    left, top = max(int(xs.min()) - pad, 0), max(int(ys.min()) - pad, 0)
    part = np.s_[top : int(ys.max()) + pad + 1, left : int(xs.max()) + pad + 1]
    xs, ys = xs - np.float32(left), ys - np.float32(top)
    # A sample stands for the pixels around it.
    blurred = cv2.GaussianBlur(tile[part], (0, 0), max(0.7, reach / STEPS))
    pixels = cv2.remap(blurred, xs, ys, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    masks = np.zeros((*blurred.shape[:2], 3), np.uint8)
    masks[..., 1] = 255 - 255 * seen[part]
    box = (top, left, top + masks.shape[0], left + masks.shape[1])
    here, there = overlap(box, cell.bbox)
    masks[here][..., 0] = 255 * cell.nucleus[there]
    masks[here][..., 2] = 255 * cell.cell[there]
    planes = cv2.remap(
        masks,
        xs,
        ys,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(0, 255, 0),
    )
    unit = np.float32(stain.red or stain.nucleus / 3)
    shades = np.stack([stain.density(pixels, 0), stain.density(pixels, 1), stain.dye(pixels)])
    return np.concatenate(
        [np.clip(shades / unit, *LIMITS), np.moveaxis(planes, 2, 0) / np.float32(255)]
    ).astype(np.float32)


def _best_outline(
    odds: np.ndarray, channels: np.ndarray, place: tuple[np.ndarray, float], vote: float
) -> np.ndarray:
    """Return the closed path (RAYS, 2) of x and y with the largest sum of log-odds inside."""
    _, _, _, nucleus, outside, by_stain = channels
    odds = np.clip(odds + vote * (2 * by_stain - 1), -SURE, SURE)
    odds = np.where(outside > 0.5, 0, odds)
    in_nucleus = nucleus > 0.5
    # A sample stands for an area that grows with the radius.
    radii = np.arange(STEPS, dtype=np.float32) + np.float32(0.5)
    gain = np.cumsum(np.where(in_nucleus, SURE, odds) * radii, axis=1)
    # The outline goes around the nucleus.
    farthest = np.where(in_nucleus.any(1), STEPS - in_nucleus[:, ::-1].argmax(1), 0)
    gain[np.arange(STEPS) < farthest[:, None] - 1] = -1e6
    centre, reach = place
    ends = (best_path(gain)[:, None] + 1) * (reach / STEPS)
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
