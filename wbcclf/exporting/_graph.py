"""A fitted classifier as a graph of ONNX, and the file that holds it."""

from __future__ import annotations

import json
import logging
import warnings
from typing import Any

import onnx
import torch

from wbcclf.classifiers import CNNClassifier
from wbcclf.exporting._module import Predictor
from wbcclf.exporting._stretching import add_stretching
from wbcclf.onnx._format import CERTAINTY, FAMILIARITY, INPUT, KEY, PROBABILITIES, sealed

# The lowest that has what networks need here (a resize with antialiasing): any reader knows it.
_OPSET = 18
_SQUARES = "squares"  # pictures that are stretched already


def network_graph(classifier: CNNClassifier) -> Any:
    """Return the onnx.ModelProto of a classifier on the CPU; it takes images of `image_shape_`."""
    height, width, _ = classifier.image_shape_
    outputs = [PROBABILITIES]
    if classifier._description is not None:
        outputs += [FAMILIARITY, CERTAINTY]
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own parts
            program = torch.onnx.export(
                Predictor(classifier).eval(),
                (torch.zeros(2, height, width, 3, dtype=torch.uint8),),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("n")},),
                input_names=[_SQUARES],
                output_names=outputs,
                opset_version=_OPSET,
                # Runtimes do it when they load a model, and onnxscript has made wrong graphs:
                # https://github.com/pytorch/pytorch/issues/166797
                optimize=False,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    return program.model_proto


def whole_file(network: Any, image_size: tuple[int, int], about: dict[str, Any]) -> bytes:
    """Return the bytes of a file: the graph that takes pictures of any size, and what it is."""
    model = onnx.ModelProto()
    model.CopyFrom(network)
    add_stretching(model, INPUT, image_size)
    del model.metadata_props[:]
    model.metadata_props.add(key=KEY, value=json.dumps(about))
    return sealed(model.SerializeToString())
