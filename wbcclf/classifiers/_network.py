"""The torch module: preprocessing; frozen prefix, trainable suffix; head."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import nn

from wbcclf._images import check_image_size
from wbcclf.backbones import BackboneSpec, WeightsReport, get_backbone
from wbcclf.backbones._chain import build_chain, count_frozen, feature_shape
from wbcclf.classifiers._fingerprint import setting
from wbcclf.classifiers._head import Head
from wbcclf.exceptions import PartialWeightsWarning, WeightsMismatchError


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


class CellNetwork(nn.Module):
    """Images as they lie in memory in, logits out.

    Parameters
    ----------
    chain : torch.nn.Sequential
        The backbone.
    preprocessing : Preprocessing
    head : Head
    dropout : float or sequence of float
    n_classes : int
    """

    def __init__(
        self,
        chain: nn.Sequential,
        preprocessing: Preprocessing,
        head: Head,
        dropout: float | tuple[float, ...],
        n_classes: int,
    ) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.backbone = chain
        self.n_frozen = 0
        self.cut = 0
        features = feature_shape(chain, *preprocessing.input_size)
        self.head = _build_head(head, dropout, features, n_classes)

    def freeze(self, n_frozen: int) -> None:
        """Freeze so many blocks at the start of the chain, train the others."""
        self.n_frozen = n_frozen
        for number, block in enumerate(self.backbone):
            block.requires_grad_(number >= n_frozen)

    def set_cut(self, n_frozen: int) -> None:
        """Freeze so many blocks for good, so that what they give can be kept: `cut` stages.

        Gradual unfreezing freezes more of them for a while. If the whole chain is frozen, the
        pooling, which has no weights, belongs to what can be kept: vectors instead of maps.
        """
        self.freeze(n_frozen)
        self.cut = self._n_fixed()

    def stages(self) -> list[nn.Module]:
        """Return the blocks of the chain, and the pooling."""
        return [*self.backbone, self.head[0]]

    def _n_fixed(self) -> int:
        return self.n_frozen + (self.n_frozen == len(self.backbone))

    def train(self, mode: bool = True) -> CellNetwork:
        """Set the mode of everything but the frozen prefix, which stays in eval mode for good.

        Otherwise BatchNorm's running statistics and dropout of frozen blocks would go on changing.
        """
        super().train(mode)
        for block in self.backbone[: self.n_frozen]:
            block.eval()
        return self

    def trained_parts(self) -> dict[str, nn.Module]:
        """Return the blocks above the cut by name, bottom to top, and the head as ``"head"``."""
        blocks = list(self.backbone.named_children())[self.n_frozen :]
        return {**dict(blocks), "head": self.head}

    def forward(
        self,
        images: torch.Tensor | None = None,
        sample_weight: torch.Tensor | None = None,
        activations: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return logits (n, n_classes), float32.

        Takes images (n, height, width, channels), or what the stages up to the cut made of them.
        `sample_weight` is for the loss alone: skorch hands every part of a batch to the module.
        """
        stages = self.stages()
        if activations is None:
            with torch.no_grad():
                activations = self.preprocessing(images)
                for stage in stages[: self.cut]:
                    activations = stage(activations)
        x = as_channels_last(activations)
        with torch.no_grad():
            for stage in stages[self.cut : self._n_fixed()]:
                x = stage(x)
        for stage in stages[max(self.cut, self._n_fixed()) :]:
            x = stage(x)
        return self.head[1:](x).float()


def as_channels_last(x: torch.Tensor) -> torch.Tensor:
    """Return maps (n, channels, height, width) in torch's channels-last layout, others as they are.

    Convolutions are fastest on it, and activations are kept in it: a block above the cut must see
    the same layout whether they were kept or not, since its rounding depends on it. By way of a
    flat tensor, since the strides of axes of length one may be any, and count, too.
    """
    if x.ndim != 4:
        return x
    x = x.permute(0, 2, 3, 1)
    return x.flatten().view(x.shape).permute(0, 3, 1, 2)


def arithmetic(device: str, precision: str) -> torch.autocast:
    """Return a context in which networks compute in a precision ("float32" or "bfloat16")."""
    kind = torch.device(device).type
    return torch.autocast(kind, getattr(torch, precision), enabled=precision != "float32")


class _Mean(nn.Module):
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.mean(dim=1)


class _Maximum(nn.Module):
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.amax(dim=1)


class _First(nn.Module):
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, 0]


_POOLING = {
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


def _build_head(
    head: Head, dropout: float | tuple[float, ...], features: tuple[int, ...], n_classes: int
) -> nn.Sequential:
    """Pooling; then dropout, BatchNorm and a linear layer, with ReLU between, down to classes."""
    widths = (*head.hidden, n_classes)
    dropouts = _one_each(dropout, widths, "dropout")
    if not all(isinstance(share, Real) and 0 <= share < 1 for share in dropouts):
        raise ValueError(f"dropout={dropout!r} must hold numbers from 0 to under 1.")
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
            f"{name}={value!r} has {len(value)} values, but the head has {len(widths)} linear "
            f"layers (with {', '.join(map(str, widths))} outputs): give one value for each."
        )
    return tuple(value)


