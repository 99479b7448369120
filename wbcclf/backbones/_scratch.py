"""Backbones of our own, trained from scratch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wbcclf.backbones._base import BackboneSpec

if TYPE_CHECKING:
    from torch import nn

_SIMPLE_CNN_FILTERS = (16, 32, 64, 128, 256)


def _build_simple_cnn() -> nn.Module:
    """Build five blocks of 3x3 convolution, 2x2 max-pooling, group normalisation and ReLU.

    Pooling comes first after the convolution because the other two are then four times cheaper; it
    rounds up, so that the chain takes images down to a single pixel. Group normalisation looks at
    one image at a time: unlike BatchNorm it has no running statistics to drift, works with a batch
    of one, and leaves a sample weight of 2 equal to showing the image twice.
    """
    from torch import nn

    network = nn.Module()
    n_in = 3
    for number, n_out in enumerate(_SIMPLE_CNN_FILTERS, start=1):
        convolution = nn.Conv2d(n_in, n_out, kernel_size=3, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        network.add_module(
            f"conv{number}",
            nn.Sequential(
                convolution, nn.MaxPool2d(2, ceil_mode=True), nn.GroupNorm(8, n_out), nn.ReLU()
            ),
        )
        n_in = n_out
    return network


SCRATCH = (
    BackboneSpec(
        name="simple_cnn",
        build=_build_simple_cnn,
        blocks=lambda network: dict(network.named_children()),
        smallest_size=1,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        paper="this package; group normalisation: Wu and He 2018, https://arxiv.org/abs/1803.08494",
    ),
)
