"""Evaluation figures against scikit-learn's own, and predictions for files."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn import metrics

from wbcclf import SimpleCNNClassifier, make_blood_cells
from wbcclf.inspection import evaluate_predictions, predict_files, save_confusion_matrix

labels = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=1)


@settings(max_examples=50, deadline=None)
@given(labels)
def test_figures_are_those_of_scikit_learn(pairs):
    y_true, y_pred = map(list, zip(*pairs, strict=True))
    result = evaluate_predictions(y_true, y_pred)
    assert result.accuracy == metrics.accuracy_score(y_true, y_pred)
    assert result.macro_f1 == pytest.approx(
        metrics.f1_score(y_true, y_pred, average="macro", zero_division=0.0)
    )
    assert result.confusion.sum() == len(pairs)
    assert np.trace(result.confusion) == sum(a == b for a, b in pairs)
    if len(result.classes) > 1:  # scikit-learn warns about a single one
        expected = metrics.confusion_matrix(y_true, y_pred)
        np.testing.assert_array_equal(result.confusion, expected)
    truly = [label for label in result.classes if label in y_true]
    recalls = metrics.recall_score(y_true, y_pred, labels=truly, average=None)
    assert result.balanced_accuracy == pytest.approx(recalls.mean())
    low, high = result.accuracy_interval
    assert 0 <= low <= result.accuracy <= high <= 1


def test_the_interval_is_wilsons():
    # 62 of 71 right. By the formula: z = 1.959964, centre (p + z^2/2n) / (1 + z^2/n), half width
    # z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2/n).
    result = evaluate_predictions(["a"] * 71, ["a"] * 62 + ["b"] * 9)
    n, p, z = 71, 62 / 71, 1.959964
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    assert result.accuracy_interval == pytest.approx((centre - half, centre + half), abs=1e-6)


def test_nothing_to_evaluate_is_an_error():
    with pytest.raises(ValueError, match="empty"):
        evaluate_predictions([], [])
    with pytest.raises(ValueError, match="inconsistent"):
        evaluate_predictions(["a"], ["a", "b"])


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_confusion_matrix_is_drawn(suffix, tmp_path):
    path = tmp_path / f"confusion{suffix}"
    save_confusion_matrix(evaluate_predictions(["a", "b"], ["a", "a"]), path)
    assert path.stat().st_size > 1000
    assert list(tmp_path.iterdir()) == [path]


def test_drawing_without_matplotlib_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"wbcclf\[plot\]"):
        save_confusion_matrix(evaluate_predictions(["a"], ["a"]), tmp_path / "c.png")


def test_files_are_predicted_in_order_whatever_the_chunks(tmp_path):
    cells = make_blood_cells(20, classes=2, image_size=24, random_state=0)
    clf = SimpleCNNClassifier(max_epochs=1, device="cpu").fit(cells.images, cells.target)
    paths = []
    for number, image in enumerate(cells.images):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(image).save(paths[-1])
    broken = str(tmp_path / "broken.png")
    (tmp_path / "broken.png").write_bytes(b"")
    paths.insert(5, broken)
    chunks = list(predict_files(clf, paths, chunk_size=4))
    assert [path for chunk in chunks for path in chunk.paths] == paths[:5] + paths[6:]
    assert [path for chunk in chunks for path, _ in chunk.skipped] == [broken]
    # Another batch composition may round differently in the last bits of float32.
    np.testing.assert_allclose(
        np.concatenate([chunk.probabilities for chunk in chunks]),
        clf.predict_proba(cells.images),
        atol=1e-6,
    )
