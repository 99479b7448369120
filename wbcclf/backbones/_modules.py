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
