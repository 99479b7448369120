"""Files that export_onnx writes, and those that it does not write."""

import copy
import json
import sys
from unittest import mock

import numpy as np
import pytest
from imblearn.pipeline import Pipeline

import wbcclf
import wbcclf.onnx
from wbcclf import (
    BackgroundRemover,
    CellCropper,
    CNNClassifier,
    ImageLoader,
    SimpleCNNClassifier,
    export_onnx,
    make_blood_cells,
)

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'wbcclf[onnx]'")
import onnxruntime  # noqa: E402

from wbcclf.classifiers.familiarity._features import _signs  # noqa: E402
from wbcclf.exporting import _graph, _parity  # noqa: E402
from wbcclf.onnx._format import KEY  # noqa: E402


@pytest.fixture(scope="module")
def cells():
    return make_blood_cells(160, classes=2, image_size=32, random_state=0)


@pytest.fixture(scope="module")
def classifier(cells):
    """Return a classifier with a description and thresholds, which predicts eight views."""
    train, held = slice(0, 80), slice(80, 160)
    clf = SimpleCNNClassifier(
        max_epochs=3, test_time_augmentation=True, rejection=0.2, device="cpu", random_state=0
    )
    return clf.fit(
        cells.images[train], cells.target[train], X_val=cells.images[held], y_val=cells.target[held]
    )


@pytest.fixture(scope="module")
def exported(classifier, cells, tmp_path_factory):
    """Return a file, what export_onnx says of it, and the graph before the stretching."""
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    graphs = []
    network_graph = _graph.network_graph
    with mock.patch.object(
        _graph, "network_graph", lambda given: graphs.append(network_graph(given)) or graphs[0]
    ):
        result = export_onnx(classifier, path, images=cells.images[80:100], limits="Drawn cells.")
    return path, result, graphs[0]


@pytest.fixture
def again(monkeypatch, exported):
    """Return the graph; whatever is exported now is this one, which PyTorch needs seconds for."""
    model, outside = copy.deepcopy(exported[2])
    monkeypatch.setattr(_graph, "network_graph", lambda classifier: (model, outside))
    return model


def about(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return json.loads(session.get_modelmeta().custom_metadata_map[KEY])


def test_the_file_says_what_the_model_says(classifier, exported, cells):
    path, result, _ = exported
    assert result.n_images == 1 + 3 + 17 + 24 + 20
    assert result.largest_difference < 1e-5
    assert result.n_bytes == path.stat().st_size
    session = _parity.open_session(path.read_bytes())
    pictures = cells.images[100:]
    found, expected = _parity.run(session, pictures), classifier._predict(pictures)
    for name in ("probabilities", "familiarity", "certainty"):
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], getattr(expected, name), atol=1e-4)


def test_the_file_describes_itself(classifier, exported):
    path, result, _ = exported
    found = about(path)
    assert found["format"] == 1 and found["version"] == wbcclf.__version__
    assert found["backbone"] == "simple_cnn" and found["image_size"] == [32, 32]
    assert found["classes"] == classifier.classes_.tolist()
    assert found["crop"] is None and found["int8"] is False and found["rejection"] == 0.2
    assert found["thresholds"]["0.2"] == classifier._description.threshold(0.2)
    assert "0.01" not in found["thresholds"]  # 80 validation images are too few for it
    assert "80 different pictures" in found["limits"] and "Drawn cells." in found["limits"]
    assert found["checked"]["images"] == result.n_images
    # Nothing of the machine that made it.
    assert b"wbcclf/exporting" not in path.read_bytes()


@pytest.mark.parametrize("share", [0.2000001, np.float32(0.3)])
def test_any_rejection_that_is_kept_can_be_loaded(share, again, classifier, cells, tmp_path):
    path, model = tmp_path / "model.onnx", copy.deepcopy(classifier).set_params(rejection=share)
    export_onnx(model, path)
    loaded = wbcclf.onnx.load(path, n_threads=1)
    assert loaded.rejection == share
    np.testing.assert_array_equal(loaded.predict(cells.images), model.predict(cells.images))


