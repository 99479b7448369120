"""Scores of probabilities: against scikit-learn's and by simulation, and what is drawn of them."""

import copy
import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from scipy.special import softmax
from sklearn import metrics
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from wbcclf import ImageLoader, SimpleCNNClassifier, make_blood_cells
from wbcclf.exceptions import ImageReadError, UnfamiliarImagesWarning
from wbcclf.inspection import evaluate, evaluate_predictions
from wbcclf.inspection.evaluation._calibration import N_BINS

OF_CLASSES = (
    ("roc_auc", metrics.roc_auc_score),
    ("average_precision", metrics.average_precision_score),
)


@pytest.fixture(autouse=True)
def no_figure_is_left():
    yield
    plt.close("all")


def simulated(n_cells=300, n_images=1, seed=0, factor=1.0, names="abc"):
    """Return y_true, probabilities, and groups; they are true for `factor` 1, too sure above."""
    random = np.random.default_rng(seed)
    true = random.integers(0, len(names), n_cells)
    logits = 2 * (2 * np.eye(len(names))[true] + random.standard_normal((n_cells, len(names))))
    shares = softmax(factor * logits, axis=1)
    y_true = np.array(list(names))[true]
    return (
        np.repeat(y_true, n_images),
        np.repeat(shares, n_images, axis=0),
        np.repeat(np.arange(n_cells), n_images),
    )


def evaluated(y_true, shares, groups=None, names="abc"):
    labels = np.array(list(names))
    called = labels[shares.argmax(axis=1)]
    return evaluate_predictions(y_true, called, groups, probabilities=shares, classes=labels)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 40), st.integers(2, 4), st.integers(1, 9), st.integers(0, 1000))
def test_scores_are_those_of_scikit_learn(n_images, n_classes, n_levels, seed):
    random = np.random.default_rng(seed)
    names = "abcd"[:n_classes]
    shares = random.integers(1, n_levels + 1, (n_images, n_classes)).astype(float)  # many ties
    shares /= shares.sum(axis=1, keepdims=True)
    y_true = random.choice(list(names), n_images)
    result = evaluated(y_true, shares, names=names)
    for name, score in OF_CLASSES:
        for place, label in enumerate(result.classes):
            is_one = y_true == label
            value, limits = result[name][place], result[f"{name}_interval"][place]
            if 0 < is_one.sum() < n_images:
                column = names.index(label)
                assert value == pytest.approx(score(is_one, shares[:, column]))
                assert 0 <= limits[0] <= value <= limits[1] <= 1
            else:
                assert np.isnan([value, *limits]).all()
    assert result.log_loss == pytest.approx(metrics.log_loss(y_true, shares, labels=list(names)))
    low, high = result.log_loss_interval
    assert 0 <= low <= result.log_loss <= high


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(3, 5), st.integers(0, 1000))
def test_top_2_is_that_of_scikit_learn(n_images, n_classes, seed):
    random = np.random.default_rng(seed)
    names = "abcde"[:n_classes]
    shares = random.dirichlet(np.ones(n_classes), n_images)  # without ties, where it is ambiguous
    y_true = random.choice(list(names), n_images)
    result = evaluated(y_true, shares, names=names)
    expected = metrics.top_k_accuracy_score(y_true, shares, k=2, labels=list(names))
    assert result.top_2_accuracy == pytest.approx(expected)
    low, high = result.top_2_accuracy_interval
    assert low <= expected <= high and low < high


def test_of_two_classes_both_are_among_the_two_most_probable():
    y_true, shares, _ = simulated(names="ab")
    result = evaluated(y_true, shares, names="ab")
    assert result.top_2_accuracy == 1 and 0.97 < result.top_2_accuracy_interval[0] < 1
    assert result.roc_auc[0] == pytest.approx(result.roc_auc[1])


