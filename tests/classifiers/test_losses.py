"""What is minimised: focal loss, label smoothing, penalties on weights."""

import numpy as np
import pytest
import torch
from torch import nn

from wbcclf import CrossEntropy, FocalLoss
from wbcclf.classifiers.training._losses import FocalCriterion, Penalty


@pytest.fixture
def logits():
    return torch.from_numpy(np.random.RandomState(0).normal(size=(20, 4)))


@pytest.fixture
def target():
    return torch.from_numpy(np.random.RandomState(1).randint(4, size=20))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_focal_loss_with_gamma_zero_is_cross_entropy(logits, target, smoothing):
    expected = nn.functional.cross_entropy(
        logits, target, reduction="none", label_smoothing=smoothing
    )
    torch.testing.assert_close(FocalCriterion(0.0, smoothing)(logits, target), expected)


def test_focal_loss_is_the_papers_formula(logits, target):
    p = logits.softmax(dim=1)[torch.arange(20), target]
    torch.testing.assert_close(FocalCriterion(2.0, 0.0)(logits, target), -((1 - p) ** 2) * p.log())


def test_focal_loss_takes_shares_of_classes(logits, target):
    loss = FocalCriterion(2.0, 0.0)
    other = (target + 1) % 4
    shares = 0.3 * nn.functional.one_hot(target, 4) + 0.7 * nn.functional.one_hot(other, 4)
    expected = 0.3 * loss(logits, target) + 0.7 * loss(logits, other)
    torch.testing.assert_close(loss(logits, shares.double()), expected)


def test_label_smoothing_and_focal_loss_reach_the_training(simple, cells):
    losses = {
        name: simple(max_epochs=1, lr=1e-9, loss=loss).fit(cells.images, cells.target).history_[0]
        for name, loss in {
            "plain": "cross_entropy",
            "smooth": CrossEntropy(label_smoothing=0.5),
            "focal": "focal",
            "gamma": FocalLoss(gamma=4.0),
        }.items()
    }
    losses = {name: epoch["train_loss"] for name, epoch in losses.items()}
    # The untrained network gives each of 3 classes about a third: (1 - p) ** 2 is about 4 / 9.
    assert losses["focal"] / losses["plain"] == pytest.approx(4 / 9, rel=0.3)
    assert losses["gamma"] / losses["plain"] == pytest.approx(16 / 81, rel=0.6)
    assert losses["smooth"] != losses["plain"]


# ---------------------------------------------------------------- penalties


@pytest.fixture
def parts():
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    return {"block1": block, "head": nn.Sequential(nn.Linear(4, 2))}


def test_a_penalty_counts_kernels_alone(parts):
    conv, linear = parts["block1"][0].weight, parts["head"][0].weight
    expected = 0.1 * (conv.abs().sum() + linear.abs().sum())
    expected = expected + 0.01 * (conv.square().sum() + linear.square().sum())
    torch.testing.assert_close(Penalty(parts, 0.1, 0.01)(), expected)


def test_a_penalty_by_block_leaves_the_others_out(parts):
    conv = parts["block1"][0].weight
    torch.testing.assert_close(Penalty(parts, 0.0, {"block1": 0.01})(), 0.01 * conv.square().sum())


def test_a_penalty_on_an_unknown_block_names_the_known_ones(simple, cells):
    with pytest.raises(ValueError, match=r"l2=.*\['conv9'\].*conv1, conv2.*head"):
        simple(loss=CrossEntropy(l2={"conv9": 0.1})).fit(cells.images, cells.target)


def test_l2_shrinks_the_blocks_it_names(simple, cells):
    def norm(clf, block):
        return float(clf.net_.module_.backbone[block][0].weight.detach().square().sum())

    plain = simple(max_epochs=4).fit(cells.images, cells.target)
    shrunk = simple(max_epochs=4, loss=CrossEntropy(l2={"conv2": 1.0}))
    shrunk.fit(cells.images, cells.target)
    assert norm(shrunk, 1) < 0.98 * norm(plain, 1)
    assert norm(shrunk, 2) == pytest.approx(norm(plain, 2), rel=0.01)
    # The penalty counts in the training loss, as Keras has it.
    assert shrunk.history_[0]["train_loss"] > plain.history_[0]["train_loss"] + 1


def test_l1_brings_kernels_to_zero(simple, cells):
    def near_zero(clf):
        kernel = clf.net_.module_.head[-1].weight.detach()
        return float((kernel.abs() < 2e-3).float().mean())

    plain = simple(max_epochs=6).fit(cells.images, cells.target)
    sparse = simple(max_epochs=6, loss=CrossEntropy(l1={"head": 1.0}))
    sparse.fit(cells.images, cells.target)
    assert near_zero(sparse) > near_zero(plain) + 0.1


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_loss_has_a_gradient_where_an_image_is_surely_right(gamma):
    logits = torch.tensor([[30.0, 0.0, 0.0]], requires_grad=True)
    for target in (0, 1):
        logits.grad = None
        FocalCriterion(gamma, 0.0)(logits, torch.tensor([target])).sum().backward()
        assert logits.grad.isfinite().all()
    assert logits.grad[0, 1] < -0.5  # the wrong one is pulled up


@pytest.mark.parametrize("l2", [{"head": -1.0}, {"head": "a"}, {"head": float("nan")}])
def test_impossible_penalties_are_named(simple, cells, l2):
    with pytest.raises(
        ValueError, match=r"'l2' parameter of CrossEntropy .*range \[0.0, inf\).*'head': "
    ):
        simple(loss=CrossEntropy(l2=l2)).fit(cells.images, cells.target)
