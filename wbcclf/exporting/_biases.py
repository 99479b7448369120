"""Biases that make up for what weights and activations of 8 bits take from a channel's mean."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from wbcclf.exporting._parity import open_session


def correct_biases(network: Any, found: Any, batches: Iterable[dict[str, np.ndarray]]) -> None:
    """Add to each bias of a convolution what its channel loses in 8 bits, on average.

    Rounded weights are off by the same amount at every pixel. Activations after a ReLU are all
    positive, so these errors do not cancel but move the mean of a channel, most where a channel
    has few weights. Here each layer in 8 bits sees what the layer in float32 sees, so errors of the
    layers before are not corrected twice (Nagel et al. 2019, https://arxiv.org/abs/1906.04721).

    Parameters
    ----------
    network, found : onnx.ModelProto
        The graph in float32 and the one of 8 bits, whose biases are float32; `found` is changed.
    batches : iterable of dict
        Inputs of the graphs.
    """
    makes = {name: node for node in found.graph.node for name in node.output}
    in_float = {node.name: node for node in network.graph.node}
    layers = [
        node
        for node in found.graph.node
        if node.op_type == "Conv"
        and len(node.input) == 3
        and node.input[1] in makes
        and makes[node.input[1]].op_type == "DequantizeLinear"
    ]
    if not layers:
        return
    both = onnx.ModelProto()
    both.CopyFrom(network)
    graph = both.graph
    known = {tensor.name for tensor in graph.initializer}
    graph.initializer.extend(each for each in found.graph.initializer if each.name not in known)
    graph.initializer.append(numpy_helper.from_array(np.array([0, 2, 3]), "pixels"))
    del graph.output[:]
    for k, layer in enumerate(layers):
        image, weights, _ = layer.input
        parts = [makes[makes[image].input[0]], makes[image], makes[weights], layer]
        new = {name: f"{k}/{name}" for node in parts for name in node.output}
        for node in parts:
            copied = graph.node.add()
            copied.CopyFrom(node)
            copied.name = ""
            copied.input[:] = [new.get(name, name) for name in node.input]
            copied.output[:] = [new[name] for name in node.output]
        lost, mean = f"{k}/lost", f"{k}/mean"
        outputs = [in_float[layer.name].output[0], new[layer.output[0]]]
        graph.node.append(helper.make_node("Sub", outputs, [lost]))
        graph.node.append(helper.make_node("ReduceMean", [lost, "pixels"], [mean], keepdims=0))
        graph.output.append(helper.make_empty_tensor_value_info(mean))
    session = open_session(both.SerializeToString())
    runs, sizes = [], []
    for batch in batches:
        runs.append(session.run(None, batch))
        sizes.append(len(next(iter(batch.values()))))
    shifts = [np.average(of_layer, axis=0, weights=sizes) for of_layer in zip(*runs, strict=True)]
    constants = {each.name: numpy_helper.to_array(each) for each in found.graph.initializer}
    for layer, shift in zip(layers, shifts, strict=True):
        bias = (constants[layer.input[2]] + shift).astype(np.float32)
        layer.input[2] = f"{layer.name}/bias"  # layers may have shared one
        found.graph.initializer.append(numpy_helper.from_array(bias, layer.input[2]))
    taken = {name for node in found.graph.node for name in node.input}
    for tensor in [*found.graph.initializer]:
        if tensor.name not in taken:
            found.graph.initializer.remove(tensor)