def test_classes_that_the_model_does_not_know_have_no_scores_of_probabilities():
    y_true, shares, groups = simulated(60)
    known = evaluated(y_true, shares, groups)
    y_more = np.r_[y_true, ["blast"] * 6]
    more = evaluated(y_more, np.r_[shares, shares[:6]], np.r_[groups, np.arange(100, 106)])
    assert more.classes.tolist() == ["a", "b", "blast", "c"]
    for name in ("log_loss", "log_loss_interval", "top_2_accuracy", "top_2_accuracy_interval"):
        assert more[name] == known[name]
    for name, _ in OF_CLASSES:
        np.testing.assert_array_equal(more[name][[0, 1, 3]], known[name])
        assert np.isnan(more[name][2]) and np.isnan(more[f"{name}_interval"][2]).all()
    assert more.risk_coverage.risk[-1] == pytest.approx(1 - more.accuracy)  # these are wrong
    assert more.accuracy == pytest.approx(known.accuracy * 60 / 66)


@pytest.mark.parametrize("names", ["a", "abc"])
def test_one_image(names):
    shares = np.full((1, len(names)), 1 / len(names))
    result = evaluated(["a"], shares, names=names)
    assert result.top_2_accuracy == 1 and result.log_loss == pytest.approx(np.log(len(names)))
    assert np.isnan(result.roc_auc).all()
    assert result.calibration.error_interval == (0, 1)
    assert result.risk_coverage.coverage.tolist() == [1] and result.risk_coverage.risk == [0]
    assert json.loads(result.to_json())["roc_auc"] == [None]


def test_no_image_of_a_known_class():
    shares = np.array([[0.6, 0.4], [0.3, 0.7]])
    result = evaluated(["x", "y"], shares, names="ab")
    assert np.isnan([result.top_2_accuracy, result.log_loss, *result.log_loss_interval]).all()
    assert result.risk_coverage.risk[-1] == 1
    assert not result.plot_roc().lines
    assert "<td>log loss</td><td>-</td>" in result._repr_html_()


def test_the_calibration_error_is_that_of_its_definition():
    y_true, shares, _ = simulated(factor=1.7)
    shares[0] = [1, 0, 0]  # the last bin holds 1, too
    confidence, called = shares.max(axis=1), np.array(list("abc"))[shares.argmax(axis=1)]
    expected, n_binned = 0, 0
    for low in np.arange(N_BINS) / N_BINS:
        chosen = (confidence >= low) & (confidence < low + 1 / N_BINS)
        if low == (N_BINS - 1) / N_BINS:
            chosen = confidence >= low
        if chosen.any():
            gap = abs(np.mean(called[chosen] == y_true[chosen]) - confidence[chosen].mean())
            expected += chosen.mean() * gap
            n_binned += chosen.sum()
    assert n_binned == len(y_true)
    found = evaluated(y_true, shares).calibration
    assert found.error == pytest.approx(expected)
    curve = found.curve
    assert curve.n_images.sum() == len(y_true)
    gaps = np.abs(curve.confidence - curve.accuracy) @ curve.n_images / len(y_true)
    assert gaps == pytest.approx(expected)


def test_true_probabilities_have_the_error_of_chance_and_their_interval_begins_at_zero():
    found = [evaluated(*simulated(100, 3, seed)).calibration for seed in range(30)]
    errors = np.array([each.error for each in found])
    by_chance = np.array([each.error_by_chance for each in found])
    assert errors.mean() == pytest.approx(by_chance.mean(), rel=0.2)  # 30 of sd 25%: 5% each
    # 1.5 of 30 are expected to be above the level of 95%; more than 6 has a chance of 0.1%.
    above = [each.error > each.error_by_chance_high for each in found]
    assert np.sum(above) <= 6
    for each, is_above in zip(found, above, strict=True):
        low, high = each.error_interval
        assert (low == 0) >= (not is_above) and low <= each.error <= high


