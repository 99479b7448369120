"""The arithmetic of `_changes.apply` on a torch tensor: a whole batch at once, on its device."""

from __future__ import annotations

import numpy as np
import torch

from wbcclf.sampling import _laboratory_torch
from wbcclf.sampling._changes import DARKEST, LUMA, level_scale, light_scale, quantised
from wbcclf.sampling._tensors import on_device


def check_tensor(images: torch.Tensor) -> None:
    """Refuse a tensor that is no image batch.

    Raises
    ------
    ValueError
        If its shape is not (n_samples, height, width, channels) or its dtype not uint8, float32
        or float64.
    """
    if images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape[1:3]:
        raise ValueError(
            "images must be a tensor (n_samples, height, width, channels) with 1 channel (grey) or "
            f"3 (RGB), got the shape {tuple(images.shape)}. Use images.permute(0, 2, 3, 1) if "
            "channels come second."
        )
    if images.dtype not in (torch.uint8, torch.float32, torch.float64):
        raise ValueError(
            f"images must be uint8, float32 or float64 as a tensor, got {images.dtype}. "
            "Convert it first."
        )


def extremes(images: torch.Tensor) -> tuple[float, float]:
    """Return the smallest and the largest pixel; the device is waited for once.

    Raises
    ------
    ValueError
        If a pixel is NaN or infinite.
    """
    pair = torch.stack(images.aminmax())
    low, high = pair.tolist()  # NaN is passed on by both
    if not (-torch.inf < low <= high < torch.inf):
        raise ValueError("images contains NaN or infinity. Remove or repair them.")
    return low, high


def apply(changes, images: torch.Tensor, limits: tuple[float, float]) -> torch.Tensor:
    """Return `images` after `changes`, one each, on their device and in their dtype.

    Equal to the CPU's result within 1 grey level for bytes, given images of up to about 4,000
    pixels a side: positions are float32 in both.
    """
    if changes.laboratories is not None:
        images = _show(changes.laboratories, images, limits)
    exact = images.dtype == torch.uint8 and changes.stains is None
    out = images.float() if images.dtype == torch.uint8 else images
    if changes.stains is not None:
        out = _stain(out, _like(changes.stains, out), limits)
    if changes.colours is not None and exact:
        out = _colour_bytes(images, *changes.colours)
    elif changes.colours is not None:
        linear, grey_weight = (_like(part, out) for part in changes.colours)
        out = _colour(out, linear, grey_weight, limits)
    if changes.warps is not None:
        out = _warp(out, _like(changes.warps, out), changes.fill)
    if images.dtype == torch.uint8:
        return out.round().clamp(0, 255).to(torch.uint8)  # half to even
    return out.clone() if out is images else out


def _show(laboratories, images, limits):
    if images.dtype == torch.uint8:
        return _laboratory_torch.apply(laboratories, images)
    dark, width = level_scale(limits)
    levels = ((images - dark) / width).round().to(torch.uint8)
    levels = _laboratory_torch.apply(laboratories, levels)
    return (levels.to(images.dtype) * width + dark).clamp(*limits)


def _like(parameters, images):
    return on_device(parameters, images.dtype, images.device)


def _affine(images, linear, offset):
    """Return ``linear @ pixel + offset`` for every pixel, by image.

    Written out: a GPU's matrix product may round to TF32, which is 1/8 grey level.
    """
    channels = [
        sum(linear[:, j, k, None, None] * images[..., k] for k in range(images.shape[3]))
        for j in range(linear.shape[1])
    ]
    return torch.stack(channels, dim=3) + offset[:, None, None, :]


def _stain(images, maps, limits):
    dark, width = light_scale(limits)
    light = ((images - dark) / width).clamp(min=DARKEST)
    density = _affine(-light.log(), maps[:, :, :3], maps[:, :, 3])
    return (torch.exp(-density) * width + dark).clamp(*limits)


def _colour_bytes(images, linear, grey_weight):
    """Return bytes after exact colour maps, rounded as OpenCV does: up from the half for RGB."""
    height, width, n_channels = images.shape[1:]
    sums = images.sum(dim=(1, 2), dtype=torch.int64).cpu().numpy()
    means = sums * (1 / (height * width))
    mean_grey = means @ LUMA if n_channels == 3 else means[:, 0]
    offset = np.repeat((grey_weight * mean_grey)[:, None], n_channels, axis=1)
    out = images.float()
    out = _affine(out, _like(quantised(linear), out), _like(quantised(offset), out))
    return ((out + 0.5).floor() if n_channels == 3 else out.round()).clamp(0, 255)


def _colour(images, linear, grey_weight, limits):
    n_channels = images.shape[3]
    luma = LUMA if n_channels == 3 else (1.0,)
    mean = images.mean(dim=(1, 2))
    mean_grey = sum(luma[k] * mean[:, k] for k in range(n_channels))
    offset = (grey_weight * mean_grey)[:, None].expand(-1, n_channels)
    return _affine(images, linear, offset).clamp(*limits)


def _warp(images, maps, fill):
    # Not grid_sample: its positions are scaled to -1 to 1, and that rounding gives other bytes than
    # NumPy's (test_a_tensor_becomes_what_an_array_becomes).
    n, height, width, n_channels = images.shape
    x = torch.arange(width, device=images.device, dtype=images.dtype)
    y = torch.arange(height, device=images.device, dtype=images.dtype)[:, None]
    maps = maps[..., None, None]
    columns = maps[:, 0, 0] * x + maps[:, 0, 1] * y + maps[:, 0, 2]
    rows = maps[:, 1, 0] * x + maps[:, 1, 1] * y + maps[:, 1, 2]
    left, top = columns.floor(), rows.floor()
    right_weight, low_weight = (columns - left)[..., None], (rows - top)[..., None]
    left, top = left.long(), top.long()
    flat = images.reshape(n, height * width, n_channels)

    def pixels(row, column):
        place = _inside(row, height, fill) * width + _inside(column, width, fill)
        place = place.reshape(n, -1, 1).expand(-1, -1, n_channels)
        values = flat.gather(1, place).reshape(images.shape)
        if fill == "constant":
            outside = (row < 0) | (row >= height) | (column < 0) | (column >= width)
            values = values.masked_fill(outside[..., None], 0)
        return values

    upper = torch.lerp(pixels(top, left), pixels(top, left + 1), right_weight)
    lower = torch.lerp(pixels(top + 1, left), pixels(top + 1, left + 1), right_weight)
    return torch.lerp(upper, lower, low_weight)


def _inside(index, size, fill):
    """Return the pixel that `fill` puts at an index, however far outside."""
    if fill != "reflect" or size == 1:
        return index.clamp(0, size - 1)
    index = index.remainder(2 * size - 2)
    return torch.minimum(index, 2 * size - 2 - index)
