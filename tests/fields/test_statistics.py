"""Intervals of a differential count against exact limits, published formulas and simulations."""

import numpy as np
import pytest
from scipy.stats import beta, binomtest, chi2

from wbcclf.fields import _statistics
from wbcclf.fields._statistics import correct, wilson, wilson_ratio

# A healthy adult: neutrophils, lymphocytes, monocytes, eosinophils, basophils.
SHARES = np.array([0.60, 0.30, 0.06, 0.03, 0.01])
RECALL = np.array(
    [
        [0.94, 0.01, 0.02, 0.03, 0.00],
        [0.01, 0.95, 0.03, 0.00, 0.01],
        [0.05, 0.07, 0.87, 0.01, 0.00],
        [0.06, 0.00, 0.01, 0.92, 0.01],
        [0.10, 0.05, 0.00, 0.05, 0.80],
    ]
)


@pytest.mark.parametrize(("total", "points"), [(100, 0.7), (200, 0.4), (500, 0.2), (1000, 0.1)])
def test_the_interval_of_a_class_is_near_the_exact_limits_of_ruemkes_table(total, points):
    counts = np.arange(total + 1)
    # Clopper and Pearson's limits by way of the beta distribution.
    exact = np.stack(
        [beta.ppf(0.025, counts, total - counts + 1), beta.ppf(0.975, counts + 1, total - counts)],
        axis=1,
    )
    exact[0, 0], exact[-1, 1] = 0, 1
    difference = 100 * np.abs(wilson(counts, total) - exact)
    assert difference.max() < points
    assert difference.max() > points / 2  # it is no looser than it need be


def test_the_interval_is_wilsons():
    for count in (0, 1, 9, 60, 100):
        expected = binomtest(count, 100).proportion_ci(0.95, "wilson")
        assert wilson(np.array([count]), 100)[0] == pytest.approx(list(expected), abs=1e-12)


def test_the_interval_for_all_classes_is_goodmans():
    counts, total = np.array([57, 33, 6, 4, 0]), 100
    # Equation 2.5 of Goodman (1965) with the percentage point that he gives for it.
    b = chi2.ppf(1 - 0.05 / len(counts), 1)
    root = np.sqrt(b * (b + 4 * counts * (total - counts) / total))
    limits = np.stack([b + 2 * counts - root, b + 2 * counts + root], axis=1) / (2 * (total + b))
    assert wilson(counts, total, len(counts)) == pytest.approx(limits)


@pytest.mark.parametrize("total", [100, 200, 1000])
def test_the_intervals_for_all_classes_hold_together(total):
    drawn, times = np.unique(
        np.random.default_rng(0).multinomial(total, SHARES, 2000), axis=0, return_counts=True
    )

    def share_that_hold(n_intervals):
        limits = np.array([wilson(counts, total, n_intervals) for counts in drawn])
        hold = ((limits[..., 0] <= SHARES) & (SHARES <= limits[..., 1])).all(axis=1)
        return np.average(hold, weights=times)

    assert share_that_hold(len(SHARES)) > 0.94
    assert share_that_hold(1) < 0.87  # what they are for


@pytest.mark.parametrize(("rate", "n_white"), [(0.01, 200), (0.1, 100), (0.5, 200), (4, 50)])
def test_the_interval_of_cells_per_white_cell_holds_the_truth(rate, n_white):
    """If so much blood is looked at, and if so many white cells are counted."""
    random = np.random.default_rng(0)
    n_times = 4000
    drops = zip(
        random.poisson(rate * n_white, n_times), random.poisson(n_white, n_times), strict=True
    )
    until = ((n, n_white) for n in random.negative_binomial(n_white, 1 / (1 + rate), n_times))
    for counts in (drops, until):
        limits = np.array([wilson_ratio(np.array([n]), white)[0] for n, white in counts])
        hold = np.mean((limits[:, 0] <= rate) & (rate <= limits[:, 1]))
        assert 0.935 < hold < 0.97  # chance alone makes 0.01 either way


