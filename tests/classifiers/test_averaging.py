"""Averaged weights, clipped gradients, other optimizers, predictions over eight views."""

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback

from wbcclf import EarlyStopping, Optimizer
from wbcclf.classifiers.training._callbacks import AverageWeights


class Weights(Callback):
    """Note the network's tensors after every training step, and at every validation."""

    def initialize(self):
        self.trained, self.validated = [], []
        return self

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            self.trained.append(_copy(net))

    def on_epoch_end(self, net, **kwargs):
        self.validated.append(_copy(net))


def _copy(net):
    return {name: tensor.clone() for name, tensor in net.module_.state_dict().items()}


def test_the_result_is_the_moving_average_of_the_steps(simple, cells):
    noted = Weights()
    clf = simple(max_epochs=3, averaging=0.8, callbacks=[noted]).fit(cells.images, cells.target)
    for name, tensor in clf.net_.module_.state_dict().items():
        average = torch.zeros_like(tensor, dtype=torch.float64)
        for weights in noted.trained:
            average = 0.8 * average + 0.2 * weights[name].double()
        average /= 1 - 0.8 ** len(noted.trained)
        # Nine float32 interpolations.
        torch.testing.assert_close(tensor.double(), average, rtol=1e-5, atol=1e-6)
    assert len(noted.trained) == 9


def test_training_itself_does_not_notice_the_average(simple, cells):
    steps = []
    for decay in (False, 0.8):
        noted = Weights()
        simple(max_epochs=3, averaging=decay, callbacks=[noted]).fit(cells.images, cells.target)
        steps.append(noted.trained)
    for plain, averaged in zip(*steps, strict=True):
        assert all(torch.equal(tensor, averaged[name]) for name, tensor in plain.items())


def test_validation_and_the_best_epoch_use_the_average(simple, cells, cross_entropy):
    clf = simple(max_epochs=4, averaging=0.9, early_stopping=EarlyStopping(patience=4))
    clf.fit(cells.images, cells.target)
    best = min(epoch["valid_loss"] for epoch in clf.history_)
    held = clf.validation_indices_
    loss = cross_entropy(clf, cells.images[held], cells.target[held])
    assert loss == pytest.approx(best, rel=1e-4)


def test_batch_norm_statistics_are_averaged_too(tiny, cells):
    from wbcclf import CNNClassifier

    noted = Weights()
    clf = CNNClassifier(tiny, averaging=0.5, max_epochs=2, callbacks=[noted], random_state=0)
    clf.fit(cells.images, cells.target)
    name = "backbone.block1.1.running_mean"
    average = sum(
        0.5 ** (len(noted.trained) - step) * weights[name].double()
        for step, weights in enumerate(noted.trained)
    ) / (1 - 0.5 ** len(noted.trained))
    torch.testing.assert_close(
        clf.net_.module_.state_dict()[name].double(), average, rtol=1e-5, atol=1e-6
    )


def test_partial_fit_continues_its_average(simple, cells):
    clf = simple(averaging=0.8)
    for _ in range(3):
        clf.partial_fit(cells.images, cells.target)
    (average,) = [c for _, c in clf.net_.callbacks_ if isinstance(c, AverageWeights)]
    assert average.step_ == 9


def test_an_interrupted_training_keeps_the_average(simple, cells):
    class Interrupt(Callback):
        def on_batch_end(self, net, training=False, **kwargs):
            if training and len(net.history) == 2:
                raise KeyboardInterrupt

    noted = Weights()
    clf = simple(averaging=0.8, max_epochs=3, callbacks=[noted, Interrupt()])
    with pytest.warns(UserWarning, match="interrupted in epoch 2"):
        clf.fit(cells.images, cells.target)
    name = "head.2.weight"
    three = [weights[name] for weights in noted.trained[:3]]
    average = (0.64 * three[0] + 0.8 * three[1] + three[2]) * 0.2 / (1 - 0.8**3)
    torch.testing.assert_close(clf.net_.module_.state_dict()[name], average, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- gradients, optimizers


def test_gradients_are_clipped_to_the_norm(simple, cells):
    class Norms(Callback):
        def initialize(self):
            self.seen = []
            return self

        def on_batch_end(self, net, training=False, **kwargs):
            if training:
                gradients = [p.grad.norm() for p in net.module_.parameters() if p.grad is not None]
                self.seen.append(float(torch.stack(gradients).norm()))

    norms = Norms()
    optimizer = Optimizer(max_grad_norm=1e-3)
    simple(optimizer=optimizer, callbacks=[norms]).fit(cells.images, cells.target)
    assert max(norms.seen) == pytest.approx(1e-3, rel=1e-3)
    free = Norms()
    simple(callbacks=[free]).fit(cells.images, cells.target)
    assert min(free.seen) > 1e-3


@pytest.mark.parametrize(
    ("optimizer", "params"),
    [
        ("adam", {"betas": (0.8, 0.9)}),
        ("sgd", {"momentum": 0.5}),
        (torch.optim.NAdam, None),
        (torch.optim.LBFGS, {"max_iter": 2}),
        (torch.optim.Adadelta, {"rho": 0.8}),
    ],
)
def test_any_torch_optimizer_with_any_of_its_parameters(simple, cells, optimizer, params):
    clf = simple(optimizer=Optimizer(optimizer, params=params), lr=1e-3)
    clf.fit(cells.images, cells.target)
    defaults = clf.net_.optimizer_.defaults
    assert all(defaults[name] == value for name, value in (params or {}).items())
    assert len(clf.history_) == 2


def test_a_wrong_optimizer_parameter_is_named(simple, cells):
    optimizer = Optimizer(params={"momentum": 0.9})
    with pytest.raises(ValueError, match=r"AdamW does not take .*params=\{'momentum': 0.9\}"):
        simple(optimizer=optimizer).fit(cells.images, cells.target)


# ---------------------------------------------------------------- test-time augmentation


def test_eight_views_make_predictions_blind_to_turns_and_flips(simple, cells):
    clf = simple(test_time_augmentation=True).fit(cells.images, cells.target)
    given = clf.predict_proba(cells.images)
    for turned in (
        np.rot90(cells.images, axes=(1, 2)),
        cells.images[:, ::-1],
        cells.images.swapaxes(1, 2),
    ):
        np.testing.assert_allclose(clf.predict_proba(turned), given, atol=1e-6)
    clf.set_params(test_time_augmentation=False)
    assert abs(clf.predict_proba(cells.images) - given).max() > 1e-4
    views = [
        np.rot90(images, turns, axes=(1, 2))
        for images in (cells.images, cells.images[:, :, ::-1])
        for turns in range(4)
    ]
    mean = np.mean([clf.predict_proba(view) for view in views], axis=0)
    np.testing.assert_allclose(mean, given, atol=1e-6)
    assert len({view.tobytes() for view in views}) == 8


def test_images_that_are_not_square_have_four_views(simple, cells):
    X = cells.images[:, :12]
    clf = simple(test_time_augmentation=True).fit(X, cells.target)
    given = clf.predict_proba(X)
    np.testing.assert_allclose(clf.predict_proba(X[:, ::-1, ::-1]), given, atol=1e-6)
    np.testing.assert_allclose(clf.predict_proba(X[:, :, ::-1]), given, atol=1e-6)
