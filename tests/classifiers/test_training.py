"""Training: early stopping, schedules, continuing, determinism, interruption."""

import random

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score
from skorch.callbacks import Callback

from wbcclf import Augmenter, CNNClassifier, EarlyStopping, Head
from wbcclf.exceptions import TrainingInterruptedWarning

# Where validation images are training images, too, what is measured on them matters to no one.
pytestmark = pytest.mark.filterwarnings("ignore:.*images of X_val are in X, too")


@pytest.fixture(scope="module")
def confused(cells):
    """Validation images with another image's label: the better the fit, the worse their loss."""
    return {"X_val": cells.images[:18], "y_val": np.roll(cells.target[:18], 1)}


class StandStill(torch.optim.SGD):
    """Changes nothing, so that the loss stays what it was."""

    def step(self, closure=None):
        return closure()


class Rates(Callback):
    """Note the learning rate that every training step was taken with."""

    def initialize(self):
        self.seen = []
        return self

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            self.seen.append(net.optimizer_.param_groups[0]["lr"])


class Interrupt(Callback):
    """Press Ctrl-C in an epoch: at its end, or in the middle of it."""

    def __init__(self, epoch, *, midway=False):
        self.epoch, self.midway = epoch, midway

    def on_epoch_end(self, net, **kwargs):
        if not self.midway and net.history[-1, "epoch"] == self.epoch:
            raise KeyboardInterrupt

    def on_batch_end(self, net, training=False, **kwargs):
        if self.midway and training and net.history[-1, "epoch"] == self.epoch:
            raise KeyboardInterrupt


def losses(clf, name="train_loss"):
    return [epoch[name] for epoch in clf.history_]


# ---------------------------------------------------------------- history


def test_history_has_plain_numbers_of_every_epoch(simple, cells):
    clf = simple(max_epochs=3).fit(cells.images, cells.target)
    assert [epoch["epoch"] for epoch in clf.history_] == [1, 2, 3]
    assert clf.n_iter_ == 3
    for epoch in clf.history_:
        assert set(epoch) == {"epoch", "steps", "train_loss", "gain", "dur"}
        assert type(epoch["train_loss"]) is float and epoch["dur"] > 0


def test_validation_images_are_measured_after_every_epoch(simple, cells, cross_entropy):
    X_val, y_val = cells.images[:10], cells.target[:10]
    clf = simple(max_epochs=3).fit(cells.images[10:], cells.target[10:], X_val=X_val, y_val=y_val)
    last = clf.history_[-1]
    assert last["valid_acc"] == accuracy_score(y_val, clf.predict(X_val))
    assert last["valid_loss"] == pytest.approx(cross_entropy(clf, X_val, y_val), rel=1e-5)


def test_training_lowers_the_loss(simple, cells):
    clf = simple(max_epochs=6).fit(cells.images, cells.target)
    assert losses(clf)[-1] < losses(clf)[0] - 0.1


# ---------------------------------------------------------------- early stopping


@pytest.mark.parametrize("patience", [2, 4])
def test_early_stopping_waits_so_many_epochs_and_restores_the_best(
    simple, cells, confused, cross_entropy, patience
):
    clf = simple(early_stopping=EarlyStopping(patience=patience), max_epochs=40, lr=3e-3)
    clf.fit(cells.images, cells.target, **confused)
    valid = losses(clf, "valid_loss")
    best = int(np.argmin(valid))
    assert len(valid) == best + 1 + patience < 40
    restored = cross_entropy(clf, confused["X_val"], confused["y_val"])
    assert restored == pytest.approx(valid[best], rel=1e-5)  # float32, other batches
    assert restored < valid[-1] - 1e-3


def test_early_stopping_restores_the_best_when_epochs_run_out(
    simple, cells, confused, cross_entropy
):
    clf = simple(early_stopping=EarlyStopping(patience=50), max_epochs=8, lr=3e-3)
    clf.fit(cells.images, cells.target, **confused)
    valid = losses(clf, "valid_loss")
    assert len(valid) == 8
    restored = cross_entropy(clf, confused["X_val"], confused["y_val"])
    assert restored == pytest.approx(min(valid), rel=1e-5)
    assert min(valid) < valid[-1] - 1e-3