def test_rejection_needs_classes_that_leave_room_for_uncertain(again, classifier, tmp_path):
    model = copy.deepcopy(classifier)
    model.classes_ = np.array([False, True])
    with pytest.raises(ValueError, match="which labels of bool cannot be"):
        export_onnx(model, tmp_path / "model.onnx")
    assert not [*tmp_path.iterdir()]


def test_the_classifier_stays_as_it_was(classifier, exported, cells):
    assert classifier.device == "cpu" and classifier.precision == "float32"
    assert not list(exported[0].parent.glob("*.part*"))


def test_a_damaged_graph_is_not_written(again, classifier, tmp_path):
    weights = max(again.graph.initializer, key=lambda each: len(each.raw_data))
    values = onnx.numpy_helper.to_array(weights).copy()
    values.flat[::3] *= -1
    weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
    path = tmp_path / "model.onnx"
    with pytest.raises(ValueError, match=r"of (lymph|neutro).* for random picture 0 of 32x32"):
        export_onnx(classifier, path)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("probabilities", lambda x: np.full_like(x, np.nan), "another probability of"),
        ("probabilities", lambda x: x[:, :1], "of shape"),
        ("familiarity", lambda x: x + 0.01, "another familiarity for"),
        ("certainty", lambda x: x + 0.01, "another certainty for"),
    ],
)
def test_a_graph_that_says_something_else_is_not_written(
    name, change, message, again, classifier, tmp_path, monkeypatch
):
    run = _parity.run

    def changed(session, pictures):
        found = run(session, pictures)
        return {**found, name: change(found[name])}

    monkeypatch.setattr(_parity, "run", changed)
    with pytest.raises(ValueError, match=message):
        export_onnx(classifier, tmp_path / "model.onnx")
    assert not [*tmp_path.iterdir()]


def test_a_label_that_flips_is_named_even_where_probabilities_are_near():
    near = np.array([[0.50002, 0.49998]], np.float32)
    expected = wbcclf.classifiers.familiarity._prediction.Prediction(near, None, None, [False])
    tie = near[:, ::-1] * 0 + np.array([[0.5, 0.5]], np.float32)
    args = np.array(["a", "b"]), ["cell.png"], expected
    with pytest.raises(ValueError, match=r"calls cell\.png b \(0\.500020\), the model a"):
        _parity._compare(*args, {"probabilities": near[:, ::-1]})
    assert _parity._compare(*args, {"probabilities": tie}) < 1e-4


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([CellCropper(image_size=32)], "CellCropper as a step"),
        ([BackgroundRemover()], "BackgroundRemover as a step"),
    ],
)
def test_steps_that_a_file_cannot_hold_are_named(steps, message, classifier, cells, tmp_path):
    steps = [step.fit(cells.images[:4]) for step in steps]
    named = [(f"step{k}", step) for k, step in enumerate([*steps, classifier])]
    with pytest.raises(TypeError, match=message):
        export_onnx(Pipeline(named), tmp_path / "model.onnx")


def test_other_classifiers_and_scales_are_refused(classifier, cells, tmp_path):
    from sklearn.dummy import DummyClassifier

    dummy = Pipeline([("load", ImageLoader(32)), ("c", DummyClassifier().fit([[0], [1]], [0, 1]))])
    with pytest.raises(TypeError, match="not DummyClassifier"):
        export_onnx(dummy, tmp_path / "model.onnx")
    small = CNNClassifier(max_epochs=1, device="cpu", random_state=0)
    small.fit(cells.images[:8] / np.float32(255), cells.target[:8])
    with pytest.raises(ValueError, match="takes uint8"):
        export_onnx(small, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="allow_loss must be a number"):
        export_onnx(classifier, tmp_path / "model.onnx", allow_loss=-1)
    with pytest.raises(ValueError, match="needs images and y"):
        export_onnx(classifier, tmp_path / "model.onnx", int8=True)