_turn = threading.RLock()


def _renew_turn() -> None:
    global _turn
    _turn = threading.RLock()


if hasattr(os, "register_at_fork"):  # a forked process has no thread that would give it back
    os.register_at_fork(after_in_child=_renew_turn)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global random states inside the block and restore them after it.

    One for all threads of a process, so these take turns: a seed would not be worth its name, and
    trainings be kept that nobody could repeat.
    """
    devices = list(range(torch.cuda.device_count()))
    with _turn, torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def build_network(
    classifier: Any, weights: str | None, seed: int
) -> tuple[CellNetwork, WeightsReport | None]:
    """Return the network of a CNNClassifier that has learnt its classes and image shape.

    And what was loaded of `weights`. Kernels lie in the layout of the images, channels last: a few
    per cent faster on CPUs, and what the tensor cores of GPUs take.
    """
    spec = get_backbone(classifier.backbone)
    head = classifier.default_head if classifier.head is None else classifier.head
    size = input_size_of(spec, classifier.input_size, classifier.image_shape_)
    with seeded(seed):
        chain, report = build_chain(spec, weights)
        network = CellNetwork(
            chain,
            Preprocessing(spec, classifier.value_range_, size),
            head.validate(),
            classifier.dropout,
            len(classifier.classes_),
        )
    network.built_from = _building(classifier)
    return in_layout_of_training(classifier, network), report


def in_layout_of_training(classifier: Any, network: CellNetwork) -> CellNetwork:
    """Return the network with its kernels in the layout that the optimizer can train."""
    if isinstance(classifier.optimizer, str):  # some of torch's others cannot flatten such kernels
        network = network.to(memory_format=torch.channels_last)
    return network


def input_size_of(
    spec: BackboneSpec, input_size: Any, image_shape: tuple[int, int, int]
) -> tuple[int, int]:
    """Return the (height, width) that a backbone sees, from the `input_size` parameter."""
    size = check_image_size(input_size, "input_size")
    if size is None:
        return tuple(max(side, spec.smallest_size) for side in image_shape[:2])
    if min(size) < spec.smallest_size:
        raise ValueError(
            f"input_size={input_size!r} is too small for {spec.name}, which needs at least "
            f"{spec.smallest_size} pixels."
        )
    return size


def check_built(classifier: Any) -> None:
    """Fail if parameters that a network is built from were changed after it was.

    Raises
    ------
    ValueError
        The message names them.
    """
    built = classifier.net_.module_.built_from
    changed = [name for name, value in _building(classifier).items() if value != built[name]]
    if changed:
        raise ValueError(
            f"{', '.join(changed)} changed after the network was built. Set back what changed, or "
            "fit anew with warm_start=False."
        )


def _building(classifier: Any) -> dict[str, str]:
    names = ("backbone", "head", "dropout", "input_size")
    return {name: setting(getattr(classifier, name)) for name in names}


def freeze_blocks(
    classifier: Any, network: CellNetwork, report: WeightsReport | None, *, go_on: bool
) -> None:
    """Set the cut that a CNNClassifier asks for; warn of frozen blocks at random weights.

    Raises
    ------
    WeightsMismatchError
        If the weights file lacks tensors of a frozen block.
    """
    chain = network.backbone
    n_frozen = count_frozen(chain, classifier.unfrozen_layers)
    network.set_cut(n_frozen)
    if go_on:  # all of this was said when the network was new
        return
    if report is None:
        if n_frozen and classifier.weights is None:
            warnings.warn(
                f"{n_frozen} of {len(chain)} blocks of {_name(classifier)} are frozen at random "
                f"weights (weights=None, unfrozen_layers={classifier.unfrozen_layers!r}). Give "
                "weights, or unfrozen_layers='all'.",
                UserWarning,
                stacklevel=6,
            )
        return
    if not report.missing:
        return
    frozen = tuple(f"{name}." for name, _ in list(chain.named_children())[:n_frozen])
    missing = [key for key in report.missing if key.startswith(frozen)] if frozen else []
    lacks = f"{report.source} lacks {len(report.missing)} tensors of {_name(classifier)}"
    if missing:
        raise WeightsMismatchError(
            f"{lacks}, {len(missing)} of them in frozen blocks ({', '.join(missing[:3])}...), "
            "which would stay random. Give a file that holds them, or unfreeze those blocks."
        )
    warnings.warn(
        f"{lacks} ({', '.join(report.missing[:3])}...); they start at random and are trained. "
        f"{len(report.loaded)} tensors were loaded. weights_report_ lists all.",
        PartialWeightsWarning,
        stacklevel=6,
    )


def _name(classifier: Any) -> str:
    return get_backbone(classifier.backbone).name