def test_validation_images_alone_do_not_stop(simple, cells, confused):
    clf = simple(max_epochs=12, lr=3e-3).fit(cells.images, cells.target, **confused)
    assert len(clf.history_) == 12


# ---------------------------------------------------------------- learning rates


@pytest.mark.parametrize("lr_schedule", ["constant", "cosine", "onecycle"])
def test_schedule_sets_the_rate_of_every_step(simple, cells, lr_schedule):
    rates = Rates()
    clf = simple(lr=0.01, lr_schedule=lr_schedule, max_epochs=4, callbacks=[rates])
    clf.fit(cells.images, cells.target)
    seen = np.array(rates.seen)
    assert len(seen) == 12  # 36 images in batches of 16: 3 steps, 4 times
    if lr_schedule == "constant":
        assert (seen == 0.01).all()
    elif lr_schedule == "cosine":
        expected = 0.01 * (1 + np.cos(np.pi * np.arange(12) / 12)) / 2
        np.testing.assert_allclose(seen, expected, rtol=1e-9)
    else:  # up from 1/25 to lr in the first 30 %, then down to nearly nothing
        assert seen[0] == pytest.approx(0.01 / 25)
        top = int(seen.argmax())
        assert 2 <= top <= 4 and seen[top] > 0.009
        assert (np.diff(seen[: top + 1]) > 0).all() and (np.diff(seen[top:]) < 0).all()
        assert seen[-1] < 0.01 / 10


@pytest.mark.parametrize("with_validation", [True, False])
def test_plateau_lowers_the_rate_after_three_epochs_without_improvement(
    simple, cells, confused, with_validation
):
    rates = Rates()
    clf = simple(
        lr=0.01,
        lr_schedule="plateau",
        optimizer=StandStill,
        head=Head(dropout=0.0),
        max_epochs=8,
        batch_size=64,
        callbacks=[rates],
    )
    clf.fit(cells.images, cells.target, **(confused if with_validation else {}))
    # Epoch 1 is the best there will be; 2 to 4 do not improve on it, nor do 5 to 7.
    np.testing.assert_allclose(rates.seen, [0.01] * 4 + [0.003] * 3 + [0.0009], rtol=1e-9)


@pytest.mark.parametrize("lr_schedule", ["cosine", "onecycle", "plateau"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "rmsprop"])
def test_every_optimizer_takes_every_schedule_down_to_a_single_step(
    simple, cells, optimizer, lr_schedule
):
    clf = simple(optimizer=optimizer, lr_schedule=lr_schedule, max_epochs=1, batch_size=64)
    before = simple(optimizer=StandStill, max_epochs=1, batch_size=64)
    before.fit(cells.images, cells.target)
    clf.fit(cells.images, cells.target)
    start, end = (model.net_.module_.head[-1].weight for model in (before, clf))
    assert torch.isfinite(end).all() and not torch.equal(start, end)


# ---------------------------------------------------------------- continuing


def test_warm_start_continues_and_a_cold_start_does_not(simple, cells):
    warm = simple(warm_start=True, max_epochs=3).fit(cells.images, cells.target)
    first = losses(warm)
    warm.fit(cells.images, cells.target)
    assert losses(warm)[:3] == first
    assert losses(warm)[3] < first[0]
    assert warm.n_iter_ == 6
    cold = simple(max_epochs=3)
    cold.fit(cells.images, cells.target).fit(cells.images, cells.target)
    assert losses(cold) == first
    assert cold.n_iter_ == 3


def test_epochs_are_counted_on_over_warm_starts(simple, cells):
    clf = simple(warm_start=True).fit(cells.images, cells.target).fit(cells.images, cells.target)
    assert [epoch["epoch"] for epoch in clf.history_] == [1, 2, 3, 4]


