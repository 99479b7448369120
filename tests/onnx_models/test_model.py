"""Models of ONNX files: what they answer, and what they refuse."""

import json
import sys

import cv2
import numpy as np
import onnx
import pytest
from onnx_models.drawn_model import CROP, METADATA, write_model

import wbcclf.onnx
from wbcclf import CellCropper, ImageLoader, make_blood_cells
from wbcclf.exceptions import (
    ImageReadError,
    ModelFormatError,
    SkippedFileWarning,
    UnfamiliarImagesWarning,
)
from wbcclf.onnx import _model
from wbcclf.onnx._format import sealed, unsealed

COLOURS = np.array([[200, 20, 10], [20, 210, 10], [10, 20, 200]], np.uint8)  # red, green, blue


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture(scope="module")
def model(path):
    return wbcclf.onnx.load(path, n_threads=2)


@pytest.fixture(scope="module")
def cropping(tmp_path_factory):
    path = tmp_path_factory.mktemp("cropping") / "model.onnx"
    return wbcclf.onnx.load(write_model(path, image_size=[32, 32], crop=CROP))


def plain(*colours, size=(20, 30)):
    return [np.full((*size, 3), colour, np.uint8) for colour in colours]


def expected(images):
    balance = images.mean(axis=(1, 2)) / 127.5 - 1
    odds = np.exp(4 * balance[:, ::-1])
    return odds / odds.sum(axis=1, keepdims=True)


def test_labels_of_a_batch_and_of_a_list(model):
    assert model.classes_.tolist() == ["blue", "green", "red"]
    batch = np.stack(plain(*COLOURS))
    assert model.predict(batch).tolist() == ["red", "green", "blue"]
    assert model.predict(plain(*COLOURS, size=(7, 50))).tolist() == ["red", "green", "blue"]
    shares = model.predict_proba(batch)
    assert shares.dtype == np.float32
    np.testing.assert_allclose(shares, expected(batch), atol=1e-6)
    np.testing.assert_allclose(model.familiarity(batch), batch[:, 0, 0, 0] / 255, atol=1e-6)


def test_pictures_are_stretched_as_a_loader_does(model, monkeypatch):
    monkeypatch.setattr(_model, "TOGETHER", 3 * 16 * 24)  # several batches, the last not full
    pictures = [
        *make_blood_cells(5, image_size=64, random_state=0).images,
        *make_blood_cells(5, image_size=(20, 90), random_state=0).images,
    ]
    images = ImageLoader(image_size=(16, 24)).transform(pictures)
    np.testing.assert_allclose(model.predict_proba(pictures), expected(images), atol=1e-6)


def test_pictures_are_cut_as_the_cropper_does(cropping):
    pictures = [
        *make_blood_cells(2, 2, image_size=96, random_state=5).images,
        *make_blood_cells(2, 2, image_size=(160, 128), random_state=6).images,
    ]
    squares, found = CellCropper(image_size=32).crop_pictures(pictures)
    answers = cropping.answer(pictures)
    np.testing.assert_allclose(answers.probabilities, expected(squares), atol=1e-6)
    assert found.all() and answers.found.all()


def test_a_picture_without_a_cell(cropping):
    pictures = [make_blood_cells(2, 2, image_size=96, random_state=5).images[0]]
    pictures += plain((230, 230, 230), size=(96, 96))
    with pytest.warns(UserWarning, match=r"found in 1 of 2 images.*\n  pictures\[1\]"):
        answers = cropping.answer(pictures)
    assert answers.found.tolist() == [True, False]


def test_a_picture_that_is_too_small_for_the_square(tmp_path):
    crop = CROP | {"scale": 400}
    model = wbcclf.onnx.load(write_model(tmp_path / "model.onnx", image_size=[32, 32], crop=crop))
    with pytest.raises(ValueError, match=r"wide as pictures\[0\], which is 20x20"):
        model.predict(plain((1, 2, 3), size=(20, 20)))


def test_no_pictures(model):
    for none in ([], np.empty((0, 5, 5, 3), np.uint8)):
        answers = model.answer(none)
        assert answers.labels.shape == answers.familiarity.shape == (0,)
        assert answers.probabilities.shape == (0, 3)


def test_files(model, tmp_path):
    for name, picture in zip(("a.png", "b.bmp", "c.jpg"), plain(*COLOURS), strict=True):
        cv2.imwrite(str(tmp_path / name), picture[..., ::-1])
    paths = sorted(tmp_path.iterdir())
    assert model.predict(paths).tolist() == ["red", "green", "blue"]
    assert model.predict([str(path) for path in paths]).tolist() == ["red", "green", "blue"]


