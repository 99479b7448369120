"""find_wrong_labels: labels that were swapped are found, and right ones left alone."""

import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

from wbcclf.model_selection import find_wrong_labels


@pytest.fixture(scope="module")
def swapped():
    """Return labels, out-of-fold probabilities, and which labels were swapped."""
    X, y = make_blobs(
        [500, 300, 100], centers=[[0, 0], [4, 0], [0, 4]], cluster_std=0.8, random_state=0
    )
    rng = np.random.RandomState(0)
    rows = rng.choice(len(y), 30, replace=False)
    y[rows] = (y[rows] + rng.randint(1, 3, 30)) % 3
    cv = StratifiedGroupKFold(5)
    p = cross_val_predict(
        LogisticRegression(), X, y, groups=np.arange(len(y)), cv=cv, method="predict_proba"
    )
    return np.array(["a", "b", "c"])[y], p, set(rows.tolist())


def test_swapped_labels_are_found_and_little_else(swapped):
    y, p, rows = swapped
    found = find_wrong_labels(y, p)
    assert len(rows & set(found.rows.tolist())) >= 27
    assert len(rows & set(found.rows[:25].tolist())) >= 24
    assert len(found.rows) <= 36
    assert (np.diff(found.confidence[found.rows]) >= 0).all()
    assert found.noise.sum() == pytest.approx(1)
    assert 1 - np.trace(found.noise) == pytest.approx(30 / 900, abs=0.01)
    assert found.noise.sum(axis=1) == pytest.approx([(y == k).mean() for k in "abc"])
    assert (found.suggested != y).all()


def test_right_labels_are_left_alone():
    y = np.repeat([3, 7], 20)
    p = np.where(y[:, None] == [3, 7], 0.9, 0.1)
    found = find_wrong_labels(y, p)
    assert found.rows.tolist() == []
    assert found.classes.tolist() == [3, 7]
    assert found.suggested.tolist() == [7] * 20 + [3] * 20
    assert found.confidence == pytest.approx(0.9)
    # Without any difference nothing is known.
    assert find_wrong_labels(y, np.full((40, 2), 0.5)).noise.shape == (2, 2)


def test_a_model_that_is_unsure_of_a_class_lists_no_more_of_it(swapped):
    """Thresholds are of each class: less probability for class c alone changes little."""
    y, p, rows = swapped
    unsure = p * [1, 1, 0.3]
    unsure /= unsure.sum(axis=1, keepdims=True)
    found = find_wrong_labels(y, unsure)
    of_c = {row for row in found.rows.tolist() if y[row] == "c"}
    n_wrong = sum(y[row] == "c" for row in rows)
    assert len(of_c) <= n_wrong + 10


@pytest.mark.parametrize(
    ("y", "p", "said"),
    [
        (["a", "a"], [[1.0], [1.0]], "one class only"),
        (["a", "b"], [[1.0, 0, 0]] * 2, r"\(2, 2\), got \(2, 3\)"),
        (["a", "b"], [[3.0, -2.0]] * 2, "Give predict_proba"),
        (["a", "b"], [[0.2, 0.2]] * 2, "sum to 1"),
        (["a", "b"], [[np.nan, 1]] * 2, "must be 0 to 1"),
    ],
)
def test_what_are_no_probabilities(y, p, said):
    with pytest.raises(ValueError, match=said):
        find_wrong_labels(y, p)


def test_a_label_that_is_the_most_probable_is_not_listed():
    # Of each class 20 sure samples and 20 of 0.6: these reach no threshold of another class.
    y = np.repeat([0, 1], 40)
    own = np.tile(np.repeat([0.95, 0.6], 20), 2)
    p = np.where(y[:, None] == [0, 1], own[:, None], 1 - own[:, None])
    p[0] = 0.02, 0.98  # one that contradicts its label
    assert find_wrong_labels(y, p).rows.tolist() == [0]
