"""Layers of the scratch networks that torch does not have; at a top level, to be picklable."""

from __future__ import annotations

import torch
from torch import nn


def he_normal(layer: nn.Conv2d | nn.Linear) -> nn.Module:
    """Initialise a layer that a ReLU follows (He et al. 2015, arXiv 1502.01852)."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def same_convolution(n_in: int, n_out: int, kernel_size: int) -> list[nn.Module]:
    """Return a convolution that keeps the image's size, He-normal."""
    before, after = (kernel_size - 1) // 2, kernel_size // 2
    if before == after:
        return [he_normal(nn.Conv2d(n_in, n_out, kernel_size, padding=before))]
    # torch's own padding="same" copies and warns for even kernels, too.
    padding = nn.ZeroPad2d((before, after, before, after))
    return [padding, he_normal(nn.Conv2d(n_in, n_out, kernel_size))]


class LazyDense(nn.LazyLinear):
    """A linear layer that learns its number of inputs from its first one, then He-normal."""

    def reset_parameters(self) -> None:
        """Initialise, as soon as there is something to."""
        if not self.has_uninitialized_params() and self.in_features:
            he_normal(self)


class Branches(nn.Module):
    """Blocks that all see the same input; their maps, of one size, side by side."""

    def __init__(self, **branches: nn.Module) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the branches' channels one after the other."""
        return torch.cat([branch(images) for branch in self.children()], dim=1)


class InvertedResidual(nn.Module):
    """Wider by a 1x1 convolution, filtered channel by channel, narrower again; added to its input.

    The addition is left out where size or channels change (Sandler et al. 2018, arXiv 1801.04381).
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        kernel_size: int,
        stride: int,
        expansion: int,
    ) -> None:
        super().__init__()
        n_wide = n_in * expansion
        layers = [] if expansion == 1 else normalised_convolution(n_in, n_wide, 1)
        layers += normalised_convolution(n_wide, n_wide, kernel_size, stride, n_wide)
        # No ReLU at the end: it would lose information.
        *narrow, _ = normalised_convolution(n_wide, n_out, 1)
        self.layers = nn.Sequential(*layers, *narrow)
        self.adds = stride == 1 and n_in == n_out

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return maps (n, n_out, height / stride, width / stride)."""
        out = self.layers(maps)
        return maps + out if self.adds else out


def normalised_convolution(
    n_in: int,
    n_out: int,
    kernel_size: int,
    stride: int = 1,
    groups: int = 1,
) -> list[nn.Module]:
    """Return a convolution that keeps the image's size but for its stride, BatchNorm, and ReLU6."""
    convolution = nn.Conv2d(
        n_in, n_out, kernel_size, stride, kernel_size // 2, groups=groups, bias=False
    )
    return [he_normal(convolution), nn.BatchNorm2d(n_out, eps=1e-3), nn.ReLU6()]
