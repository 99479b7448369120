"""Learning rates over time and over blocks."""

import math

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback

from wbcclf import (
    Constant,
    Cosine,
    GradualUnfreezing,
    InverseTimeDecay,
    OneCycle,
    Optimizer,
    Plateau,
    StepDecay,
)

# Where validation images are training images, too, what is measured on them matters to no one.
pytestmark = pytest.mark.filterwarnings("ignore:.*images of X_val are in X, too")

EPOCHS, STEPS = 6, 3  # 36 images in batches of 16


class Rates(Callback):
    """Note the learning rate of every group that each training step uses."""

    def initialize(self):
        self.seen = []
        return self

    def on_batch_begin(self, net, training=False, **kwargs):
        if training:
            self.seen.append([group["lr"] for group in net.optimizer_.param_groups])


@pytest.fixture
def rates(simple, cells):
    """Return a function that trains and gives the learning rates (steps, groups)."""

    def of(**params):
        noted = Rates()
        clf = simple(max_epochs=EPOCHS, lr=0.01, callbacks=[noted], **params)
        clf.fit(cells.images, cells.target)
        return np.array(noted.seen)

    return of


EPOCH = np.arange(EPOCHS * STEPS) // STEPS
STEP = np.arange(EPOCHS * STEPS)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", np.ones(18)),
        (Constant(warmup_epochs=1), np.r_[1 / 4, 2 / 4, 3 / 4, np.ones(15)]),
        ("cosine", (1 + np.cos(math.pi * STEP / 18)) / 2),
        (
            Cosine(warmup_epochs=1),
            np.r_[1 / 4, 2 / 4, 3 / 4, (1 + np.cos(math.pi * np.arange(15) / 15)) / 2],
        ),
        (StepDecay(step_size=2, gamma=0.25), 0.25 ** (EPOCH // 2)),
        (InverseTimeDecay(decay=0.5), 1 / (1 + 0.5 * STEP)),
    ],
)
def test_schedule_is_its_formula(rates, schedule, expected):
    seen = rates(lr_schedule=schedule)
    np.testing.assert_allclose(seen[:, 0], 0.01 * expected, rtol=1e-9)


def test_one_cycle_goes_up_to_lr_and_down_again(rates):
    seen = rates(lr_schedule="onecycle")[:, 0]
    assert seen.max() == pytest.approx(0.01, rel=0.05)
    assert 0 < seen.argmax() < 9
    assert seen[-1] < 0.02 * seen.max()


def test_plateau_lowers_the_rate_when_the_figure_does_not_improve(simple, cells):
    noted = Rates()
    shuffled = np.roll(cells.target, 1)  # wrong labels: validation gets worse and worse
    plateau = Plateau(patience=0, factor=0.5, min_lr=2e-3)
    clf = simple(max_epochs=8, lr=0.01, callbacks=[noted], lr_schedule=plateau)
    clf.fit(cells.images, cells.target, X_val=cells.images, y_val=shuffled)
    seen = np.array(noted.seen)[::STEPS, 0]  # one value an epoch
    losses = [epoch["valid_loss"] for epoch in clf.history_]
    expected = [0.01]
    for number, loss in enumerate(losses[:-1]):
        # torch counts an improvement of less than 1e-4 of the best as none
        worse = number > 0 and loss >= min(losses[:number]) * (1 - 1e-4)
        expected.append(max(expected[-1] * (0.5 if worse else 1), 2e-3))
    np.testing.assert_allclose(seen, expected)
    assert seen[-1] < 0.01


@pytest.mark.parametrize(
    ("schedule", "params", "message"),
    [
        (OneCycle(), {"warmup_epochs": 1}, "'warmup_epochs' for estimator OneCycle"),
        (StepDecay(), {"steps": 3}, r"'steps' for estimator StepDecay.*'gamma', 'step_size'"),
        (Cosine(), {"warmup_epochs": -1}, "'warmup_epochs' parameter of Cosine must be"),
        (Plateau(), {"factor": "half"}, "'factor' parameter of Plateau must be"),
    ],
)
def test_wrong_schedule_parameters_name_the_right_ones(simple, cells, schedule, params, message):
    with pytest.raises(ValueError, match=message):
        simple(lr_schedule=schedule.set_params(**params)).fit(cells.images, cells.target)


