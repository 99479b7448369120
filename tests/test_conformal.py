"""Sets of labels: how often they hold the true one, whatever pictures there are of a cell."""

import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from wbcclf import (
    ConformalClassifier,
    ImageLoader,
    SimpleCNNClassifier,
    load_model,
    make_blood_cells,
)
from wbcclf.exceptions import SmallClassWarning, UnfamiliarImagesWarning


class Given(ClassifierMixin, BaseEstimator):
    """Predicts the probabilities that it is given."""

    def fit(self, X, y=None):
        self.classes_ = np.arange(X.shape[1])
        return self

    def predict_proba(self, X):
        return X

    def predict(self, X):
        return X.argmax(axis=1)


def draw(counts, random, largest=40):
    """Return probabilities of pictures, and the class and the cell of each.

    A cell has 1 to `largest` pictures, which are alike; those that are easy to tell have the most.
    Rare classes are hard.
    """
    target = np.repeat(np.arange(len(counts)), counts)
    size = random.random(len(target))
    of_cell = random.normal(size=(len(target), len(counts)))
    of_cell[np.arange(len(target)), target] += 2 + 2 * size - target / 2
    cells = np.repeat(np.arange(len(target)), np.rint(largest**size).astype(int))
    logits = of_cell[cells] + random.normal(scale=0.5, size=(len(cells), len(counts)))
    return softmax(logits, axis=1), target[cells], cells


def sets_of(p, **params):
    return ConformalClassifier(Given().fit(p), **params)


# ---------------------------------------------------------------- the promise

COUNTS = (99, 29, 9)  # (m + 1) times 0.9 is whole: the promise is kept exactly
SHARES = np.array(COUNTS) / sum(COUNTS)


def coverage(n_fits, counts_pictures=False, **params):
    """Return the coverage of each class, the mean of so many fits."""
    random = np.random.default_rng(0)
    new, of_new, _ = draw([40_000] * 3, random, largest=1)
    of_true = [np.sort(new[of_new == k, k]) for k in range(3)]
    found = []
    for seed in range(n_fits):
        p, target, cells = draw(COUNTS, random)
        sets = sets_of(p, random_state=seed, **params)
        sets.fit(p, target, None if counts_pictures else cells)
        below = map(np.searchsorted, of_true, sets.thresholds_)
        found.append([1 - n / 40_000 for n in below])
    return np.mean(found, axis=0)


# For m cells the coverage of a fit is beta-distributed, with a standard deviation of
# sqrt(0.09 / (m + 2)): 0.03, 0.05 and 0.09. Of the mean of 1,000 fits it is 0.1 to 0.3 points, and
# that of the share of 40,000 new cells is 0.15: a point is three of both together for the rarest
# class.


def test_the_coverage_is_within_a_point_of_the_level_in_every_class_and_over_all():
    found = coverage(1000)
    np.testing.assert_allclose(found, 0.9, atol=0.01)
    assert found @ SHARES == pytest.approx(0.9, abs=0.01)


def test_the_coverage_over_all_classes_is_within_a_point_of_the_level():
    found = coverage(200, class_conditional=False)
    assert found @ SHARES == pytest.approx(0.9, abs=0.01)
    assert found.max() > 0.92 and found.min() < 0.88  # of single classes it is not


def test_counting_every_picture_as_a_cell_misses_the_level():
    assert coverage(100, counts_pictures=True).max() < 0.88


@pytest.mark.parametrize("level", [0.5, 0.55, 0.8, 0.9, 0.95, 0.99])
def test_the_rank_is_exact(level):
    exact = Fraction(str(level))
    random = np.random.default_rng(0)
    for n_cells in (1, 4, 9, 19, 99, 100, 199, 400):
        p = random.dirichlet([1, 1], n_cells)
        rank = math.ceil((n_cells + 1) * exact)
        sets = sets_of(p, confidence_level=level, class_conditional=False)
        if rank > n_cells:
            with pytest.warns(SmallClassWarning):
                sets.fit(p, np.zeros(n_cells, int))
            assert sets.thresholds_.tolist() == [0, 0]
        else:
            sets.fit(p, np.zeros(n_cells, int))
            assert (p[:, 0] >= sets.thresholds_[0]).sum() == rank


@pytest.mark.parametrize("class_conditional", [True, False])
def test_one_picture_a_cell_gives_the_sets_of_crepes(class_conditional):
    crepes = pytest.importorskip("crepes", reason="crepes is not installed: pip install crepes")
    random = np.random.default_rng(0)
    p, target, _ = draw((100, 40, 20), random, largest=1)
    new, _, _ = draw((100, 100, 100), random, largest=1)
    # Not 0.9: where (m + 1) times the level is whole, crepes takes one cell more in.
    sets = sets_of(p, confidence_level=0.887, class_conditional=class_conditional)
    theirs = crepes.WrapClassifier(Given().fit(p))
    theirs.calibrate(p, target, class_cond=class_conditional)
    expected = theirs.predict_set(new, labels=False, confidence=0.887, smoothing=False)
    np.testing.assert_array_equal(sets.fit(p, target).predict_set(new), expected)


