"""Probabilities that say how often they are right: by `calibrate`, and by scikit-learn."""

import copy
import pickle

import numpy as np
import pytest
import sklearn
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold
from skorch.callbacks import Callback

from wbcclf import adapt, load_model, make_blood_cells, save_model
from wbcclf._uncertainty import STRANGE
from wbcclf.classifiers.familiarity._description import THRESHOLDS
from wbcclf.classifiers.training._calibrating import fit_temperature
from wbcclf.exceptions import TrainingInterruptedWarning

# One label in five is wrong: a network that learns them by heart is far too sure.
CELLS = make_blood_cells(600, classes=3, image_size=16, random_state=0)
X, TRUE = CELLS.images, CELLS.target
RANDOM = np.random.RandomState(0)
Y = np.where(RANDOM.rand(600) < 0.2, RANDOM.choice(np.unique(TRUE), 600), TRUE)
TRAIN, VALID, NEW = np.split(np.arange(600), [150, 300])
OVER_TRAINED = {"max_epochs": 15, "lr": 3e-3}
QUICK = {"max_epochs": 3, "lr": 3e-3, "calibrate": True}
FROZEN = pytest.mark.filterwarnings("ignore:.*blocks of .* are frozen at random weights")


def fit(clf, rows=TRAIN):
    return clf.fit(X[rows], Y[rows], X_val=X[VALID], y_val=Y[VALID])


@pytest.fixture(scope="module")
def plain(simple):
    return fit(simple(**OVER_TRAINED))


@pytest.fixture(scope="module")
def calibrated(simple):
    return fit(simple(**OVER_TRAINED, calibrate=True))


@pytest.fixture(scope="module")
def quick(simple):
    return fit(simple(**QUICK))


# ---------------------------------------------------------------- what it does


def test_the_log_loss_of_new_images_falls_and_labels_stay(plain, calibrated):
    before, after = (clf.predict_proba(X[NEW]) for clf in (plain, calibrated))
    assert calibrated.temperature_ > 1.5
    # Of 300 images its standard error is about 0.05.
    assert log_loss(Y[NEW], after) < log_loss(Y[NEW], before) - 0.2
    np.testing.assert_array_equal(after.argsort(axis=1), before.argsort(axis=1))
    assert not hasattr(plain, "temperature_")


def test_it_is_the_temperature_of_scikit_learn(plain, calibrated):
    # That adds 1e-12 to probabilities before it takes their logarithms, and both search to about
    # 1e-6 of a logarithm. It is given probabilities in float32, which are 1 from 1 - 6e-8 on.
    theirs = CalibratedClassifierCV(FrozenEstimator(plain), method="temperature")
    theirs.fit(X[VALID], Y[VALID])
    beta = theirs.calibrated_classifiers_[0].calibrators[0].beta_
    assert calibrated.temperature_ == pytest.approx(1 / beta, rel=1e-3)
    difference = calibrated.predict_proba(X[NEW]) - theirs.predict_proba(X[NEW])
    assert abs(difference).max() < 1e-3


@FROZEN
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"test_time_augmentation": True},
        {"unfrozen_layers": 1},  # the network is given activations
        {"unfrozen_layers": 1, "test_time_augmentation": True},
        {"early_stopping": True},
    ],
    ids=lambda params: " ".join(params),
)
def test_no_other_temperature_fits_what_is_predicted_better(simple, params):
    clf = simple(**QUICK | params)
    if "early_stopping" in params:
        clf.fit(X, Y)
        held = clf.validation_indices_
    else:
        fit(clf)
        held = VALID
    best = log_loss(Y[held], clf.predict_proba(X[held]))
    last = clf.net_.module_.head[-1]
    for factor in (0.9, 1.1):
        other = copy.deepcopy(clf)
        for ours, theirs in zip(
            other.net_.module_.head[-1].parameters(), last.parameters(), strict=True
        ):
            ours.data = theirs.data / factor
        assert log_loss(Y[held], other.predict_proba(X[held])) > best


def test_the_mean_of_views_has_a_temperature_of_its_own(simple, quick):
    assert fit(simple(**QUICK, test_time_augmentation=True)).temperature_ != quick.temperature_


def test_certainty_is_that_of_calibrated_probabilities(quick):
    seen = quick._predict(X[VALID])
    called = (seen.certainty >= THRESHOLDS[:, None]) & (seen.familiarity >= STRANGE)
    # Counted in training on other batches: rounding may move an image over a threshold.
    assert abs(quick._description.calls[0] - called.sum(axis=1)).max() <= 1


# ---------------------------------------------------------------- where it lives on


def test_a_copy_of_the_model_has_the_temperature(quick, tmp_path):
    save_model(quick, tmp_path / "m.wbcclf")
    for clf in (load_model(tmp_path / "m.wbcclf"), pickle.loads(pickle.dumps(quick))):
        assert clf.temperature_ == quick.temperature_
        np.testing.assert_array_equal(clf.predict_proba(X[NEW]), quick.predict_proba(X[NEW]))


def test_a_kept_fit_has_the_temperature(simple, tmp_path, monkeypatch):
    first = fit(simple(**QUICK, memory=tmp_path))
    monkeypatch.setattr("wbcclf.classifiers.training._fit.train", None)  # must not be called
    second = fit(simple(**QUICK, memory=tmp_path))
    assert second.temperature_ == first.temperature_
    np.testing.assert_array_equal(second.predict_proba(X[NEW]), first.predict_proba(X[NEW]))


