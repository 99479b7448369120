"""Images as they lie in memory in, what a backbone expects out."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from wbcclf.backbones import BackboneSpec


class Preprocessing(nn.Module):
    """Images as they lie in memory in, what a backbone expects out.

    Parameters
    ----------
    spec : BackboneSpec
        Gives the mean and std that pixels are normalised with.
    value_range : tuple of 2 floats
        The scale (low, high) that pixel values are on; mapped to 0-1 before normalising.
    input_size : tuple of 2 ints
        Height and width that the backbone sees; images of another size are resized on the device.
    """

    scale: torch.Tensor
    offset: torch.Tensor

    def __init__(
        self, spec: BackboneSpec, value_range: tuple[float, float], input_size: tuple[int, int]
    ) -> None:
        super().__init__()
        self.input_size = input_size
        # (x - low) / (high - low) and (x - mean) / std in one multiplication and one addition.
        low, high = value_range
        width = (high - low) or 1.0
        scale = 1.0 / (width * np.array(spec.std))
        offset = -low * scale - np.array(spec.mean) / np.array(spec.std)
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32).view(3, 1, 1))
        self.register_buffer("offset", torch.tensor(offset, dtype=torch.float32).view(3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return (n, 3, *input_size), float32, of images (n, height, width, 1 or 3)."""
        images = images.expand(-1, -1, -1, 3)
        n, height, width, _ = images.shape
        # On whole rows of pixels, since three channels at a time are too few for vector units.
        x = images.flatten(2).to(torch.float32, copy=True)
        x = x.mul_(self.scale.flatten().repeat(width)).add_(self.offset.flatten().repeat(width))
        # The permuted view has torch's channels-last layout, the fastest for convolutions.
        x = x.view(n, height, width, 3).permute(0, 3, 1, 2)
        if tuple(x.shape[2:]) != self.input_size:
            x = nn.functional.interpolate(
                x, size=self.input_size, mode="bilinear", antialias=True, align_corners=False
            )
        return x
