"""The table of a count: which cells are 100 per cent, and evaluations that correct nothing."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from wbcclf.fields._table import find_white, make_table, read_confusion

CLASSES = ["basophil", "erythroblast", "neutrophil", "smudge"]
IS_WHITE = np.array([True, False, True, False])
CELLS = np.array([2, 10, 78, 0])  # of each class


def table_of(cells, confusion=None, is_white=IS_WHITE, status="called"):
    labels = np.repeat(np.arange(len(cells)), cells)
    columns = make_table(labels, np.full(len(labels), status), CLASSES, is_white, confusion, 0)
    return pd.DataFrame(columns).set_index("class")


def test_cells_that_are_not_white_are_no_part_of_the_100_per_cent():
    table = table_of(CELLS)
    assert table.index.tolist() == ["basophil", "neutrophil", "erythroblast", "smudge", "uncertain"]
    assert table.cells.tolist() == [2, 78, 10, 0, 0]
    assert table.percent.tolist()[:4] == [2.5, 97.5, 12.5, 0]
    without = make_table(
        np.repeat([0, 1], [2, 78]),
        np.full(80, "called"),
        ["basophil", "neutrophil"],
        np.full(2, True),
        None,
        0,
    )
    for name in ("percent", "low", "high", "low_all", "high_all"):
        assert table[name].tolist()[:2] == without[name][:2].tolist()


def test_their_interval_is_that_of_a_ratio():
    table = table_of(CELLS)
    share = binomtest(10, 90).proportion_ci(0.95, "wilson")
    expected = [100 * p / (1 - p) for p in share]
    assert table.loc["erythroblast", ["low", "high"]].tolist() == pytest.approx(expected)
    assert table.loc["smudge", "low"] == 0 and table.loc["smudge", "high"] > 4
    assert table.loc[["erythroblast", "smudge"], ["low_all", "high_all"]].isna().all(axis=None)


def test_more_of_them_than_white_cells():
    table = table_of(np.array([0, 30, 10, 0]))
    assert table.percent["erythroblast"] == 300
    assert table.low["erythroblast"] < 300 < table.high["erythroblast"] < 1000


def test_without_white_cells_there_is_no_per_cent():
    confusion = np.diag([10, 10, 10, 10])
    table = table_of(np.array([0, 5, 0, 0]), confusion)
    assert table.cells["erythroblast"] == 5
    assert table.drop(columns="cells").isna().all(axis=None)


def test_the_correction_is_per_100_white_cells_too():
    # Of 1,000 cells, one erythroblast in ten is called a neutrophil.
    true = np.array([20, 200, 780, 0])
    confusion = np.array([[1000, 0, 0, 0], [0, 900, 100, 0], [0, 0, 1000, 0], [0, 0, 0, 1000]])
    called = true @ confusion // 1000
    table = table_of(called, confusion)
    assert table.percent["erythroblast"] == pytest.approx(100 * 180 / 820)
    assert table.corrected["erythroblast"] == pytest.approx(100 * 200 / 800, abs=0.01)
    assert table.corrected["neutrophil"] == pytest.approx(100 * 780 / 800, abs=0.01)
    for name in ("basophil", "neutrophil", "erythroblast"):
        assert table.corrected_low[name] < table.corrected[name] < table.corrected_high[name]
    # A row of its own for the uncertain cells, which the correction counts.
    uncertain = table_of(called, confusion, status="uncertain")
    assert uncertain.corrected.dropna().tolist() == table.corrected.dropna().tolist()


def test_if_all_white_cells_may_be_errors_there_is_no_upper_limit():
    # One in twenty erythroblasts is called a neutrophil: that may be the one that was seen.
    confusion = np.array([[1000, 0, 0, 0], [0, 950, 50, 0], [0, 0, 1000, 0], [0, 0, 0, 1000]])
    table = table_of(np.array([0, 1000, 1, 0]), confusion)
    assert np.isfinite(table.drop("uncertain")[["corrected", "corrected_high"]]).all(axis=None)
    assert table.corrected_high["erythroblast"] > 1e6


def test_which_classes_are_white():
    assert find_white(CLASSES, ()).all()
    assert (find_white(CLASSES, ["smudge", "erythroblast", "smudge"]) == IS_WHITE).all()
    assert find_white(["0", "1"], [np.int64(1)]).tolist() == [True, False]  # labels are numbers


@pytest.mark.parametrize(
    ("not_white", "error", "message"),
    [
        ("smudge", TypeError, "not_white must be a list of classes, got 'smudge'"),
        (None, TypeError, "must be a list"),
        (
            ["smudge", "b", "a"],
            ValueError,
            "not_white names a, b, unknown to the model. The model's classes are basophil, ery",
        ),
        (CLASSES, ValueError, "not_white leaves no class of white cells"),
    ],
)
def test_classes_that_cannot_be_left_out(not_white, error, message):
    with pytest.raises(error, match=message):
        find_white(CLASSES, not_white)


TWO = ["dark", "pale"]


@pytest.mark.parametrize(
    ("evaluation", "error", "message"),
    [
        (np.eye(2), TypeError, "evaluation must be what evaluate returned"),
        ({"confusion": [[1]]}, TypeError, "with classes and confusion"),
        ({"classes": 5, "confusion": [[1]]}, ValueError, r"\['classes'\] must be a list.* got 5"),
        ({"classes": "dark", "confusion": [[1]]}, ValueError, "must be a list.* got 'dark'"),
        ({"classes": [], "confusion": []}, ValueError, r"must be a list.* got \[\]"),
        (
            {"classes": ["dark", *TWO], "confusion": np.eye(3, dtype=int)},
            ValueError,
            "each named once",
        ),
        ({"classes": TWO, "confusion": [[1, 2, 3]]}, ValueError, "2 classes.*1, 3"),
        ({"classes": TWO, "confusion": [[1, 2], [3]]}, ValueError, "rows of different lengths"),
        ({"classes": TWO, "confusion": None}, ValueError, r"got shape \(\) and dtype object"),
        ({"classes": TWO, "confusion": [[0.5, 1], [0, 1]]}, ValueError, "float64"),
        ({"classes": TWO, "confusion": [[-1, 2], [0, 1]]}, ValueError, "counts.* got -1"),
        ({"classes": TWO, "confusion": [[1, 2], [0, 0]]}, ValueError, "class pale"),
        ({"classes": ["dark"], "confusion": [[1]]}, ValueError, "no cell .* class pale"),
        (
            {"classes": ["dark", "odd", "pale"], "confusion": np.eye(3, dtype=int)},
            ValueError,
            "does not know: odd.*knows dark, pale",
        ),
    ],
)
def test_an_evaluation_that_is_none(evaluation, error, message):
    with pytest.raises(error, match=message):
        read_confusion(evaluation, TWO)