def test_few_cells_and_copies_make_the_error_of_chance_larger():
    few, many = (evaluated(*simulated(n)).calibration.error_by_chance for n in (50, 500))
    assert few > 2 * many  # by the root of ten, or nearly
    y_true, shares, groups = simulated(100, 10)
    copies = evaluated(y_true, shares, groups).calibration
    apart = evaluated(y_true, shares).calibration
    assert copies.error == pytest.approx(apart.error)
    assert copies.error_by_chance > 2 * apart.error_by_chance
    one = evaluated(*simulated(100)).calibration
    assert copies.error_by_chance == pytest.approx(one.error_by_chance, rel=0.1)


def test_probabilities_that_are_too_sure_are_told():
    found = evaluated(*simulated(400, factor=2.5)).calibration
    low, high = found.error_interval
    assert 0 < low < found.error < high
    assert found.error > found.error_by_chance_high
    curve = found.curve
    below = curve.accuracy < curve.if_calibrated_interval[:, 0]
    assert below.any() and not (curve.accuracy > curve.if_calibrated_interval[:, 1])[-1]


def test_the_bands_of_the_reliability_curve():
    curve = evaluated(*simulated(2000)).calibration.curve
    low, high = curve.if_calibrated_interval.T
    assert (low <= curve.confidence).all() and (curve.confidence <= high).all()
    # Within a bin, the band of n images is that of a binomial share, here to 15%.
    last = curve.n_images.argmax()
    p, n = curve.confidence[last], curve.n_images[last]
    assert high[last] - low[last] == pytest.approx(2 * 1.96 * np.sqrt(p * (1 - p) / n), rel=0.15)
    low, high = curve.accuracy_interval.T
    assert (low <= curve.accuracy).all() and (curve.accuracy <= high).all() and (low < high).all()


def test_risk_and_coverage():
    y_true, shares, groups = simulated(150, 2)
    result = evaluated(y_true, shares, groups)
    found = result.risk_coverage
    assert (np.diff(found.coverage) > 0).all() and found.coverage[-1] == 1
    assert (np.diff(found.least_confidence) <= 0).all()
    assert found.risk[-1] == pytest.approx(1 - result.accuracy)
    low, high = found.risk_interval.T
    assert (low <= found.risk).all() and (found.risk <= high).all()
    order = np.argsort(-result.of_images.confidence, kind="stable")[:30]
    wrong = result.of_images.y_true[order] != result.of_images.y_pred[order]
    tenth = np.flatnonzero(found.coverage == 0.1)
    assert found.risk[tenth] == pytest.approx(wrong.mean())
    assert found.least_confidence[tenth] == result.of_images.confidence[order[-1]]


def test_errors_come_the_most_confident_first():
    y_true, shares, groups = simulated(100)
    result = evaluated(y_true, shares, groups)
    rows = [each.row for each in result.errors]
    assert sorted(rows) == np.flatnonzero(y_true != result.of_images.y_pred).tolist()
    confidence = [each.confidence for each in result.errors]
    assert confidence == sorted(confidence, reverse=True) == shares[rows].max(axis=1).tolist()
    first = result.errors[0]
    assert first.true == y_true[first.row] and first.predicted == result.of_images.y_pred[first.row]


def test_the_confidence_is_that_of_the_label_that_was_called():
    shares = np.array([[0.6, 0.4], [0.2, 0.8]])
    result = evaluate_predictions(["a", "b"], ["b", "b"], probabilities=shares)
    assert result.of_images.confidence.tolist() == [0.4, 0.8]


