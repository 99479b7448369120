"""The style of images: what tells laboratories apart even if stain and light were made the same."""

from __future__ import annotations

import torch

_N_SCALES = 3  # of the details; from one to the next, two by two pixels become one
_LEAST = 1e-6  # variance of details, of pixels with a variance of about 1: less is rounding


def style(seen: torch.Tensor) -> torch.Tensor:
    """Return the style of images (n, 21), float32: what optics, camera and file do to them.

    That is how strong the details of each channel are at three scales, and how much the channels
    have in common there; and mean and spread of what is left. These tell laboratories apart even
    if stain and light were made the same: focus, resolution, noise, colour interpolation and JPEG
    leave their marks in the details, as in forensics of photographs (Fridrich and Kodovsky 2012,
    https://doi.org/10.1109/TIFS.2012.2190402). It does not depend on the weights of the network.

    Parameters
    ----------
    seen : Tensor of shape (n, 3, height, width), float32
        Images as the first block gets them.
    """
    # Rows of pixels, whose channels lie side by side: one operation then takes whole rows, where
    # images with three channels of their own are too narrow for vector units.
    rows = seen.permute(0, 2, 3, 1).flatten(2)
    parts = []
    for scale in range(_N_SCALES):
        if scale and min(rows.shape[1], rows.shape[2] // 3) > 1:
            rows = _halved(rows)
        # At the finest scale every fourth row is enough.
        parts += _details(rows, step=1 if scale else 4, with_shared=scale + 1 < _N_SCALES)
    pixels = rows.unflatten(2, (-1, 3)).flatten(1, 2)
    mean = pixels.mean(1)
    spread = ((pixels * pixels).mean(1) - mean * mean).clamp_min(0).sqrt()
    return torch.cat([*parts, mean, spread], 1)


def _halved(rows: torch.Tensor) -> torch.Tensor:
    """Return the means of two by two pixels; of an odd number the last is left out."""
    height, width = rows.shape[1] // 2, rows.shape[2] // 6
    pairs = rows[:, 0 : 2 * height : 2] + rows[:, 1 : 2 * height : 2]
    pairs = pairs[..., : 6 * width].unflatten(2, (width, 2, 3))
    return ((pairs[:, :, :, 0] + pairs[:, :, :, 1]) / 4).flatten(2)


def _details(rows: torch.Tensor, step: int, with_shared: bool) -> list[torch.Tensor]:
    """Return the logarithm of the details' spread (n, 3), and correlations of channels (n, 3).

    A detail is what a pixel differs by from the mean of the 3x3 pixels around it.
    """
    if rows.shape[1] < 3 or rows.shape[2] < 9:
        return [rows.new_zeros(len(rows), 3)] * (1 + with_shared)
    around = rows[:, :-2:step] + rows[:, 1:-1:step] + rows[:, 2::step]
    around = around[..., :-6] + around[..., 3:-3] + around[..., 6:]
    details = torch.add(rows[:, 1:-1:step, 3:-3], around, alpha=-1 / 9)

    def moments(apart: int) -> torch.Tensor:
        # Of channels so far apart: products of neighbours in a row are summed over rows first.
        products = details[..., apart:] * details[..., : details.shape[2] - apart]
        return products.mean(1)

    variances = moments(0).unflatten(1, (-1, 3)).mean(1) + _LEAST
    found = [0.5 * variances.log()]
    if with_shared:
        spread = variances.sqrt()
        beside, across = moments(1), moments(2)
        covariances = [beside[:, 0::3], beside[:, 1::3], across[:, 0::3]]
        products = spread[:, [0, 1, 0]] * spread[:, [1, 2, 2]]
        found.append(torch.stack([each.mean(1) for each in covariances], 1) / products)
    return found
