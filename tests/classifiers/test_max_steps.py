"""A budget of steps: what is trained does not depend on how long an epoch is."""

import warnings

import numpy as np
import pytest
from imblearn.pipeline import Pipeline
from skorch.callbacks import Callback

from wbcclf import (
    Augmenter,
    EarlyStopping,
    GradualUnfreezing,
    Mixing,
    StepDecay,
    load_model,
    save_model,
)
from wbcclf.exceptions import TrainingInterruptedWarning
from wbcclf.inspection import find_learning_rate

# Where validation images are training images, too, what is measured on them matters to no one.
pytestmark = pytest.mark.filterwarnings("ignore:.*images of X_val are in X, too")

STEPS = 3  # an epoch: 36 images in batches of 16


class Rates(Callback):
    """Note the learning rate of every training step."""

    def initialize(self):
        self.seen = []
        return self

    def on_batch_begin(self, net, training=False, **kwargs):
        if training:
            self.seen.append(net.optimizer_.param_groups[0]["lr"])


def steps(clf):
    return [epoch["steps"] for epoch in clf.history_]


def weights(clf):
    return {name: tensor.numpy() for name, tensor in clf.net_.module_.state_dict().items()}


def assert_same_network(a, b):
    a, b = weights(a), weights(b)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize(
    ("max_steps", "expected"), [(1, [1]), (2, [2]), (3, [3]), (4, [3, 1]), (8, [3, 3, 2])]
)
def test_a_fit_takes_exactly_so_many_steps(simple, cells, max_steps, expected):
    rates = Rates()
    clf = simple(max_steps=max_steps, max_epochs=50, callbacks=[rates])
    clf.fit(cells.images, cells.target)
    assert len(rates.seen) == clf.n_steps_ == max_steps
    assert steps(clf) == expected
    assert clf.n_iter_ == len(expected)


@pytest.mark.parametrize(
    "params",
    [
        {"augment": Augmenter(), "mixing": Mixing(0.2, 1.0)},
        {"balanced_batches": True, "averaging": 0.9, "lr_schedule": "cosine"},
        {"unfrozen_layers": GradualUnfreezing(), "lr_schedule": "plateau", "max_epochs": 6},
    ],
    ids=lambda params: "-".join(params),
)
def test_whole_epochs_are_the_same_fit_whichever_way_they_are_counted(simple, cells, params):
    by_epochs = simple(**({"max_epochs": 3} | params))
    by_steps = simple(**params | {"max_epochs": 1, "max_steps": STEPS * by_epochs.max_epochs})
    assert_same_network(
        by_epochs.fit(cells.images, cells.target), by_steps.fit(cells.images, cells.target)
    )
    assert by_epochs.n_steps_ == by_steps.n_steps_ == STEPS * by_epochs.max_epochs


def test_oversampling_does_not_buy_steps(simple, cells):
    plain = simple(max_steps=7).fit(cells.images, cells.target)
    pipe = Pipeline([("aug", Augmenter(n_copies=3, random_state=0)), ("clf", simple(max_steps=7))])
    pipe.fit(cells.images, cells.target)
    assert plain.n_steps_ == pipe["clf"].n_steps_ == 7
    assert steps(plain) == [3, 3, 1]
    assert steps(pipe["clf"]) == [7]  # of the 9 that a pass over four times the images takes