@pytest.mark.parametrize("times", [1, 3])
def test_copies_change_no_score_of_probabilities(times):
    one, many = evaluated(*simulated(40)), evaluated(*simulated(40, times))
    for name, _ in OF_CLASSES:
        np.testing.assert_allclose(many[name], one[name])
        np.testing.assert_allclose(many[f"{name}_interval"], one[f"{name}_interval"])
    for name in ("log_loss", "top_2_accuracy"):
        assert many[name] == pytest.approx(one[name])
        assert many[f"{name}_interval"] == pytest.approx(one[f"{name}_interval"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"probabilities": np.ones((2, 3)) / 3}, r"shape \(2, 3\), but needs one row for each"),
        ({"probabilities": np.ones(2)}, r"shape \(2,\)"),
        ({"probabilities": [[3.0, -2.0], [0.5, 0.5]]}, r"softmax\(logits, axis=1\)"),
        ({"probabilities": [[0.9, 0.9], [0.5, 0.5]]}, "sum to 1"),
        ({"probabilities": [[np.nan, 0.5], [0.5, 0.5]]}, "sum to 1"),
        ({"classes": ["b", "a"]}, r"classes must be sorted, as classes_ is, got \['b', 'a'\]"),
        ({"classes": ["a", "a"]}, "classes must be sorted"),
        ({"classes": ["A", "b"]}, "classes holds 'A', y_true 'a'"),
        ({"classes": ["a", "c"]}, "y_pred holds 'b', which is not in classes"),
        ({"classes": [0, 1]}, "classes holds labels such as 0"),
    ],
)
def test_wrong_probabilities_are_refused(given, message):
    good = {"probabilities": [[0.5, 0.5], [0.5, 0.5]], "classes": ["a", "b"]}
    with pytest.raises(ValueError, match=message):
        evaluate_predictions(["a", "a"], ["a", "b"], **(good | given))


# What is drawn.

PLOTS = ("plot_confusion", "plot_roc", "plot_precision_recall", "plot_reliability")
PLOTS += ("plot_risk_coverage",)


@pytest.mark.parametrize("name", PLOTS)
def test_every_picture_is_drawn_where_it_is_asked(name):
    result = evaluated(*simulated(60))
    ax = Figure().add_subplot()
    assert getattr(result, name)(ax=ax) is ax
    assert not plt.get_fignums()
    assert ax.get_xlabel() and ax.get_ylabel()
    assert getattr(result, name)().figure.number in plt.get_fignums()


def test_the_curves_name_classes_as_they_are():
    names = ["$\\alpha$", "_early", "c"]
    y_true, shares, _ = simulated(60)
    y_true = np.array(names)[np.searchsorted(list("abc"), y_true)]
    called = np.array(names)[shares.argmax(axis=1)]
    result = evaluate_predictions(y_true, called, probabilities=shares, classes=names)
    for name, score in (("plot_roc", "roc_auc"), ("plot_precision_recall", "average_precision")):
        ax = getattr(result, name)()
        texts = ax.get_legend().get_texts()
        assert [text.get_text().strip() for text in texts] == [
            f"{label} {value:.3f}" for label, value in zip(names, result[score], strict=True)
        ]
        assert not any(text.get_parse_math() for text in texts)
        ax.figure.canvas.draw()


def test_curves_show_what_the_result_holds():
    result = evaluated(*simulated(60))
    ax = result.plot_reliability()
    assert ax.get_title() == f"calibration error {result.calibration.error:.3f}"
    points = np.column_stack(
        [result.calibration.curve.confidence, result.calibration.curve.accuracy]
    )
    np.testing.assert_array_equal(ax.containers[0].lines[0].get_xydata(), points)
    [line] = result.plot_risk_coverage().lines
    np.testing.assert_array_equal(line.get_ydata(), result.risk_coverage.risk)
    assert len(result.plot_roc().lines) == 3


@pytest.mark.parametrize("name", PLOTS[1:])
def test_without_probabilities_there_is_no_curve(name):
    with pytest.raises(ValueError, match="This result has no probabilities"):
        getattr(evaluate_predictions(["a", "b"], ["a", "b"]), name)()


# Models.


@pytest.fixture(scope="module")
def cells():
    return make_blood_cells(160, classes=2, image_size=32, random_state=0)


