"""The stretching of pictures to a model's image size as a part of its graph.

The pixels are those of :func:`wbcclf.datasets._decode.resize`, which OpenCV computes in whole
numbers: its steps and its rounding are repeated here, for pictures of any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

_HEIGHT, _WIDTH = 1, 2  # axes of a batch
_ONE = 2048  # a weight of 1, in OpenCV's whole numbers


class _Nodes:
    """Nodes of a graph as they are added, and the constants that they take."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def __call__(self, operator: str, *inputs: Any, **attributes: Any) -> str:
        """Add a node; return the name of its output. An input that is no name is a constant."""
        names = [each if isinstance(each, str) else self._constant(each) for each in inputs]
        output = f"stretch/{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, names, [output], **attributes))
        return output

    def _constant(self, value: Any) -> str:
        name = f"stretch/constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def cast(self, value: Any, dtype: int) -> str:
        """Add a conversion to a type of TensorProto."""
        return self("Cast", value, to=dtype)


def add_stretching(model: Any, name: str, image_size: tuple[int, int]) -> None:
    """Have a model take pictures of any size, uint8 (n, height, width, 3).

    Parameters
    ----------
    model : onnx.ModelProto
        Its one input takes pictures of `image_size`; changed in place.
    name : str
        What its input is called afterwards.
    image_size : tuple of (height, width)
    """
    graph, [given] = model.graph, model.graph.input
    nodes = _Nodes()
    size = nodes("Slice", nodes("Shape", name), np.array([1]), np.array([3]))
    right = nodes.cast(nodes("Equal", size, np.array(image_size)), TensorProto.INT32)
    is_right = nodes.cast(nodes("ReduceMin", right, keepdims=0), TensorProto.BOOL)
    n_before = len(nodes.nodes)
    last = _stretch(nodes, name, size, image_size)
    before, inside = nodes.nodes[:n_before], nodes.nodes[n_before:]
    kept = helper.make_node("Identity", [name], ["stretch/as_it_is"])
    branches = {
        "then_branch": _branch("as it is", [kept], "stretch/as_it_is", image_size),
        "else_branch": _branch("stretched", inside, last, image_size),
    }
    chosen = helper.make_node("If", [is_right], [given.name], **branches)
    others = [*graph.node]
    del graph.node[:], graph.input[:]
    graph.node.extend([*before, chosen, *others])
    graph.initializer.extend(nodes.constants)
    graph.input.append(_batch(name, "n", ("height", "width")))


def _branch(name: str, nodes: list[Any], output: str, image_size: tuple[int, int]) -> Any:
    return helper.make_graph(nodes, name, [], [_batch(output, None, image_size)])


def _batch(name: str, n: str | None, size: tuple[Any, Any]) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.UINT8, (n, *size, 3))


def _stretch(nodes: _Nodes, images: str, size: str, image_size: tuple[int, int]) -> str:
    """Add the three steps of `resize`. Each leaves as it is what it has nothing to do with."""
    old = [nodes("Gather", size, np.int64(place)) for place in (0, 1)]
    new = [np.int64(side) for side in image_size]
    small = [nodes("Min", *sides) for sides in zip(old, new, strict=True)]
    blocks = [_block(nodes, *sides) for sides in zip(old, small, strict=True)]
    fine = [nodes("Mul", *sides) for sides in zip(small, blocks, strict=True)]
    pixels = nodes.cast(images, TensorProto.INT32)
    pixels = _interpolate(nodes, pixels, old, fine)
    pixels = _average(nodes, pixels, small, blocks)
    pixels = _interpolate(nodes, pixels, small, new)
    return nodes.cast(pixels, TensorProto.UINT8)


def _block(nodes: _Nodes, old: str, small: str) -> str:
    """Add how many pixels of a side are averaged to one: 1 where it does not shrink."""
    ratio = nodes("Div", *(nodes.cast(side, TensorProto.DOUBLE) for side in (old, small)))
    return nodes.cast(nodes("Round", ratio), TensorProto.INT64)


