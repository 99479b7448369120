"""Cross-validation, comparison of models, and whether more cells would help."""

import itertools
import json

import numpy as np
import pytest
from scipy.stats import binomtest, norm
from sklearn.datasets import make_classification
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, recall_score
from sklearn.model_selection import (
    GridSearchCV,
    LeaveOneGroupOut,
    RepeatedKFold,
    ShuffleSplit,
    StratifiedGroupKFold,
    StratifiedKFold,
    cross_val_predict,
    cross_validate,
)
from sklearn.utils import Bunch

from wbcclf import SimpleCNNClassifier, make_blood_cells
from wbcclf.inspection import compare, cross_evaluate, evaluate_predictions, learning_curve
from wbcclf.inspection.evaluation._compare import (
    compare_evaluations,
    difference_interval,
    exact_test,
    flip_test,
    holm,
)
from wbcclf.inspection.evaluation._learning_curve import _forecast

X, Y = make_classification(300, n_classes=3, n_informative=6, random_state=0)
NAMES = np.array(["a", "b", "c"])[Y]
GROUPS = np.empty(300, dtype=int)  # of two images of one class, mostly
GROUPS[np.argsort(Y, kind="stable")] = np.arange(300) // 2
MODEL = LogisticRegression()


# --- cross_evaluate ---


def test_folds_are_those_of_scikit_learn():
    cv = StratifiedKFold(4, shuffle=True, random_state=0)
    result = cross_evaluate(MODEL, X, NAMES, cv=4)
    np.testing.assert_array_equal(
        result.of_images.y_pred, cross_val_predict(MODEL, X, NAMES, cv=cv)
    )
    expected = cross_val_predict(MODEL, X, NAMES, cv=cv, method="predict_proba")
    np.testing.assert_allclose(result.of_images.probabilities, expected)
    scores = cross_validate(MODEL, X, NAMES, cv=cv, scoring="balanced_accuracy")["test_score"]
    assert [fold.balanced_accuracy for fold in result.folds] == pytest.approx(scores.tolist())
    assert result.mean.balanced_accuracy == pytest.approx(scores.mean())
    assert result.sd.balanced_accuracy == pytest.approx(scores.std(ddof=1))
    assert (
        result.folds_text("balanced_accuracy") == f"{scores.mean():.3f} ± {scores.std(ddof=1):.3f}"
    )
    assert [fold.n_test for fold in result.folds] == [75] * 4
    assert result.folds_text("accuracy") in result._repr_html_()
    assert "NaN" not in result.to_json()


def test_no_group_is_on_both_sides():
    result = cross_evaluate(MODEL, X, NAMES, GROUPS, cv=3)
    splits = list(StratifiedGroupKFold(3, shuffle=True, random_state=0).split(X, NAMES, GROUPS))
    expected = cross_val_predict(MODEL, X, NAMES, cv=splits)
    np.testing.assert_array_equal(result.of_images.y_pred, expected)
    assert result.n_groups == 150
    apart = StratifiedKFold(3, shuffle=True, random_state=0)
    with (
        pytest.warns(UserWarning, match="groups parameter is ignored"),  # of scikit-learn
        pytest.raises(ValueError, match=r"cv puts \d+ groups into both parts of a fold"),
    ):
        cross_evaluate(MODEL, X, NAMES, GROUPS, cv=apart)


def test_a_class_that_a_fold_lacks_has_no_probability_there():
    y = np.where(np.arange(300) < 2, "rare", NAMES)
    splits = [(np.arange(100, 300), np.arange(100)), (np.arange(100), np.arange(100, 300))]
    result = cross_evaluate(MODEL, X, y, cv=splits)
    assert result.of_images.known_classes.tolist() == ["a", "b", "c", "rare"]
    assert (result.of_images.probabilities[:100, 3] == 0).all()
    assert (result.of_images.probabilities[100:, 3] > 0).all()
    assert result.recall[3] == 0


