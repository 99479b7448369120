"""train_test_split_cells: no cell on both sides, every class on both, shares kept."""

import csv
import warnings

import numpy as np
import pytest

from wbcclf.exceptions import SmallClassWarning
from wbcclf.model_selection import train_test_split_cells

CLASSES = np.array(["basophil", "eosinophil", "lymphocyte", "neutrophil"])


def cells(counts, seed=0, largest=40):
    """Return labels and groups of so many cells of each class, of 1 to `largest` images."""
    random = np.random.RandomState(seed)
    label = np.repeat(CLASSES[: len(counts)], counts)
    groups = np.repeat(np.arange(len(label)), random.randint(1, largest + 1, len(label)))
    order = random.permutation(len(groups))
    return label[groups[order]], groups[order]


def sides(y, groups, **params):
    """Return the sets of (class, group) in training and test, after checking what always holds."""
    train, test = train_test_split_cells(y, groups, **params)
    assert np.array_equal(np.union1d(train, test), np.arange(len(y)))
    assert len(train) + len(test) == len(y)
    assert np.array_equal(np.sort(train), train) and np.array_equal(np.sort(test), test)
    y, groups = np.asarray(y), np.asarray(groups)
    one, other = (set(zip(y[k].tolist(), groups[k].tolist(), strict=True)) for k in (train, test))
    assert {group for _, group in one}.isdisjoint(group for _, group in other)
    return one, other


def n_groups(side, label):
    return sum(name == label for name, _ in side)


@pytest.mark.parametrize("test_size", [0.05, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(5))
def test_every_class_gives_its_share_of_groups_and_is_on_both_sides(test_size, seed):
    counts = [2, 3, 20, 60]
    y, groups = cells(counts, seed)
    train, test = sides(y, groups, test_size=test_size, random_state=seed)
    for label, count in zip(CLASSES, counts, strict=True):
        assert n_groups(test, label) == min(max(1, round(test_size * count)), count - 1)
        assert n_groups(train, label) == count - n_groups(test, label)


def test_a_seed_gives_one_split_and_other_seeds_give_others():
    y, groups = cells([2, 5, 20, 60])
    params = [{"random_state": 3}, {"random_state": np.random.RandomState(3)}]
    one, same = (train_test_split_cells(y, groups, **each)[1] for each in params)
    np.testing.assert_array_equal(one, same)
    tests = {train_test_split_cells(y, groups, random_state=k)[1].tobytes() for k in range(20)}
    assert len(tests) == 20
    default = train_test_split_cells(y, groups)[1]
    np.testing.assert_array_equal(
        default, train_test_split_cells(y, groups, test_size=0.2, random_state=0)[1]
    )


def test_seeds_test_different_groups():
    y, groups = cells([4, 6, 10, 20])
    n_tested = np.zeros(40)
    for seed in range(60):
        n_tested[np.unique(groups[train_test_split_cells(y, groups, random_state=seed)[1]])] += 1
    assert np.mean(n_tested > 0) >= 0.9 and n_tested.max() < 50


def test_shares_of_images_are_kept_where_groups_are_unequal():
    y, groups = cells([10, 10, 20, 60], largest=300)
    for seed in range(5):
        _, test = train_test_split_cells(y, groups, random_state=seed)
        shares = [np.mean(np.isin(np.flatnonzero(y == label), test)) for label in CLASSES]
        assert np.abs(np.array(shares) - 0.2).mean() < 0.05


def test_groups_of_several_classes_are_split_too():
    # Twelve patients with cells of both common classes; two of them have the rare one.
    patient = np.repeat([f"p{k}" for k in range(12)], 10)
    y = np.tile(["neutrophil"] * 6 + ["lymphocyte"] * 4, 12)
    y[[9, 59]] = "basophil"
    for seed in range(5):
        train, test = sides(y, patient, test_size=0.25, random_state=seed)
        assert len({group for _, group in test}) == 3
        assert n_groups(train, "basophil") == n_groups(test, "basophil") == 1


def test_a_class_with_one_group_is_trained_on_with_a_warning():
    y, groups = cells([1, 1, 5, 9])
    with pytest.warns(SmallClassWarning, match="one group only: basophil, eosinophil"):
        train, test = sides(y, groups)
    assert n_groups(train, "basophil") == n_groups(train, "eosinophil") == 1
    assert {label for label, _ in test} == {"lymphocyte", "neutrophil"}
    with warnings.catch_warnings(action="error"):
        train_test_split_cells(*cells([2, 2, 5, 9]))


def test_what_no_split_can_do_is_an_error():
    # Three classes, each pair of which shares a group: two of three groups are on one side.
    y = ["a", "b", "b", "c", "c", "a"]
    groups = [0, 0, 1, 1, 2, 2]
    with pytest.raises(
        ValueError, match=r"No split was found with images of [abc] in training and"
    ):
        train_test_split_cells(y, groups)
    with pytest.raises(ValueError, match="Every class has one group only"):
        train_test_split_cells(["a", "a", "b"], [0, 0, 1])


def test_labels_and_groups_may_be_numbers_or_text():
    y, groups = cells([3, 5, 8, 9])
    expected = train_test_split_cells(y, groups)[1]
    numbers = np.searchsorted(CLASSES, y)
    for one, other in ((numbers, groups), (y.tolist(), [f"g{k}" for k in groups])):
        np.testing.assert_array_equal(train_test_split_cells(one, other)[1], expected)


@pytest.mark.parametrize(
    ("y", "groups", "params", "error", "says"),
    [
        ([], [], {}, ValueError, "y is empty"),
        (["a", "b"], [0], {}, ValueError, "groups holds 1 groups, y 2 labels"),
        (["a", "b"], [0, 0], {}, ValueError, "a split by group needs two groups or more"),
        (["a", "b"], [0, None], {}, ValueError, r"groups\[1\] is None.*cannot be a split by group"),
        ("ab", [0, 1], {}, TypeError, "y must be an array-like of labels"),
        ([0.5, 1], [0, 1], {}, ValueError, r"y\[0\] is 0.5"),
        (["a", "b"], [0, 1], {"test_size": 1}, ValueError, "test_size must lie between 0 and 1"),
        (["a", "b"], [0, 1], {"test_size": "x"}, ValueError, "got 'x'"),
    ],
)
def test_wrong_input_is_named(y, groups, params, error, says):
    with pytest.raises(error, match=says):
        train_test_split_cells(y, groups, **params)


def test_real_cells_of_very_unequal_size_are_shared_out(wbcclf_data):
    with (wbcclf_data / "blood-cells" / "cells.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "TRAIN"]
    y, groups = (np.array([row[name] for row in rows]) for name in ("class", "cell_id"))
    _, sizes = np.unique(groups, return_counts=True)
    assert sizes.max() > 10 * np.median(sizes)  # what makes it hard
    for seed in range(3):
        _, test = sides(y, groups, random_state=seed)
        _, rows = train_test_split_cells(y, groups, random_state=seed)
        for label in np.unique(y):
            share = np.mean(np.isin(np.flatnonzero(y == label), rows))
            assert share == pytest.approx(0.2, abs=0.06)
            n_cells = len(set(groups[y == label]))
            assert n_groups(test, label) == pytest.approx(0.2 * n_cells, abs=1)
