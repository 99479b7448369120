"""The arithmetic of `_laboratory.apply` on a torch tensor of bytes: to the last bit the same."""

from __future__ import annotations

import numpy as np
import torch

from wbcclf.sampling._jpeg_torch import jpeg
from wbcclf.sampling._laboratory import BRIGHT, LEVELS, LOGS, Laboratory, grid_steps
from wbcclf.sampling._tensors import on_device


def apply(laboratories: Laboratory, images: torch.Tensor) -> torch.Tensor:
    """Return `images` (uint8) as their laboratories show them."""
    images = _coloured(laboratories, images)
    radius = laboratories.kernels.shape[1] // 2
    blurred = np.flatnonzero(laboratories.kernels[:, radius] < 256)
    if len(blurred):
        rows = on_device(blurred, torch.int64, images.device)
        images[rows] = _blurred(images[rows], laboratories.kernels[blurred])
    compressed = np.flatnonzero(laboratories.quality)
    if len(compressed):
        rows = on_device(compressed, torch.int64, images.device)
        images[rows] = jpeg(images[rows], laboratories.quality[compressed])
    return images


def _coloured(laboratories, images):
    device, n_channels = images.device, images.shape[3]
    rows, columns = grid_steps(images.shape[1:3])
    seen = images[:, ::rows, ::columns].reshape(len(images), -1, n_channels)
    light = seen.sort(dim=1).values[:, int(BRIGHT * (seen.shape[1] - 1))]
    logs = on_device(LOGS.astype(np.float32), torch.float32, device)
    mixing, background, target = (
        on_device(part, torch.float32, device)
        for part in (laboratories.mixing, laboratories.background, laboratories.target)
    )
    images, light = logs[images.long()], logs[light.long()]
    # Products and sums are exact, so their order does not matter; but a GPU's matrix product may
    # round its factors to TF32.
    offset = target + sum(background[:, :, j] * light[:, j, None] for j in range(n_channels))
    images = torch.stack(
        [
            offset[:, k, None, None]
            + sum(mixing[:, k, j, None, None] * images[..., j] for j in range(n_channels))
            for k in range(n_channels)
        ],
        dim=3,
    )
    levels = on_device(LEVELS, torch.uint8, device)
    return levels[images.round().clamp(0, len(LEVELS) - 1).long()]


def _blurred(images, kernels):
    kernels = on_device(kernels, torch.int32, images.device)
    images = images.int()
    for axis in (1, 2):
        size, radius = images.shape[axis], kernels.shape[1] // 2
        # Mirrored at the border, however far beyond.
        place = torch.arange(-radius, size + radius, device=images.device).remainder(
            max(2 * size - 2, 1)
        )
        padded = images.index_select(axis, torch.minimum(place, 2 * size - 2 - place))
        images = sum(
            kernels[:, t, None, None, None] * padded.narrow(axis, t, size)
            for t in range(kernels.shape[1])
        )
    return ((images + 1 + (1 << 15)) >> 16).to(torch.uint8)
