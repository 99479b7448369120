"""The layers on top of the chain: pooling and head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from wbcclf.backbones import Head


class _Mean(nn.Module):
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.mean(dim=1)


class _Maximum(nn.Module):
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.amax(dim=1)


class _First(nn.Module):
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, 0]


_POOLING: dict[tuple[str, int], Callable[[], nn.Module]] = {
    # (name, number of axes of a feature): maps are (channels, height, width), tokens (tokens,
    # channels), vectors (channels,) and have nothing to pool
    ("avg", 3): lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    ("max", 3): lambda: nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten()),
    ("flatten", 3): nn.Flatten,
    ("avg", 2): _Mean,
    ("max", 2): _Maximum,
    ("flatten", 2): nn.Flatten,
    ("token", 2): _First,
    ("avg", 1): nn.Identity,
    ("max", 1): nn.Identity,
    ("flatten", 1): nn.Identity,
}


def make_pooling(pooling: str, features: tuple[int, ...]) -> tuple[nn.Module, int]:
    """Return the layer that makes one vector of a backbone's output, and the vector's length.

    Parameters
    ----------
    pooling : {"avg", "max", "flatten", "token"}
    features : tuple of int
        Shape of the output for one image, as :func:`feature_shape` gives it.
    """
    if (pooling, len(features)) not in _POOLING:
        raise ValueError(
            f"pooling={pooling!r} needs a vision transformer's tokens; this backbone's features "
            f"have the shape {features}. Use 'avg', 'max' or 'flatten'."
        )
    if pooling == "flatten":
        width = int(np.prod(features))
    else:
        width = features[1] if len(features) == 2 else features[0]
    return _POOLING[pooling, len(features)](), width


def build_head(head: Head, features: tuple[int, ...], n_classes: int) -> nn.Sequential:
    """Pooling; then dropout, BatchNorm and a linear layer, with ReLU between, down to classes."""
    widths = (*head.hidden, n_classes)
    dropouts = _one_each(head.dropout, widths, "dropout")
    batch_norms = _one_each(head.batch_norm, widths, "batch_norm")
    pooling, n_in = make_pooling(head.pooling, features)
    layers = nn.Sequential(pooling)
    for n_out, share, batch_norm in zip(widths, dropouts, batch_norms, strict=True):
        if len(layers) > 1:
            layers.append(nn.ReLU())
        layers.append(nn.Dropout(share))
        if batch_norm:
            layers.append(nn.BatchNorm1d(n_in))
        layers.append(nn.Linear(n_in, n_out))
        n_in = n_out
    return layers


def _one_each(value: Any, widths: tuple[int, ...], name: str) -> tuple:
    """Return `value` once for each linear layer, or as it is if it is a sequence of that length."""
    if not isinstance(value, (tuple, list)):
        return (value,) * len(widths)
    if len(value) != len(widths):
        raise ValueError(
            f"Head({name}={value!r}) has {len(value)} values, but {len(widths)} linear layers "
            f"(with {', '.join(map(str, widths))} outputs): give one value for each."
        )
    return tuple(value)
