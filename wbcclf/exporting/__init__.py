"""Models that leave Python's world: ONNX files, in float32 or in int8."""

from wbcclf.exporting._export import export_onnx

__all__ = ["export_onnx"]
