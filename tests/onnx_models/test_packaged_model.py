"""The model of the package, exported: its answers are those that it gives with PyTorch."""

import numpy as np
import pytest

import wbcclf.onnx
from wbcclf import list_image_folder, load_model
from wbcclf.inspection import predict_files

EACH = 8  # pictures of each laboratory
# Of probabilities and familiarity. On 520 pictures they differed by 1e-6 and 1.1e-5 at most.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def without_torch(packaged_onnx):
    return wbcclf.onnx.load(packaged_onnx)


@pytest.mark.parametrize("laboratory", ["raabin", "pbc/original-size", "blood-cells/TEST"])
def test_answers_on_real_pictures(without_torch, laboratory, wbcclf_data):
    paths = list_image_folder(wbcclf_data / laboratory).paths
    paths = paths[:: max(1, len(paths) // EACH)]
    (expected,) = predict_files(load_model("wbcclf:blood-cells"), paths.tolist())
    answers = without_torch.answer(paths)
    assert answers.labels.tolist() == expected.labels.tolist()
    np.testing.assert_array_equal(answers.found, expected.found)
    np.testing.assert_allclose(answers.probabilities, expected.probabilities, atol=TOLERANCE)
    np.testing.assert_allclose(answers.familiarity, expected.familiarity, atol=TOLERANCE)


def test_uncertain_pictures_are_the_same(without_torch, wbcclf_data):
    paths = list_image_folder(wbcclf_data / "raabin").paths
    paths = paths[:: len(paths) // 15]  # fewer than 20, of which strangeness would be told
    pipeline = load_model("wbcclf:blood-cells").set_params(classifier__rejection=0.01)
    (expected,) = predict_files(pipeline, paths.tolist())
    without_torch.rejection = 0.01
    found = without_torch.predict(paths).tolist()
    without_torch.rejection = None
    assert found == expected.labels.tolist()
    assert "uncertain" in found
