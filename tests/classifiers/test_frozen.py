"""Frozen blocks stay bit for bit what they were: weights, BatchNorm statistics, dropout."""

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback

from wbcclf import CNNClassifier, Head, Optimizer
from wbcclf.backbones import get_backbone
from wbcclf.backbones._chain import build_chain, count_frozen
from wbcclf.classifiers.network._network import CellNetwork
from wbcclf.classifiers.network._preprocessing import Preprocessing


def changed_blocks(clf, path):
    """Return the names of the blocks whose state dict is not the file's any more."""
    before, _ = build_chain(get_backbone(clf.backbone), path)
    return [
        name
        for (name, old), new in zip(before.named_children(), clf.net_.module_.backbone, strict=True)
        if not all(
            torch.equal(tensor, new.state_dict()[key]) for key, tensor in old.state_dict().items()
        )
    ]


class Modes(Callback):
    """Note in every training step which blocks are in training mode."""

    def initialize(self):
        self.seen = set()
        return self

    def on_batch_begin(self, net, training=False, **kwargs):
        if training:
            blocks = net.module_.train().backbone
            self.seen.add(tuple(any(part.training for part in block.modules()) for block in blocks))


@pytest.fixture
def frozen(weights_file):
    """Return a maker of classifiers with weights from a file, so that freezing makes sense."""

    def make(backbone, unfrozen_layers, **params):
        quick = {"device": "cpu", "max_epochs": 2, "batch_size": 16, "random_state": 0}
        path = weights_file(backbone)
        clf = CNNClassifier(backbone, weights=path, unfrozen_layers=unfrozen_layers)
        return clf.set_params(**(quick | params)), path

    return make


@pytest.mark.parametrize(
    ("backbone", "unfrozen_layers", "changed"),
    [
        ("resnet18", 0, []),
        ("resnet18", 1, ["layer4_block2"]),
        ("resnet18", "layer4_block1", ["layer4_block1", "layer4_block2"]),
        ("squeezenet1_1", 2, ["fire8", "fire9"]),
        ("simple_cnn", 1, ["conv5"]),
        ("simple_cnn", "all", ["conv1", "conv2", "conv3", "conv4", "conv5"]),
    ],
)
def test_fit_changes_the_unfrozen_blocks_and_no_bit_of_the_others(
    frozen, cells, backbone, unfrozen_layers, changed
):
    # weight_decay would move even a parameter without a gradient, were it in the optimiser
    optimizer = Optimizer(weight_decay=0.1)
    clf, path = frozen(backbone, unfrozen_layers, optimizer=optimizer, max_epochs=1)
    clf.fit(cells.images[:20], cells.target[:20])
    assert changed_blocks(clf, path) == changed


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
def test_frozen_holds_with_every_optimizer_early_stopping_and_schedule(frozen, cells, optimizer):
    clf, path = frozen(
        "simple_cnn", 2, optimizer=optimizer, early_stopping=True, lr_schedule="onecycle"
    )
    clf.fit(cells.images, cells.target)
    assert changed_blocks(clf, path) == ["conv4", "conv5"]


def test_frozen_blocks_stay_in_eval_mode_and_the_others_train(tiny, frozen, cells):
    modes = Modes()
    clf, path = frozen(tiny, 1, callbacks=[modes])
    clf.fit(cells.images, cells.target)
    assert modes.seen == {(False, True)}
    assert changed_blocks(clf, path) == ["block2"]


def test_dropout_of_frozen_blocks_is_off_while_training(tiny, frozen, cells):
    clf, _ = frozen(tiny, 1)
    clf.fit(cells.images, cells.target)
    network = clf.net_.module_.train()
    images = torch.rand(4, 3, 16, 16)
    prefix, suffix = network.backbone[0], network.backbone[1]
    assert torch.equal(prefix(images), prefix(images))
    features = prefix(images)
    assert not torch.equal(suffix(features), suffix(features))  # unfrozen: dropout is on


def test_batch_norm_statistics_stay_where_images_are_unlike_the_training_ones(tiny, frozen):
    """Statistics far from the data's would drift at the first step, were the mode wrong."""
    clf, path = frozen(tiny, 0)
    X = np.full((20, 16, 16, 3), 250, dtype=np.uint8)
    X[::2, :8] = 0
    clf.fit(X, np.arange(20) % 2)
    assert changed_blocks(clf, path) == []


def test_partial_fit_leaves_frozen_blocks_alone(tiny, frozen, cells):
    clf, path = frozen(tiny, 1)
    for _ in range(3):
        clf.partial_fit(cells.images, cells.target)
        assert changed_blocks(clf, path) == ["block2"]
    after_partial = clf.net_.module_.backbone[1][0].weight.clone()
    clf.fit(cells.images, cells.target).partial_fit(cells.images, cells.target)
    assert changed_blocks(clf, path) == ["block2"]
    assert not torch.equal(clf.net_.module_.backbone[1][0].weight, after_partial)


