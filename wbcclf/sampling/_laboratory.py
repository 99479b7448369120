"""Another laboratory: stain, light, resolution, focus and JPEG, drawn by image, and their CPU work.

All of it is on bytes, as a camera gives them, and exact: sums of products of whole numbers, tables,
and JPEG's integer arithmetic. So arrays and tensors become the same, to the last bit. If they
differed by one grey level, JPEG could turn that into a whole quantum.

Colours are worked on as logarithms. With light I of the background and x of a pixel, the optical
density is ``log(I) - log(x)``, and dyes add up in it (Ruifrok and Johnston 2001, Anal. Quant.
Cytol. Histol. 23:291). Tellez et al. (2018, https://doi.org/10.1109/TMI.2018.2820199) change the
concentrations of haematoxylin and eosin there. Romanowsky stains have no such fixed vectors: azure,
methylene blue and eosin bind each other, and their shares differ by maker, pH and time. So this
model needs none: it multiplies densities by a random 3x3 matrix near the identity, the general
linear change of dyes' amounts and colours. One matrix for all pixels of an image keeps the order:
what takes up more eosin stays the redder.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from scipy.special import ndtr

# The ranges at strength 1: as wide as a cell's class can still be seen. They were chosen by eye,
# and widened once after a trial on Raabin (docs/other-laboratories.md).
CONCENTRATION = np.log(1.8)  # of all dyes: factors of 1 / 1.8 to 1.8
DYES = np.log(1.4)  # of the density in each channel
MIXING = 0.3  # share of each channel's density that comes from each other channel
GREY = 1 / 5  # share of the images that lose their colours: what is left is shape and texture
LIGHT = (150, 245)  # grey level of the background
BALANCE = np.log(1.15)  # of the background in each channel
SELDOM = 1 / 3  # share of the images that focus, resolution and JPEG each change
FOCUS = 0.0075  # standard deviation of the blur, as a fraction of the shorter side
PIXEL = 0.02  # width of the other camera's pixel, as a fraction of the shorter side
QUALITY = (30, 95)  # of JPEG

SCALE = 512  # steps of a logarithm: two for the last grey level, so every level has its own
STEPS = 256  # of matrices: float32 holds the sums, though OpenCV takes 2**15 from them first
LOGS = np.rint(SCALE * np.log1p(np.arange(256))).astype(np.uint16)
LEVELS = np.rint(np.expm1(np.arange(2**16) / SCALE).clip(0, 255)).astype(np.uint8)
GRID = 16  # pixels a side that the background is looked for in
BRIGHT = 0.95  # quantile of them that is the background


@dataclass(frozen=True)
class Laboratory:
    """One laboratory for each of n images.

    With logarithms L of a pixel and B of the background, both in steps of `SCALE`, the new
    logarithm is ``mixing @ L + target + background @ B``.

    Attributes
    ----------
    mixing, background : ndarray of shape (n, c, c)
    target : ndarray of shape (n, c)
    kernels : ndarray of shape (n, 2 * radius + 1), int
        Of the blur along rows and along columns, in 1/256. All even: see `apply`.
    quality : ndarray of shape (n,), int
        Of JPEG; 0 leaves it out.
    """

    mixing: np.ndarray
    background: np.ndarray
    target: np.ndarray
    kernels: np.ndarray
    quality: np.ndarray


def draw(strength, n, image_shape, random_state) -> Laboratory:
    """Return n laboratories; equally many random numbers are drawn for grey and RGB images."""
    *size, n_channels = image_shape
    uniform = random_state.uniform
    mixing = np.eye(3) + strength * uniform(-MIXING, MIXING, (n, 3, 3))
    mixing /= mixing.sum(axis=2, keepdims=True)
    dyes = np.exp(strength * uniform(-DYES, DYES, (n, 3)))
    concentration = np.exp(strength * uniform(-CONCENTRATION, CONCENTRATION, n))
    light = np.log1p(uniform(*LIGHT, n))[:, None]
    balance = uniform(-BALANCE, BALANCE, (n, 3))
    # The share of its own light that a background keeps.
    own = np.rint(STEPS * (1 - strength)) / STEPS
    kept = np.tile(own * np.eye(3), (n, 1, 1))
    is_grey = uniform(size=n) < strength * GREY
    # All channels become the same mixture of red, green and blue.
    mixing[is_grey] = random_state.dirichlet(np.ones(3), n)[is_grey, None]
    kept[is_grey], dyes[is_grey] = own / 3, 1
    balance = np.where(is_grey[:, None], 0, balance)
    if n_channels == 1:  # has no colours
        mixing, dyes, balance = np.ones((n, 1, 1)), np.ones((n, 1)), np.zeros((n, 1))
        kept = np.full((n, 1, 1), own)
    mixing = np.rint(STEPS * (concentration[:, None] * dyes)[:, :, None] * mixing) / STEPS
    seldom = uniform(size=(3, n)) < strength * SELDOM
    focus, pixel = seldom[:2] * strength * min(size) * uniform(0, [[FOCUS], [PIXEL]], (2, n))
    quality = QUALITY[1] - strength * uniform(0, QUALITY[1] - QUALITY[0], n)
    return Laboratory(
        mixing=mixing,
        background=np.rint(STEPS * kept) / STEPS - mixing,
        target=np.rint((1 - own) * SCALE * (light + balance)),
        # A wider pixel averages, and enlarging its picture interpolates: three boxes in all, nearly
        # a normal curve, with a variance of 3 / 12 of the width's square.
        kernels=_gaussians(np.sqrt(focus**2 + pixel**2 / 4)),
        quality=np.where(seldom[2], np.rint(quality).astype(int), 0),
    )


def _gaussians(sigma):
    """Return kernels (n, taps) of even numbers that sum to 256; `sigma` of 0 blurs nothing.

    Sums of a normal curve are rounded, not its values, so that the whole is kept.
    """
    radius = int(np.ceil(3 * sigma.max(initial=0)))
    edges = (np.arange(radius + 1) + 0.5) / np.maximum(sigma, 1e-3)[:, None]
    half = np.diff(np.rint(128 * ndtr(edges)).astype(int) - 64, axis=1, prepend=0)
    half[:, 0] *= 2
    return 2 * np.concatenate([half[:, :0:-1], half], axis=1)


def grid_steps(size: tuple[int, int]) -> tuple[int, int]:
    """Return how many rows and columns apart pixels are looked at for the background."""
    return max(1, size[0] // GRID), max(1, size[1] // GRID)


def apply(laboratories: Laboratory, i: int, image: np.ndarray) -> np.ndarray:
    """Return an image of bytes as the i-th laboratory shows it."""
    n_channels = image.shape[2]
    rows, columns = grid_steps(image.shape[:2])
    seen = image[::rows, ::columns].reshape(-1, n_channels)
    kth = int(BRIGHT * (len(seen) - 1))
    light = np.partition(seen, kth, axis=0)[kth]
    affine = np.empty((n_channels, n_channels + 1), np.float32)
    affine[:, :-1] = laboratories.mixing[i]
    affine[:, -1] = laboratories.target[i] + laboratories.background[i] @ LOGS[light]
    image = cv2.LUT(cv2.transform(cv2.LUT(image, LOGS), affine), LEVELS)
    kernel = laboratories.kernels[i]
    if kernel[len(kernel) // 2] < 256:
        taps = np.flatnonzero(kernel)
        kernel = (kernel[taps[0] : taps[-1] + 1] / 256).astype(np.float32)
        # OpenCV rounds halves now up, now to even. Sums are multiples of 4 / 2**16, so after adding
        # 1 / 2**16 there are no halves.
        image = cv2.sepFilter2D(image, -1, kernel, kernel, delta=2**-16)
    image = image.reshape(*image.shape[:2], n_channels)
    if laboratories.quality[i]:
        # OpenCV writes with the accurate DCT, simplejpeg without; simplejpeg reads twice as fast.
        options = [cv2.IMWRITE_JPEG_QUALITY, int(laboratories.quality[i])]
        picture = image if n_channels == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        _, code = cv2.imencode(".jpg", picture, options)
        image = simplejpeg.decode_jpeg(code, "GRAY" if n_channels == 1 else "RGB")
    return image