def test_schedules_stretch_over_the_steps(simple, cells):
    n = np.arange(7)
    for schedule, expected in [
        ("cosine", (1 + np.cos(np.pi * n / 7)) / 2),
        (StepDecay(step_size=1), 0.1 ** (n // STEPS)),  # step_size counts epochs
        ("onecycle", None),
    ]:
        rates = Rates()
        clf = simple(max_steps=7, lr=0.01, lr_schedule=schedule, callbacks=[rates])
        clf.fit(cells.images, cells.target)
        if expected is not None:
            np.testing.assert_allclose(rates.seen, 0.01 * expected, rtol=1e-9)
        else:
            assert 1 <= np.argmax(rates.seen) <= 3 and rates.seen[-1] < 0.001


def test_the_cut_epoch_is_validated_and_can_be_the_best(simple, cells, cross_entropy):
    clf = simple(max_steps=7, early_stopping=EarlyStopping(patience=9), lr_schedule="constant")
    clf.fit(cells.images, cells.target, X_val=cells.images, y_val=cells.target)
    losses = [epoch["valid_loss"] for epoch in clf.history_]
    assert len(losses) == 3
    assert np.argmin(losses) == 2
    assert cross_entropy(clf, cells.images, cells.target) == pytest.approx(losses[2], rel=1e-5)


def test_early_stopping_ends_before_the_steps_do(simple, cells):
    wrong = {"X_val": cells.images[:18], "y_val": np.roll(cells.target[:18], 1)}
    clf = simple(max_steps=200, early_stopping=EarlyStopping(patience=2), lr=3e-3)
    clf.fit(cells.images, cells.target, **wrong)
    assert clf.n_steps_ == STEPS * clf.n_iter_ < 100


@pytest.mark.parametrize("interrupted_in", [2, 3])
def test_a_resumed_fit_ends_as_an_unbroken_one(simple, cells, tmp_path, interrupted_in):
    class Stop(Callback):
        def on_batch_end(self, net, training=False, **kwargs):
            if training and len(net.history) == interrupted_in:
                raise KeyboardInterrupt

    params = {"max_steps": 8, "averaging": 0.9, "mixing": "mixup"}
    params["early_stopping"] = EarlyStopping(patience=9)
    broken = simple(checkpoint_dir=tmp_path, callbacks=[Stop()], **params)
    with pytest.warns(TrainingInterruptedWarning):
        broken.fit(cells.images, cells.target)
    assert len(list(tmp_path.iterdir())) == 1
    resumed = simple(checkpoint_dir=tmp_path, **params).fit(cells.images, cells.target)
    unbroken = simple(**params).fit(cells.images, cells.target)
    assert steps(resumed) == steps(unbroken)
    assert resumed.n_steps_ == 8
    assert_same_network(resumed, unbroken)


def test_another_number_of_steps_is_another_checkpoint(simple, cells, tmp_path):
    class Stop(Callback):
        def on_epoch_end(self, net, **kwargs):
            raise KeyboardInterrupt

    with pytest.warns(TrainingInterruptedWarning):
        simple(max_steps=8, checkpoint_dir=tmp_path, callbacks=[Stop()]).fit(
            cells.images, cells.target
        )
    other = simple(max_steps=5, checkpoint_dir=tmp_path).fit(cells.images, cells.target)
    assert_same_network(other, simple(max_steps=5).fit(cells.images, cells.target))


def test_a_kept_fit_is_identified_by_its_steps_and_has_them(simple, cells, tmp_path):
    first, again, other = (
        simple(max_steps=max_steps, memory=tmp_path).fit(cells.images, cells.target)
        for max_steps in (4, 4, 5)
    )
    assert_same_network(first, again)
    assert again.history_ == first.history_  # durations too, so it was not trained
    assert (again.n_steps_, other.n_steps_) == (4, 5)


@pytest.mark.parametrize(("max_steps", "is_kept"), [(3, False), (7, True)])
def test_activations_are_kept_where_images_are_seen_more_than_once(
    simple, cells, weights_file, max_steps, is_kept
):
    class Kinds(Callback):
        def initialize(self):
            self.seen = set()
            return self

        def on_batch_begin(self, net, batch=None, training=False, **kwargs):
            self.seen |= set(batch[0])

    kinds = Kinds()
    params = {"weights": weights_file("simple_cnn"), "unfrozen_layers": 1, "max_steps": max_steps}
    clf = simple(callbacks=[kinds], **params).fit(cells.images, cells.target)
    assert ("activations" in kinds.seen) is is_kept
    assert clf.n_steps_ == max_steps
    assert_same_network(clf, simple(cache_gb=0, **params).fit(cells.images, cells.target))


def test_warm_starts_add_up_and_partial_fit_takes_a_whole_epoch(simple, cells):
    clf = simple(max_steps=4, warm_start=True).fit(cells.images, cells.target)
    clf.fit(cells.images, cells.target)
    assert (clf.n_steps_, clf.n_iter_) == (8, 4)
    clf.partial_fit(cells.images, cells.target).partial_fit(cells.images, cells.target)
    assert steps(clf) == [3, 1, 3, 1, 3, 3]


def test_find_learning_rate_takes_its_own_number_of_steps(simple, cells):
    result = find_learning_rate(
        simple(max_steps=2), cells.images, cells.target, lowest=1e-5, highest=1e-4, n_steps=12
    )
    assert len(result.losses) == 12


def test_a_saved_model_keeps_the_parameter_and_the_count(simple, cells, tmp_path):
    clf = simple(max_steps=4).fit(cells.images, cells.target)
    save_model(clf, tmp_path / "model.wbcclf")
    loaded = load_model(tmp_path / "model.wbcclf")
    assert (loaded.max_steps, loaded.n_steps_) == (4, 4)
    loaded.history_ = [{"epoch": 1, "train_loss": 1.0, "dur": 1.0}]  # as older versions wrote it
    assert not hasattr(loaded, "n_steps_")


def test_few_steps_reach_few_blocks(simple, cells):
    with pytest.warns(UserWarning, match="reaches 1 of the 5 blocks to train in 2 epochs"):
        simple(max_steps=4, unfrozen_layers=GradualUnfreezing()).fit(cells.images, cells.target)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        simple(max_steps=16, unfrozen_layers=GradualUnfreezing()).fit(cells.images, cells.target)


@pytest.mark.parametrize("max_steps", [0, -1, 2.5, "many"])
def test_other_values_are_rejected(simple, cells, max_steps):
    with pytest.raises(ValueError, match="'max_steps' parameter of SimpleCNNClassifier must be"):
        simple(max_steps=max_steps).fit(cells.images, cells.target)
