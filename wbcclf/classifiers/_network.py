"""The torch module: value range, normalisation and size; frozen prefix, trainable suffix; head."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from wbcclf._images import check_image_size
from wbcclf.backbones import BackboneSpec, get_backbone
from wbcclf.backbones._chain import build_chain, count_frozen, feature_shape
from wbcclf.classifiers._head import Head


class CellNetwork(nn.Module):
    """Images as they lie in memory in, logits out.

    Parameters
    ----------
    chain : torch.nn.Sequential
        The backbone.
    spec : BackboneSpec
        Gives the mean and std that pixels are normalised with.
    head : Head
    dropout : float
    n_classes : int
    value_range : tuple of 2 floats
        The scale (low, high) that pixel values are on; mapped to 0-1 before normalising.
    input_size : tuple of 2 ints
        Height and width that the chain sees; images of another size are resized on the device.
    """

    def __init__(
        self,
        chain: nn.Sequential,
        spec: BackboneSpec,
        head: Head,
        dropout: float,
        n_classes: int,
        value_range: tuple[float, float],
        input_size: tuple[int, int],
    ) -> None:
        super().__init__()
        self.backbone = chain
        self.n_frozen = 0
        self.input_size = input_size
        self.head = _build_head(head, dropout, feature_shape(chain, *input_size), n_classes)
        # (x - low) / (high - low) and (x - mean) / std in one multiplication and one addition.
        low, high = value_range
        width = (high - low) or 1.0
        scale = 1.0 / (width * np.array(spec.std))
        offset = -low * scale - np.array(spec.mean) / np.array(spec.std)
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32).view(3, 1, 1))
        self.register_buffer("offset", torch.tensor(offset, dtype=torch.float32).view(3, 1, 1))

    def freeze(self, n_frozen: int) -> None:
        """Set the cut: freeze so many blocks at the start of the chain, train the others."""
        self.n_frozen = n_frozen
        for number, block in enumerate(self.backbone):
            block.requires_grad_(number >= n_frozen)

    def train(self, mode: bool = True) -> CellNetwork:
        """Set the mode of everything but the frozen prefix, which stays in eval mode for good.

        Otherwise BatchNorm's running statistics and dropout of frozen blocks would go on changing.
        """
        super().train(mode)
        for block in self.backbone[: self.n_frozen]:
            block.eval()
        return self

    def forward(
        self, images: torch.Tensor, sample_weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return logits (n, n_classes), float32, of images (n, height, width, channels).

        `sample_weight` is for the loss alone: skorch hands every part of a batch to the module.
        """
        # The permuted view has torch's channels-last layout, the fastest for convolutions.
        x = images.permute(0, 3, 1, 2).float()
        if x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        x = x * self.scale + self.offset
        if tuple(x.shape[2:]) != self.input_size:
            x = nn.functional.interpolate(
                x, size=self.input_size, mode="bilinear", antialias=True, align_corners=False
            )
        with torch.no_grad():
            for block in self.backbone[: self.n_frozen]:
                x = block(x)
        for block in self.backbone[self.n_frozen :]:
            x = block(x)
        return self.head(x).float()


_POOLING = {
    "avg": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "max": lambda: nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten()),
    "flatten": nn.Flatten,
}


def _build_head(
    head: Head, dropout: float, features: tuple[int, ...], n_classes: int
) -> nn.Sequential:
    """Pooling; then dropout and a linear layer, with ReLU between, down to the classes."""
    layers = nn.Sequential(_POOLING[head.pooling]())
    n_in = int(np.prod(features)) if head.pooling == "flatten" else features[0]
    for n_out in (*head.hidden, n_classes):
        if len(layers) > 1:
            layers.append(nn.ReLU())
        layers.extend([nn.Dropout(dropout), nn.Linear(n_in, n_out)])
        n_in = n_out
    return layers


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global random states inside the block and restore them after it."""
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def build_network(classifier: Any, weights: str | None, seed: int) -> CellNetwork:
    """Return the network of a CNNClassifier that has learnt its classes and image shape."""
    spec = get_backbone(classifier.backbone)
    size = check_image_size(classifier.input_size, "input_size")
    if size is None:
        size = tuple(max(side, spec.smallest_size) for side in classifier.image_shape_[:2])
    elif min(size) < spec.smallest_size:
        raise ValueError(
            f"input_size={classifier.input_size!r} is too small for {spec.name}, which needs at "
            f"least {spec.smallest_size} pixels."
        )
    head = Head() if classifier.head is None else classifier.head.validate()
    with seeded(seed):
        return CellNetwork(
            build_chain(spec, weights),
            spec,
            head,
            classifier.dropout,
            len(classifier.classes_),
            classifier.value_range_,
            size,
        )


def count_frozen_blocks(classifier: Any, chain: nn.Sequential) -> int:
    """Return how many blocks a CNNClassifier freezes; warn if their weights are random."""
    n_frozen = count_frozen(chain, classifier.unfrozen_layers)
    if n_frozen and classifier.weights is None and not classifier.warm_start:
        warnings.warn(
            f"{n_frozen} of {len(chain)} blocks of {classifier.backbone} are frozen at random "
            f"weights (weights=None, unfrozen_layers={classifier.unfrozen_layers!r}). Give "
            "weights, or unfrozen_layers='all'.",
            UserWarning,
            stacklevel=5,
        )
    return n_frozen
