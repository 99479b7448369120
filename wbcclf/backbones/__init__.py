"""Networks without their heads, as chains of named blocks."""

from wbcclf.backbones._base import BackboneSpec, WeightsSource
from wbcclf.backbones._registry import get_backbone, list_backbones, register_backbone

__all__ = [
    "BackboneSpec",
    "WeightsSource",
    "get_backbone",
    "list_backbones",
    "register_backbone",
]