@pytest.fixture(scope="module")
def model(cells):
    """A network with enough validation images for a rejection."""
    val = make_blood_cells(300, classes=2, image_size=32, random_state=1)
    clf = SimpleCNNClassifier(max_epochs=8, batch_size=16, device="cpu", random_state=0)
    return clf.fit(cells.images, cells.target, X_val=val.images, y_val=val.target)


@pytest.fixture(scope="module")
def others():
    return make_blood_cells(60, classes=2, image_size=32, random_state=2)


@pytest.fixture(scope="module")
def paths(others, tmp_path_factory):
    folder = tmp_path_factory.mktemp("others")
    for number, image in enumerate(others.images):
        Image.fromarray(image).save(folder / f"{number}.png")
    return [folder / f"{number}.png" for number in range(len(others.images))]


def scores_of(result):
    """Return the scores as text, without what only files have."""
    for name in ("images_sha256", "n_repeated"):
        result.pop(name, None)
    return result.to_json()


def test_a_network_is_evaluated_on_images_and_on_files(model, others, paths):
    result = evaluate(model, others.images, others.target)
    shares = model.predict_proba(others.images)
    np.testing.assert_array_equal(result.of_images.probabilities, shares)
    assert result.accuracy == np.mean(model.predict(others.images) == others.target)
    assert result.n_trained_on == 0
    assert result.familiarity == pytest.approx(model.familiarity(others.images).mean())
    of_files = evaluate(model, paths, others.target)
    assert len(of_files.images_sha256) == 64 and "images_sha256" not in result
    assert of_files.n_repeated == 0
    assert of_files.images is paths and scores_of(of_files) == scores_of(result)
    by_group = evaluate(model, others.images, others.target, groups=np.arange(60) // 2)
    assert by_group.n_groups == 30 and by_group.accuracy == result.accuracy
    # Files are read at the size that the pipeline's loader has.
    pipeline = make_pipeline(ImageLoader(image_size=32), model)
    assert scores_of(evaluate(pipeline, paths, others.target)) == scores_of(result)


def test_a_search_is_evaluated_as_its_best_model(model, cells, others, paths):
    search = GridSearchCV(model, {"max_epochs": [1]}, cv=2).fit(cells.images, cells.target)
    best = evaluate(search.best_estimator_, others.images, others.target)
    for X in (others.images, paths):
        assert scores_of(evaluate(search, X, others.target)) == scores_of(best)


def test_a_classifier_without_probabilities_has_the_scores_of_labels(cells, others):
    rows, test = (each.images.reshape(len(each.images), -1) for each in (cells, others))
    result = evaluate(RidgeClassifier().fit(rows, cells.target), test, others.target)
    assert "accuracy" in result and "log_loss" not in result and result.errors
    assert result.familiarity is None and result.n_trained_on is None


def test_a_rejection_leaves_no_image_out(model, others, paths):
    expected = evaluate(model, others.images, others.target)
    rejecting = copy.copy(model).set_params(rejection=0.15)
    assert "uncertain" in rejecting.predict(others.images)
    for X in (others.images, paths):
        assert scores_of(evaluate(rejecting, X, others.target)) == scores_of(expected)


def test_images_that_were_trained_on_are_told(model, cells):
    with pytest.warns(UserWarning, match="20 of these 20 images were used to train the model"):
        result = evaluate(model, cells.images[:20], cells.target[:20])
    assert result.n_trained_on == 20 and result.of_images.trained_on.all()


def test_unfamiliar_images_are_told(model, others):
    with pytest.warns(UnfamiliarImagesWarning):
        evaluate(model, (others.images * np.array([0.5, 0.4, 0.4])).astype(np.uint8), others.target)


def test_a_file_that_cannot_be_read_is_named(model, others, paths, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(ImageReadError, match=r"broken\.png cannot be read.*Leave it and its label"):
        evaluate(model, [*paths[1:], broken], others.target)
