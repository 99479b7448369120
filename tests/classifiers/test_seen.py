"""Which images a classifier was trained on, as it says itself."""

import io
import zipfile

import numpy as np
import pytest
from imblearn.pipeline import make_pipeline

from wbcclf import (
    SMOTE,
    Augmenter,
    SimpleCNNClassifier,
    adapt,
    load_model,
    make_blood_cells,
    save_model,
)
from wbcclf.classifiers.familiarity._seen import image_digests
from wbcclf.exceptions import ModelFormatError, WeightsMismatchError


@pytest.fixture(scope="module")
def cells():
    return make_blood_cells(90, classes=2, image_size=32, random_state=0)


def quick(**params):
    return SimpleCNNClassifier(**{"max_steps": 1, "device": "cpu", "random_state": 0} | params)


@pytest.fixture(scope="module")
def fitted(cells):
    return quick().fit(cells.images[:60], cells.target[:60])


def test_training_images_are_known_again(fitted, cells):
    assert fitted.was_trained_on(cells.images).tolist() == [True] * 60 + [False] * 30
    assert fitted.was_trained_on(cells.images[:60].reshape(60, -1)).all()
    assert fitted.was_trained_on(cells.images[:60].astype(float)).all()
    assert not fitted.was_trained_on(cells.images[:60, ::-1]).any()


def test_another_fit_forgets_them_and_more_training_adds(cells):
    clf = quick().fit(cells.images[:30], cells.target[:30])
    clf.partial_fit(cells.images[30:40], cells.target[30:40])
    assert clf.was_trained_on(cells.images).sum() == 40
    clf.set_params(warm_start=True).fit(cells.images[50:], cells.target[50:])
    assert clf.was_trained_on(cells.images).sum() == 80
    clf.set_params(warm_start=False).fit(cells.images[50:], cells.target[50:])
    assert clf.was_trained_on(cells.images).sum() == 40
    assert quick().partial_fit(cells.images, cells.target).was_trained_on(cells.images).all()


def test_images_that_were_held_out_or_weigh_nothing_were_not_trained_on(cells):
    clf = quick(early_stopping=True).fit(cells.images, cells.target)
    trained = np.zeros(90, bool)
    trained[clf.train_indices_] = True
    assert (clf.was_trained_on(cells.images) == trained).all()
    weight = np.arange(90) < 50
    clf = quick().fit(cells.images, cells.target, sample_weight=weight)
    assert (clf.was_trained_on(cells.images) == weight).all()


def test_copies_are_not_kept(cells):
    model = make_pipeline(Augmenter(), SMOTE(random_state=0), quick())
    model.fit(cells.images, cells.target)
    assert len(model[-1]._trained_on) == 90
    assert model[-1].was_trained_on(cells.images).all()


def test_weights_bring_their_own(cells, tmp_path):
    first = quick().fit(cells.images[:30], cells.target[:30])
    save_model(first, tmp_path / "first.wbcclf")
    second = quick(weights=tmp_path / "first.wbcclf").fit(cells.images[60:], cells.target[60:])
    assert second.was_trained_on(cells.images).sum() == 60


def test_labelled_cells_that_it_was_adapted_to(cells):
    home = make_blood_cells(240, classes=2, image_size=32, random_state=1)
    clf = quick(max_steps=60, lr=3e-3).fit(home.images, home.target)
    images = cells.images[..., ::-1]
    adapted = adapt(clf, images[:60], cells.target[:60])
    assert adapted is not clf
    assert adapted.was_trained_on(images).tolist() == [True] * 60 + [False] * 30
    assert adapted.was_trained_on(home.images).all()
    assert not clf.was_trained_on(images).any()


def test_a_file_holds_them(fitted, cells, tmp_path):
    save_model(fitted, tmp_path / "m.wbcclf")
    loaded = load_model(tmp_path / "m.wbcclf")
    assert (loaded.was_trained_on(cells.images) == fitted.was_trained_on(cells.images)).all()


@pytest.mark.parametrize(
    "made_up", [np.array([2, 1], np.uint64), np.array([1, 2], np.int64), np.ones((1, 1), np.uint64)]
)
def test_digests_that_fit_never_makes_are_refused(fitted, tmp_path, made_up):
    save_model(fitted, tmp_path / "good.wbcclf")
    content = io.BytesIO()
    np.save(content, made_up)
    with (
        zipfile.ZipFile(tmp_path / "good.wbcclf") as good,
        zipfile.ZipFile(tmp_path / "bad.wbcclf", "w") as bad,
    ):
        for name in good.namelist():
            is_it = name == "trained_on.npy"
            bad.writestr(name, content.getvalue() if is_it else good.read(name))
    with pytest.raises(ModelFormatError, match="trained_on cannot have been kept"):
        load_model(tmp_path / "bad.wbcclf")
    images = make_blood_cells(8, classes=2, image_size=32, random_state=0)
    with pytest.raises(WeightsMismatchError, match=r"bad.wbcclf could not be read.*trained_on"):
        quick(weights=tmp_path / "bad.wbcclf").fit(images.images, images.target)


def test_a_model_of_an_older_version_says_that_it_does_not_know(cells, tmp_path):
    clf = quick().fit(cells.images, cells.target)
    clf._trained_on = None
    save_model(clf, tmp_path / "m.wbcclf")
    loaded = load_model(tmp_path / "m.wbcclf")
    with pytest.raises(ValueError, match="an older version"):
        loaded.was_trained_on(cells.images)
    # What was trained on before stays unknown.
    loaded.partial_fit(cells.images, cells.target)
    with pytest.raises(ValueError, match="an older version"):
        loaded.was_trained_on(cells.images)


def test_digests_do_not_depend_on_layout_and_tell_large_images_apart():
    images = np.random.RandomState(0).randint(256, size=(4, 200, 70, 3), dtype=np.uint8)
    digests = image_digests(images)
    assert digests.dtype == np.uint64
    assert len(set(digests.tolist())) == 4
    assert (image_digests(np.asfortranarray(images)) == digests).all()
    assert (image_digests(images, np.array([2, 0])) == digests[[2, 0]]).all()
