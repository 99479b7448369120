"""A small model drawn by hand: what a file of wbcclf holds, without a network that was trained."""

import json

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from wbcclf._files import replacing
from wbcclf.onnx._format import CERTAINTY, FAMILIARITY, INPUT, KEY, PROBABILITIES, sealed

CROP = {"scale": "nucleus", "factor": None, "which": "centre", "background": "keep"}
CROP["stain"] = "keep"
METADATA = {
    "format": 1,
    "version": "0.2.0",
    "backbone": "means",
    "classes": ["blue", "green", "red"],
    "image_size": [16, 24],
    "crop": None,
    "rejection": None,
    "thresholds": {"0.05": 0.5, "0.1": 0.25},
    "strange": 0.01,
    "limits": "Drawn by hand.",
    "int8": False,
    "model_sha256": "0" * 64,
    "checked": {"images": 0, "largest_difference": 0.0},
}


def write_model(path, *, described=True, **changes):
    """Write a model of mean colours: each channel in -1 to 1 is what speaks for its class.

    The mean of red is also the familiarity, and the mean of green the certainty.
    """
    arrays = {
        "axes": np.array([1, 2]),
        "half": np.float32(127.5),
        "one": np.float32(1),
        "to_logits": np.float32([[0, 0, 4], [0, 4, 0], [4, 0, 0]]),
        "to_red": np.float32([0.5, 0, 0]),
        "to_green": np.float32([0, 1, 0]),
        "to_half": np.float32(0.5),
    }
    node = helper.make_node
    nodes = [
        node("Cast", [INPUT], ["floats"], to=TensorProto.FLOAT),
        node("ReduceMean", ["floats", "axes"], ["means"], keepdims=0),
        node("Div", ["means", "half"], ["scaled"]),
        node("Sub", ["scaled", "one"], ["balance"]),
        node("MatMul", ["balance", "to_logits"], ["logits"]),
        node("Softmax", ["logits"], [PROBABILITIES], axis=1),
    ]
    outputs = [helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, ["n", 3])]
    if described:
        nodes += [
            node("MatMul", ["balance", "to_red"], ["half_red"]),
            node("Add", ["half_red", "to_half"], [FAMILIARITY]),
            node("MatMul", ["balance", "to_green"], [CERTAINTY]),
        ]
        outputs += [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"])
            for name in (FAMILIARITY, CERTAINTY)
        ]
    images = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["n", "height", "width", 3])
    initial = [numpy_helper.from_array(np.asarray(each), name) for name, each in arrays.items()]
    graph = helper.make_graph(nodes, "means", [images], outputs, initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {KEY: json.dumps(METADATA | changes)})
    with replacing(path) as temporary:
        temporary.write_bytes(sealed(model.SerializeToString()))
    return path
