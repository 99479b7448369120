"""Networks without their heads, as chains of named blocks."""

from wbcclf.backbones._base import (
    BackboneSpec,
    PackagedWeights,
    WeightsReport,
    WeightsSource,
)
from wbcclf.backbones._checks import check_backbone
from wbcclf.backbones._describe import BackboneDescription, BlockDescription, describe
from wbcclf.backbones._head import Head
from wbcclf.backbones._registry import get_backbone, list_backbones, register_backbone
from wbcclf.backbones._scratch import ConvNet

__all__ = [
    "BackboneDescription",
    "BackboneSpec",
    "BlockDescription",
    "ConvNet",
    "Head",
    "PackagedWeights",
    "WeightsReport",
    "WeightsSource",
    "check_backbone",
    "describe",
    "get_backbone",
    "list_backbones",
    "register_backbone",
]
