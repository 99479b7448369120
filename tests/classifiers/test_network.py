"""Heads, pooling, and what a weights file that lacks something leads to."""

import numpy as np
import pytest
import torch
from torch import nn

from wbcclf import CNNClassifier, ConvNet, Head
from wbcclf.backbones import get_backbone
from wbcclf.classifiers.network._layers import make_pooling
from wbcclf.exceptions import PartialWeightsWarning, WeightsMismatchError


def layers(clf):
    return [type(layer).__name__ for layer in clf.net_.module_.head[1:]]


def test_the_published_head_with_batch_norm_and_dropouts_of_its_own(simple, cells):
    """System C: Flatten, BN, Dense 256, D .7, BN, 128, D .5, 64, D .3, softmax."""
    head = Head(
        "flatten",
        hidden=(256, 128, 64),
        dropout=(0.0, 0.7, 0.5, 0.3),
        batch_norm=(True, True, False, False),
    )
    clf = simple(head=head, max_epochs=1)
    clf.fit(cells.images, cells.target)
    assert layers(clf) == [
        *("Dropout", "BatchNorm1d", "Linear", "ReLU"),
        *("Dropout", "BatchNorm1d", "Linear", "ReLU"),
        *("Dropout", "Linear", "ReLU"),
        *("Dropout", "Linear"),
    ]
    network = clf.net_.module_.head
    assert [layer.p for layer in network if isinstance(layer, nn.Dropout)] == [0, 0.7, 0.5, 0.3]
    widths = [layer.out_features for layer in network if isinstance(layer, nn.Linear)]
    assert widths == [256, 128, 64, 3]


def test_one_value_stands_for_every_layer(simple, cells):
    clf = simple(head=Head(hidden=(8,), dropout=0.4, batch_norm=True), max_epochs=1)
    clf.fit(cells.images, cells.target)
    hidden, output = (
        ["Dropout", "BatchNorm1d", "Linear", "ReLU"],
        ["Dropout", "BatchNorm1d", "Linear"],
    )
    assert layers(clf) == hidden + output


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"head__dropout": (0.1, 0.2, 0.3)},
            r"dropout=\(0.1, 0.2, 0.3\)\) has 3 values.*2 linear layers",
        ),
        ({"head__dropout": (0.1, 1.5)}, r"dropout.*1.5"),
        ({"head__batch_norm": (True,)}, r"batch_norm=\(True,\)\) has 1 values.*with 8, 3 outputs"),
    ],
)
def test_values_that_do_not_fit_the_head_are_refused(simple, cells, params, message):
    clf = simple(head=Head(hidden=(8,))).set_params(**params)
    with pytest.raises(ValueError, match=message):
        clf.fit(cells.images, cells.target)


@pytest.mark.parametrize(("dropout", "is_random"), [(0.0, False), (0.5, True)])
def test_the_dropout_before_the_output_acts_while_training_alone(cells, dropout, is_random):
    backbone = ConvNet(filters=(4,))
    clf = CNNClassifier(backbone, head=Head(dropout=dropout), max_epochs=1, device="cpu")
    clf.fit(cells.images, cells.target)
    network, images = clf.net_.module_, torch.tensor(cells.images)
    with torch.no_grad():
        network.train()
        assert torch.equal(network(images), network(images)) != is_random
        network.eval()
        assert torch.equal(network(images), network(images))


@pytest.mark.parametrize(
    ("pooling", "shape", "expected"),
    [
        ("avg", (4, 3, 2), lambda x: x.mean(axis=(2, 3))),
        ("max", (4, 3, 2), lambda x: x.max(axis=(2, 3))),
        ("flatten", (4, 3, 2), lambda x: x.reshape(5, -1)),
        ("avg", (7, 4), lambda x: x.mean(axis=1)),
        ("max", (7, 4), lambda x: x.max(axis=1)),
        ("token", (7, 4), lambda x: x[:, 0]),
        ("flatten", (7, 4), lambda x: x.reshape(5, -1)),
        ("avg", (4,), lambda x: x),
        ("flatten", (4,), lambda x: x),
    ],
)
def test_pooling_of_maps_tokens_and_vectors(pooling, shape, expected):
    x = np.random.RandomState(0).normal(size=(5, *shape)).astype(np.float32)
    layer, width = make_pooling(pooling, shape)
    given = layer(torch.from_numpy(x)).numpy()
    assert given.shape == (5, width)
    np.testing.assert_allclose(given, expected(x), rtol=1e-5, atol=1e-6)


