"""A fitted classifier as a graph of ONNX, and the file that holds it."""

from __future__ import annotations

import json
import logging
import os
import warnings
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import onnxruntime
import torch

from wbcclf.classifiers import CNNClassifier
from wbcclf.exporting._module import Predictor
from wbcclf.exporting._stretching import add_stretching
from wbcclf.onnx._format import CERTAINTY, FAMILIARITY, INPUT, KEY, PROBABILITIES, sealed

# The lowest that has what networks need here (a resize with antialiasing): any reader knows it.
_OPSET = 18
_SQUARES = "squares"  # pictures that are stretched already


def network_graph(classifier: CNNClassifier) -> tuple[Any, list[str]]:
    """Return a classifier on the CPU as a graph, and the names of nodes outside of its network.

    The graph, an onnx.ModelProto, takes images of `image_shape_`.
    """
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
    assert program is not None  # None is for a file
    model = program.model_proto
    outside = []
    for node in model.graph.node:
        scopes = {each.key: each.value for each in node.metadata_props}
        if "'network." not in scopes["pkg.torch.onnx.name_scopes"]:
            outside.append(node.name)
        del node.metadata_props[:]  # where the code lies on this machine, among others
    del model.graph.value_info[:]
    return simplified(model), outside


def simplified(model: Any) -> Any:
    """Return a graph without what is the same for all inputs, as runtimes make it when they load.

    So files are smaller and load faster, and BatchNorm is a part of the convolution before it.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    with TemporaryDirectory() as folder:
        options.optimized_model_filepath = os.path.join(folder, "model.onnx")
        onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        model = onnx.load(options.optimized_model_filepath)
    del model.opset_import[:]  # it names all domains that it knows
    model.opset_import.add(domain="", version=_OPSET)
    return model


def whole_file(network: Any, image_size: tuple[int, int], about: dict[str, Any]) -> bytes:
    """Return the bytes of a file: the graph that takes pictures of any size, and what it is."""
    model = onnx.ModelProto()
    model.CopyFrom(network)
    _merge_constants(model.graph)
    _shorten_names(model.graph)
    add_stretching(model, INPUT, image_size)
    del model.metadata_props[:]
    model.metadata_props.add(key=KEY, value=json.dumps(about))
    return sealed(model.SerializeToString())


def _merge_constants(graph: Any) -> None:
    """Keep one of all constants that are the same, as the zero points of int8 are."""
    kept: dict[bytes, str] = {}
    name_of = {}
    for tensor in [*graph.initializer]:
        if len(tensor.dims) > 1:  # weights, which are large and never the same
            continue
        content = onnx.TensorProto()
        content.CopyFrom(tensor)
        content.name = ""
        name_of[tensor.name] = kept.setdefault(content.SerializeToString(), tensor.name)
        if name_of[tensor.name] != tensor.name:
            graph.initializer.remove(tensor)
    for node in graph.node:
        node.input[:] = [name_of.get(name, name) for name in node.input]


def _shorten_names(graph: Any) -> None:
    """Give what is inside of a graph numbers as names: those of layers make the file larger."""
    outside = {each.name for each in (*graph.input, *graph.output)}
    inside = [each.name for each in graph.initializer]
    inside += [name for node in graph.node for name in node.output]
    short = {name: f"{k:x}" for k, name in enumerate(inside) if name and name not in outside}
    for tensor in graph.initializer:
        tensor.name = short[tensor.name]
    for node in graph.node:
        node.name = ""
        node.input[:] = [short.get(name, name) for name in node.input]
        node.output[:] = [short.get(name, name) for name in node.output]
    del graph.value_info[:]
