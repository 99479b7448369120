"""Maps of what a network looks at: from its gradients, and from covering parts of a picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from wbcclf.classifiers.data._batches import gather
from wbcclf.classifiers.network._device import arithmetic, as_channels_last
from wbcclf.classifiers.network._network import CellNetwork

N_PATCHES = 7  # along a side: each is as wide, of the picture, as in the paper (32 of 224 pixels)

N_COVERED = 1 + N_PATCHES**2  # pictures that go through the network for one: first the whole one
MIRRORED = ((1, 1), (1, -1), (-1, 1), (-1, -1))  # steps along rows and columns


@dataclass(frozen=True)
class Viewer:
    """A network in eval mode, and how it is run.

    `advance` is told how many pictures have passed through.
    """

    network: CellNetwork
    device: str
    precision: str
    batch_size: int
    advance: Callable[[int], None]

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return logits (n, n_classes), float32, of a batch."""
        with torch.inference_mode(), arithmetic(self.device, self.precision):
            given = self.network(images=torch.from_numpy(images).to(self.device))
        self.advance(len(images))
        return given.cpu().numpy()

    def batches(self, n: int) -> Iterator[np.ndarray]:
        """Yield the numbers below `n`, as many at a time as go through the network together."""
        for start in range(0, n, self.batch_size):
            yield np.arange(start, min(start + self.batch_size, n))


def grids(network: CellNetwork) -> dict[str, tuple[int, int] | None]:
    """Return, for each block of the chain, the grid (height, width) of what it gives, if any."""
    size = network.preprocessing.input_size
    found = {}
    with torch.inference_mode():
        x = torch.zeros(1, 3, *size, device=network.preprocessing.scale.device)
        for name, block in network.backbone.named_children():
            x = block(x)
            found[name] = _grid(tuple(x.shape[1:]), size)
    return found


def _grid(features: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int] | None:
    """Return the height and width of maps (channels, height, width) or tokens (tokens, channels).

    The tokens of the patches come last. Before them are as few others (class, registers) as leave a
    number of patches that square ones can have: the next larger number has a row more.
    """
    if len(features) == 3:
        return features[1], features[2]
    if len(features) != 2:
        return None
    sides = [tuple(math.ceil(side / patch) for side in size) for patch in range(1, max(size) + 1)]
    rows, columns = max((grid for grid in sides if math.prod(grid) <= features[0]), key=math.prod)
    return rows, columns


def mirrored_grad_cam(
    viewer: Viewer, images: np.ndarray, target: np.ndarray, n_blocks: int, plus_plus: bool
) -> np.ndarray:
    """Return the mean Grad-CAM maps of pictures and their mirror images, each turned back.

    A strided convolution with symmetric padding samples the first of its pixels, not their middle.
    So maps of a single view lie up to half a cell of the grid off, which may be 16 pixels. Mirrored
    ones lie as far off to the other side.
    """
    views = [(slice(None), slice(None, None, up), slice(None, None, left)) for up, left in MIRRORED]
    return np.mean(
        [
            grad_cam(viewer, np.ascontiguousarray(images[view]), target, n_blocks, plus_plus)[view]
            for view in views
        ],
        axis=0,
    )


def grad_cam(
    viewer: Viewer, images: np.ndarray, target: np.ndarray, n_blocks: int, plus_plus: bool
) -> np.ndarray:
    """Return Grad-CAM or Grad-CAM++ maps (n, height, width) of what `n_blocks` of the chain give.

    The score is the logit of the class, as in both papers. Of Grad-CAM++ it is the closed form for
    exp(logit), whose scale is left out.
    """
    network = viewer.network
    blocks = list(network.backbone)
    maps = []
    for rows in viewer.batches(len(images)):
        batch = torch.from_numpy(gather(images, rows)).to(viewer.device)
        chosen = torch.from_numpy(target[rows]).to(viewer.device)
        with arithmetic(viewer.device, viewer.precision):
            with torch.no_grad():
                given = network.preprocessing(batch)
                for block in blocks[:n_blocks]:
                    given = block(given)
            with torch.enable_grad():
                given = as_channels_last(given).detach().requires_grad_()
                x = given.clone()  # a block may change its input in place
                for block in blocks[n_blocks:]:
                    x = block(x)
                score = network.head(x).float().gather(1, chosen[:, None]).sum()
                (gradient,) = torch.autograd.grad(score, given)
        maps.append(_weighted(given.detach(), gradient, network, plus_plus).cpu().numpy())
        viewer.advance(len(rows))
    return np.concatenate(maps)


