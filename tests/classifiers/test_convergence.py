"""A training that has learnt nothing says so, and no other does."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback

from wbcclf import (
    CrossEntropy,
    EarlyStopping,
    FocalLoss,
    GradualUnfreezing,
    Head,
    Mixing,
    SimpleCNNClassifier,
)
from wbcclf.exceptions import TrainingInterruptedWarning

# Every way in which labels are counted or a loss is computed.
OPTIONS = [
    {},
    {"loss": "focal"},
    {"loss": CrossEntropy(label_smoothing=0.2)},
    {"loss": FocalLoss(label_smoothing=0.2)},
    {"class_weight": {"neutrophil": 20.0, "lymphocyte": 1.0, "eosinophil": 0.5}},
    {"balanced_batches": True},
    {"mixing": Mixing(0.4, 1.0)},
    {"mixing": Mixing(0.4), "class_weight": "balanced", "loss": CrossEntropy(0.1)},
    {"averaging": 0.9, "early_stopping": EarlyStopping(patience=50)},
    {"unfrozen_layers": GradualUnfreezing()},
]


@pytest.fixture(scope="session")
def unequal(cells):
    """Cells of three classes in unequal numbers: a half, a third, a sixth."""
    order = np.argsort(cells.target, kind="stable")
    rows = np.concatenate([order[:12], order[12:20], order[24:28]])
    return cells.images[rows], cells.target[rows]


@pytest.fixture
def make(simple):
    """Return a maker of classifiers that take 60 steps, ten epochs or more."""

    def of(**params):
        return simple(**({"max_steps": 60, "head": Head(dropout=0.0), "batch_size": 4} | params))

    return of


def fit_quietly(clf, *data, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return clf.fit(*data, **more)


@pytest.mark.parametrize("params", OPTIONS, ids=lambda params: "-".join(params) or "plain")
def test_images_that_tell_nothing(make, unequal, params):
    X, y = unequal
    nothing = np.full_like(X, 100)
    nothing[:, 0, 0, 0] += np.arange(len(X), dtype=np.uint8) % 8  # the split needs different ones
    with pytest.warns(ConvergenceWarning, match="has learnt nothing.*lr.*epochs.*labels") as record:
        clf = make(**params).fit(nothing, y)
    assert clf.history_[-1]["gain"] < 0.01
    assert [warning.filename for warning in record] == [__file__]  # the caller's line


@pytest.mark.parametrize("params", OPTIONS, ids=lambda params: "-".join(params) or "plain")
def test_what_has_learnt_does_not_warn(make, unequal, params):
    clf = fit_quietly(make(**params), *unequal)
    assert clf.history_[-1]["gain"] > 0.1


@pytest.mark.parametrize("lr", [1e-7, 30])
def test_a_rate_that_is_too_low_or_too_high(make, unequal, lr):
    with pytest.warns(ConvergenceWarning, match=f"lr \\(it is {lr:g}"):
        make(lr=lr).fit(*unequal)


def test_the_gain_is_that_of_the_formula(make, unequal):
    """With a network that stands still, in one batch: gain = 1 - loss / loss of the shares."""
    X, y = unequal

    class StandStill(torch.optim.SGD):
        def step(self, closure=None):
            return closure()

    weight = np.linspace(0.5, 2, len(y))
    loss = CrossEntropy(label_smoothing=0.1, l2=0.1)
    clf = make(max_steps=1, batch_size=64, optimizer=StandStill, loss=loss)
    clf.fit(X, y, sample_weight=weight)
    number = np.searchsorted(clf.classes_, y)
    share = 0.9 * np.eye(3)[number] + 0.1 / 3
    losses = -(share * np.log(clf.predict_proba(X))).sum(axis=1)
    prior = 0.9 * np.bincount(number, weight) / weight.sum() + 0.1 / 3
    expected = 1 - (weight @ losses) / (weight @ -(share * np.log(prior)).sum(axis=1))
    assert clf.history_[0]["gain"] == pytest.approx(expected, rel=1e-4)
    assert clf.history_[0]["train_loss"] > np.average(losses, weights=weight) + 0.1  # the penalty


def test_penalties_are_no_part_of_it(make, unequal):
    clf = fit_quietly(make(loss=CrossEntropy(l2=0.05)), *unequal)
    assert clf.history_[-1]["train_loss"] > 1.5 > -np.log([1 / 2, 1 / 3, 1 / 6]).mean()


def test_no_warning_where_there_is_no_saying(make, unequal, cells):
    X, y = unequal
    nothing = np.full_like(X, 100)
    fit_quietly(make(max_steps=49), nothing, y)
    extreme = {"neutrophil": 1e-4, "lymphocyte": 1e4, "eosinophil": 1e-4}
    clf = fit_quietly(make(class_weight=extreme), nothing, y)
    assert "gain" not in clf.history_[-1]
    clf = make()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(10):
            clf.partial_fit(nothing, y)
    assert clf.n_steps_ == 60 and "gain" not in clf.history_[-1]


def test_an_interrupted_training_does_not_warn_a_second_time(make, unequal):
    class Interrupt(Callback):
        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 9:
                raise KeyboardInterrupt

    X, y = unequal
    with pytest.warns(TrainingInterruptedWarning) as record:
        make(callbacks=[Interrupt()]).fit(np.full_like(X, 100), y)
    assert len(record) == 1


def test_early_stopping_brings_back_what_was_learnt_before_it_was_lost(make, unequal):
    class Blow(Callback):
        """Make every later step useless."""

        def on_epoch_begin(self, net, **kwargs):
            if len(net.history) == 8:
                for parameter in net.module_.parameters():
                    parameter.data.zero_()
                net.optimizer_.param_groups[0]["lr"] = 0.0

    X, y = unequal
    stopping = EarlyStopping(patience=50)
    clf = make(early_stopping=stopping, lr_schedule="constant", callbacks=[Blow()])
    fit_quietly(clf, X, y, X_val=X ^ 1, y_val=y)  # equal images would be warned of
    assert clf.history_[-1]["gain"] < 0.01
    with pytest.warns(ConvergenceWarning):
        clf.set_params(early_stopping=False, callbacks=[Blow()]).fit(X, y)


def test_an_epoch_that_was_cut_short_does_not_count(make, unequal):
    """One batch of it has few classes, and so a low loss of its shares."""
    clf = fit_quietly(make(max_steps=61), *unequal)
    assert clf.history_[-1]["steps"] == 1


def test_a_kept_training_warns_again(make, unequal, tmp_path):
    X, y = unequal
    nothing = np.full_like(X, 100)
    histories = []
    for _ in range(2):
        with pytest.warns(ConvergenceWarning):
            histories.append(make(memory=tmp_path).fit(nothing, y).history_)
    assert histories[0] == histories[1]  # durations, too: the second was not trained


@pytest.mark.parametrize("partial", [False, True])
def test_weights_that_the_last_step_has_spoilt_are_an_error(simple, cells, partial):
    clf = simple(lr=1e39, max_epochs=1, batch_size=64, optimizer="sgd", lr_schedule="constant")
    call = clf.partial_fit if partial else clf.fit
    with pytest.raises(FloatingPointError, match=r"after the last step.*Lower lr \(it is 1e\+39\)"):
        call(cells.images, cells.target)


def test_the_default_classifier_on_few_images_at_too_low_a_rate(cells):
    clf = SimpleCNNClassifier(lr=1e-7, batch_size=12, device="cpu", random_state=0)
    with pytest.warns(ConvergenceWarning):
        clf.fit(cells.images, cells.target)