def test_no_cells_have_no_interval():
    assert np.isnan(wilson(np.zeros(3, int), 0)).all()
    assert np.isnan(wilson_ratio(np.array([0, 5]), 0)).all()
    assert wilson_ratio(np.zeros(0, int), 5).shape == (0, 2)
    shares, limits = correct(np.zeros(3, int), np.eye(3, dtype=int), 0)
    assert np.isnan(shares).all() and np.isnan(limits).all()


def test_the_correction_is_the_inverse_of_the_confusion_matrix():
    counts = np.rint(100_000 * SHARES @ RECALL).astype(int)
    confusion = np.rint(1000 * RECALL).astype(int)
    shares, _ = correct(counts, confusion, 0)
    inverse = np.linalg.solve(RECALL.T, counts / counts.sum())
    assert inverse.min() > 0
    assert shares == pytest.approx(inverse, abs=1e-4)
    assert shares == pytest.approx(SHARES, abs=1e-4)


def test_where_the_inverse_is_negative_no_share_is():
    # Four in a hundred neutrophils are called basophils: fewer were counted.
    confusion = np.array([[96, 4], [0, 100]])
    assert np.linalg.solve((confusion / 100).T, [0.98, 0.02]).min() < 0
    shares, limits = correct(np.array([98, 2]), confusion, 0)
    assert shares == pytest.approx([1, 0], abs=2e-3)
    assert (limits >= 0).all() and (limits <= 1).all()


def test_the_corrected_interval_holds_the_estimate_where_all_cells_are_of_one_class():
    shares, limits = correct(np.array([4, 0, 0]), 8 * np.eye(3, dtype=int), 0)
    assert shares == pytest.approx([1, 0, 0])
    assert limits[0, 0] < 0.9 and limits[1:, 1].min() > 0.1
    assert (limits[:, 0] <= shares).all() and (shares <= limits[:, 1]).all()


def test_a_classifier_that_never_errs_needs_no_correction():
    counts = np.array([60, 30, 10, 0])
    shares, limits = correct(counts, 100_000 * np.eye(4, dtype=int), 0)
    assert shares == pytest.approx(counts / 100)
    assert limits == pytest.approx(wilson(counts, 100), abs=0.015)


def test_fewer_test_cells_make_the_interval_wider():
    counts = np.rint(200 * SHARES @ RECALL).astype(int)
    few, some, many = (
        np.diff(correct(counts, np.rint(n * RECALL).astype(int), 0)[1])[:, 0]
        for n in (20, 100, 100_000)
    )
    common = np.s_[:3]  # of the rare ones hardly any cell was counted, whatever the matrix
    assert (few[common] > some[common]).all() and (some[common] > many[common]).all()
    # Even a matrix that is known does not give back what the errors have taken.
    assert (many[common] > np.diff(wilson(counts, counts.sum()))[common, 0]).all()


@pytest.mark.parametrize(
    ("total", "test_cells"), [(100, [50] * 5), (200, [100, 60, 20, 15, 5]), (500, [500] * 5)]
)
def test_the_corrected_interval_holds_the_truth(total, test_cells, monkeypatch):
    monkeypatch.setattr(_statistics, "DRAWS", 200)
    random = np.random.default_rng(0)
    n_times = 150
    hold = np.zeros(len(SHARES))
    naive = np.zeros(len(SHARES))
    for time in range(n_times):
        confusion = random.multinomial(test_cells, RECALL)
        counts = random.multinomial(total, SHARES @ RECALL)
        shares, limits = correct(counts, confusion, time)
        assert shares.sum() == pytest.approx(1)
        hold += (limits[:, 0] <= SHARES) & (SHARES <= limits[:, 1])
        limits = wilson(counts, total)
        naive += (limits[:, 0] <= SHARES) & (SHARES <= limits[:, 1])
    # Of 150 at 0.95, fewer than 0.88 in one of 5,000.
    assert (hold / n_times).min() >= 0.88
    if total == 500:
        assert (naive / n_times).min() < 0.85


def test_the_same_seed_gives_the_same_interval():
    counts, confusion = np.array([60, 30, 10]), np.array([[9, 1, 0], [1, 9, 0], [1, 0, 9]])
    one, same, other = (correct(counts, confusion, seed)[1] for seed in (0, 0, 1))
    assert (one == same).all() and (one != other).any()
