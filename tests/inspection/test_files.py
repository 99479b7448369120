"""Predictions for files: what is taken for files, and for a model."""

import shutil
import struct
import threading

import numpy as np
import pandas as pd
import pytest
from imblearn.pipeline import Pipeline
from PIL import Image
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from wbcclf import (
    Augmenter,
    DeepFeatures,
    ImageLoader,
    SimpleCNNClassifier,
    list_image_folder,
    make_blood_cells,
)
from wbcclf.datasets import _reading
from wbcclf.inspection import _files, predict_files


@pytest.fixture(scope="module")
def cells():
    return make_blood_cells(20, classes=2, image_size=24, random_state=0)


@pytest.fixture(scope="module")
def folder(cells, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells")
    (folder / "below").mkdir()
    for number, image in enumerate(cells.images):
        part = "below" if number < 3 else "."
        Image.fromarray(image).save(folder / part / f"{number}.png")
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def paths(folder):
    return list_image_folder(folder, labelled=False).paths.tolist()


@pytest.fixture(scope="module")
def model(cells):
    return SimpleCNNClassifier(max_epochs=1, device="cpu", random_state=0).fit(
        cells.images, cells.target
    )


@pytest.fixture(scope="module")
def features(cells):
    return DeepFeatures("simple_cnn", weights=None, random_state=0).fit(cells.images)


def merged(chunks):
    chunks = list(chunks)
    return (
        [path for chunk in chunks for path in chunk.paths],
        np.concatenate([chunk.labels for chunk in chunks]).tolist(),
        np.concatenate([chunk.probabilities for chunk in chunks]),
        [item for chunk in chunks for item in chunk.skipped],
    )


def test_files_are_predicted_in_order_whatever_the_chunks(model, paths, tmp_path):
    broken = str(tmp_path / "broken.png")
    (tmp_path / "broken.png").write_bytes(b"")
    read, labels, probabilities, skipped = merged(
        predict_files(model, [*paths[:5], broken, *paths[5:]], chunk_size=4)
    )
    assert read == paths
    assert [path for path, _ in skipped] == [broken]
    images = ImageLoader().transform(paths)
    assert labels == model.predict(images).tolist()
    # Another batch composition may round differently in the last bits of float32.
    np.testing.assert_allclose(probabilities, model.predict_proba(images), atol=1e-6)


def test_a_broken_file_costs_the_others_nothing_and_its_reason_is_whole(
    model, paths, tmp_path, monkeypatch
):
    (tmp_path / "planes.tif").write_bytes(sixteen_bit_planes())
    broken = [str(tmp_path / "planes.tif"), str(tmp_path / "gone.png")]
    read = []
    read_image = _reading.read_image
    monkeypatch.setattr(
        _reading, "read_image", lambda path, *rest: read.append(path) or read_image(path, *rest)
    )
    first, second = predict_files(model, [*paths[:4], *broken, broken[1]], chunk_size=5)
    assert first.paths == paths[:4] and second.paths == []
    assert first.skipped == [
        (broken[0], "16-bit TIFF with a separate plane for each colour: not supported")
    ]
    assert second.skipped == [(broken[1], "no such file")] * 2
    assert sorted(read) == sorted([*paths[:4], *broken, broken[1]])


def sixteen_bit_planes():
    """Return a TIFF of one black pixel."""
    tags = [(256, 1), (257, 1), (258, 16), (259, 1), (262, 2), (273, 122), (277, 3), (279, 6)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in [*tags, (284, 2)])
    return struct.pack("<2sHIH", b"II", 42, 8, 9) + entries + bytes(10)


@pytest.mark.parametrize("kind", [str, lambda folder: folder])
def test_a_folder_is_all_images_below_it(kind, model, folder, paths):
    read, _, _, skipped = merged(predict_files(model, kind(folder), chunk_size=6))
    assert read == paths
    assert len(read) == 20
    assert [path for path, _ in skipped] == [str(folder / "notes.txt")]


@pytest.mark.parametrize(
    "kind", [list, tuple, np.array, pd.Series, iter, lambda paths: (path for path in paths)]
)
def test_several_files_may_come_in_any_form(kind, model, paths):
    assert merged(predict_files(model, kind(paths[:3])))[0] == paths[:3]


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_one_file_is_one_file(kind, model, folder):
    [chunk] = predict_files(model, kind(folder / "below" / "1.png"))
    assert chunk.paths == [str(folder / "below" / "1.png")]
    assert chunk.probabilities.shape == (1, 2)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (np.zeros((2, 24, 24, 3), np.uint8), TypeError, r"ndarray of shape.*model.predict\(images"),
        ([np.zeros((24, 24, 3)), np.zeros((20, 20, 3))], TypeError, "number 0 is of type ndarray"),
        (["a.png", 3], TypeError, "number 1 is of type int"),
        (np.arange(3), TypeError, "number 0 is of type int64"),
        (pd.DataFrame({"path": ["a.png"]}), TypeError, r"DataFrame of shape \(1, 1\)"),
        ({"paths": ["a.png"]}, TypeError, "got dict.*of a listing, give paths"),
        (b"a.png", TypeError, "got bytes"),
        (None, TypeError, "got NoneType"),
        (7, TypeError, "got int"),
        ([], ValueError, "paths is empty"),
        ("nowhere", FileNotFoundError, "paths='nowhere' is neither"),
    ],
)
def test_what_are_no_files_is_refused_at_the_call(wrong, error, message, model):
    with pytest.raises(error, match=message):
        predict_files(model, wrong)


