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
)
# In the stem and so many stages every picture is brought to its own mean and contrast, not to those
# of the pictures that were trained on. So stain, light and focus of another laboratory matter less
# (Pan et al. 2018, https://arxiv.org/abs/1807.09441, who also keep BatchNorm in the later layers).
_OWN_STAGES = 2


def _build() -> nn.Module:
    from torch import nn

    from wbcclf.backbones._modules import (
        InvertedResidual,
        normalised_convolution,
        per_image_norm,
    )

    network, n_in = nn.Module(), 32
    first = normalised_convolution(3, n_in, 3, stride=2, norm=per_image_norm)
    network.stem = nn.Sequential(*first)
    for stage, (n_blocks, n_out, kernel_size, stride, expansion) in enumerate(_STAGES, start=1):
        norm = per_image_norm if stage <= _OWN_STAGES else nn.BatchNorm2d
        for number in range(1, n_blocks + 1):
            block = InvertedResidual(n_in, n_out, kernel_size, stride, expansion, norm)
            network.add_module(f"stage{stage}_block{number}", block)
            n_in, stride = n_out, 1
    return network


def _blocks(network: nn.Module) -> dict[str, nn.Module]:
    return dict(network.named_children())


def _convert(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Rename the tensors of timm's EfficientNet-Lite0; what it has beyond ours keeps its name.

    Means and variances of its pictures are left out where every picture is brought to its own.
    """
    renamed = {_KEY.sub(_renamed, key): tensor for key, tensor in state.items()}
    return {key: tensor for key, tensor in renamed.items() if not _OF_OWN.match(key)}


_KEY = re.compile(r"^(?:conv_stem|bn1|blocks\.(\d)\.(\d)\.(\w+))(?=\.)")
_OF_OWN = re.compile(rf"(stem|stage[1-{_OWN_STAGES}]_).*(running_mean|running_var|num_batches)")
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

# Of EfficientNet-Lite0's seven stages the last two hold four fifths of the weights. They see 3x3
# positions of a picture of 96 pixels, and tell dogs from dogs: cells do without.
COMPACT = BackboneSpec(
    name="compact_cnn",
    build=_build,
    blocks=_blocks,
    input_size=96,
    smallest_size=16,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    paper="the first five stages of EfficientNet-Lite0: Tan and Le 2019, "
    "https://arxiv.org/abs/1905.11946",
    weights={"blood-cells": BLOOD_CELLS},
    convert=_convert,
    lr=LR_PRETRAINED,
    version=f"wbcclf {__version__}",
)
