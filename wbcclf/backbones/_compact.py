"""A compact backbone, with weights of our own that come with the package."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from wbcclf._version import __version__
from wbcclf.backbones._base import LR_PRETRAINED, BackboneSpec, PackagedWeights

if TYPE_CHECKING:
    from torch import Tensor, nn

# Of each stage: blocks, channels, kernel size, stride of the first block, expansion.
_STAGES = (
    (1, 16, 3, 1, 1),
    (2, 24, 3, 2, 6),
    (2, 40, 5, 2, 6),
    (3, 80, 3, 2, 6),
    (3, 112, 5, 1, 6),
    (4, 192, 5, 2, 6),
    (1, 320, 3, 1, 6),
)


def _build() -> nn.Module:
    from torch import nn

    from wbcclf.backbones._modules import InvertedResidual, normalised_convolution

    network, n_in = nn.Module(), 32
    network.stem = nn.Sequential(*normalised_convolution(3, n_in, 3, stride=2))
    for stage, (n_blocks, n_out, kernel_size, stride, expansion) in enumerate(_STAGES, start=1):
        for number in range(1, n_blocks + 1):
            block = InvertedResidual(n_in, n_out, kernel_size, stride, expansion)
            network.add_module(f"stage{stage}_block{number}", block)
            n_in, stride = n_out, 1
    return network


def _blocks(network: nn.Module) -> dict[str, nn.Module]:
    return dict(network.named_children())


def _convert(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Rename the tensors of timm's EfficientNet-Lite0; what it has beyond ours keeps its name."""
    return {_KEY.sub(_renamed, key): tensor for key, tensor in state.items()}


_KEY = re.compile(r"^(?:conv_stem|bn1|blocks\.(\d)\.(\d)\.(\w+))(?=\.)")
_PLACES = ("conv_pw", "bn1", "", "conv_dw", "bn2", "", "conv_pwl", "bn3")
_PLACES_OF_FIRST = ("conv_dw", "bn1", "", "conv_pw", "bn2")  # which is not expanded


def _renamed(match: re.Match) -> str:
    stage, block, layer = match.groups()
    if stage is None:
        return "stem.0" if match[0] == "conv_stem" else "stem.1"
    places = _PLACES_OF_FIRST if stage == "0" else _PLACES
    return f"stage{int(stage) + 1}_block{int(block) + 1}.layers.{places.index(layer)}"


# A whole model, of which a classifier with this backbone can take the weights, too. It is made by
# benchmarks/pretrain.py.
BLOOD_CELLS = PackagedWeights(
    Path(__file__).with_name("blood-cells.wbcclf"),
    "BSD-3-Clause; trained on pictures of PBC (CC BY 4.0), BCCD (MIT) and BCISC (Apache-2.0), "
    "starting from weights of EfficientNet-Lite0 (Apache-2.0): see NOTICE",
)

COMPACT = BackboneSpec(
    name="compact_cnn",
    build=_build,
    blocks=_blocks,
    input_size=96,
    smallest_size=16,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    paper="EfficientNet-Lite0 without its last convolution: Tan and Le 2019, "
    "https://arxiv.org/abs/1905.11946",
    weights={"blood-cells": BLOOD_CELLS},
    convert=_convert,
    lr=LR_PRETRAINED,
    version=f"wbcclf {__version__}",
)
