"""Evaluation figures against scikit-learn's own, and what is refused."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics

from wbcclf import SimpleCNNClassifier
from wbcclf.inspection import evaluate_predictions
from wbcclf.model_selection import group_bootstrap
from wbcclf.model_selection.intervals._scores import SCORES

labels = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=1)


@settings(max_examples=50, deadline=None)
@given(labels)
def test_figures_are_those_of_scikit_learn(pairs):
    y_true, y_pred = map(list, zip(*pairs, strict=True))
    result = evaluate_predictions(y_true, y_pred)
    assert result.accuracy == metrics.accuracy_score(y_true, y_pred)
    present = sorted(set(y_true))
    assert result.macro_f1 == pytest.approx(
        metrics.f1_score(y_true, y_pred, labels=present, average="macro", zero_division=0.0)
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


@settings(max_examples=25, deadline=None)
@given(labels)
def test_agreement_and_specificity_are_those_of_scikit_learn(pairs):
    y_true, y_pred = map(np.array, zip(*pairs, strict=True))
    result = evaluate_predictions(y_true, y_pred)
    for place, label in enumerate(result.classes):
        expected = metrics.recall_score(
            y_true != label, y_pred != label, pos_label=True, zero_division=0.0
        )
        assert result.specificity[place] == pytest.approx(expected)
    true = np.isin(result.classes, y_true)
    assert result.macro_specificity == pytest.approx(result.specificity[true].mean())
    assert result.macro_precision == pytest.approx(result.precision[true].mean())
    if len(result.classes) > 1:  # scikit-learn warns about a single one
        assert result.mcc == pytest.approx(metrics.matthews_corrcoef(y_true, y_pred), abs=1e-12)
        assert result.kappa == pytest.approx(metrics.cohen_kappa_score(y_true, y_pred), abs=1e-12)
    for name in ("mcc", "kappa"):
        low, high = result[f"{name}_interval"]
        assert np.isnan(low) == (true.sum() == 1)  # there is no agreement beyond chance to measure
        assert np.isnan(low) or -1 <= low <= result[name] <= high <= 1


@pytest.mark.parametrize("n_right", [62, 71])
def test_without_groups_the_interval_is_nearly_wilsons(n_right):
    n = 71
    result = evaluate_predictions(["a"] * n, ["a"] * n_right + ["b"] * (n - n_right))
    wilson = binomtest(n_right, n).proportion_ci(method="wilson")
    # The variance is that of 1,000 resamples, and Student's quantile squared is 4% larger than the
    # normal one. Where all are right, a resample has a Poisson number of wrong ones, of mean 1/2:
    # the variance is then known to 6% (kurtosis 5), and the width is proportional to it.
    width = wilson.high - wilson.low
    assert result.accuracy_interval == pytest.approx((wilson.low, wilson.high), abs=0.15 * width)


@pytest.mark.parametrize(("true", "called"), [("a", "a"), ("a", "b"), ("b", "a")])
def test_one_image_tells_next_to_nothing(true, called):
    result = evaluate_predictions([true], [called])
    low, high = result.accuracy_interval
    assert low <= result.accuracy <= high and high - low > 0.95
    assert result.n_groups is None and "by_group" not in result
    assert "one image" in repr(result)


GROUPS = np.repeat(np.arange(12), np.arange(1, 13))
TRUE = np.array(["a", "b", "c"])[GROUPS % 3]
CALLED = np.where((GROUPS == 4) | (np.arange(78) % 7 == 0), "b", TRUE)


def test_with_groups_every_figure_has_their_interval():
    plain, result = evaluate_predictions(TRUE, CALLED), evaluate_predictions(TRUE, CALLED, GROUPS)
    assert result.n_groups == 12 and plain.n_groups is None and "by_group" not in plain
    for name in SCORES:
        expected = group_bootstrap(name, TRUE, CALLED, GROUPS)
        np.testing.assert_array_equal(result[name], plain[name])
        limits = np.array(result[f"{name}_interval"])
        np.testing.assert_array_equal(limits.T, [expected.low, expected.high])
    np.testing.assert_array_equal(result.confusion, plain.confusion)
    assert result.support.dtype == result.confusion.dtype == int
    widths = [np.ptp(each.accuracy_interval) for each in (plain, result)]
    assert widths[1] > 1.3 * widths[0]


@pytest.mark.parametrize("true", [TRUE, np.array(["a", "b", "c"])[np.arange(78) % 3]])
def test_by_group_each_group_counts_the_same(true):
    result = evaluate_predictions(true, CALLED, GROUPS).by_group
    weights = 1 / np.bincount(GROUPS)[GROUPS]
    options = {"sample_weight": weights, "labels": ["a", "b", "c"]}
    assert result.accuracy == pytest.approx(
        metrics.accuracy_score(true, CALLED, sample_weight=weights)
    )
    np.testing.assert_allclose(
        result.confusion, metrics.confusion_matrix(true, CALLED, **options), atol=1e-12
    )
    expected = metrics.precision_recall_fscore_support(true, CALLED, **options)[:3]
    for name, each in zip(("precision", "recall", "f1"), expected, strict=True):
        np.testing.assert_allclose(result[name], each)
        assert (result[f"{name}_interval"][:, 0] < each).all()
    low, high = result.accuracy_interval
    assert low < result.accuracy < high
    shown = [len(set(GROUPS[true == label].tolist())) for label in "abc"]
    assert result.support.tolist() == shown


def test_classes_of_one_side_count():
    result = evaluate_predictions(["a", "a", "b"], ["a", "c", "c"])
    assert result.classes.tolist() == ["a", "b", "c"]
    assert result.support.tolist() == [2, 1, 0]
    assert result.recall.tolist() == [0.5, 0, 0]
    assert result.balanced_accuracy == 0.25
    assert result.macro_f1 == pytest.approx((2 / 3 + 0) / 2)  # "c" has no image


def test_images_are_counted_in_whole_numbers_where_nothing_is_right():
    result = evaluate_predictions(["a", "a"], ["b", "b"])
    assert result.support.dtype == int and result.support.tolist() == [2, 0]


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["a", "b"], dtype=object),
        pd.Series(["a", "b"], index=[7, 3]),
        pd.Series(["a", "b"], dtype="string"),
        pd.Categorical(["a", "b"]),
        ("a", np.str_("b")),
    ],
)
def test_text_may_come_in_any_form(labels):
    assert evaluate_predictions(labels, ["a", "a"]).confusion.tolist() == [[1, 0], [1, 0]]


@pytest.mark.parametrize(
    "labels", [[0, 1], np.array([0.0, 1.0]), pd.Series([0, 1], dtype="Int64"), [False, True]]
)
def test_numbers_may_come_in_any_form(labels):
    assert evaluate_predictions(labels, [0, 0]).confusion.tolist() == [[1, 0], [1, 0]]


PROBABILITIES = np.array([[0.2, 0.8], [0.6, 0.4]])


@pytest.mark.parametrize(
    ("y_true", "y_pred", "error", "message"),
    [
        ([], [], ValueError, "y_true is empty"),
        (["a"], ["a", "b"], ValueError, "y_true holds 1 labels, y_pred 2"),
        (
            ["a", 1],
            ["a", "a"],
            ValueError,
            r"y_true holds text as well as numbers.*y_true\[1\] is 1",
        ),
        (["a", "b"], [0, 1], ValueError, "y_true holds labels such as 'a', y_pred such as 0"),
        ([0, 1], ["0", "1"], ValueError, "y_true holds labels such as 0, y_pred such as '0'"),
        (["a", None], ["a", "a"], ValueError, r"y_true\[1\] is None"),
        (["a", "a"], ["a", np.nan], ValueError, r"y_pred\[1\] is nan"),
        (pd.Series(["a", pd.NA], dtype="object"), ["a", "a"], ValueError, r"y_true\[1\] is <NA>"),
        ([0.0, np.nan], [0, 0], ValueError, r"y_true\[1\] is nan"),
        ([0, 1], PROBABILITIES, ValueError, r"y_pred must hold one label.*\(2, 2\).*argmax"),
        ([0, 1], PROBABILITIES.tolist(), ValueError, r"y_pred must hold one label.*\(2, 2\)"),
        ([0, 1], PROBABILITIES[:, 1], ValueError, r"y_pred\[0\] is 0.8.*probabilities"),
        (["a", "b"], "ab", TypeError, "y_pred must be an array-like of labels, got str"),
        ({"a": 1}, ["a"], TypeError, "y_true must be an array-like of labels, got dict"),
        ({"a", "b"}, ["a", "b"], TypeError, "y_true must be an array-like of labels, got set"),
        (3, ["a"], TypeError, "y_true must be an array-like of labels, got int"),
        ([b"a"], ["a"], ValueError, r"y_true\[0\] is b'a'"),
        (["a"], SimpleCNNClassifier(), TypeError, "y_pred must be labels, got a model"),
        (
            ["NEUTROPHIL", "MONOCYTE"],
            ["neutrophil", "MONOCYTE"],
            ValueError,
            "y_true holds 'NEUTROPHIL', y_pred 'neutrophil'",
        ),
    ],
)
def test_what_are_no_labels_is_refused(y_true, y_pred, error, message):
    with pytest.raises(error, match=message):
        evaluate_predictions(y_true, y_pred)


def test_groups_that_are_none_are_refused():
    for groups, message in (([1], "groups holds 1 groups"), ([1, 1], "one group only")):
        with pytest.raises(ValueError, match=message):
            evaluate_predictions(["a", "b"], ["a", "b"], groups)


def test_errors_come_in_the_order_of_the_images_without_probabilities():
    result = evaluate_predictions([3, 1, 2, 1], [1, 1, 3, 2])
    assert result.errors == [
        {"row": 0, "true": 3, "predicted": 1, "confidence": None},
        {"row": 2, "true": 2, "predicted": 3, "confidence": None},
        {"row": 3, "true": 1, "predicted": 2, "confidence": None},
    ]
    assert type(result.errors[0].true) is int


def test_the_result_as_a_table_and_as_json():
    result = evaluate_predictions(TRUE, CALLED, GROUPS)
    frame = result.to_frame().set_index(["score", "class"])
    assert frame.loc[("recall", "b")].tolist() == [result.recall[1], *result.recall_interval[1]]
    [row] = frame.loc["mcc"].to_numpy()
    assert row.tolist() == [result.mcc, *result.mcc_interval]
    assert len(frame) == 7 + 3 * 4  # scores of all, and four of each class
    given = json.loads(result.to_json())
    assert given.keys() == result.keys() - {"of_images"}
    assert given["confusion"] == result.confusion.tolist()
    assert given["by_group"]["accuracy_interval"] == list(result.by_group.accuracy_interval)
    single = json.loads(evaluate_predictions(["a"], ["a"]).to_json())
    assert single["precision_interval"] == [[None, None]]  # NaN is no JSON


def test_a_table_needs_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        evaluate_predictions(["a"], ["a"]).to_frame()


def test_what_a_notebook_shows_has_every_score_and_no_foreign_code():
    names = ["<script>alert(1)</script>", "b"]
    result = evaluate_predictions(names * 5, [*names * 4, "b", "b"], groups=np.arange(10))
    page = result._repr_html_()
    assert "<script>" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "10 independent cells in 10 images" in page
    low, high = result.mcc_interval
    assert f"<td>{result.mcc:.3f} ({low:.2f} to {high:.2f})</td>" in page
    assert page.count("<tr>") == page.count("</tr>") == 2 + 7 + 2
    assert repr(result).startswith("<Evaluation of 10 independent cells in 10 images: accuracy 0.9")
