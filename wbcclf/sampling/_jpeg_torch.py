"""What JPEG makes of a batch of pictures, on their device: the bytes that libjpeg gives back.

Only entropy coding is left out, since it loses nothing. The arithmetic is that of libjpeg's
accurate integer DCT (after Loeffler, Ligtenberg and Moschytz 1989, Proc. ICASSP, pp. 988-991), with
colour at half the resolution ("4:2:0") and the smooth enlargement that decoders use. Every step is
on whole numbers, so the bytes are the same on every device.
"""

from __future__ import annotations

import numpy as np
import torch

from wbcclf.sampling._tensors import on_device

_BITS = 13  # of the DCT's coefficients
_FIRST_PASS_BITS = 2  # kept after the first of the two passes
# Annex K of the standard: quantisation of brightness and of colour at quality 50.
_BRIGHTNESS = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
_COLOUR = np.full((8, 8), 99)
_COLOUR[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]


# The DCT times 2**_BITS * sqrt(8): what libjpeg's integer sums and products make of unit vectors.
# Some entries are one off a rounded cosine.
_DCT = np.array(
    [
        [8192, 8192, 8192, 8192, 8192, 8192, 8192, 8192],
        [11363, 9633, 6437, 2260, -2260, -6437, -9633, -11363],
        [10703, 4433, -4433, -10703, -10703, -4433, 4433, 10703],
        [9633, -2259, -11362, -6436, 6436, 11362, 2259, -9633],
        [8192, -8192, -8192, 8192, 8192, -8192, -8192, 8192],
        [6437, -11362, 2261, 9633, -9633, -2261, 11362, -6437],
        [4433, -10704, 10704, -4433, -4433, 10704, -10704, 4433],
        [2260, -6436, 9633, -11363, 11363, -9633, 6436, -2260],
    ]
)


def jpeg(images: torch.Tensor, quality: np.ndarray) -> torch.Tensor:
    """Return images as JPEG leaves them.

    Parameters
    ----------
    images : tensor of shape (n, height, width, channels), uint8
    quality : ndarray of shape (n,), int
        1 to 100, by image.
    """
    height, width, n_channels = images.shape[1:]
    pixels = images.int()
    if n_channels == 1:
        return _compressed(pixels[..., 0], _BRIGHTNESS, quality)[..., None].to(torch.uint8)
    red, green, blue = pixels.unbind(3)
    centre = (128 << 16) + 2**15 - 1
    luma = (19595 * red + 38470 * green + 7471 * blue + 2**15) >> 16
    chroma = [
        (-11059 * red - 21709 * green + 32768 * blue + centre) >> 16,
        (32768 * red - 27439 * green - 5329 * blue + centre) >> 16,
    ]
    luma = _compressed(luma, _BRIGHTNESS, quality)
    cb, cr = (
        _enlarged(_compressed(_halved(plane), _COLOUR, quality), height, width) - 128
        for plane in chroma
    )
    channels = [
        luma + ((91881 * cr + 2**15) >> 16),
        luma + ((-22554 * cb - 46802 * cr + 2**15) >> 16),
        luma + ((116130 * cb + 2**15) >> 16),
    ]
    return torch.stack(channels, dim=3).clamp(0, 255).to(torch.uint8)


def _compressed(plane, table, quality):
    """Return a plane (n, height, width) after DCT, quantisation and back."""
    n, height, width = plane.shape
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    quanta = ((table[..., None] * scale + 50) // 100).clip(1, 255)
    quanta = on_device(quanta, torch.int32, plane.device)[..., None, None]
    blocks = _padded(plane, -height % 8, -width % 8) - 128
    rows, columns = blocks.shape[1] // 8, blocks.shape[2] // 8
    # A block's rows and columns come first, so that what lies side by side in memory is alike.
    blocks = blocks.reshape(n, rows, 8, columns, 8).permute(2, 4, 0, 1, 3).contiguous()
    # Along rows, then along columns; back, the other way round.
    blocks = _product(_DCT, blocks.transpose(0, 1), _BITS - _FIRST_PASS_BITS)
    blocks = _product(_DCT, blocks.transpose(0, 1), _BITS + _FIRST_PASS_BITS)
    size = 8 * quanta  # libjpeg's DCT is 8 times the true one
    blocks = blocks.sign() * ((blocks.abs() + size // 2) // size) * quanta
    blocks = _product(_DCT.T, blocks, _BITS - _FIRST_PASS_BITS)
    blocks = _product(_DCT.T, blocks.transpose(0, 1), _BITS + _FIRST_PASS_BITS + 3)
    plane = blocks.permute(2, 3, 1, 4, 0).reshape(n, 8 * rows, 8 * columns)
    return (plane[:, :height, :width] + 128).clamp(0, 255)


def _product(matrix, blocks, shift):
    """Return ``matrix @ column`` of every column of eight, rounded: 2**shift is one.

    Written out: GPUs have no product of integer matrices.
    """
    columns = on_device(matrix.T, torch.int32, blocks.device)[..., None, None, None, None]
    total = sum(columns[k] * blocks[k] for k in range(8))
    return (total + (1 << (shift - 1))) >> shift


def _padded(plane, n_rows, n_columns):
    """Return a plane with its last row and last column repeated."""
    rows = torch.arange(plane.shape[1] + n_rows, device=plane.device).clamp(max=plane.shape[1] - 1)
    columns = torch.arange(plane.shape[2] + n_columns, device=plane.device)
    return plane[:, rows][:, :, columns.clamp(max=plane.shape[2] - 1)]


def _halved(plane):
    plane = _padded(plane, plane.shape[1] % 2, -plane.shape[2] % 16)  # as wide as whole blocks
    total = sum(plane[:, row::2, column::2] for row in (0, 1) for column in (0, 1))
    # Sums of four are rounded down and up in turn.
    bias = 1 + torch.arange(total.shape[2], dtype=torch.int32, device=plane.device) % 2
    return (total + bias) >> 2


def _enlarged(plane, height, width):
    """Return a plane of twice the size: of the nearest pixels, 3/4 and 1/4 either way."""
    n_rows, n_columns = plane.shape[1], (width + 1) // 2
    row = torch.arange(height, device=plane.device)
    column = torch.arange(width, device=plane.device)
    if n_columns <= 2:  # libjpeg repeats pixels of so narrow a plane
        return plane[:, row // 2][:, :, column // 2]
    other_row = (row // 2 + 2 * (row % 2) - 1).clamp(0, n_rows - 1)
    other_column = (column // 2 + 2 * (column % 2) - 1).clamp(0, n_columns - 1)
    sums = 3 * plane[:, row // 2] + plane[:, other_row]
    sums = 3 * sums[:, :, column // 2] + sums[:, :, other_column]
    return (sums + 8 - (column % 2).int()) >> 4