def _interpolate(nodes: _Nodes, pixels: str, old: Sequence[Any], new: Sequence[Any]) -> str:
    """Add cv2.resize with INTER_LINEAR: along rows, then along columns, which is less precise."""
    columns = [
        nodes(
            "Mul",
            nodes("Gather", pixels, place, axis=_WIDTH),
            nodes("Unsqueeze", weight, [0, 1, 3]),
        )
        for place, weight in _neighbours(nodes, old[1], new[1], is_clipped=True)
    ]
    pixels = nodes("Div", nodes("Add", *columns), np.int32(16))
    rows = [
        nodes(
            "Div",
            nodes(
                "Mul",
                nodes("Gather", pixels, place, axis=_HEIGHT),
                nodes("Unsqueeze", weight, [0, 2, 3]),
            ),
            np.int32(65536),
        )
        for place, weight in _neighbours(nodes, old[0], new[0], is_clipped=False)
    ]
    return nodes("Div", nodes("Add", nodes("Add", *rows), np.int32(2)), np.int32(4))


def _neighbours(nodes: _Nodes, old: Any, new: Any, is_clipped: bool) -> list[tuple[str, str]]:
    """Add the places and weights of the two pixels that each new one lies between.

    Beyond the border, the nearest pixel has all the weight if it `is_clipped`; else it is both.
    """
    wide = [nodes.cast(side, TensorProto.DOUBLE) for side in (old, new)]
    step = nodes("Reciprocal", nodes("Div", wide[1], wide[0]))
    numbers = nodes("Range", np.int64(0), new, np.int64(1))
    centres = nodes("Add", nodes.cast(numbers, TensorProto.DOUBLE), np.float64(0.5))
    places = nodes("Sub", nodes("Mul", centres, step), np.float64(0.5))
    places = nodes.cast(places, TensorProto.FLOAT)
    floor = nodes("Floor", places)
    part = nodes("Sub", places, floor)
    first = nodes.cast(floor, TensorProto.INT64)
    last = nodes("Sub", old, np.int64(1))
    if is_clipped:
        inside = nodes(
            "And", nodes("Less", first, last), nodes("GreaterOrEqual", first, np.int64(0))
        )
        part = nodes("Mul", part, nodes.cast(inside, TensorProto.FLOAT))
    parts = (nodes("Sub", np.float32(1), part), part)
    both = (first, nodes("Add", first, np.int64(1)))
    return [
        (
            nodes("Clip", place, np.int64(0), last),
            nodes.cast(nodes("Round", nodes("Mul", weight, np.float32(_ONE))), TensorProto.INT32),
        )
        for place, weight in zip(both, parts, strict=True)
    ]


def _average(nodes: _Nodes, pixels: str, small: Sequence[str], blocks: Sequence[str]) -> str:
    """Add cv2.resize with INTER_AREA of whole blocks, which rounds those of 2x2 in another way."""
    one = np.array([1])
    sides = [
        nodes("Reshape", each, one) for pair in zip(small, blocks, strict=True) for each in pair
    ]
    shape = nodes("Concat", np.array([-1]), *sides, np.array([3]), axis=0)
    total = nodes("ReduceSum", nodes("Reshape", pixels, shape), np.array([2, 4]), keepdims=0)
    count = nodes.cast(nodes("Mul", *blocks), TensorProto.FLOAT)
    # Not Div: of 1 / count * total a runtime makes total / count, which rounds otherwise.
    mean = nodes("Mul", nodes.cast(total, TensorProto.FLOAT), nodes("Reciprocal", count))
    rounded = nodes.cast(nodes("Round", mean), TensorProto.INT32)
    of_four = nodes("Div", nodes("Add", total, np.int32(2)), np.int32(4))
    are_two = [nodes("Equal", block, np.int64(2)) for block in blocks]
    return nodes("Where", nodes("And", *are_two), of_four, rounded)
