"""The model that comes with the package: no training, no network, and it says what it is."""

from pathlib import Path

import numpy as np
import pytest

from wbcclf import CNNClassifier, list_image_folder, load_model, make_blood_cells, save_model
from wbcclf.backbones import describe, get_backbone
from wbcclf.persistence import find_model

NAME = "wbcclf:blood-cells"
CLASSES = [
    *("basophil", "eosinophil", "erythroblast", "ig"),
    *("lymphocyte", "monocyte", "neutrophil", "platelet"),
]
CELLS = make_blood_cells(12, image_size=160, random_state=5)


def test_it_predicts_pictures_of_any_size():
    model = load_model(NAME)
    assert model.classes_.tolist() == CLASSES
    pictures = [CELLS.images[0], CELLS.images[1][:150, :140], CELLS.images[2]]
    probabilities = model.predict_proba(pictures)
    assert probabilities.shape == (3, 8)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


def test_it_is_small():
    assert Path(find_model(NAME)).stat().st_size < 7e6


def test_a_copy_that_is_saved_predicts_the_same(tmp_path):
    model = load_model(NAME)
    save_model(model, tmp_path / "copy.wbcclf")
    copy = load_model(tmp_path / "copy.wbcclf")
    images = list(CELLS.images[:4])
    np.testing.assert_array_equal(copy.predict_proba(images), model.predict_proba(images))


def test_a_name_that_there_is_not_says_which_there_is():
    with pytest.raises(ValueError, match=f"no model 'wbcclf:bone-marrow', but '{NAME}'"):
        load_model("wbcclf:bone-marrow")
    with pytest.raises(FileNotFoundError, match=f"comes with wbcclf is '{NAME}'"):
        load_model("blood-cells")


@pytest.mark.parametrize("name", [NAME, "wbcclf:mine"])
def test_a_model_is_not_saved_under_such_a_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = load_model(NAME)
    with pytest.raises(ValueError, match=f"{name}' cannot be the file of a model"):
        save_model(model, name)
    assert not list(tmp_path.iterdir())
    save_model(model, f"./{name}")
    assert load_model(f"./{name}").classes_.tolist() == CLASSES


def test_trainings_start_from_it():
    images = make_blood_cells(16, classes=2, image_size=48, random_state=0)
    clf = CNNClassifier("compact_cnn", max_steps=1, device="cpu", random_state=0)
    clf.fit(images.images, images.target)
    assert clf.weights_report_.missing == ()
    assert (
        Path(clf.weights_report_.source) == get_backbone("compact_cnn").weights["blood-cells"].path
    )
    assert "CC BY 4.0" in str(describe("compact_cnn"))


def test_it_knows_cells_that_it_has_not_seen(wbcclf_data):
    # The official test photographs: cells that no picture of its training shows.
    listing = list_image_folder(wbcclf_data / "blood-cells" / "TEST_SIMPLE")
    predicted = load_model(NAME).predict(listing.paths)
    right = predicted == np.char.lower(listing.target.astype(str))
    assert right.mean() > 0.8  # of 71; chance among four classes is 0.25