def test_warm_start_leaves_frozen_blocks_alone_and_can_unfreeze_step_by_step(tiny, frozen, cells):
    clf, path = frozen(tiny, 0, warm_start=True)
    clf.fit(cells.images, cells.target).fit(cells.images, cells.target)
    assert changed_blocks(clf, path) == []
    clf.set_params(unfrozen_layers=1).fit(cells.images, cells.target)
    assert changed_blocks(clf, path) == ["block2"]
    tuned = {k: v.clone() for k, v in clf.net_.module_.backbone[1].state_dict().items()}
    clf.set_params(unfrozen_layers=0).fit(cells.images, cells.target)  # and freeze it again
    now = clf.net_.module_.backbone[1].state_dict()
    assert all(torch.equal(tensor, now[key]) for key, tensor in tuned.items())


def test_frozen_parameters_are_not_in_the_optimizer(frozen, cells):
    clf, _ = frozen("simple_cnn", 1)
    clf.fit(cells.images, cells.target)
    network = clf.net_.module_
    trained = {id(p) for group in clf.net_.optimizer_.param_groups for p in group["params"]}
    expected = [*network.backbone[4].parameters(), *network.head.parameters()]
    assert trained == {id(parameter) for parameter in expected}


@pytest.mark.parametrize("name", ["simple_cnn", "mlp", "sepconv", "vgg16", "densenet121"])
def test_cut_decides_which_parameters_are_trainable(name):
    spec = get_backbone(name)
    chain, _ = build_chain(spec, None)
    size = (spec.smallest_size, spec.smallest_size)
    network = CellNetwork(chain, Preprocessing(spec, (0, 255), size), Head(), 3)
    blocks = dict(chain.named_children())
    for unfrozen_layers in (0, 1, len(blocks), list(blocks)[2], "all"):
        network.freeze(count_frozen(chain, unfrozen_layers))
        trainable = [
            block
            for block, module in blocks.items()
            if all(parameter.requires_grad for parameter in module.parameters())
        ]
        untouched = [
            block
            for block, module in blocks.items()
            if not any(parameter.requires_grad for parameter in module.parameters())
        ]
        start = {0: len(blocks), 1: len(blocks) - 1, list(blocks)[2]: 2}.get(unfrozen_layers, 0)
        assert trainable == list(blocks)[start:]
        assert untouched == list(blocks)[:start]
        assert all(parameter.requires_grad for parameter in network.head.parameters())


def test_freezing_random_weights_is_worth_a_warning(simple, cells):
    with pytest.warns(UserWarning, match=r"4 of 5 blocks of simple_cnn are frozen at random"):
        simple(unfrozen_layers=1, max_epochs=1).fit(cells.images, cells.target)


# ---------------------------------------------------------------- weights that a callback replaces


class Replace(Callback):
    """Give the lowest block other weights when the training begins."""

    def __init__(self, how):
        self.how = how

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        block = net.module_.backbone[0]
        doubled = {key: 2 * tensor for key, tensor in block.state_dict().items()}
        if self.how == "in place":
            with torch.no_grad():
                block[0].weight.mul_(2)
        elif self.how == "data":
            block[0].weight.data.mul_(2)
        elif self.how == "load_state_dict":
            block.load_state_dict(doubled)
        elif self.how == "the same weights":
            block.load_state_dict(block.state_dict())
        else:
            block[0].weight = torch.nn.Parameter(doubled["0.weight"], requires_grad=False)


@pytest.mark.parametrize("how", ["in place", "data", "load_state_dict", "another tensor"])
def test_frozen_weights_that_a_callback_replaces_are_to_be_given_as_weights(frozen, cells, how):
    clf, _ = frozen("simple_cnn", 1, callbacks=[Replace(how)])
    message = (
        r"callback has changed the weights of frozen blocks.* as weights=\.\.\., or .*cache_gb"
    )
    with pytest.raises(ValueError, match=message):
        clf.fit(cells.images, cells.target)


class ReplaceLate(Callback):
    """Change the lowest block after the first step."""

    def on_batch_end(self, net, training=False, **kwargs):
        net.module_.backbone[0][0].weight.data.mul_(2)


def test_frozen_weights_that_a_callback_changes_in_training_are_an_error(frozen, cells):
    clf, _ = frozen("simple_cnn", 1, callbacks=[ReplaceLate()])
    with pytest.raises(ValueError, match="callback has changed the weights of frozen blocks"):
        clf.fit(cells.images, cells.target)


def test_a_callback_may_load_the_frozen_weights_that_are_there(frozen, cells):
    clf, path = frozen("simple_cnn", 1, callbacks=[Replace("the same weights")])
    assert changed_blocks(clf.fit(cells.images, cells.target), path) == ["conv5"]


def test_weights_that_a_callback_replaces_count_where_nothing_is_kept(frozen, cells):
    clf, path = frozen("simple_cnn", 1, callbacks=[Replace("in place")], cache_gb=0)
    clf.fit(cells.images, cells.target)
    assert changed_blocks(clf, path) == ["conv1", "conv5"]


def test_a_callback_may_replace_weights_that_are_trained(frozen, cells):
    clf, path = frozen("simple_cnn", "all", callbacks=[Replace("in place")])
    clf.fit(cells.images, cells.target)
    assert changed_blocks(clf, path) == [f"conv{number}" for number in range(1, 6)]
