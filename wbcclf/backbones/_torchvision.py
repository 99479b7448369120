"""Backbones built from torchvision's networks, laid out as chains.

The blocks *are* torchvision's own modules, so a chain computes what the original's features do and
the original's state dicts load under their own keys.
"""

from __future__ import annotations

from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any

from wbcclf.backbones._base import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    LR_PRETRAINED,
    BackboneSpec,
    WeightsSource,
)

if TYPE_CHECKING:
    from torch import nn
    from torchvision import models

_DOWNLOADS = "https://download.pytorch.org/models/"
_VERSION = f"torchvision {metadata.version('torchvision')}"
_LICENCE = "BSD-3-Clause (torchvision); trained on ImageNet, whose images are for research"


def _build(name: str) -> nn.Module:
    from torchvision import models

    return getattr(models, name)(weights=None)


def _build_vgg(layout: str) -> nn.Module:
    # torchvision.models.vgg16() also initialises 124 million head weights that the chain drops;
    # the feature extractor alone has the same keys ("features.*") and takes a tenth of the time.
    from torch import nn
    from torchvision.models.vgg import cfgs, make_layers

    network = nn.Module()
    network.features = features = make_layers(cfgs[layout])
    for module in features:
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return network


def _build_inception() -> nn.Module:
    from torchvision.models import inception_v3

    return inception_v3(weights=None, aux_logits=False, transform_input=False, init_weights=True)


# ---------------------------------------------------------------- blocks, a function a family


def _vgg_blocks(network: models.VGG) -> dict[str, nn.Module]:
    """Make a block of each convolution; its activation and the pooling after it stay with it."""
    from torch import nn

    blocks: dict[str, nn.Module] = {}
    stage, position = 1, 0
    for module in network.features:
        if isinstance(module, nn.Conv2d):
            position += 1
            block = blocks[f"block{stage}_conv{position}"] = nn.Sequential()
        block.append(module)
        if isinstance(module, nn.MaxPool2d):
            stage, position = stage + 1, 0
    return blocks


def _resnet_blocks(network: models.ResNet) -> dict[str, nn.Module]:
    """Name the stem and every residual block."""
    from torch import nn

    stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
    blocks: dict[str, nn.Module] = {"stem": stem}
    for stage in range(1, 5):
        for number, block in enumerate(getattr(network, f"layer{stage}"), start=1):
            blocks[f"layer{stage}_block{number}"] = block
    return blocks


def _densenet_blocks(network: models.DenseNet) -> dict[str, nn.Module]:
    """Name the stem, the dense blocks and the transitions between them."""
    from torch import nn

    parts = dict(network.features.named_children())
    stem = nn.Sequential(*(parts.pop(f"{kind}0") for kind in ("conv", "norm", "relu", "pool")))
    # torchvision's forward applies this last ReLU as a function.
    top = nn.Sequential(parts.pop("denseblock4"), parts.pop("norm5"), nn.ReLU())
    return {"stem": stem, **parts, "denseblock4": top}


def _inception_blocks(network: models.Inception3) -> dict[str, nn.Module]:
    """Keep torchvision's names, in lower case; pooling stays with the block before it."""
    from torch import nn

    blocks: dict[str, nn.Module] = {}
    for name, module in network.named_children():
        if name == "avgpool":
            break
        if name.startswith("maxpool"):
            last = next(reversed(blocks))
            blocks[last] = nn.Sequential(blocks[last], module)
        else:
            blocks[name.lower()] = module
    return blocks


def _mobilenet_blocks(network: models.MobileNetV3) -> dict[str, nn.Module]:
    """Name the stem, the inverted residual blocks and the top convolution."""
    stem, *inner, top = network.features
    numbered = {f"block{number}": block for number, block in enumerate(inner, start=1)}
    return {"stem": stem, **numbered, "top": top}


def _efficientnet_blocks(network: models.EfficientNet) -> dict[str, nn.Module]:
    """Name the stem, the inverted residual blocks of every stage and the top convolution."""
    stem, *stages, top = network.features
    inner = {
        f"stage{stage}_block{number}": block
        for stage, parts in enumerate(stages, start=1)
        for number, block in enumerate(parts, start=1)
    }
    return {"stem": stem, **inner, "top": top}


def _convnext_blocks(network: models.ConvNeXt) -> dict[str, nn.Module]:
    """Name the stem and every block; down-sampling belongs to the first block of its stage."""
    from torch import nn

    stem, *rest = network.features
    blocks: dict[str, nn.Module] = {"stem": stem}
    for stage, parts in enumerate(rest[::2], start=1):
        for number, block in enumerate(parts, start=1):
            blocks[f"stage{stage}_block{number}"] = block
    for stage, down in enumerate(rest[1::2], start=2):
        first = f"stage{stage}_block1"
        blocks[first] = nn.Sequential(down, blocks[first])
    return blocks


