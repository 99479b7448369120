"""The pictures: what they show, where they are drawn, and what is refused before the work."""

import itertools
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from wbcclf import SimpleCNNClassifier
from wbcclf.inspection import (
    EvaluationDisplay,
    LearningRateDisplay,
    evaluate_predictions,
    find_learning_rate,
)

X = np.arange(8.0)[:, None]
Y = np.array(["mono", "lymph"]).repeat(4)


@pytest.fixture(autouse=True)
def no_figure_is_left():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def fitted():
    return LogisticRegression().fit(X, Y)


def texts(display):
    return [text.get_text() for text in display.ax_.texts]


def test_the_confusion_matrix_shows_counts_shaded_by_recall():
    display = EvaluationDisplay.from_predictions(["b"] * 8 + ["a"] * 2, ["b"] * 6 + ["a"] * 4)
    assert texts(display) == ["2", "0", "2", "6"]
    [image] = display.ax_.images
    np.testing.assert_allclose(image.get_array(), [[1, 0], [0.25, 0.75]])
    assert image.get_clim() == (0, 1)
    assert [label.get_text() for label in display.ax_.get_yticklabels()] == ["a", "b"]
    assert display.ax_.get_title() == "accuracy 0.800, macro-F1 0.762"
    assert plt.fignum_exists(display.figure_.number)  # a notebook shows it


@pytest.mark.parametrize("wrap", [lambda e: e, make_pipeline, lambda e: GridSearchCV(e, {}, cv=2)])
def test_an_estimator_is_evaluated(wrap, fitted):
    estimator = wrap(fitted).fit(X, Y)
    display = EvaluationDisplay.from_estimator(estimator, X, Y)
    expected = evaluate_predictions(Y, estimator.predict(X)).confusion
    assert texts(display) == [str(count) for count in expected.ravel()]


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_axes_of_any_figure_are_drawn_on(suffix, fitted, tmp_path):
    ax = Figure().subfigures(1, 2)[0].add_subplot()
    display = EvaluationDisplay.from_estimator(fitted, X, Y, ax=ax)
    assert display.ax_ is ax
    assert not plt.get_fignums()  # none was made
    path = tmp_path / f"confusion{suffix}"
    display.figure_.savefig(path)
    assert path.stat().st_size > 1000


NAMES = [
    "neutrophilic metamyelocyte",
    "LARGE GRANULAR LYMPHOCYTE",
    "blast, without a lineage",
    "$\\x",
]


@pytest.mark.parametrize("n_classes", [1, 2, 8, 20])
def test_nothing_is_cut_or_overlaps(n_classes):
    names = [f"{NAMES[k % 4]} {k}" for k in range(n_classes)]
    evaluation = evaluate_predictions(names, names)
    evaluation.confusion += 12_345
    display = EvaluationDisplay(evaluation).plot()
    display.figure_.canvas.draw()

    def boxes(texts):
        return [text.get_window_extent() for text in texts]

    ax = display.ax_
    columns, rows = boxes(ax.get_xticklabels()), boxes(ax.get_yticklabels())
    frame = display.figure_.bbox
    for box in [*columns, *rows, *boxes([ax.title, ax.xaxis.label, ax.yaxis.label])]:
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1
        assert frame.y0 <= box.y0 and box.y1 <= frame.y1
    for one, other in itertools.combinations([*boxes(ax.texts), *rows], 2):
        assert not one.overlaps(other)
    for one, other in itertools.pairwise(columns):  # turned by 45 degrees, each as high as wide
        assert other.x1 - one.x1 > 12


class Idle(LogisticRegression):
    def predict(self, X):
        raise AssertionError("predicted before the check")


@pytest.mark.parametrize(
    ("estimator", "y", "ax", "error", "message"),
    [
        ("confusion.png", Y, None, TypeError, "estimator must be a fitted classifier, got str"),
        (Idle, Y, None, TypeError, "got the class Idle"),
        (Idle(), Y, None, NotFittedError, "Idle instance is not fitted"),
        (LinearRegression().fit(X, X), Y, None, TypeError, "LinearRegression has no classes"),
        (
            GridSearchCV(LogisticRegression(), {}, cv=2, refit=False).fit(X, Y),
            Y,
            None,
            TypeError,
            "refit=True",
        ),
        (Idle().fit(X, Y), Y[1:], None, ValueError, "X holds 8 images, y 7 labels"),
        (Idle().fit(X, Y), np.arange(8) % 2, None, ValueError, "y holds labels such as 0"),
        (Idle().fit(X, Y), np.char.upper(Y), None, ValueError, "y holds 'LYMPH'"),
        (Idle().fit(X, Y.astype(object)), [None] * 8, None, ValueError, r"y\[0\] is None"),
        (Idle().fit(X, Y), Y, "confusion.png", TypeError, r"ax must be.*savefig\(path\)"),
    ],
)
def test_mistakes_are_told_before_the_work(estimator, y, ax, error, message):
    with pytest.raises(error, match=message):
        EvaluationDisplay.from_estimator(estimator, X, y, ax=ax)


def test_labels_of_object_arrays_are_labels(fitted):
    estimator = LogisticRegression().fit(X, Y.astype(object))
    display = EvaluationDisplay.from_estimator(estimator, X, Y)
    assert texts(display) == texts(EvaluationDisplay.from_estimator(fitted, X, Y))


def test_drawing_without_matplotlib_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    for call in (
        lambda: EvaluationDisplay.from_estimator(Idle().fit(X, Y), X, Y),
        lambda: EvaluationDisplay(evaluate_predictions(["a"], ["a"])).plot(),
        lambda: LearningRateDisplay.from_estimator(SimpleCNNClassifier(), None, None),
    ):
        with pytest.raises(ImportError, match=r"wbcclf\[plot\]"):
            call()


def test_the_learning_rate_curve_is_drawn(cells, clf):
    options = {"n_steps": 12, "highest": 0.1}
    result = find_learning_rate(clf, cells.images, cells.target, **options)
    display = LearningRateDisplay.from_estimator(clf, cells.images, cells.target, **options)
    again = LearningRateDisplay(result).plot(ax=Figure().add_subplot())
    for ax in (display.ax_, again.ax_):
        losses, suggestion = ax.lines
        np.testing.assert_array_equal(losses.get_xydata()[:, 0], result.learning_rates)
        np.testing.assert_array_equal(losses.get_xydata()[:, 1], result.losses)
        assert suggestion.get_xdata()[0] == result.suggestion
        assert ax.get_xscale() == "log"
        assert f"{result.suggestion:.1e}" in ax.get_title()
    assert display.figure_ is display.ax_.figure


def test_a_wrong_place_to_draw_is_told_before_the_training():
    with pytest.raises(TypeError, match="ax must be matplotlib axes"):
        LearningRateDisplay.from_estimator(SimpleCNNClassifier(), None, None, ax="rates.png")
