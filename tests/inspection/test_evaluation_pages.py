"""The pages of evaluations and comparisons: what they say, whole and harmless."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.utils import Bunch

from wbcclf import ImageLoader, SimpleCNNClassifier, make_blood_cells
from wbcclf.inspection import (
    compare,
    cross_evaluate,
    evaluate,
    evaluate_predictions,
    learning_curve,
)
from wbcclf.inspection.pages._gallery import N_ERRORS, N_MAPPED

VOID = {"meta", "br", "img", "link", "input"}


class Reader(HTMLParser):
    """Checks that tags match, and collects ids, images, scripts and text."""

    def __init__(self, page):
        super().__init__()
        self.open, self.ids, self.sources, self.text, self.tags = [], [], [], [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.sources += [attrs[name] for name in ("src", "href", "xlink:href") if name in attrs]
        assert not [name for name in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)


def read(path):
    page = path.read_text(encoding="utf-8")
    reader = Reader(page)
    assert len(reader.ids) == len(set(reader.ids))
    outside = [
        each
        for each in reader.sources
        if not each.startswith(("data:", "#")) and "w3.org" not in each
    ]
    assert not outside
    return page, " ".join(" ".join(reader.text).split())


@pytest.fixture(scope="module")
def shown():
    """Return cells, of which some are for training, and a network that was trained on these."""
    cells = make_blood_cells(150, classes=3, image_size=48, n_copies=1, random_state=0)
    train = np.isin(cells.groups, np.unique(cells.groups)[:90])
    clf = SimpleCNNClassifier(max_epochs=3, device="cpu", random_state=0)
    clf.fit(cells.images[train], cells.target[train])
    return clf, cells.images[~train], cells.target[~train], cells.groups[~train]


@pytest.fixture(scope="module")
def result(shown):
    return evaluate(*shown)


@pytest.fixture
def few_maps(monkeypatch):
    """Draw few maps: they take most of the time that a page takes."""
    monkeypatch.setitem(N_MAPPED, "errors", 4)
    monkeypatch.setitem(N_MAPPED, "uncertain", 2)


def test_the_answer_comes_first_with_its_interval_and_the_cells(result, tmp_path):
    result.to_html(tmp_path / "page.html")
    page, text = read(tmp_path / "page.html")
    low, high = result.accuracy_interval
    first = text[text.index("How good the model is") :][:400]
    assert (
        f"{100 * result.accuracy:.1f}% (95% interval {100 * low:.1f}% to {100 * high:.1f}%)"
        in first
    )
    assert "60 independent cells in 120 images" in first
    assert "Nothing says which images show the same cell" not in text
    for name in (
        "recall (sensitivity)",
        "ROC AUC",
        "Cohen's kappa",
        "calibration error",
        "Versions",
    ):
        assert name in text
    assert page.count('role="img"') == 6  # four curves, the familiarity, the training
    assert len(page) < 2_000_000


@pytest.mark.usefixtures("few_maps")
def test_every_error_has_its_picture_and_its_map_with_scores(result, tmp_path):
    result.to_html(tmp_path / "page.html")
    page, text = read(tmp_path / "page.html")
    gallery = page[page.index('data-gallery="errors"') :].split("</ul>")[0]
    n_errors = len(result.errors)
    n_mapped = min(n_errors, N_MAPPED["errors"])
    assert gallery.count('<li class="card"') == n_errors > 3
    assert gallery.count("<img ") == n_errors + n_mapped
    assert gallery.count("on the cell") == gallery.count("random ") == n_mapped
    names = re.findall(r"images\[(\d+)\]</div>", gallery)
    assert [int(name) for name in names] == [each.row for each in result.errors]
    assert "Right, but uncertain" in text


@pytest.mark.usefixtures("few_maps")
def test_files_are_shown_by_name_and_are_read_when_the_page_is_made(shown, tmp_path):
    _, images, y, groups = shown
    paths = []
    for row, image in enumerate(images[:40]):
        paths.append(str(tmp_path / f"{row}.png"))
        Image.fromarray(image).save(paths[-1])
    model = shown[0]
    result = evaluate(model, paths, y[:40], groups[:40])
    np.testing.assert_array_equal(
        result.of_images.y_pred, model.classes_[model.predict_proba(images[:40]).argmax(axis=1)]
    )
    result.to_html(tmp_path / "page.html")
    _, text = read(tmp_path / "page.html")
    assert f"{tmp_path.name}/{result.errors[0].row}.png" in text
    assert f"SHA-256 of the image files {result.images_sha256}" in text


@pytest.mark.usefixtures("few_maps")
def test_pictures_and_maps_go_by_position_whatever_the_index(shown, tmp_path):
    model, images, y, _ = shown
    paths = []
    for row, image in enumerate(images[:30]):
        paths.append(str(tmp_path / f"{row}.png"))
        Image.fromarray(image).save(paths[-1])
    pages = []
    for files in (paths, pd.Series(paths, index=np.arange(30)[::-1] + 7)):
        evaluate(model, files, y[:30]).to_html(tmp_path / "page.html")
        pages.append((tmp_path / "page.html").read_text())
    assert pages[0] == pages[1] and "Map of the call" in pages[0]


def test_names_are_harmless(shown, tmp_path):
    _, images, y, groups = shown
    script, image = "<script>alert(1)</script>", '"><img onerror=alert(1) src=x>'
    evil = dict(zip(sorted(set(y.tolist())), (script, image), strict=False))
    names = np.array([evil.get(label, label) for label in y.tolist()])
    X = images.reshape(len(images), -1)[:, :50]
    model = LogisticRegression(C=1e-6).fit(X, names)
    result = evaluate(model, X, names, groups)
    result.to_html(tmp_path / "page.html")
    page, text = read(tmp_path / "page.html")
    assert page.count("<script>") == 1 and "<img onerror" not in page
    assert "<script>alert(1)</script>" in text
    result.to_card(tmp_path / "card.md")
    card = (tmp_path / "card.md").read_text()
    assert "<script" not in card.replace("\\<script", "") and "\\<script\\>" in card
    assert "<script>" not in result._repr_html_()


def test_a_page_without_probabilities_or_pictures_has_neither(tmp_path):
    result = evaluate_predictions(["a", "b", "a"], ["a", "b", "b"], [1, 2, 3])
    result.to_html(tmp_path / "page.html")
    page, text = read(tmp_path / "page.html")
    assert "Reliability" not in page and 'data-gallery="' not in page
    assert "a b 1 50.0%" in text  # the only confusion
    assert "3 cells are few" in text
    with pytest.raises(ValueError, match="A model card needs the model"):
        result.to_card(tmp_path / "card.md")
    assert not (tmp_path / "card.md").exists()


@pytest.mark.usefixtures("few_maps")
def test_what_makes_scores_worth_less_is_said(shown, tmp_path):
    clf, images, y, _ = shown
    cells = make_blood_cells(150, classes=3, image_size=48, n_copies=1, random_state=0)
    with pytest.warns(UserWarning, match="were used to train the model"):
        result = evaluate(clf, cells.images, cells.target)
    result.to_html(tmp_path / "page.html")
    _, text = read(tmp_path / "page.html")
    assert f"{result.n_trained_on} of the images were used to train the model" in text
    assert "Nothing says which images show the same cell" in text
    with pytest.warns(match="do not look like"):
        result = evaluate(clf, 255 - images, y)
    result.to_html(tmp_path / "page.html")
    assert "The images do not look like those" in read(tmp_path / "page.html")[1]


def test_a_page_of_many_large_pictures_stays_below_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr("wbcclf.inspection.pages._evaluation.MOST_BYTES", 1_000_000)
    images = np.random.default_rng(0).integers(
        0, 256, (400, 112, 112, 3), dtype=np.uint8
    )  # of noise
    y = np.repeat(["a", "b"], 200)
    result = evaluate_predictions(y, np.where(np.arange(400) % 2, "a", "b"))
    result.images = images
    result.to_html(tmp_path / "page.html")
    page, text = read(tmp_path / "page.html")
    n_shown = page.count('<li class="card"')
    assert 60 < n_shown < N_ERRORS and len(page) < 1_200_000
    assert f"200 images are called wrongly; {n_shown} are shown" in text


def test_the_page_of_a_cross_validation_has_its_folds(shown, tmp_path):
    clf, images, y, groups = shown
    result = cross_evaluate(clf, images, y, groups, cv=2)
    result.to_html(tmp_path / "page.html")
    page, text = read(tmp_path / "page.html")
    assert "on cells it has not seen" in text and result.folds_text("accuracy") in text
    assert "Fold 2" in text
    assert page.count('data-gallery="errors"') == 1 and "Map of the call" not in page


def test_a_learning_curve_is_shown_where_it_is_given(tmp_path):
    X, y = make_classification(200, random_state=0)
    curve = learning_curve(LogisticRegression(), X, y, shares=(0.3, 1), cv=2)
    result = cross_evaluate(LogisticRegression(), X, y, cv=2)
    result.to_html(tmp_path / "page.html", learning_curve=curve)
    page, text = read(tmp_path / "page.html")
    assert curve.sentence() in text and "cells trained on" in page


def test_an_audit_is_shown_where_it_is_given(tmp_path):
    result = evaluate_predictions(["a", "b", "a"], ["a", "b", "b"], [1, 2, 3])
    finding = Bunch(kind="cells in both sets", severity="leak", what="Two.", advice="Leave them.")
    result.to_html(tmp_path / "page.html", audit=Bunch(findings=[finding]))
    _, text = read(tmp_path / "page.html")
    assert "leak Cells in both sets Two. What to do. Leave them." in text
    assert "wbcclf audit" not in text and "small" not in text
    result.to_html(tmp_path / "page.html", audit=Bunch(findings=[]))
    assert "The audit of the images found nothing." in read(tmp_path / "page.html")[1]
    with pytest.raises(TypeError, match="must be what check_data returned"):
        result.to_html(tmp_path / "page.html", audit=Bunch(accuracy=1))


@pytest.mark.usefixtures("few_maps")
def test_the_page_of_a_comparison_says_which_is_better_and_shows_where_they_disagree(
    shown, tmp_path
):
    clf, images, y, groups = shown
    other = SimpleCNNClassifier(max_epochs=1, lr=1e-6, device="cpu", random_state=1).fit(
        images[:40], y[:40]
    )
    with pytest.warns(UserWarning, match="were used to train"):
        result = compare({"<b>trained</b>": clf, "hardly": other}, images, y, groups)
    result.to_html(tmp_path / "page.html")
    page, text = read(tmp_path / "page.html")
    assert "<b>trained</b> is better than hardly in accuracy" in text and "<b>trained" not in page
    assert text.count("Are they calibrated?") == 2 and page.count('class="confusion"') == 2
    calls = [each.of_images.y_pred == y for each in result.evaluations.values()]
    n_differ = int((calls[0] != calls[1]).sum())
    assert f"another wrongly: {n_differ}" in text and page.count('<li class="card"') == n_differ


@pytest.mark.usefixtures("few_maps")
def test_an_interrupted_page_leaves_the_old_one(result, tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("old")
    monkeypatch.setattr("pathlib.Path.write_text", lambda *a, **k: (_ for _ in ()).throw(OSError()))
    with pytest.raises(OSError):
        result.to_html(path)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_the_card_has_data_figures_limits_and_licence(result, tmp_path):
    result.to_card(tmp_path / "card.md")
    card = (tmp_path / "card.md").read_text()
    for heading in (
        "What it is",
        "How good it is",
        "Limits",
        "Licence of the weights",
        "Made with",
    ):
        assert f"## {heading}\n" in card
    assert f"{100 * result.accuracy:.1f}%" in card and "60 independent cells" in card
    assert "SimpleCNNClassifier(" in card


@pytest.mark.usefixtures("few_maps")
def test_a_loader_in_a_pipeline_is_shown_with_maps(shown, tmp_path):
    clf, images, y, _ = shown
    from sklearn.pipeline import Pipeline

    paths = []
    for row, image in enumerate(images[:20]):
        paths.append(str(tmp_path / f"{row}.png"))
        Image.fromarray(image).save(paths[-1])
    model = Pipeline([("loader", ImageLoader(image_size=48)), ("classifier", clf)])
    result = evaluate(model, paths, y[:20])
    result.to_html(tmp_path / "page.html")
    assert "Map of the call" in read(tmp_path / "page.html")[0]