def test_missing_packages_are_named(classifier, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r'needs onnxscript: pip install "wbcclf\[onnx\]"'):
        export_onnx(classifier, tmp_path / "model.onnx")


@pytest.fixture(scope="module")
def in_int8(classifier, exported, cells, tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "model.onnx"
    images, y = cells.images[80:], cells.target[80:]
    with mock.patch.object(_graph, "network_graph", lambda classifier: exported[2]):
        return path, export_onnx(
            *(classifier, path),
            images=images,
            y=y,
            groups=np.arange(80) // 2,
            int8=True,
            allow_loss=100,
        )


def test_int8_says_what_it_costs(in_int8, classifier):
    result = in_int8[1]
    found = result.int8
    assert found.n_calibrated == 40 and found.n_trained_on == 0
    assert [row.label for row in found.classes] == classifier.classes_.tolist()
    assert sum(row.n_images for row in found.classes) == 40
    for row in found.classes:
        assert row.difference == pytest.approx(row.int8 - row.float32)
        assert row.difference_interval[0] <= row.difference <= row.difference_interval[1]
        assert row.n_groups <= row.n_images
    assert 0 < found.largest_difference < 0.5 and found.familiarity_difference < 0.2
    assert found.n_bytes_float32 / result.n_bytes > 3.5


def test_int8_layers_run_in_whole_numbers(in_int8, tmp_path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "as_it_runs.onnx")
    onnxruntime.InferenceSession(in_int8[0], options, providers=["CPUExecutionProvider"])
    layers = [node.op_type for node in onnx.load(tmp_path / "as_it_runs.onnx").graph.node]
    # Biases are float32 in the file. The first convolution and the last layer stay so.
    assert layers.count("QLinearConv") == 4 and layers.count("Conv") == layers.count("Gemm") == 1


def test_int8_keeps_the_signs_of_familiarity(in_int8):
    graph = onnx.load(in_int8[0]).graph
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    [signs] = [
        constants[whole] * constants[scale]
        for whole, scale, *zero in (
            node.input for node in graph.node if node.op_type == "DequantizeLinear"
        )
        if not zero
    ]
    np.testing.assert_array_equal(signs, _signs(len(signs)))


def test_int8_thresholds_are_of_pictures_that_were_compared(in_int8, classifier):
    found = about(in_int8[0])
    assert found["int8"] is True and found["checked"]["images"] == 40
    assert found["rejection"] == 0.2 and "0.2" in found["thresholds"]
    assert "0.05" not in found["thresholds"]  # 40 pictures are too few for it


def test_a_class_that_loses_too_much_is_refused(again, classifier, cells, tmp_path, monkeypatch):
    from wbcclf.exporting import _int8

    monkeypatch.setattr(_int8, "in_int8", lambda network, *rest: _without_weights(network))
    with pytest.raises(ValueError, match=r"In int8 the recall of \w+ is 0\.000.*--allow-loss"):
        export_onnx(
            *(classifier, tmp_path / "model.onnx"),
            images=cells.images[80:],
            y=cells.target[80:],
            int8=True,
        )
    assert not [*tmp_path.iterdir()]


def _without_weights(network):
    network = copy.deepcopy(network)
    for tensor in network.graph.initializer:
        if tensor.name.startswith("network.head"):
            values = 0 * onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    return network


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"y": ["lymphocyte"] * 3}, "y holds 3 labels, images 4"),
        ({"y": ["lymphocyte", "neutrophil", "x", "x"]}, "does not know: x"),
        ({"y": ["lymphocyte"] * 3 + ["neutrophil"]}, "neutrophil has one"),
    ],
)
def test_int8_needs_labels_of_the_model_and_two_cells_of_each(
    given, message, classifier, cells, tmp_path
):
    with pytest.raises(ValueError, match=message):
        export_onnx(
            classifier, tmp_path / "model.onnx", images=cells.images[:4], int8=True, **given
        )
