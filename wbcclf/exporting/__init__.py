"""Models that leave Python's world: ONNX files, in float32 or in int8, and pages that run them."""

from wbcclf.exporting._export import export_onnx
from wbcclf.exporting._page import export_page

__all__ = ["export_onnx", "export_page"]
