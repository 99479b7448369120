"""Backbones built from torchvision's networks, laid out as chains.

The blocks *are* torchvision's own modules, so a chain computes what the original's features do and
the original's state dicts load under their own keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wbcclf.backbones._base import IMAGENET_MEAN, IMAGENET_STD, BackboneSpec, WeightsSource

if TYPE_CHECKING:
    from torch import nn

_DOWNLOADS = "https://download.pytorch.org/models/"


def _build_vgg16() -> nn.Module:
    # torchvision.models.vgg16() also initialises 124 million head weights that the chain drops;
    # the feature extractor alone has the same keys ("features.*") and takes a tenth of the time.
    from torch import nn
    from torchvision.models.vgg import cfgs, make_layers

    network = nn.Module()
    network.features = make_layers(cfgs["D"])
    for module in network.features:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return network


def _vgg_blocks(network: nn.Module) -> dict[str, nn.Module]:
    """Make a block of each convolution; its activation and the pooling after it stay with it."""
    from torch import nn

    blocks: dict[str, nn.Module] = {}
    stage, position = 1, 0
    for module in network.features:
        if isinstance(module, nn.Conv2d):
            position += 1
            name = f"block{stage}_conv{position}"
            blocks[name] = nn.Sequential()
        blocks[name].append(module)
        if isinstance(module, nn.MaxPool2d):
            stage, position = stage + 1, 0
    return blocks


def _build_resnet18() -> nn.Module:
    from torchvision.models import resnet18

    return resnet18(weights=None)


def _resnet_blocks(network: nn.Module) -> dict[str, nn.Module]:
    """Name the stem and every residual block."""
    from torch import nn

    stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
    blocks: dict[str, nn.Module] = {"stem": stem}
    for stage in range(1, 5):
        for number, block in enumerate(getattr(network, f"layer{stage}"), start=1):
            blocks[f"layer{stage}_block{number}"] = block
    return blocks


def _build_squeezenet1_1() -> nn.Module:
    from torchvision.models import squeezenet1_1

    return squeezenet1_1(weights=None)


def _squeezenet_blocks(network: nn.Module) -> dict[str, nn.Module]:
    """Name the stem and the eight fire modules; pooling stays with the block before it."""
    from torch import nn

    blocks: dict[str, nn.Module] = {"stem": nn.Sequential()}
    name = "stem"
    for module in network.features:
        if type(module).__name__ == "Fire":
            name = f"fire{len(blocks) + 1}"
            blocks[name] = nn.Sequential()
        blocks[name].append(module)
    return blocks


TORCHVISION = (
    BackboneSpec(
        name="vgg16",
        build=_build_vgg16,
        blocks=_vgg_blocks,
        smallest_size=32,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        weights={"imagenet": WeightsSource(_DOWNLOADS + "vgg16-397923af.pth", "397923af")},
        paper="Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556",
    ),
    BackboneSpec(
        name="resnet18",
        build=_build_resnet18,
        blocks=_resnet_blocks,
        smallest_size=32,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        weights={"imagenet": WeightsSource(_DOWNLOADS + "resnet18-f37072fd.pth", "f37072fd")},
        paper="He et al. 2015, https://arxiv.org/abs/1512.03385",
    ),
    BackboneSpec(
        name="squeezenet1_1",
        build=_build_squeezenet1_1,
        blocks=_squeezenet_blocks,
        smallest_size=32,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        weights={"imagenet": WeightsSource(_DOWNLOADS + "squeezenet1_1-b8a52dc0.pth", "b8a52dc0")},
        paper="Iandola et al. 2016, https://arxiv.org/abs/1602.07360",
    ),
)
