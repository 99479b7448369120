"""Predict with exported models, without PyTorch."""

from wbcclf.onnx._model import Answers, OnnxModel, load

__all__ = ["Answers", "OnnxModel", "load"]