class Interrupt(Callback):
    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == 3:
            raise KeyboardInterrupt


def test_an_interrupted_fit_is_calibrated_and_resumes_as_an_unbroken_one(simple, quick, tmp_path):
    clf = simple(**QUICK, checkpoint_dir=tmp_path, callbacks=[Interrupt()])
    with pytest.warns(TrainingInterruptedWarning):
        fit(clf)
    assert clf.n_iter_ == 2
    assert clf.temperature_ != quick.temperature_
    resumed = fit(clf.set_params(callbacks=None))
    assert (resumed.n_iter_, resumed.temperature_) == (3, quick.temperature_)
    np.testing.assert_array_equal(resumed.predict_proba(X[NEW]), quick.predict_proba(X[NEW]))


def test_a_network_that_is_trained_on_has_another_temperature_or_none(simple):
    clf = fit(simple(**QUICK, warm_start=True))
    first = clf.temperature_
    assert fit(clf).temperature_ != first
    assert not hasattr(clf.partial_fit(X[TRAIN], Y[TRAIN]), "temperature_")
    fit(clf)
    assert not hasattr(fit(clf.set_params(calibrate=False)), "temperature_")


def test_an_adapted_network_is_not_calibrated(quick):
    other = 255 - X[:120]
    adapted = adapt(quick, other, TRUE[:120])
    assert adapted is not quick
    assert not hasattr(adapted, "temperature_")


# ---------------------------------------------------------------- images that tell little


@pytest.mark.parametrize("given", [{}, {"X_val": X[:49], "y_val": Y[:49]}])
def test_too_few_validation_images_are_an_error_before_training(simple, given):
    with pytest.raises(ValueError, match=f"at least 50 validation images, not {49 * bool(given)}"):
        simple(calibrate=True).fit(X[100:], Y[100:], **given)


@pytest.mark.parametrize("gap", [0.001, 1.0, 1000.0])
def test_images_that_are_all_right_leave_some_doubt(gap):
    target = np.arange(60) % 3
    logits = gap * np.eye(3)[target]
    temperature = fit_temperature(logits[None], target)
    chance = 1 - torch.softmax(torch.tensor(logits / temperature), dim=1).amax(dim=1)
    assert chance.mean() == pytest.approx(1 / 62, rel=1e-4)


def test_one_image_that_is_hardly_wrong_leaves_as_much_doubt():
    target = np.arange(60) % 3
    logits = np.eye(3)[target]
    logits[0] = [0, 1e-3, 0]
    temperature = fit_temperature(logits[None], target)
    chance = 1 - torch.softmax(torch.tensor(logits / temperature), dim=1).amax(dim=1)
    assert chance.mean() == pytest.approx(1 / 62, rel=1e-4)


def test_a_network_that_is_always_wrong_says_nothing():
    target = np.arange(60) % 3
    logits = 5 * np.eye(3)[(target + 1) % 3]
    temperature = fit_temperature(logits[None], target)
    shares = torch.softmax(torch.tensor(logits / temperature), dim=1).numpy()
    np.testing.assert_allclose(shares, 1 / 3, atol=1e-3)
    assert np.isfinite(fit_temperature(np.zeros((1, 60, 3)), target))


# ---------------------------------------------------------------- scikit-learn's own, by cell


@pytest.fixture(scope="module")
def cell():
    """Two pictures of every cell, one after the other."""
    return np.arange(len(X)) // 2


# scikit-learn's own mean of float32 rows sums to 1 within 1e-7, and its log_loss asks for 1.5e-8.
@pytest.mark.filterwarnings("ignore:The y_prob values do not sum to one")
def test_scikit_learn_calibrates_a_trained_network_on_other_cells(plain):
    clf = CalibratedClassifierCV(FrozenEstimator(plain), method="temperature")
    clf.fit(X[VALID], Y[VALID])
    after, before = clf.predict_proba(X[NEW]), plain.predict_proba(X[NEW])
    assert log_loss(Y[NEW], after) < log_loss(Y[NEW], before) - 0.2
    np.testing.assert_array_equal(clf.predict(X[NEW]), plain.predict(X[NEW]))


# Without an ensemble, scikit-learn 1.9 hands no groups to the splitter: give it the splits.
@pytest.mark.parametrize(("routed", "ensemble"), [(True, True), (False, True), (False, False)])
def test_scikit_learn_calibrates_out_of_fold_by_cell(simple, cell, routed, ensemble):
    rows = np.arange(300)
    splitter, groups = StratifiedGroupKFold(2), {"groups": cell[rows]}
    cv = splitter if routed else [*splitter.split(X[rows], Y[rows], cell[rows])]
    clf = CalibratedClassifierCV(
        simple(**OVER_TRAINED | {"max_epochs": 4}), method="temperature", cv=cv, ensemble=ensemble
    )
    with sklearn.config_context(enable_metadata_routing=routed):
        clf.fit(X[rows], Y[rows], **groups if routed else {})
    assert clf.predict_proba(X[NEW]).shape == (300, 3)
    if ensemble:
        assert len(clf.calibrated_classifiers_) == 2
        for each in clf.calibrated_classifiers_:
            seen = each.estimator.was_trained_on(X[rows])
            assert np.intersect1d(cell[rows][seen], cell[rows][~seen]).size == 0
            assert 100 < seen.sum() < 200