def _weighted(
    given: torch.Tensor, gradient: torch.Tensor, network: CellNetwork, plus_plus: bool
) -> torch.Tensor:
    """Return the sum of a block's channels, each with its weight, where it is positive."""
    grid = _grid(tuple(given.shape[1:]), network.preprocessing.input_size)
    assert grid is not None
    if given.ndim == 3:
        n_patches = math.prod(grid)
        given, gradient = (
            tokens[:, -n_patches:].transpose(1, 2).unflatten(2, grid)
            for tokens in (given, gradient)
        )
    given, gradient = given.float(), gradient.float()
    if plus_plus:
        squares = gradient**2
        below = 2 * squares + (given * gradient**3).sum(dim=(2, 3), keepdim=True)
        shares = torch.where(squares > 0, squares / below, 0)
        weights = (shares * gradient.relu()).sum(dim=(2, 3), keepdim=True)
    else:
        weights = gradient.mean(dim=(2, 3), keepdim=True)
    return (weights * given).sum(dim=1).relu()


def occlusion(
    viewer: Viewer, images: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the log-odds of a class, and by how much they fall when a patch is covered.

    Patches, of which there are 7 x 7, get the mean colour of the picture's border. Log-odds rank
    like probabilities, and still do where these are rounded to 1.

    Returns
    -------
    odds : ndarray of shape (n,), float32
    falls : ndarray of shape (n, 7, 7), float32
        Negative where the class becomes more probable.
    """
    tops, lefts = (_patch_edges(side) for side in images.shape[1:3])
    colours = _border_colours(images)
    odds = np.empty(len(images) * N_COVERED, np.float32)
    for numbers in viewer.batches(len(odds)):
        rows, places = np.divmod(numbers, N_COVERED)
        batch = gather(images, rows)
        for image, row, place in zip(batch, rows, places, strict=True):
            if place:
                i, j = divmod(place - 1, N_PATCHES)
                image[tops[i] : tops[i + 1], lefts[j] : lefts[j + 1]] = colours[row]
        odds[numbers] = _log_odds(viewer.logits(batch), target[rows])
    whole, covered = np.split(odds.reshape(len(images), N_COVERED), [1], axis=1)
    return whole[:, 0], (whole - covered).reshape(len(images), N_PATCHES, N_PATCHES)


def enlarged(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return maps of the size of the pictures, float32, each with a maximum of 1 if it has any."""
    large = nn.functional.interpolate(
        torch.from_numpy(maps)[:, None], size, mode="bilinear", align_corners=False
    )[:, 0].numpy()
    most = large.max(axis=(1, 2), keepdims=True)
    return np.divide(large, most, out=np.zeros_like(large), where=most > 0)


def shrunk(maps: np.ndarray) -> np.ndarray:
    """Return the mean of maps of the size of the pictures in each of the patches of occlusion."""
    tops, lefts = (_patch_edges(side) for side in maps.shape[1:])
    sums = np.add.reduceat(np.add.reduceat(maps, tops[:-1], axis=1), lefts[:-1], axis=2)
    return sums / np.outer(np.diff(tops), np.diff(lefts))


def _patch_edges(side: int) -> np.ndarray:
    """Return where patches begin and end along a side, in pixels."""
    return np.linspace(0, side, N_PATCHES + 1).round().astype(int)


def _log_odds(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the logarithm of p / (1 - p) of a class."""
    own = np.take_along_axis(logits, target[:, None], axis=1)[:, 0]
    others = logits.copy()
    np.put_along_axis(others, target[:, None], -np.inf, axis=1)
    return own - np.logaddexp.reduce(others, axis=1)


def _border_colours(images: np.ndarray) -> np.ndarray:
    """Return the mean colour of the outermost pixels of each image, (n, channels)."""
    border = np.ones(images.shape[1:3], bool)
    border[1:-1, 1:-1] = False
    colours = np.stack([image[border].mean(axis=0) for image in images])
    return np.rint(colours) if images.dtype.kind in "ui" else colours