def test_a_broken_file_does_not_lose_the_others(model, tmp_path):
    good, broken, missing = (tmp_path / name for name in ("good.png", "broken.png", "missing.png"))
    cv2.imwrite(str(good), plain(COLOURS[0])[0][..., ::-1])
    broken.write_bytes(good.read_bytes()[:60])
    paths = [broken, good, missing]
    with pytest.raises(ImageReadError, match=r"2 of 3 files[\s\S]*broken.png: trunc[\s\S]*no such"):
        model.predict(paths)
    answers = model.answer(paths, on_error="skip")
    assert answers.kept.tolist() == [1]
    assert answers.labels.tolist() == ["red"]
    assert answers.skipped[1] == (str(missing), "no such file")
    with pytest.warns(SkippedFileWarning, match="2 of 3 files"):
        assert model.answer(paths, on_error="warn").labels.tolist() == ["red"]
    with pytest.raises(ValueError, match="on_error must be one of"):
        model.answer(paths, on_error="ignore")


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ("cell.png", "pictures must be an array of paths, got a single one"),
        (np.zeros((2, 8, 8), np.uint8), r"pictures\[0\] must be an image"),
        (np.zeros((2, 8, 8, 4), np.uint8), r"pictures\[0\] must be an image"),
        (np.zeros((2, 8, 8, 3)), r"pictures\[0\] must be uint8"),
        ([1, 2], r"pictures\[0\] must be a path, got 1"),
    ],
)
def test_wrong_pictures(model, pictures, message):
    with pytest.raises((TypeError, ValueError), match=message):
        model.predict(pictures)


def test_rejection(path):
    model = wbcclf.onnx.load(path)
    assert model.rejection is None
    # Certain are those with much green; the last one is certain, but strange.
    pictures = plain((250, 180, 0), (250, 164, 0), (250, 150, 0), (0, 250, 0))
    assert model.predict(pictures).tolist() == ["red", "red", "red", "green"]
    model.rejection = 0.1
    assert model.predict(pictures).tolist() == ["red", "red", "uncertain", "uncertain"]
    model.rejection = 0.05
    assert model.predict(pictures).tolist() == ["uncertain"] * 4
    with pytest.raises(ValueError, match=r"a share that the model can keep \(0.05, 0.1\), got 0.2"):
        model.rejection = 0.2
    assert model.rejection == 0.05


def test_numbers_as_classes(tmp_path):
    changes = {"classes": [3, 1, 4], "rejection": 0.05}
    model = wbcclf.onnx.load(write_model(tmp_path / "model.onnx", **changes))
    assert model.predict(plain((250, 220, 0), (250, 100, 0))).tolist() == [4, -1]
    assert model.classes_.dtype.kind == "i"


def test_a_model_without_description(tmp_path):
    path = write_model(tmp_path / "model.onnx", described=False, thresholds={})
    model = wbcclf.onnx.load(path)
    answers = model.answer(plain(*COLOURS))
    assert answers.familiarity is None and answers.certainty is None
    with pytest.raises(ValueError, match="keeps no description"):
        model.familiarity(plain(*COLOURS))
    with pytest.raises(ValueError, match=r"can keep \(none\)"):
        model.rejection = 0.05


def test_unfamiliar_pictures(model):
    with pytest.warns(UnfamiliarImagesWarning, match="These 20 images do not look like"):
        model.predict(plain(*[(5, 200, 9)] * 20))


def test_the_model_tells_what_it_is(model, cropping):
    assert repr(model) == "OnnxModel(means, 3 classes, 16x24 pixels, rejection=None)"
    assert "32x32 pixels around the white cell" in repr(cropping)
    assert model.metadata["limits"] == METADATA["limits"]
    with pytest.raises(TypeError):
        model.metadata["limits"] = "none"


def test_files_that_are_no_models(path, tmp_path):
    data = path.read_bytes()
    other = tmp_path / "other.onnx"

    def refusal(content):
        other.write_bytes(content)
        with pytest.raises(ModelFormatError, match=r"other\.onnx: ") as error:
            wbcclf.onnx.load(other)
        return str(error.value)

    assert "not a wbcclf ONNX file" in refusal(b"")
    assert "not a wbcclf ONNX file" in refusal(unsealed(data))
    assert "cut off" in refusal(data[:-1])
    assert "damaged or changed" in refusal(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    assert "onnxruntime" in refusal(sealed(b"nothing that is a model"))
    write_model(other, format=2, version="9.0")
    assert "format 2 of wbcclf 9.0; this version reads format 1" in refusal(other.read_bytes())
    for text in ("[1]", "null", "no JSON"):
        strange = onnx.ModelProto.FromString(unsealed(data))
        strange.metadata_props[0].value = text
        message = refusal(sealed(strange.SerializeToString()))
        assert "metadata are not those of a model" in message and "Export" in message
    write_model(other, crop={"scale": "nucleus"})
    assert "metadata are not those of a model" in refusal(other.read_bytes())
    with pytest.raises(FileNotFoundError):
        wbcclf.onnx.load(tmp_path / "missing.onnx")


def test_every_onnx_reader_sees_one_model(path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    model = onnx.load(path)
    onnx.checker.check_model(model)
    properties = {each.key: each.value for each in model.metadata_props}
    assert json.loads(properties["wbcclf"])["classes"] == METADATA["classes"]
    assert sealed(unsealed(path.read_bytes())) == path.read_bytes()


@pytest.mark.parametrize("n_threads", [0, 1.5, True])
def test_wrong_threads(path, n_threads):
    with pytest.raises(ValueError, match="n_threads must be a positive int or None"):
        wbcclf.onnx.load(path, n_threads=n_threads)


def test_without_onnxruntime(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r'pip install "wbcclf\[onnx\]"'):
        wbcclf.onnx.load(path)
