"""The network of a graph in whole numbers of 8 bits, and what that costs every class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from sklearn.utils import Bunch

from wbcclf._files import some
from wbcclf._labels import check_labels
from wbcclf._uncertainty import STRANGE
from wbcclf.classifiers.familiarity._description import THRESHOLDS, Description
from wbcclf.exporting._biases import correct_biases
from wbcclf.inspection.evaluation._compare import difference_interval
from wbcclf.model_selection import train_test_split_cells
from wbcclf.model_selection.intervals._intervals import check_groups
from wbcclf.onnx._format import CERTAINTY, FAMILIARITY

MOST_CALIBRATED = 200  # images; ranges are those of the farthest values

_OPERATORS = ["Conv", "Gemm", "MatMul"]
_TOGETHER = 8  # images that are run together


def in_int8(network: Any, outside: list[str], images: np.ndarray) -> Any:
    """Return a graph whose network has weights and activations of 8 bits.

    Weights have a scale for each channel of the output. The ranges of activations are those that
    `images` give, and biases are corrected by them. The first convolution and the last layer, which
    have next to no weights, stay in float32, as do biases and all outside of the network.

    Parameters
    ----------
    network : onnx.ModelProto
        As `network_graph` gives it, with its second result `outside`.
    images : ndarray of shape (n, height, width, 3), uint8
    """
    kept = set(outside)
    inner = [
        node.name
        for node in network.graph.node
        if node.op_type in _OPERATORS and node.name not in kept
    ]
    given = onnx.ModelProto()
    given.CopyFrom(network)  # quantize_static changes what it is given
    # Else it advises to simplify the graph first, which `network_graph` has done.
    given.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    with TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.onnx")
        quantize_static(
            given,
            path,
            _Images(network.graph.input[0].name, images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_OPERATORS,
            nodes_to_exclude=[*outside, inner[0], inner[-1]],
            per_channel=True,
            # Weights of 7 bits: on CPUs without VNNI, as most older ones, sums of products of
            # 8 bits would not fit into the 16 bits that they are added up in.
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # Of each few images the smallest and largest value, averaged: one outlier would make
            # all steps coarse.
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={
                "CalibMovingAverage": True,
                "CalibMovingAverageConstant": 0.05,
                # onnxruntime makes them whole numbers when it loads a model. In the file they
                # would take three numbers for each channel instead of one.
                "QuantizeBias": False,
            },
        )
        found = onnx.load(path)
    correct_biases(network, found, _Images(network.graph.input[0].name, images).batches)
    _signs_in_int8(found.graph)
    return found


def _signs_in_int8(graph: Any) -> None:
    """Have 8 bits for constants whose values differ in their sign only: nothing is lost.

    :class:`Predictor` sums up features with such ones, which are 1% of a small network.
    """
    for tensor in [*graph.initializer]:
        if tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        values = numpy_helper.to_array(tensor)
        scale = np.abs(values).max()
        if scale and (np.abs(values) == scale).all():
            names = [f"{tensor.name}/{part}" for part in ("signs", "scale")]
            parts = [np.sign(values).astype(np.int8), np.asarray(scale)]
            graph.initializer.extend(map(numpy_helper.from_array, parts, names))
            graph.initializer.remove(tensor)
            node = onnx.helper.make_node("DequantizeLinear", names, [tensor.name])
            graph.node.insert(0, node)


class _Images(CalibrationDataReader):
    """What a graph is calibrated on, a few images at a time."""

    def __init__(self, name: str, images: np.ndarray) -> None:
        starts = range(0, len(images), _TOGETHER)
        self.batches: Iterator = iter([{name: images[k : k + _TOGETHER]} for k in starts])

    def get_next(self) -> Any:
        """Return the next few, or None."""
        return next(self.batches, None)


def recalls(
    y: np.ndarray, groups: np.ndarray, in_float: np.ndarray, in_int8: np.ndarray
) -> list[Bunch]:
    """Return for every class in `y` how much of its recall is lost.

    Parameters
    ----------
    y, in_float, in_int8 : ndarray of shape (n,)
        The true labels, and those that the two files give.
    groups : ndarray of shape (n,)
    """
    rows = []
    for label in np.unique(y):
        shown = y == label
        cells, codes = np.unique(groups[shown], return_inverse=True)
        before, after = (labels[shown] == label for labels in (in_float, in_int8))
        share = 1 / shown.sum()
        difference, interval = difference_interval(
            share * np.bincount(codes, after.astype(int) - before), share * np.bincount(codes)
        )
        rows.append(
            Bunch(
                label=label.item(),
                n_images=int(shown.sum()),
                n_groups=len(cells),
                float32=float(before.mean()),
                int8=float(after.mean()),
                difference=difference,
                difference_interval=interval,
            )
        )
    return rows


def halves(
    y: Any, groups: Any, n_images: int, classes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return labels and groups of images, rows to calibrate on and rows to compare on.

    Raises
    ------
    ValueError
        If there is not one label for each image, one is unknown, or a class has one group only.
    """
    y = check_labels(y, "y")
    if len(y) != n_images:
        raise ValueError(f"y holds {len(y)} labels, images {n_images} images: give one for each.")
    unknown = sorted({*y.tolist()} - {*classes.tolist()})
    if unknown:
        raise ValueError(
            f"y holds classes that the model does not know: {some([*map(str, unknown)], 5)}. It "
            f"knows {', '.join(map(str, classes))}. Rename them, or leave these images out."
        )
    groups = check_groups(np.arange(n_images) if groups is None else groups, n_images, "y")
    for label in np.unique(y):
        if len(np.unique(groups[y == label])) < 2:
            raise ValueError(
                f"int8 needs images of two cells or more of each class in y, one to calibrate on "
                f"and one to compare on; {label} has one. Give more, or leave the class out."
            )
    calibrating, compared = train_test_split_cells(y, groups, test_size=0.5)
    order = np.random.RandomState(0).permutation(len(calibrating))
    return y, groups, calibrating[order[:MOST_CALIBRATED]], compared


def check_loss(rows: list[Bunch], allow_loss: float) -> None:
    """Raise a ValueError if a class loses more recall than so many points."""
    for row in rows:
        if -100 * row.difference > allow_loss + 1e-9:
            low, high = (100 * each for each in row.difference_interval)
            raise ValueError(
                f"In int8 the recall of {row.label} is {row.int8:.3f}, in float32 "
                f"{row.float32:.3f}: {100 * row.difference:+.1f} points (95% interval {low:+.1f} "
                f"to {high:+.1f}; {row.n_images} images, {row.n_groups} cells). Nothing was "
                f"written. Give more images, allow_loss={-100 * row.difference:.1f} (--allow-loss) "
                "or more to accept it, or leave out int8."
            )


def thresholds_of(
    description: Description, outputs: dict[str, np.ndarray], is_right: np.ndarray
) -> Description:
    """Return a description whose thresholds hold for images like these, in int8."""
    called = (outputs[CERTAINTY] >= THRESHOLDS[:, None]) & (outputs[FAMILIARITY] >= STRANGE)
    calls = np.array([called.sum(1), (called & ~is_right).sum(1)], dtype=np.int64)
    return replace(description, calls=calls)