def test_partial_fit_trains_one_epoch_at_a_time(simple, cells):
    clf = simple(max_epochs=7)
    for number in (1, 2, 3):
        clf.partial_fit(cells.images, cells.target)
        assert [epoch["epoch"] for epoch in clf.history_] == list(range(1, number + 1))
    assert losses(clf)[-1] < losses(clf)[0]


@pytest.mark.parametrize("lr_schedule", ["constant", "cosine", "onecycle", "plateau"])
def test_partial_fit_after_fit_trains_one_more_epoch(simple, cells, lr_schedule):
    clf = simple(max_epochs=3, lr_schedule=lr_schedule).fit(cells.images, cells.target)
    clf.partial_fit(cells.images, cells.target)
    assert len(clf.history_) == clf.n_iter_ == 4


def test_partial_fit_after_fit_with_early_stopping_trains_one_more_epoch(simple, cells):
    clf = simple(max_epochs=3, early_stopping=True).fit(cells.images, cells.target)
    clf.partial_fit(cells.images, cells.target)
    assert len(clf.history_) == 4
    assert len(clf.train_indices_) == 36  # no split in a single epoch


def test_partial_fit_takes_classes_that_are_not_there_yet(simple, cells):
    first = cells.target != "eosinophil"
    clf = simple()
    names = ["neutrophil", "lymphocyte", "eosinophil"]
    clf.partial_fit(cells.images[first], cells.target[first], classes=names)
    assert clf.classes_.tolist() == sorted(names)
    assert clf.predict_proba(cells.images).shape == (36, 3)
    clf.partial_fit(cells.images[~first], cells.target[~first])
    with pytest.raises(ValueError, match=r"not among the classes.*basophil"):
        clf.partial_fit(cells.images[:2], ["basophil", "neutrophil"])


def test_classes_do_not_depend_on_weights_of_zero(simple, cells):
    """Three classes and three images: the one must not be taken for the other."""
    names = ["neutrophil", "lymphocyte", "eosinophil"]
    clf = simple().partial_fit(
        cells.images[:3],
        ["neutrophil", "lymphocyte", "neutrophil"],
        classes=names,
        sample_weight=[1, 1, 0],
    )
    assert clf.classes_.tolist() == sorted(names)


# ---------------------------------------------------------------- determinism


@pytest.mark.parametrize(
    "params",
    [{}, {"augment": Augmenter()}, {"early_stopping": True, "lr_schedule": "onecycle"}],
    ids=["plain", "augment", "early_stopping"],
)
def test_same_seed_same_bits_and_other_seeds_differ(simple, cells, params):
    first, again, other = (
        simple(**params, random_state=seed).fit(cells.images, cells.target) for seed in (5, 5, 6)
    )
    expected = first.predict_proba(cells.images)
    assert np.array_equal(again.predict_proba(cells.images), expected)
    assert losses(again) == losses(first)
    assert not np.array_equal(other.predict_proba(cells.images), expected)
    assert losses(other) != losses(first)


def test_augmenting_on_the_fly_changes_what_is_trained_on(simple, cells):
    plain = simple().fit(cells.images, cells.target)
    augmented = simple(augment=Augmenter()).fit(cells.images, cells.target)
    assert losses(plain) != losses(augmented)


def test_validation_images_are_not_augmented(simple, cells, cross_entropy):
    validation = {"X_val": cells.images[:9], "y_val": cells.target[:9]}
    clf = simple(augment=Augmenter()).fit(cells.images, cells.target, **validation)
    expected = cross_entropy(clf, *validation.values())
    assert clf.history_[-1]["valid_loss"] == pytest.approx(expected, rel=1e-5)


def test_global_random_states_are_left_alone(simple, cells):
    torch.manual_seed(11)
    np.random.seed(12)  # noqa: NPY002 (the global state is what this is about)
    random.seed(13)
    state_of_numpy = np.random.mtrand._rand.get_state
    before = torch.get_rng_state(), state_of_numpy()[1].copy(), random.getstate()
    clf = simple(augment=Augmenter(), early_stopping=True).fit(cells.images, cells.target)
    clf.predict(cells.images)
    simple().partial_fit(cells.images, cells.target).partial_fit(cells.images, cells.target)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(state_of_numpy()[1], before[1])
    assert random.getstate() == before[2]