def test_the_class_token_needs_a_transformer(simple, cells):
    with pytest.raises(ValueError, match=r"pooling='token' needs a vision transformer's tokens"):
        simple(head=Head("token")).fit(cells.images, cells.target)


# ---------------------------------------------------------------- weights that lack something


@pytest.fixture
def half_a_file(tiny, tmp_path):
    """Write the weights of the upper block of "tiny" alone, or of the lower one."""

    def write(block):
        torch.manual_seed(1)
        state = get_backbone(tiny).build().state_dict()
        path = tmp_path / f"{block}.pt"
        torch.save({k: v for k, v in state.items() if k.startswith(block)} | {"fc": v1}, path)
        return path, state

    v1 = torch.zeros(1)
    return write


def test_missing_tensors_of_a_trained_block_are_a_warning_and_listed(tiny, half_a_file, cells):
    path, state = half_a_file("block1")
    clf = CNNClassifier(tiny, weights=path, unfrozen_layers=1, max_epochs=1, random_state=0)
    with pytest.warns(PartialWeightsWarning, match=r"block1.pt lacks . tensors of tiny \(block2"):
        clf.fit(cells.images, cells.target)
    report = clf.weights_report_
    assert {name.split(".")[0] for name in report.loaded} == {"block1"}
    assert {name.split(".")[0] for name in report.missing} == {"block2"}
    assert report.unused == ("fc",)
    kept = clf.net_.module_.backbone.block1.state_dict()
    assert all(torch.equal(kept[k.removeprefix("block1.")], state[k]) for k in report.loaded)


def test_missing_tensors_of_a_frozen_block_are_an_error(tiny, half_a_file, cells):
    path, _ = half_a_file("block2")
    clf = CNNClassifier(tiny, weights=path, unfrozen_layers=1, max_epochs=1)
    with pytest.raises(WeightsMismatchError, match=r"lacks .*frozen blocks \(block1.*stay random"):
        clf.fit(cells.images, cells.target)


def test_without_weights_there_is_no_report(simple, cells):
    assert simple(max_epochs=1).fit(cells.images, cells.target).weights_report_ is None


# ---------------------------------------------------------------- real pretrained weights


def test_real_imagenet_weights_are_all_loaded_and_beat_random_ones(wbcclf_data):
    """200 images of four classes of PBC; the head and one block are trained."""
    from wbcclf import ImageLoader, list_image_folder

    listing = list_image_folder(wbcclf_data / "pbc" / "train")
    classes = ("eosinophil", "lymphocyte", "monocyte", "neutrophil")
    rows = np.concatenate([np.flatnonzero(listing.target == name)[:150] for name in classes])
    X = ImageLoader(image_size=64).fit(listing.paths).transform(listing.paths[rows])
    y, held = listing.target[rows], np.arange(len(rows)) % 3 == 0
    weights = wbcclf_data.parent / "weights" / "squeezenet1_1_features.npz"
    accuracy = {}
    for name, path in (("imagenet", weights), ("random", None)):
        clf = CNNClassifier(
            "squeezenet1_1",
            weights=path,
            unfrozen_layers="all" if path is None else 1,
            max_epochs=4,
            lr=1e-3,
            lr_schedule="onecycle",
            random_state=0,
            device="cpu",
        )
        clf.fit(X[~held], y[~held])
        accuracy[name] = clf.score(X[held], y[held])
        if path is not None:
            assert len(clf.weights_report_.loaded) == 50
            assert clf.weights_report_.missing == clf.weights_report_.unused == ()
    assert accuracy["imagenet"] > accuracy["random"] + 0.05  # 10 of 200 images
