"""Intervals by group: what they hold, how often, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics

from wbcclf.model_selection import group_bootstrap
from wbcclf.model_selection.intervals._intervals import (
    check_groups,
    confusion_by_group,
    interval_of_right,
)
from wbcclf.model_selection.intervals._ranking import mean_loss, rank
from wbcclf.model_selection.intervals._resamples import Resamples, correlation

SCALARS = ("accuracy", "balanced_accuracy", "macro_f1")
OF_CLASSES = ("precision", "recall", "f1")

predictions = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("abc"), st.integers(0, 5)), min_size=2
).filter(lambda drawn: len({group for *_, group in drawn}) > 1)


@settings(max_examples=25, deadline=None)
@given(predictions)
def test_scores_are_those_of_scikit_learn_and_lie_within_their_intervals(drawn):
    y_true, y_pred, groups = map(list, zip(*drawn, strict=True))
    result = {
        name: group_bootstrap(name, y_true, y_pred, groups, n_resamples=50)
        for name in (*SCALARS, *OF_CLASSES)
    }
    classes, true = np.unique(y_true + y_pred), np.unique(y_true)
    options = {"labels": true, "average": "macro", "zero_division": 0.0}
    assert result["accuracy"].value == pytest.approx(metrics.accuracy_score(y_true, y_pred))
    for name, score in (
        ("balanced_accuracy", metrics.recall_score),
        ("macro_f1", metrics.f1_score),
    ):
        assert result[name].value == pytest.approx(score(y_true, y_pred, **options))
    by_class = metrics.precision_recall_fscore_support(
        y_true, y_pred, labels=classes, zero_division=0.0
    )
    for name, expected in zip(OF_CLASSES, by_class, strict=False):
        np.testing.assert_allclose(result[name].value, expected)
        is_defined = np.isin(classes, true) & ((name != "precision") | (len(true) > 1))
        np.testing.assert_array_equal(np.isnan(result[name].low), ~is_defined)
    for each in result.values():
        assert each.n_groups == len(set(groups))
        low, high = (np.asarray(limit) for limit in (each.low, each.high))
        defined = ~np.isnan(low)
        assert (0 <= low[defined]).all() and (high[defined] <= 1).all()
        assert (low <= each.value)[defined].all() and (each.value <= high)[defined].all()
        assert (low < high)[defined].all()  # never without width


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_it_is_wilsons_where_every_image_shows_another_cell(share):
    y_true = np.tile(["a", "b"], 200)
    y_pred = np.where(np.arange(400) < 400 * share, y_true, "c")
    result = group_bootstrap("accuracy", y_true, y_pred, np.arange(400), n_resamples=4000)
    wilson = binomtest(int(400 * share), 400).proportion_ci(method="wilson")
    # Of 4,000 resamples a standard deviation is known to 1%; Student's quantile is 0.3% larger.
    width = wilson.high - wilson.low
    assert [result.low, result.high] == pytest.approx([wilson.low, wilson.high], abs=0.06 * width)


def cells(n_groups=40, n_images=1):
    """Return labels, predictions and groups; every fifth cell is wrong in all its images."""
    cell = np.repeat(np.arange(n_groups), n_images)
    y_true = np.where(cell % 4 == 0, "rare", "common")
    return y_true, np.where(cell % 5 == 0, "other", y_true), cell


@pytest.mark.parametrize("name", SCALARS)
def test_copies_of_every_image_add_nothing(name):
    one = group_bootstrap(name, *cells())
    many = group_bootstrap(name, *cells(n_images=10))
    assert (many.low, many.high) == pytest.approx((one.low, one.high))
    y_true, y_pred, cell = cells(n_images=10)
    as_if_apart = group_bootstrap(name, y_true, y_pred, np.arange(len(cell)))
    assert many.high - many.low > 2 * (as_if_apart.high - as_if_apart.low)


def test_errors_that_come_apart_tell_more_than_errors_that_come_together():
    cell = np.repeat(np.arange(40), 10)
    y_true = np.repeat("a", 400)
    together = group_bootstrap("accuracy", y_true, np.where(cell % 5 == 0, "b", "a"), cell)
    apart = np.where(np.arange(400) % 10 < 2, "b", "a")
    apart = group_bootstrap("accuracy", y_true, apart, cell)
    assert together.value == apart.value == 0.8
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_the_correlation_of_errors_is_found():
    random = np.random.default_rng(0)
    images = random.integers(1, 20, (2000, 2))
    for rho in (0.1, 0.5):
        strength = (1 - rho) / rho
        right = random.binomial(images, random.beta(0.8 * strength, 0.2 * strength, images.shape))
        assert correlation(images, right) == pytest.approx(rho, abs=0.04)
    assert correlation(images, random.binomial(images, 0.8)) < 0.01
    assert correlation(images, images) == 1  # no error: nothing is known
    assert correlation(images // images, images // images) == 1


def simulated(n_sets, draw):
    """Return the share of intervals of accuracy and macro recall that hold the true scores."""
    held = []
    for seed in range(n_sets):
        matrices, truth = draw(np.random.default_rng(seed))
        resamples = Resamples(matrices, 200, seed)
        limits = np.array([resamples.interval(name, 0.95) for name in SCALARS[:2]])
        held.append((limits[:, 0] <= truth) & (truth <= limits[:, 1]))
    return np.mean(held, axis=0)


@pytest.mark.parametrize("recall", [0.7, 0.9, 0.97])
def test_the_interval_holds_the_true_score_as_often_as_it_says(recall):
    counts = (16, 8, 4, 2)  # cells of each class

    def draw(random):
        labels = np.repeat(np.arange(4), counts)
        n_images = random.integers(1, 41, 30)
        is_right = random.random(30) < recall  # all images of a cell, or none
        matrices = np.zeros((30, 4, 4), dtype=int)
        matrices[np.arange(30), labels, np.where(is_right, labels, (labels + 1) % 4)] = n_images
        return matrices, recall

    # Of 200 sets, a share of 95% has a standard deviation of 1.5%. Percentiles hold 50 to 90%.
    assert (simulated(200, draw) >= 0.905).all()


def test_errors_of_a_patient_come_together_over_classes():
    def draw(random):
        shares = random.beta(2.7, 0.3, 30)  # of each patient's images, of all classes
        matrices = np.zeros((30, 3, 3), dtype=int)
        for label, n_images in enumerate((10, 5, 2)):
            matrices[:, label, label] = random.binomial(n_images, shares)
            matrices[:, label, label - 1] = n_images - matrices[:, label, label]
        return matrices, 0.9

    assert (simulated(100, draw) >= 0.89).all()


def test_no_resample_loses_a_rare_class():
    y_true = np.repeat(["common", "rare"], [99, 1])
    _, matrices = confusion_by_group(y_true, y_true, np.arange(100))
    drawn = Resamples(matrices, 500, 0).drawn
    np.testing.assert_allclose(drawn.sum(axis=2)[:, 1], 2)  # its cell and the pseudo-group
    assert len(np.unique(drawn[:, 1, 1])) > 1


def test_two_cells_of_a_class_tell_what_wilson_says():
    y_true = np.repeat(["common", "rare"], [40, 2])
    result = group_bootstrap("recall", y_true, y_true, np.arange(42), n_resamples=4000)
    # All of n are right: the lower limit is 1 / (1 + t^2 / n), here with 42 degrees of freedom.
    assert result.low == pytest.approx(1 / (1 + 2.018**2 / np.array([40, 2])), abs=0.02)


def test_a_class_beside_a_rarer_one_in_every_group_has_an_interval_too():
    groups = np.repeat(np.arange(8), 3)
    y_true = np.tile(["a", "a", "b"], 8)
    result = group_bootstrap("recall", y_true, y_true, groups)
    assert (result.value == 1).all() and (result.low < 0.8).all()


def test_the_seed_alone_decides():
    one, same, other = (
        group_bootstrap("macro_f1", *cells(), random_state=seed).low for seed in (0, 0, 1)
    )
    assert one == same != other
    narrow = group_bootstrap("macro_f1", *cells(), confidence_level=0.5)
    wide = group_bootstrap("macro_f1", *cells(), confidence_level=0.99)
    assert narrow.high - narrow.low < (wide.high - wide.low) / 2


def test_groups_may_have_names_of_any_kind():
    y_true, y_pred, cell = cells(n_images=3)
    expected = group_bootstrap("accuracy", y_true, y_pred, cell)
    for names in (
        [f"cell {number}" for number in cell],
        [("slide", number) for number in cell.tolist()],
        cell.astype(float) / 2,
    ):
        assert group_bootstrap("accuracy", y_true, y_pred, names) == expected


def test_a_function_is_given_whole_groups_of_every_class():
    y_true, _, cell = cells(n_groups=8, n_images=3)
    probabilities = np.stack([cell, 1 - cell], axis=1)
    seen = []

    def metric(labels, rows):
        seen.append((labels, rows))
        return float(len(set(rows[:, 0])))

    result = group_bootstrap(metric, y_true, probabilities, cell, n_resamples=20)
    assert result.value == 8 == result.n_groups
    assert len(seen) == 21
    for labels, rows in seen:
        numbers = rows[:, 0]
        assert all(count % 3 == 0 for count in np.unique(numbers, return_counts=True)[1])
        np.testing.assert_array_equal(labels, np.where(numbers % 4 == 0, "rare", "common"))
        assert np.count_nonzero(labels == "rare") == 6  # two cells of three images


def test_a_function_has_an_interval_like_that_of_a_name():
    y_true, y_pred, cell = cells(n_groups=400, n_images=2)
    named = group_bootstrap("accuracy", y_true, y_pred, cell)
    function = group_bootstrap(lambda a, b: np.mean(a == b), y_true, y_pred, cell)
    assert function.value == named.value
    assert [function.low, function.high] == pytest.approx([named.low, named.high], abs=0.01)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"metric": "acuracy"}, ValueError, "metric='acuracy' is not known. Give 'accuracy', "),
        ({"metric": 3}, TypeError, "metric must be 'accuracy', .* got int"),
        ({"y_pred": ["a"]}, ValueError, "y_true holds 3 labels, y_pred 1 rows"),
        ({"y_pred": ["A", "b", "b"]}, ValueError, "y_true holds 'a', y_pred 'A'"),
        ({"y_true": [], "y_pred": [], "groups": []}, ValueError, "y_true is empty"),
        ({"groups": [1, 2]}, ValueError, "groups holds 2 groups, y_true 3 labels"),
        ({"groups": [1, None, 2]}, ValueError, r"groups\[1\] is None: every image needs a group"),
        ({"groups": [1.0, 2.0, np.nan]}, ValueError, r"groups\[2\] is nan: every image needs"),
        ({"groups": ["x", "x", "x"]}, ValueError, "groups names one group only, 'x'"),
        ({"groups": [[1], [2], [3]]}, ValueError, r"groups\[0\] is \[1\], but groups are one"),
        ({"groups": "abc"}, TypeError, "groups must be an array-like of groups, got str"),
        ({"n_resamples": 1}, ValueError, "n_resamples must be a whole number from 2, got 1"),
        ({"n_resamples": True}, ValueError, "n_resamples must be .* got True"),
        ({"confidence_level": 95}, ValueError, "confidence_level must lie between .* got 95"),
        ({"metric": len, "y_pred": 3}, ValueError, "y_true holds 3 labels, y_pred no rows"),
    ],
)
def test_what_is_refused(changed, error, message):
    given = {
        "metric": "accuracy",
        "y_true": ["a", "b", "b"],
        "y_pred": ["a", "b", "a"],
        "groups": [1, 2, 2],
    }
    with pytest.raises(error, match=message):
        group_bootstrap(**(given | changed))


@pytest.mark.parametrize("n_images", [1, 8])
@pytest.mark.parametrize("n_wrong", [0, 4, 20])
def test_the_share_of_right_has_the_interval_of_resamples(n_images, n_wrong):
    groups = np.repeat(np.arange(60), np.arange(60) % n_images + 1)
    is_right = groups >= n_wrong
    labels = np.array(["a"] * len(groups))
    expected = group_bootstrap(
        "accuracy", labels, np.where(is_right, "a", "b"), groups, n_resamples=4000
    )
    value, low, high = interval_of_right(is_right, groups * 3)  # gaps do not matter
    assert value == expected.value
    # The variance of 4,000 resamples is known to 3%, ours is to first order only, and where all are
    # right the width is proportional to the variance.
    width = expected.high - expected.low
    assert [low, high] == pytest.approx([expected.low, expected.high], abs=0.1 * width)


def test_one_group_tells_next_to_nothing():
    value, low, high = interval_of_right(np.array([True, True]), np.array([5, 5]))
    assert value == high == 1 and 0 < low < 0.02


def ranked(random, n_groups=60, n_images=5, share=0.3):
    """Return scores, which are positive, and groups; the first groups alone hold positives."""
    groups = np.repeat(np.arange(n_groups), n_images)
    is_positive = groups < share * n_groups
    of_groups = random.standard_normal(n_groups)[groups]
    return is_positive * 1.5 + of_groups + random.standard_normal(len(groups)), is_positive, groups


SKLEARN = {"roc_auc": metrics.roc_auc_score, "average_precision": metrics.average_precision_score}


@pytest.mark.parametrize("digits", [0, 8])
def test_rankings_are_scikit_learns_and_vary_as_resamples_do(digits):
    random = np.random.default_rng(0)
    scores, is_positive, groups = ranked(random)
    scores = scores.round(digits)  # with many ties, or none
    found = rank(scores, is_positive, groups, 0.95)
    assert found.keys() == SKLEARN.keys()
    resamples = {name: [] for name in SKLEARN}
    rows = groups.reshape(60, 5) * 5 + np.arange(5)
    for _ in range(400):
        taken = rows[np.r_[random.integers(0, 18, 18), random.integers(18, 60, 42)]].ravel()
        for name, score in SKLEARN.items():
            resamples[name].append(score(is_positive[taken], scores[taken]))
    for name, score in SKLEARN.items():
        value, low, high = found[name]
        assert value == pytest.approx(score(is_positive, scores))
        # 4 times the standard deviation is a 95% interval's width. Ours is wider, for 18 groups: by
        # Student's quantile, Bessel's correction (3%), and the group that comes to them. The
        # deviation of 400 resamples is known to 1 / sqrt(800), which is 4%.
        ratio = (high - low) / (4 * np.std(resamples[name]))
        assert 0.95 < ratio < 1.3


def test_copies_change_no_ranking_and_few_groups_of_a_kind_make_it_unsure():
    scores, is_positive, groups = ranked(np.random.default_rng(0), n_images=1)
    one = rank(scores, is_positive, groups, 0.95)
    four = rank(*(np.repeat(each, 4) for each in (scores, is_positive, groups)), 0.95)
    apart = rank(np.repeat(scores, 4), np.repeat(is_positive, 4), np.arange(240), 0.95)
    for name in SKLEARN:
        assert four[name] == pytest.approx(one[name])
        assert np.ptp(apart[name][1:]) < 0.7 * np.ptp(one[name][1:])
    perfect = {
        n: rank(np.r_[np.ones(n), np.zeros(50)], np.arange(50 + n) < n, np.arange(50 + n), 0.95)
        for n in (1, 4, 20)
    }
    for name in SKLEARN:
        limits = [perfect[n][name][1] for n in (1, 4, 20)]
        assert limits == sorted(limits) and limits[0] < 0.1 < limits[1] < 0.8 < limits[2] < 1


def test_equal_scores_rank_nothing():
    found = rank(np.ones(20), np.arange(20) < 5, np.arange(20), 0.95)
    assert found["roc_auc"][0] == 0.5 and found["average_precision"][0] == 0.25


def test_a_mean_loss_has_the_interval_of_its_groups():
    random = np.random.default_rng(0)
    of_groups = random.exponential(0.4, 2000)
    value, low, high = mean_loss(of_groups, np.arange(2000), np.log(4), 0.95)
    # The standard error of an exponential mean is the mean over the root of n.
    assert value == of_groups.mean()
    assert high - low == pytest.approx(2 * 1.96 * 0.4 / np.sqrt(2000), rel=0.1)
    copies = np.repeat(of_groups[:50], 4), np.repeat(np.arange(50), 4)
    one = mean_loss(of_groups[:50], np.arange(50), np.log(4), 0.95)
    assert mean_loss(*copies, np.log(4), 0.95) == pytest.approx(one)
    # Thirty cells without a loss: the limit is finite, and that of a few guesses among them.
    value, low, high = mean_loss(np.zeros(30), np.arange(30), np.log(4), 0.95)
    assert value == low == 0 and np.log(4) / 30 < high < 6 * np.log(4) / 30


def test_groups_are_numbered_in_their_order():
    assert check_groups(["b", "a", "b"], 3).tolist() == [0, 1, 0]