def test_global_random_states_do_not_matter(simple, cells):
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        results.append(simple().fit(cells.images, cells.target).predict_proba(cells.images))
    assert np.array_equal(*results)


# ---------------------------------------------------------------- interruption, precision


@pytest.mark.parametrize("midway", [False, True])
def test_ctrl_c_keeps_the_model_so_far(simple, cells, midway):
    clf = simple(max_epochs=50, lr_schedule="constant", callbacks=[Interrupt(2, midway=midway)])
    with pytest.warns(TrainingInterruptedWarning, match="in epoch 2"):
        clf.fit(cells.images, cells.target)
    assert clf.n_iter_ == len(clf.history_) == (1 if midway else 2)  # whole epochs
    whole = (
        simple(max_epochs=2, lr_schedule="constant")
        .fit(cells.images, cells.target)
        .predict_proba(cells.images)
    )
    assert np.array_equal(clf.predict_proba(cells.images), whole) is not midway


def test_ctrl_c_with_early_stopping_keeps_the_best_model(simple, cells, confused, cross_entropy):
    stopping = EarlyStopping(patience=40)
    clf = simple(max_epochs=50, early_stopping=stopping, lr=3e-3, callbacks=[Interrupt(9)])
    with pytest.warns(TrainingInterruptedWarning):
        clf.fit(cells.images, cells.target, **confused)
    valid = losses(clf, "valid_loss")
    assert 8 <= len(valid) <= 9 and min(valid) < valid[-1] - 1e-3
    restored = cross_entropy(clf, confused["X_val"], confused["y_val"])
    assert restored == pytest.approx(min(valid), rel=1e-5)


def test_bfloat16_predicts_nearly_the_same(simple, cells):
    # A low rate: training at a high one amplifies any rounding.
    exact = simple(lr=1e-4).fit(cells.images, cells.target).predict_proba(cells.images)
    clf = simple(lr=1e-4, precision="bfloat16").fit(cells.images, cells.target)
    rough = clf.predict_proba(cells.images)
    # Eight bits of mantissa: 0.4 % in each of a dozen operations on logits of order one.
    np.testing.assert_allclose(rough, exact, atol=0.03)
    assert not np.array_equal(rough, exact)
    assert rough.dtype == np.float32
    assert {p.dtype for p in clf.net_.module_.parameters()} == {torch.float32}


def test_verbose_shows_a_bar_on_stderr_and_nothing_on_stdout(simple, cells, capsys):
    simple(verbose=1).fit(cells.images, cells.target)
    shown = capsys.readouterr()
    assert "training" in shown.err and "epoch 2: train_loss" in shown.err
    assert shown.out == ""
    simple().fit(cells.images, cells.target)
    assert capsys.readouterr() == ("", "")


def test_a_batch_of_one_left_over_does_not_stop_batch_norm(tiny, cells):
    clf = CNNClassifier(tiny, input_size=7, max_epochs=1, batch_size=4, device="cpu")
    clf.fit(cells.images[:13], cells.target[:13])  # 7 pixels become 1: one value per channel
    assert clf.n_iter_ == 1


class Counting:
    """An augmenter that pickle refuses: it holds a lambda."""

    def __init__(self):
        self.calls = 0
        self.change = lambda images: images

    def __sklearn_clone__(self):
        return self

    def augment(self, images, random_state):
        self.calls += 1
        return self.change(images)


def test_a_parameter_that_pickle_refuses_is_seen_to_change(simple, cells):
    first, second = Counting(), Counting()
    clf = simple(augment=first).partial_fit(cells.images, cells.target)
    calls = first.calls
    clf.set_params(augment=second).partial_fit(cells.images, cells.target)
    assert (first.calls, second.calls) == (calls, calls)
