"""What a notebook shows of estimators and of results."""

import inspect
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from imblearn.pipeline import Pipeline
from sklearn.base import BaseEstimator
from sklearn.utils import estimator_html_repr

import wbcclf
from wbcclf.backbones import describe

NEEDED = {
    "Cache": ("folder",),
    "ConformalClassifier": (wbcclf.SimpleCNNClassifier(),),
    "ImageSampler": (wbcclf.SMOTE(),),
}
ESTIMATORS = [
    name
    for name in wbcclf.__all__
    if inspect.isclass(getattr(wbcclf, name)) and issubclass(getattr(wbcclf, name), BaseEstimator)
]


def shown(estimator):
    """Return the text of an HTML repr, which has no links."""
    parser = Page()
    parser.feed(estimator_html_repr(estimator))
    parser.close()
    assert parser.links == []
    return " ".join(parser.words)


class Page(HTMLParser):
    """Collects links, and the words outside of styles and scripts."""

    def __init__(self):
        super().__init__()
        self.links, self.words, self.hidden = [], [], False

    def handle_starttag(self, tag, attrs):
        self.hidden = tag in ("style", "script")
        self.links += [value for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data):
        if not self.hidden:
            self.words += data.split()


def test_the_estimators_are_found():
    assert len(ESTIMATORS) > 50


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_shows_its_parameters(name):
    estimator = getattr(wbcclf, name)(*NEEDED.get(name, ()))
    text = shown(estimator)
    assert name in text
    for parameter in estimator.get_params(deep=False):
        assert f"{parameter} " in text


@pytest.fixture(scope="module")
def cells():
    return wbcclf.make_blood_cells(40, classes=2, image_size=32, random_state=0)


@pytest.fixture(scope="module")
def steps():
    return [
        ("augmenter", wbcclf.Augmenter(n_copies=1, random_state=0)),
        ("smote", wbcclf.SMOTE(random_state=0)),
        (
            "clf",
            wbcclf.SimpleCNNClassifier(
                max_epochs=1,
                device="cpu",
                random_state=0,
                loss=wbcclf.FocalLoss(gamma=1.5),
                early_stopping=wbcclf.EarlyStopping(patience=3),
            ),
        ),
    ]


def test_a_pipeline_shows_its_steps_and_what_was_set(steps):
    crop = wbcclf.CellCropper(background="normalise")
    pipeline = Pipeline([("loader", wbcclf.ImageLoader(32, crop=crop)), *steps])
    text = shown(pipeline)
    for name in ("ImageLoader", "Augmenter", "SMOTE", "SimpleCNNClassifier", "Not fitted"):
        assert name in text
    assert "FocalLoss(gamma=1.5)" in text and "EarlyStopping(patience=3)" in text
    assert "CellCropper(background='normalise')" in text


@pytest.mark.filterwarnings("error")
def test_a_fitted_one_shows_what_was_learnt(steps, cells, tmp_path):
    pipeline = Pipeline(steps).fit(cells.images, cells.target)
    wbcclf.save_model(pipeline, tmp_path / "m.wbcclf")
    for model in (pipeline, wbcclf.load_model(tmp_path / "m.wbcclf")):
        text = shown(model)
        assert "Fitted" in text and "Not fitted" not in text
        assert "['lymphocyte','neutrophil']" in text and "(32, 32, 3)" in text


def test_a_class_whose_name_is_markup_is_text(cells):
    names = np.where(cells.target == cells.target[0], "<script>alert(1)</script>", "b")
    clf = wbcclf.SimpleCNNClassifier(max_epochs=1, device="cpu", random_state=0)
    page = estimator_html_repr(clf.fit(cells.images, names))
    assert "<script>alert" not in page


def test_a_cell_is_one_line_and_a_network_a_table():
    image = wbcclf.make_blood_cells(5, image_size=128, random_state=0).images[0]
    [cell] = wbcclf.find_cells(image)
    assert re.fullmatch(r"Cell\(bbox=\([\d, ]+\), score=[\d.]+\)", repr(cell))
    page = describe("simple_cnn")._repr_html_()
    assert page.startswith("<pre>simple_cnn\n") and page.count("\n") > 8
