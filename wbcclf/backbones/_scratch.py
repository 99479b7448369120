"""Backbones trained from scratch: our own, those of published systems, and user-defined ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from sklearn.base import BaseEstimator

from wbcclf._images import LONGEST_SIDE, Interval, StrOptions
from wbcclf._parameters import Each
from wbcclf._version import __version__
from wbcclf.backbones._base import BackboneSpec
from wbcclf.backbones._head import Head

if TYPE_CHECKING:
    from torch import nn

_MOST_BLOCKS = LONGEST_SIDE.bit_length() - 1  # after one more no image has a pixel left
_PUBLISHED = "one of the systems that this package replaces"
_VERSION = f"wbcclf {__version__}"
_POSITIVE_INT = Interval(Integral, 1, None, closed="left")
_SHARE = Interval(Real, 0, 1, closed="left")


class ConvNet(BaseEstimator):
    """A user-defined convolutional network, for ``CNNClassifier(backbone=ConvNet(...))``.

    One block for each entry of `filters`: convolution, ReLU, 2x2 max-pooling, dropout. The blocks
    are called ``conv1``, ``conv2`` and so on; kernels start He-normal. Dense layers on top are the
    head's: ``Head("flatten", hidden=(64,))``.

    Parameters
    ----------
    filters : sequence of int, default=(16, 32, 64)
        Filters of each convolution.
    kernel_size : int or sequence of int, default=3
        Height and width of the kernels in pixels; a sequence has one for each block.
    padding : {"same", "valid"}, default="same"
        Whether a convolution keeps the size of its input or loses ``kernel_size - 1`` pixels.
    dropout : float in [0, 1) or sequence of them, default=0.0
        Dropout after the pooling; a sequence has one for each block.

    Examples
    --------
    >>> from wbcclf import CNNClassifier, ConvNet
    >>> clf = CNNClassifier(ConvNet(filters=(8,)))
    >>> clf.set_params(backbone__filters=(8, 16)).backbone
    ConvNet(filters=(8, 16))
    """

    _parameter_constraints: dict = {
        "filters": [Each(_POSITIVE_INT)],
        "kernel_size": [_POSITIVE_INT, Each(_POSITIVE_INT)],
        "padding": [StrOptions({"same", "valid"})],
        "dropout": [_SHARE, Each(_SHARE)],
    }

    def __init__(self, filters=(16, 32, 64), kernel_size=3, padding="same", dropout=0.0):
        self.filters = filters
        self.kernel_size = kernel_size
        self.padding = padding
        self.dropout = dropout

    def spec(self) -> BackboneSpec:
        """Return the backbone that the parameters describe.

        Raises
        ------
        ValueError
            If a parameter is out of its range, or a sequence has not one entry for each block.
        """
        self._validate_params()
        if len(self.filters) > _MOST_BLOCKS:
            raise ValueError(
                f"ConvNet has {len(self.filters)} filters entries, but each block halves the "
                f"image: give at most {_MOST_BLOCKS}."
            )
        blocks = zip(*map(self._each, ("filters", "kernel_size", "dropout")), strict=True)
        return _conv_spec("convnet", tuple(blocks), self.padding, "a user-defined network")

    def _each(self, name: str) -> Sequence:
        """Return a parameter's value for each block."""
        value = getattr(self, name)
        values = value if isinstance(value, (tuple, list)) else (value,) * len(self.filters)
        if len(values) != len(self.filters) or not values:
            raise ValueError(
                f"ConvNet has {len(self.filters)} filters entries, but {name}={value!r}: give one "
                "value for all blocks, or one for each of at least one block."
            )
        return values


def _conv_spec(
    name: str,
    blocks: tuple[tuple[int, int, float], ...],
    padding: str,
    paper: str,
    head: Head | None = None,
) -> BackboneSpec:
    """Return the spec of a ConvNet; each block is (filters, kernel_size, dropout)."""
    build = partial(_build_convnet, blocks, padding)
    # All ConvNets have one name: their parameters tell them apart.
    version = f"{_VERSION}, {padding} {blocks}"
    return _spec(name, build, paper, _smallest_size(blocks, padding), head, version)


def _smallest_size(blocks: tuple[tuple[int, int, float], ...], padding: str) -> int:
    """Return the smallest image that leaves one pixel: going back, doubled by every pooling."""
    size = 1
    for _, kernel_size, _ in reversed(blocks):
        size = 2 * size + (kernel_size - 1 if padding == "valid" else 0)
    return size


def _spec(
    name: str,
    build: Any,
    paper: str,
    smallest_size: int,
    head: Head | None = None,
    version: str = _VERSION,
) -> BackboneSpec:
    return BackboneSpec(
        name=name,
        build=build,
        blocks=_children,
        input_size=max(128, smallest_size),
        smallest_size=smallest_size,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        paper=paper,
        head=head or Head(),
        version=version,
    )


def _children(network: nn.Module) -> dict[str, nn.Module]:
    return dict(network.named_children())


def _build_convnet(blocks: tuple[tuple[int, int, float], ...], padding: str) -> nn.Module:
    from torch import nn

    from wbcclf.backbones._modules import he_normal, same_convolution

    network, n_in = nn.Module(), 3
    for number, (filters, kernel_size, dropout) in enumerate(blocks, start=1):
        if padding == "same":
            convolution = same_convolution(n_in, filters, kernel_size)
        else:
            convolution = [he_normal(nn.Conv2d(n_in, filters, kernel_size))]
        block = nn.Sequential(*convolution, nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(dropout))
        network.add_module(f"conv{number}", block)
        n_in = filters
    return network