# ---------------------------------------------------------------- over the blocks


@pytest.mark.parametrize("schedule", ["constant", "cosine", "onecycle"])
def test_every_block_further_down_learns_slower_by_the_same_factor(rates, schedule):
    plain = rates(lr_schedule=schedule)
    seen = rates(lr_schedule=schedule, optimizer=Optimizer(layer_lr_decay=0.5))
    assert plain.shape == (18, 1)
    assert seen.shape == (18, 6)  # the head and five blocks
    np.testing.assert_allclose(seen, plain * 0.5 ** np.arange(6), rtol=1e-9)


def test_the_optimizer_gets_each_blocks_weights_in_its_own_group(simple, cells):
    clf = simple(max_epochs=1, optimizer=Optimizer(layer_lr_decay=0.5))
    clf.fit(cells.images, cells.target)
    network = clf.net_.module_
    parts = [network.head, *reversed(network.backbone)]
    for group, part in zip(clf.net_.optimizer_.param_groups, parts, strict=True):
        assert {id(p) for p in group["params"]} == {id(p) for p in part.parameters()}


class Cuts(Callback):
    """Note how many blocks are frozen in every epoch, and which the optimizer moved."""

    def initialize(self):
        self.seen, self.moved = [], []
        return self

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        if not training:
            return
        if len(self.seen) < len(net.history):
            self.seen.append(net.module_.n_frozen_blocks)
            self.before = [block[0].weight.detach().clone() for block in net.module_.backbone]

    def on_epoch_end(self, net, **kwargs):
        now = [block[0].weight for block in net.module_.backbone]
        self.moved.append(
            [not torch.equal(a, b) for a, b in zip(self.before, now, strict=True)].index(True)
            if any(not torch.equal(a, b) for a, b in zip(self.before, now, strict=True))
            else len(now)
        )


def test_gradual_unfreezing_goes_down_block_by_block(simple, cells):
    cuts = Cuts()
    unfreezing = GradualUnfreezing(layers=3, epochs_per_layer=2)
    clf = simple(max_epochs=9, unfrozen_layers=unfreezing, callbacks=[cuts])
    with pytest.warns(UserWarning, match="2 of 5 blocks"):  # frozen at random, to be quick
        clf.fit(cells.images, cells.target)
    assert cuts.seen == [5, 5, 4, 4, 3, 3, 2, 2, 2]
    assert cuts.moved == cuts.seen  # the lowest block that moved is the first unfrozen one


# ---------------------------------------------------------------- momentum in one cycle


@pytest.mark.parametrize(
    ("optimizer", "key", "expected"),
    [
        ("rmsprop", "momentum", {0.0}),
        (torch.optim.SGD, "momentum", {0.0}),
        (Optimizer("sgd", params={"momentum": 0.5}), "momentum", {0.5}),
        (Optimizer(params={"betas": (0.5, 0.99)}), "betas", {(0.5, 0.99)}),
    ],
)
def test_one_cycle_leaves_a_chosen_momentum_and_none_alone(simple, cells, optimizer, key, expected):
    class Momenta(Callback):
        def initialize(self):
            self.seen = set()
            return self

        def on_batch_begin(self, net, training=False, **kwargs):
            self.seen |= {group[key] for group in net.optimizer_.param_groups}

    noted = Momenta()
    simple(optimizer=optimizer, callbacks=[noted]).fit(cells.images, cells.target)
    assert noted.seen == expected


def test_one_cycle_of_a_single_step_trains(simple, cells):
    rates = Rates()
    simple(max_epochs=1, batch_size=64, lr=0.01, callbacks=[rates]).fit(cells.images, cells.target)
    assert rates.seen[0][0] > 0.005


def test_gradual_unfreezing_that_does_not_reach_its_end_says_so(simple, cells):
    unfreezing = GradualUnfreezing(epochs_per_layer=2)
    with pytest.warns(UserWarning, match=r"\(epochs_per_layer=2\) reaches 1 of the 5 blocks"):
        simple(max_epochs=3, unfrozen_layers=unfreezing).fit(cells.images, cells.target)


def test_the_rate_is_given_once(simple, cells):
    with pytest.raises(ValueError, match=r"Optimizer\(params=...\) holds 'lr'"):
        simple(optimizer=Optimizer(params={"lr": 1e-2})).fit(cells.images, cells.target)
