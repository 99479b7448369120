"""The pictures: what they show, where they are drawn, and what is refused before the work."""

import itertools
import sys
from functools import partial

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
    LearningRateDisplay,
    evaluate,
    evaluate_predictions,
    find_learning_rate,
    plot_confusion,
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


def texts(ax):
    return [text.get_text() for text in ax.texts]


PAIRS = ["b"] * 8 + ["a"] * 2, ["b"] * 6 + ["a"] * 4


@pytest.mark.parametrize(
    "plot", [partial(plot_confusion, *PAIRS), evaluate_predictions(*PAIRS).plot_confusion]
)
def test_the_confusion_matrix_shows_counts_shaded_by_recall(plot):
    ax = plot()
    assert texts(ax) == ["2", "0", "2", "6"]
    [image] = ax.images
    np.testing.assert_allclose(image.get_array(), [[1, 0], [0.25, 0.75]])
    assert image.get_clim() == (0, 1)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert ax.get_title() == "accuracy 0.800, macro-F1 0.762"
    assert plt.fignum_exists(ax.figure.number)  # a notebook shows it
    ax = plot(errors_only=True)
    assert texts(ax) == ["2"] and ax.get_title() == "2 errors"
    [image] = ax.images
    np.testing.assert_allclose(image.get_array(), [[0, 0], [0.25, 0]])
    assert image.get_clim() == (0, 0.25)


@pytest.mark.parametrize("wrap", [lambda e: e, make_pipeline, lambda e: GridSearchCV(e, {}, cv=2)])
def test_an_estimator_is_evaluated(wrap, fitted):
    estimator = wrap(fitted).fit(X, Y)
    result = evaluate(estimator, X, Y)
    expected = evaluate_predictions(Y, estimator.predict(X))
    np.testing.assert_array_equal(result.confusion, expected.confusion)
    np.testing.assert_array_equal(result.of_images.probabilities, estimator.predict_proba(X))
    assert result.estimator is estimator and result.images is X


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_axes_of_any_figure_are_drawn_on(suffix, fitted, tmp_path):
    ax = Figure().subfigures(1, 2)[0].add_subplot()
    assert evaluate(fitted, X, Y).plot_confusion(ax=ax) is ax
    assert not plt.get_fignums()  # none was made
    path = tmp_path / f"confusion{suffix}"
    ax.get_figure(root=True).savefig(path)
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
    ax = evaluation.plot_confusion()
    ax.figure.canvas.draw()

    def boxes(texts):
        return [text.get_window_extent() for text in texts]

    columns, rows = boxes(ax.get_xticklabels()), boxes(ax.get_yticklabels())
    frame = ax.figure.bbox
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
    ("model", "y", "error", "message"),
    [
        ("model.wbcclf", Y, TypeError, "model must be a fitted classifier, got str"),
        (Idle, Y, TypeError, "got the class Idle"),
        (Idle(), Y, NotFittedError, "Idle instance is not fitted"),
        (LinearRegression().fit(X, X), Y, TypeError, "LinearRegression has no classes"),
        (
            GridSearchCV(LogisticRegression(), {}, cv=2, refit=False).fit(X, Y),
            Y,
            TypeError,
            "refit=True",
        ),
        (Idle().fit(X, Y), Y[1:], ValueError, "X holds 8 images, y 7 labels"),
        (Idle().fit(X, Y), np.arange(8) % 2, ValueError, "y holds labels such as 0"),
        (Idle().fit(X, Y), np.char.upper(Y), ValueError, "y holds 'LYMPH'"),
        (Idle().fit(X, Y.astype(object)), [None] * 8, ValueError, r"y\[0\] is None"),
    ],
)
def test_mistakes_are_told_before_the_work(model, y, error, message):
    with pytest.raises(error, match=message):
        evaluate(model, X, y)


def test_groups_that_are_none_are_told_before_the_work():
    with pytest.raises(ValueError, match="groups holds 2 groups, y 8 labels"):
        evaluate(Idle().fit(X, Y), X, Y, groups=[1, 2])


def test_a_path_is_no_place_to_draw():
    with pytest.raises(TypeError, match=r"ax must be.*savefig\(path\)"):
        plot_confusion(Y, Y, ax="confusion.png")


def test_labels_of_object_arrays_are_labels(fitted):
    model = LogisticRegression().fit(X, Y.astype(object))
    assert evaluate(model, X, Y).to_json() == evaluate(fitted, X, Y).to_json()


def test_drawing_without_matplotlib_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    for call in (
        lambda: plot_confusion(["a"], ["a"]),
        evaluate_predictions(["a"], ["a"]).plot_confusion,
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