def _build_simple_cnn() -> nn.Module:
    """Build five blocks of 3x3 convolution, 2x2 max-pooling, group normalisation and ReLU.

    Pooling comes first after the convolution because the other two are then four times cheaper; it
    rounds up, so that the chain takes images down to a single pixel. Group normalisation looks at
    one image at a time: unlike BatchNorm it has no running statistics to drift, works with a batch
    of one, and leaves a sample weight of 2 equal to showing the image twice.
    """
    from torch import nn

    from wbcclf.backbones._modules import he_normal

    network, n_in = nn.Module(), 3
    for number, n_out in enumerate((16, 32, 64, 128, 256), start=1):
        block = nn.Sequential(
            he_normal(nn.Conv2d(n_in, n_out, kernel_size=3, padding=1, bias=False)),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.GroupNorm(8, n_out),
            nn.ReLU(),
        )
        network.add_module(f"conv{number}", block)
        n_in = n_out
    return network


def _build_mlp() -> nn.Module:
    """Build five dense layers of 128; the first learns the image's size when it is first run."""
    from torch import nn

    from wbcclf.backbones._modules import LazyDense, he_normal

    network = nn.Module()
    network.dense1 = nn.Sequential(nn.Flatten(), LazyDense(128), nn.ReLU())
    for number in range(2, 6):
        layer = nn.Sequential(he_normal(nn.Linear(128, 128)), nn.ReLU())
        network.add_module(f"dense{number}", layer)
    return network


def _build_wide_deep() -> nn.Module:
    """Build one block of two branches, since a chain hands a single tensor from block to block."""
    from torch import nn

    from wbcclf.backbones._modules import Branches, same_convolution

    deep = nn.Sequential(*_build_convnet(_THREE_BLOCKS, "same").children())
    wide = nn.Sequential(*same_convolution(3, 8, 20), nn.ReLU(), nn.MaxPool2d(8))
    network = nn.Module()
    network.wide_deep = Branches(deep=deep, wide=wide)
    return network


def _build_sepconv() -> nn.Module:
    """Build a pair of convolutions, then four pairs of depthwise-separable ones."""
    from torch import nn

    from wbcclf.backbones._modules import he_normal

    def convolution(n_in: int, n_out: int, separable: bool) -> list[nn.Module]:
        if not separable:
            return [he_normal(nn.Conv2d(n_in, n_out, 3, padding=1)), nn.ReLU()]
        return [
            he_normal(nn.Conv2d(n_in, n_in, 3, padding=1, groups=n_in, bias=False)),
            he_normal(nn.Conv2d(n_in, n_out, 1)),
            nn.ReLU(),
        ]

    network, n_in = nn.Module(), 3
    for number, n_out in enumerate((16, 32, 64, 128, 256), start=1):
        separable = number > 1
        block = nn.Sequential(
            *convolution(n_in, n_out, separable), *convolution(n_out, n_out, separable)
        )
        if separable:
            block.append(nn.BatchNorm2d(n_out))
        block.extend([nn.MaxPool2d(2), nn.Dropout(0.2 if number > 3 else 0.0)])
        network.add_module(f"block{number}", block)
        n_in = n_out
    return network


_THREE_BLOCKS = ((8, 5, 0.0), (16, 3, 0.0), (32, 3, 0.0))

_LINEAR = Head("flatten", dropout=0.0)

SCRATCH = (
    _spec(
        "simple_cnn",
        _build_simple_cnn,
        "this package; group normalisation: Wu and He 2018, https://arxiv.org/abs/1803.08494",
        1,
    ),
    _spec("mlp", _build_mlp, _PUBLISHED, 1, Head(dropout=0.0)),
    _conv_spec("cnn8", ((8, 3, 0.0),), "same", _PUBLISHED, _LINEAR),
    _conv_spec("cnn_3block", _THREE_BLOCKS, "same", _PUBLISHED, _LINEAR),
    _spec("wide_deep", _build_wide_deep, _PUBLISHED, 8, _LINEAR),
    _spec(
        "sepconv",
        _build_sepconv,
        f"{_PUBLISHED}; separable convolutions: Chollet 2016, https://arxiv.org/abs/1610.02357",
        32,
        Head("flatten", hidden=(512, 128, 64), dropout=(0.0, 0.7, 0.5, 0.3)),
    ),
    _conv_spec(
        "nine_class_cnn",
        ((32, 3, 0.25), (32, 3, 0.4), (64, 3, 0.4)),
        "same",
        _PUBLISHED,
        Head("flatten", hidden=(64,), dropout=(0.0, 0.4)),
    ),
    _conv_spec(
        "field_cnn_baseline",
        ((32, 3, 0.0),),
        "valid",
        _PUBLISHED,
        Head("flatten", hidden=(64,), dropout=0.0),
    ),
    _conv_spec(
        "field_cnn",
        ((16, 2, 0.0), (32, 2, 0.25), (64, 2, 0.25)),
        "valid",
        _PUBLISHED,
        Head("flatten", hidden=(256, 128, 64, 32), dropout=0.0),
    ),
)