def test_a_network_is_trained_anew_in_every_fold():
    cells = make_blood_cells(60, classes=2, image_size=32, n_copies=1, random_state=0)
    clf = SimpleCNNClassifier(max_epochs=1, device="cpu", random_state=0)
    clf.fit(cells.images, cells.target)
    before = clf.net_
    result = cross_evaluate(clf, cells.images, cells.target, cells.groups, cv=2)
    assert clf.net_ is before and not hasattr(result.estimator, "net_")
    assert result.familiarity == pytest.approx(result.of_images.familiarity.mean())
    rows = StratifiedGroupKFold(2, shuffle=True, random_state=0).split(
        cells.images, cells.target, cells.groups
    )
    train, test = next(rows)
    again = SimpleCNNClassifier(max_epochs=1, device="cpu", random_state=0)
    again.fit(cells.images[train], cells.target[train])
    np.testing.assert_array_equal(
        again.predict_proba(cells.images[test]), result.of_images.probabilities[test]
    )


@pytest.mark.parametrize(
    ("cv", "error", "message"),
    [
        (ShuffleSplit(2, random_state=0), ValueError, "each image must be tested once"),
        (RepeatedKFold(n_splits=2, n_repeats=2), ValueError, "tests image 0 2 times"),
        ("five", TypeError, "cv must be a number of folds"),
        (None, TypeError, "cv must be a number of folds"),
        (1, ValueError, "k-fold cross-validation requires at least one train/test split"),
    ],
)
def test_wrong_folds_are_refused(cv, error, message):
    with pytest.raises(error, match=message):
        cross_evaluate(MODEL, X, NAMES, cv=cv)


def test_images_on_both_sides_of_a_fold_are_refused():
    rows = np.arange(300)
    with pytest.raises(ValueError, match="cv puts images into both parts of a fold"):
        cross_evaluate(MODEL, X, NAMES, cv=[(rows, rows[:150]), (rows, rows[150:])])
    with pytest.raises(ValueError, match="cv is empty"):
        cross_evaluate(MODEL, X, NAMES, cv=[])


def test_one_slide_may_be_left_out():
    slides = np.arange(300) // 60
    result = cross_evaluate(MODEL, X, NAMES, slides, cv=LeaveOneGroupOut())
    assert len(result.folds) == 5 and result.n_groups == 5


def test_a_search_gets_the_groups_of_its_part():
    search = GridSearchCV(MODEL, {"C": [0.1, 1]}, cv=StratifiedGroupKFold(2))
    result = cross_evaluate(search, X, NAMES, GROUPS, cv=2)
    assert result.accuracy > 0.5


# --- compare ---


@pytest.mark.parametrize(("b", "c"), [(9, 2), (0, 0), (5, 5), (1, 0), (300, 240)])
def test_with_one_image_a_group_it_is_the_exact_test_of_mcnemar(b, c):
    surplus = np.array([1] * b + [-1] * c + [0] * 40)
    expected = binomtest(b, b + c).pvalue if b + c else 1
    assert exact_test(surplus) == pytest.approx(expected)


def test_with_several_it_is_the_share_of_signs():
    surplus = np.array([3, -1, 2, 2, 0, -4, 5, 1])
    sums = [abs(np.dot(signs, surplus)) for signs in itertools.product([-1, 1], repeat=8)]
    expected = np.mean(np.array(sums) >= abs(surplus.sum()))
    assert exact_test(surplus) == pytest.approx(expected)
    # Drawn: of 10,000 the standard deviation is 0.005.
    assert flip_test(surplus.astype(float)) == pytest.approx(expected, abs=0.02)


def test_holm_adjusts_as_published():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]


def simulate(seed, accuracies, n_groups=70, largest=10):
    """Return what two models call rightly, and groups: half of a group's luck is common."""
    random = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), random.integers(1, largest + 1, n_groups))
    common = random.normal(size=n_groups)[groups]
    rights = []
    for accuracy in accuracies:
        own = random.normal(size=n_groups)[groups]
        noise = random.normal(size=len(groups))
        rights.append(common / 2 + own / 2 + noise * np.sqrt(0.5) < norm.ppf(accuracy))
    return rights, groups