def _squeezenet_blocks(network: models.SqueezeNet) -> dict[str, nn.Module]:
    """Name the stem and the eight fire modules; pooling stays with the block before it."""
    from torch import nn

    block = nn.Sequential()
    blocks: dict[str, nn.Module] = {"stem": block}
    for module in network.features:
        if type(module).__name__ == "Fire":
            block = blocks[f"fire{len(blocks) + 1}"] = nn.Sequential()
        block.append(module)
    return blocks


# ---------------------------------------------------------------- the networks

_VGG = "Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556"
_RESNET = "He et al. 2015, https://arxiv.org/abs/1512.03385"
_DENSENET = "Huang et al. 2016, https://arxiv.org/abs/1608.06993"
_INCEPTION = "Szegedy et al. 2015, https://arxiv.org/abs/1512.00567"
_MOBILENET = "Howard et al. 2019, https://arxiv.org/abs/1905.02244"
_EFFICIENTNET = "Tan and Le 2019, https://arxiv.org/abs/1905.11946"
_CONVNEXT = "Liu et al. 2022, https://arxiv.org/abs/2201.03545"
_SQUEEZENET = "Iandola et al. 2016, https://arxiv.org/abs/1602.07360"


def _spec(name, blocks, paper, *files, build=None, **own) -> BackboneSpec:
    """Return a network's spec.

    `files` are torchvision's first ("imagenet") and, if there are, second ("imagenet-v2") ImageNet
    weights. A file's name ends with the start of its SHA-256. `own` is what differs from the other
    networks.
    """
    shared: dict[str, Any] = {
        "input_size": 224,
        # What VGG and ConvNeXt need: five halvings turn 32 pixels into one. DenseNets would run
        # from 29 on, SqueezeNet from 17, the others from 1; the classifier enlarges such images.
        "smallest_size": 32,
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
    }
    return BackboneSpec(
        name=name,
        build=build or partial(_build, name),
        blocks=blocks,
        weights={
            tag: WeightsSource(f"{_DOWNLOADS}{file}.pth", file.rsplit("-", 1)[1], _LICENCE)
            for tag, file in zip(("imagenet", "imagenet-v2"), files, strict=False)
        },
        paper=paper,
        lr=LR_PRETRAINED,
        version=_VERSION,
        **(shared | own),
    )


TORCHVISION = (
    _spec("vgg16", _vgg_blocks, _VGG, "vgg16-397923af", build=partial(_build_vgg, "D")),
    _spec("vgg19", _vgg_blocks, _VGG, "vgg19-dcbb9e9d", build=partial(_build_vgg, "E")),
    _spec("resnet18", _resnet_blocks, _RESNET, "resnet18-f37072fd"),
    _spec("resnet34", _resnet_blocks, _RESNET, "resnet34-b627a593"),
    _spec("resnet50", _resnet_blocks, _RESNET, "resnet50-0676ba61", "resnet50-11ad3fa6"),
    _spec("resnet101", _resnet_blocks, _RESNET, "resnet101-63fe2227", "resnet101-cd907fc2"),
    _spec("resnet152", _resnet_blocks, _RESNET, "resnet152-394f9c45", "resnet152-f82ba261"),
    _spec("densenet121", _densenet_blocks, _DENSENET, "densenet121-a639ec97"),
    _spec("densenet169", _densenet_blocks, _DENSENET, "densenet169-b2777c0a"),
    _spec("densenet201", _densenet_blocks, _DENSENET, "densenet201-c1103571"),
    _spec(
        "inception_v3",
        _inception_blocks,
        _INCEPTION,
        "inception_v3_google-0cc3c7bd",
        build=_build_inception,
        input_size=299,
        smallest_size=75,  # its first convolutions are not padded
        # The weights come from a system that scaled pixels to -1..1; torchvision's transform_input
        # turns ImageNet's normalisation into that one, which this does directly.
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
    _spec("mobilenet_v3_small", _mobilenet_blocks, _MOBILENET, "mobilenet_v3_small-047dcff4"),
    _spec(
        "mobilenet_v3_large",
        _mobilenet_blocks,
        _MOBILENET,
        "mobilenet_v3_large-8738ca79",
        "mobilenet_v3_large-5c1a4163",
    ),
    _spec(
        "efficientnet_b0",
        _efficientnet_blocks,
        _EFFICIENTNET,
        "efficientnet_b0_rwightman-7f5810bc",
    ),
    _spec("convnext_tiny", _convnext_blocks, _CONVNEXT, "convnext_tiny-983f1562"),
    _spec("squeezenet1_1", _squeezenet_blocks, _SQUEEZENET, "squeezenet1_1-b8a52dc0"),
)