@pytest.mark.parametrize("chunk_size", [0, -1, 2.5, None])
def test_a_wrong_chunk_size_is_refused_at_the_call(chunk_size, model, paths):
    with pytest.raises(ValueError, match=f"chunk_size={chunk_size}"):
        predict_files(model, paths, chunk_size=chunk_size)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda m, f, c: "model.wbcclf", TypeError, "model must.*got str.*load_model"),
        (lambda m, f, c: SimpleCNNClassifier, TypeError, "got the class SimpleCNNClassifier"),
        (lambda m, f, c: SimpleCNNClassifier(), NotFittedError, "not fitted"),
        (
            lambda m, f, c: Pipeline([("a", Augmenter()), ("c", SimpleCNNClassifier())]),
            NotFittedError,
            "not fitted",
        ),
        (lambda m, f, c: GridSearchCV(m, {}), NotFittedError, "not fitted"),
        (
            lambda m, f, c: make_pipeline(DeepFeatures(), LogisticRegression().fit(*c)),
            NotFittedError,
            "DeepFeatures",
        ),
        (lambda m, f, c: f, TypeError, "DeepFeatures has no classes"),
        (
            lambda m, f, c: make_pipeline(f, LinearSVC().fit([[0], [1]], ["a", "b"])),
            TypeError,
            "LinearSVC has no predict_p",
        ),
        (
            lambda m, f, c: CalibratedClassifierCV(FrozenEstimator(m)).fit(*c),
            TypeError,
            r"CalibratedClassifierCV, which does not store.*make_pipeline\(ImageLoader",
        ),
        (
            lambda m, f, c: SimpleCNNClassifier(max_epochs=1).fit(c[0][:, :576], c[1]),
            ValueError,
            "grey",
        ),
    ],
)
def test_what_is_no_model_is_refused_at_the_call(make, error, message, model, features, cells):
    rows = cells.images.reshape(20, -1)
    with pytest.raises(error, match=message):
        predict_files(make(model, features, (rows, cells.target)), ["a.png"])


@pytest.mark.parametrize(
    "make",
    [
        lambda m, f, x, y: Pipeline([("copies", Augmenter()), ("model", m)]),
        lambda m, f, x, y: make_pipeline(ImageLoader(image_size=24), m),
        lambda m, f, x, y: make_pipeline(f, LogisticRegression()).fit(x, y),
        lambda m, f, x, y: GridSearchCV(make_pipeline(f, LogisticRegression()), {}, cv=2).fit(x, y),
        lambda m, f, x, y: make_pipeline(
            ImageLoader(), CalibratedClassifierCV(FrozenEstimator(m)).fit(x, y)
        ),
    ],
    ids=["sampler", "loader", "features", "search", "calibrated"],
)
def test_whatever_predicts_images_predicts_files(make, model, features, cells, paths):
    made = make(model, features, cells.images, cells.target)
    _, labels, probabilities, _ = merged(predict_files(made, paths, chunk_size=7))
    images = ImageLoader().transform(paths)
    has_loader = hasattr(made, "steps") and isinstance(made[0], ImageLoader)
    X = paths if has_loader else images
    assert labels == made.predict(X).tolist()
    np.testing.assert_allclose(probabilities, made.predict_proba(X), atol=1e-5)


def test_labels_are_those_that_a_threshold_gives(model, cells, paths):
    always = FixedThresholdClassifier(
        FrozenEstimator(model),
        threshold=0.0,
        pos_label="neutrophil",
        response_method="predict_proba",
    ).fit(cells.images, cells.target)
    _, labels, probabilities, _ = merged(predict_files(make_pipeline(ImageLoader(), always), paths))
    assert set(labels) == {"neutrophil"}
    assert probabilities[:, 0].max() > 0.5  # the other class is more probable


def test_nothing_but_the_paths_is_read_before_the_first_chunk(model, paths, tmp_path):
    later = tmp_path / "later.png"
    chunks = predict_files(model, [later])
    shutil.copy(paths[0], later)
    assert next(chunks).paths == [str(later)]


def test_reading_ahead_changes_nothing_and_ends_with_the_chunks(model, paths, monkeypatch):
    def digits(chunks):
        return [(chunk.paths, chunk.probabilities.tobytes()) for chunk in chunks]

    beside = digits(predict_files(model, paths, chunk_size=6))
    chunks = predict_files(model, paths, chunk_size=6)
    next(chunks)
    chunks.close()
    assert not [each for each in threading.enumerate() if each.name.startswith("wbcclf")]
    monkeypatch.setattr(_files, "ahead", iter)
    assert digits(predict_files(model, paths, chunk_size=6)) == beside