def test_equal_models_are_told_apart_in_one_of_twenty_at_most_and_the_interval_holds():
    n_sets = 300
    wins, held = 0, 0
    for seed in range(n_sets):
        (one, other), groups = simulate(seed, (0.9, 0.9))
        more = one.astype(int) - other
        wins += exact_test(np.bincount(groups, more).astype(int)) < 0.05
        weights = np.full(len(groups), 1 / len(groups))
        _, (low, high) = difference_interval(
            np.bincount(groups, weights * more), np.bincount(groups, weights)
        )
        held += low <= 0 <= high
    # Three standard deviations of 300 sets at 5% are 3.8 points.
    assert wins <= 0.088 * n_sets
    assert held >= 0.912 * n_sets


def test_a_better_model_is_told():
    verdicts = []
    for seed in range(20):
        (one, other), groups = simulate(seed, (0.95, 0.75), n_groups=150)
        y = np.where(groups % 3, "a", "b")
        wrong = np.where(y == "a", "b", "a")
        evaluations = {
            name: evaluate_predictions(y, np.where(right, y, wrong), groups)
            for name, right in (("one", one), ("other", other))
        }
        result = compare_evaluations(evaluations)
        verdicts.append([pair.verdict for pair in result.pairs])
        [pair, balanced] = result.pairs
        assert pair.difference == pytest.approx(one.mean() - other.mean())
        recalls = [evaluations[name].balanced_accuracy for name in ("one", "other")]
        assert balanced.difference == pytest.approx(recalls[0] - recalls[1])
        low, high = pair.difference_interval
        assert low <= pair.difference <= high
        assert (pair.n_only_one, pair.n_only_other) == ((one & ~other).sum(), (other & ~one).sum())
    assert verdicts.count(["better", "better"]) >= 18


def test_models_are_compared_in_words():
    train, test = np.arange(200), np.arange(200, 300)
    models = {
        "logistic": LogisticRegression().fit(X[train], NAMES[train]),
        "the same": LogisticRegression().fit(X[train], NAMES[train]),
        "largest class": DummyClassifier().fit(X[train], NAMES[train]),
    }
    result = compare(models, X[test], NAMES[test], GROUPS[test])
    assert [(pair.one, pair.other, pair.verdict) for pair in result.pairs[::2]] == [
        ("logistic", "the same", "not told apart"),
        ("logistic", "largest class", "better"),
        ("the same", "largest class", "better"),
    ]
    said = repr(result)
    assert "logistic is not told apart from the same in accuracy: +0.0 points" in said
    assert "logistic is better than largest class in accuracy" in said
    scores = [accuracy_score(NAMES[test], model.predict(X[test])) for model in models.values()]
    assert [each.accuracy for each in result.evaluations.values()] == pytest.approx(scores)
    figures = json.loads(result.to_json())
    assert figures["pairs"][0]["verdict"] == "not told apart"
    assert figures["n_groups"] == len(set(GROUPS[test]))
    frame = result.to_frame()
    assert len(frame) == 6 and (frame.low <= frame.difference).all()
    assert (
        "<script>"
        not in compare(
            {"<script>": models["logistic"], "b": models["the same"]}, X[test], NAMES[test]
        )._repr_html_()
    )


@pytest.mark.parametrize("models", [[MODEL, MODEL], {"one": MODEL}, MODEL])
def test_what_cannot_be_compared_is_refused(models):
    with pytest.raises(TypeError, match="models must be a dict of two fitted models or more"):
        compare(models, X, NAMES)


def test_names_that_are_the_same_as_text_are_refused():
    with pytest.raises(ValueError, match="names that are the same"):
        compare({1: MODEL, "1": MODEL}, X, NAMES)


# --- learning_curve ---