# ---------------------------------------------------------------- one picture of each cell


def test_one_picture_of_each_cell_and_class_counts():
    p = np.random.default_rng(0).dirichlet([1, 1], 60)
    slide = np.arange(60) % 15
    target = (np.arange(60) // 15) % 2  # two pictures of each class on each slide
    sets = sets_of(p, random_state=0).fit(p, target, slide)
    assert sets.n_cells_.tolist() == [15, 15]
    together = sets_of(p, random_state=0, class_conditional=False).fit(p, target, slide)
    assert together.n_cells_.tolist() == [15, 15]
    assert sets_of(p).fit(p, target).n_cells_.tolist() == [30, 30]


def test_the_picture_is_drawn_by_the_seed():
    p, target, cells = draw((50, 50), np.random.default_rng(0))
    of_seeds = [sets_of(p, random_state=k).fit(p, target, cells).thresholds_ for k in (0, 0, 1)]
    np.testing.assert_array_equal(of_seeds[0], of_seeds[1])
    assert (of_seeds[0] != of_seeds[2]).any()


# ---------------------------------------------------------------- too few cells


def test_a_class_with_too_few_cells_is_in_every_set_and_named():
    p, target, cells = draw((20, 8, 0), np.random.default_rng(0))
    with pytest.warns(SmallClassWarning, match="9 cells of each class; there are 8 of 1, 0 of 2"):
        sets = sets_of(p).fit(p, target, cells)
    assert sets.n_cells_.tolist() == [20, 8, 0]
    assert sets.predict_set(p)[:, 1:].all() and not sets.predict_set(p)[:, 0].all()


def test_too_few_cells_of_all_classes_leave_all_labels():
    p, target, cells = draw((4, 4), np.random.default_rng(0))
    with pytest.warns(SmallClassWarning, match="9 cells; there are 8, so all labels"):
        sets = sets_of(p, class_conditional=False).fit(p, target, cells)
    assert sets.predict_set(p).all()


def test_a_set_may_be_empty():
    p = np.array([[0.95, 0.05], [0.05, 0.95]])[np.arange(40) % 2]
    sets = sets_of(p).fit(p, np.arange(40) % 2)
    assert sets.predict_set(np.array([[0.5, 0.5]])).tolist() == [[False, False]]


# ---------------------------------------------------------------- what it is given


@pytest.fixture(scope="module")
def cells():
    return make_blood_cells(100, classes=2, image_size=16, random_state=0)


@pytest.fixture(scope="module")
def trained(cells):
    clf = SimpleCNNClassifier(max_epochs=3, device="cpu", random_state=0)
    return clf.fit(cells.images[:50], cells.target[:50])


def test_images_that_were_trained_on_are_an_error(trained, cells):
    message = "trained on 10 of the 60 images"
    calibrated = CalibratedClassifierCV(FrozenEstimator(trained), method="temperature")
    calibrated.fit(cells.images[50:], cells.target[50:])
    search = GridSearchCV(trained, {"max_epochs": [1]}, cv=2)
    search.fit(cells.images[:50], cells.target[:50])
    for estimator in (
        *(trained, Pipeline([("clf", trained)]), FrozenEstimator(trained)),
        *(calibrated, search),
    ):
        with pytest.raises(ValueError, match=message):
            ConformalClassifier(estimator).fit(cells.images[40:], cells.target[40:])


def test_it_takes_what_the_estimator_takes(trained, cells, tmp_path):
    from PIL import Image

    paths = np.array([str(tmp_path / f"{number}.png") for number in range(50)])
    for path, image in zip(paths, cells.images[50:], strict=True):
        Image.fromarray(image).save(path)
    pipeline = Pipeline([("loader", ImageLoader(16)), ("clf", trained)])
    of_paths = ConformalClassifier(pipeline, random_state=0).fit(paths, cells.target[50:])
    of_images = ConformalClassifier(trained, random_state=0)
    of_images.fit(cells.images[50:], cells.target[50:])
    sets = of_images.predict_set(cells.images)
    assert (sets.shape, sets.dtype) == ((100, 2), bool)
    np.testing.assert_array_equal(of_paths.predict_set(paths), sets[50:])
    assert of_images.classes_.tolist() == trained.classes_.tolist()
    assert of_images.n_features_in_ == 768
    for method in ("predict", "predict_proba"):
        ours, theirs = (getattr(clf, method)(cells.images) for clf in (of_images, trained))
        np.testing.assert_array_equal(ours, theirs)


def test_a_pickle_and_a_clone_of_a_frozen_estimator_work(trained, cells):
    new = cells.images[50:], cells.target[50:]
    sets = ConformalClassifier(FrozenEstimator(trained), random_state=0).fit(*new)
    copy = clone(sets).fit(*new)
    for other in (copy, pickle.loads(pickle.dumps(sets))):
        np.testing.assert_array_equal(other.predict_set(new[0]), sets.predict_set(new[0]))
    with pytest.raises(NotFittedError, match="SimpleCNNClassifier"):
        clone(ConformalClassifier(trained)).fit(*new)


@pytest.mark.parametrize(
    ("params", "given", "message"),
    [
        ({"confidence_level": 1.0}, {}, "confidence_level"),
        ({"class_conditional": "yes"}, {}, "class_conditional"),
        ({"estimator": "vgg16"}, {}, "estimator"),
        ({}, {"groups": [1, 2]}, "groups holds 2 groups"),
        ({}, {"groups": [None] * 20}, "every image needs a group"),
        ({}, {"y": [0, 1, 2, 3] * 5}, "y holds 3, but the estimator knows 0, 1, 2"),
        ({}, {"y": ["a"] * 20}, "text and numbers"),
        ({}, {"y": [0, 1]}, "inconsistent numbers of samples"),
    ],
)
def test_what_is_wrong_is_named(params, given, message):
    p, target, _ = draw((10, 5, 5), np.random.default_rng(0), largest=1)
    with pytest.raises((ValueError, TypeError), match=message):
        ConformalClassifier(**{"estimator": Given().fit(p)} | params).fit(
            **{"X": p, "y": target} | given
        )


def test_without_fit_there_are_no_sets(trained, cells):
    for method in ("predict_set", "predict", "predict_proba"):
        with pytest.raises(NotFittedError):
            getattr(ConformalClassifier(trained), method)(cells.images)


# ---------------------------------------------------------------- scikit-learn's checks


class FitsItself(ConformalClassifier):
    """Fits its estimator first: scikit-learn's checks have no other images to fit it on."""

    def fit(self, X, y, groups=None):
        self.estimator = clone(self.estimator).fit(X, y)
        return super().fit(X, y, groups)


CHECKED = FitsItself(LogisticRegression(), confidence_level=0.5)
OVERWRITES = "FitsItself does; see test_fitting_leaves_the_parameters_alone"
EXPECTED_FAILURES = {
    "check_dont_overwrite_parameters": OVERWRITES,
    "check_estimators_overwrite_params": OVERWRITES,
}


@pytest.mark.filterwarnings("ignore::wbcclf.exceptions.SmallClassWarning")
@parametrize_with_checks([CHECKED], expected_failed_checks=lambda _: EXPECTED_FAILURES)
def test_sklearn_checks(estimator, check):
    check(estimator)


def test_fitting_leaves_the_parameters_alone():
    p, target, cells = draw((10, 10), np.random.default_rng(0))
    sets = sets_of(p, random_state=0)
    before, given = sets.get_params(), vars(sets.estimator).copy()
    sets.fit(p, target, cells)
    assert sets.get_params() == before
    assert vars(sets.estimator) == given
    new = {name for name in vars(sets) if name not in before}
    assert new == {"thresholds_", "n_cells_", "classes_"}


def test_most_of_sklearns_checks_ran():
    names = [check.func.__name__ for _, check in estimator_checks_generator(CHECKED)]
    assert len(names) >= 50
    assert set(EXPECTED_FAILURES) <= set(names)


# ---------------------------------------------------------------- real pictures


def test_sets_hold_the_cells_of_another_laboratory_if_learnt_there(wbcclf_data):
    model = load_model("wbcclf:blood-cells")
    paths = np.array(sorted(map(str, (wbcclf_data / "raabin").glob("*/*.jpg"))))
    paths = np.random.default_rng(0).permutation(paths)[:160]
    target = np.array([path.split("/")[-2] for path in paths])
    learnt, new = np.split(np.arange(160), 2)
    sets = ConformalClassifier(model, class_conditional=False, random_state=0)
    with pytest.warns(UnfamiliarImagesWarning):
        sets.fit(paths[learnt], target[learnt])
    with pytest.warns(UnfamiliarImagesWarning):
        found = sets.predict_set(paths[new])
    holds = found[np.arange(80), np.searchsorted(model.classes_, target[new])]
    # Three standard deviations of the share of 80 new cells and of what 80 others give together:
    # sqrt(2 * 0.09 / 80). Sets that were learnt on PBC hold half of these cells.
    assert holds.mean() == pytest.approx(0.9, abs=3 * 0.047)
    assert found.sum(axis=1).mean() < 2
