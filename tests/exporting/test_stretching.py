"""Pictures that a graph stretches are those that ImageLoader stretches, pixel by pixel."""

import numpy as np
import pytest

from wbcclf.datasets._decode import resize

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'wbcclf[onnx]'")
from onnx import TensorProto, helper  # noqa: E402

from wbcclf.exporting._parity import open_session  # noqa: E402
from wbcclf.exporting._stretching import add_stretching  # noqa: E402

SIZES = [(32, 32), (64, 48), (7, 90)]


@pytest.fixture(scope="module")
def sessions():
    """Return graphs that do nothing but stretch, by the size that they stretch to."""
    found = {}
    for size in SIZES:
        batch = helper.make_tensor_value_info("squares", TensorProto.UINT8, ("n", *size, 3))
        result = helper.make_tensor_value_info("result", TensorProto.UINT8, ("n", *size, 3))
        node = helper.make_node("Identity", ["squares"], ["result"])
        graph = helper.make_graph([node], "nothing", [batch], [result])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        add_stretching(model, "images", size)
        onnx.checker.check_model(model, full_check=True)
        found[size] = open_session(model.SerializeToString())
    return found


@pytest.mark.parametrize("size", SIZES)
def test_pixels_are_the_same_for_all_sizes(size, sessions):
    random = np.random.default_rng(0)
    sides = random.integers(1, 300, (40, 2)).tolist()
    # No change; whole blocks, 2x2 and others, along one side or both; and one side that grows.
    blocks = [(1, 1), (2, 2), (2, 1), (1, 2), (1, 14), (14, 1), (3, 2), (13, 14)]
    sides += [(size[0] * rows, size[1] * columns) for rows, columns in blocks]
    sides += [(size[0] // 2, 3 * size[1]), (size[0], 2 * size[1] + 1), (1, 1)]
    for height, width in sides:
        pictures = random.integers(0, 256, (2, height, width, 3), np.uint8)
        [found] = sessions[size].run(None, {"images": pictures})
        expected = np.stack([resize(each, size) for each in pictures])
        assert np.array_equal(found, expected), (height, width)