class Counting(LogisticRegression):
    """Notes what it is trained on."""

    rows: list = []

    def fit(self, X, y):
        Counting.rows.append(X)
        return super().fit(X, y)


def test_a_learning_curve_trains_on_nested_shares_of_cells():
    Counting.rows = []
    curve = learning_curve(Counting(), X, NAMES, GROUPS, shares=(0.5, 1), cv=2)
    half, whole = Counting.rows[:2], Counting.rows[2:]
    for few, all_ in zip(half, whole, strict=True):
        assert {row.tobytes() for row in few} < {row.tobytes() for row in all_}
        assert len(few) == pytest.approx(len(all_) / 2, abs=6)
    full = cross_evaluate(LogisticRegression(), X, NAMES, GROUPS, cv=2)
    assert curve.steps[-1].balanced_accuracy == full.balanced_accuracy
    assert curve.steps[-1].balanced_accuracy_interval == full.balanced_accuracy_interval
    assert curve.steps[0].n_cells == pytest.approx(curve.steps[1].n_cells / 2, abs=3)
    assert curve.forecast.n_cells == 2 * curve.steps[-1].n_cells
    assert repr(curve) == curve.sentence() in curve._repr_html_()
    assert json.loads(curve.to_json())["helps"] in (True, False, None)


def errors(exponent, n_groups=4000):
    """Return errors of images whose rate falls as a power of the cells trained on."""
    random = np.random.default_rng(0)
    luck = random.random(n_groups)
    n_cells = [100, 200, 400]
    wrong = np.array([luck < 0.2 * (n / 100) ** -exponent for n in n_cells])
    return n_cells, wrong, np.arange(n_groups) % 2, np.arange(n_groups)


def test_a_power_law_is_continued():
    found = _forecast(*errors(0.5))
    # 0.2 at 100 cells, so 0.1 at 400 and 0.0707 at 800; of 4,000 images a standard deviation of
    # 0.005 at most.
    assert found.n_cells == 800
    assert found.value == pytest.approx(1 - 0.2 / np.sqrt(8), abs=0.01)
    assert found.interval[0] < 1 - 0.2 / np.sqrt(8) < found.interval[1]
    assert found.gain == pytest.approx(0.1 - 0.2 / np.sqrt(8), abs=0.01)
    assert found.gain_interval[0] > 0.005


def test_a_flat_curve_says_that_more_cells_hardly_help():
    found = _forecast(*errors(0.0))
    assert found.gain == pytest.approx(0, abs=1e-9) and found.gain_interval[1] < 0.01
    few = _forecast(*errors(0.4, n_groups=40))
    assert few.gain_interval[1] - few.gain_interval[0] > 0.02


def test_the_curve_is_drawn():
    from matplotlib.figure import Figure

    curve = learning_curve(MODEL, X, NAMES, shares=(0.3, 1), cv=2)
    ax = Figure().add_subplot()
    assert curve.plot(ax=ax) is ax
    assert ax.get_xscale() == "log" and len(ax.containers) == 2
    measured = ax.containers[0][0]
    np.testing.assert_allclose(
        measured.get_ydata(), [step.balanced_accuracy for step in curve.steps]
    )


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ((1,), "two numbers or more"),
        ((0, 1), "two numbers or more"),
        ((0.5, 1.5), "two numbers or more"),
        ((float("nan"), 1), "two numbers or more"),
        ((1, 0.5), "shares must grow"),
        ((0.001, 1), "fewer than two. Begin with a larger share"),
    ],
)
def test_wrong_shares_are_refused(shares, message):
    with pytest.raises(ValueError, match=message):
        learning_curve(MODEL, X, NAMES, shares=shares, cv=2)


def test_scores_of_classes_are_those_of_scikit_learn_out_of_fold():
    result = cross_evaluate(MODEL, X, NAMES, cv=3)
    np.testing.assert_allclose(
        result.recall, recall_score(NAMES, result.of_images.y_pred, average=None)
    )
    assert isinstance(result.folds[0], Bunch) and result.folds[0].n_train == 200
