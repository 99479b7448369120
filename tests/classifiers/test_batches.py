"""Training batches: balanced, mixed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wbcclf import FocalLoss, Head, Mixing
from wbcclf.classifiers.data._batches import Batches, ImageData
from wbcclf.classifiers.training._mixing import Mixer


def data(counts, size=4):
    y = np.repeat(np.arange(len(counts)), counts)
    X = np.random.RandomState(0).randint(0, 256, (len(y), size, size, 3)).astype(np.uint8)
    return ImageData(X, y)


@given(
    counts=st.lists(st.integers(1, 40), min_size=2, max_size=5),
    batch_size=st.integers(1, 16),
    seed=st.integers(0, 99),
)
@settings(max_examples=50, deadline=None)
def test_balanced_batches_show_every_class_equally_often(counts, batch_size, seed):
    dataset = data(counts)
    batches = Batches(dataset, batch_size, np.random.RandomState(seed), balanced=True)
    target = np.concatenate([y for _, y in batches])
    assert len(target) == len(dataset)
    shown = np.bincount(target, minlength=len(counts))
    assert shown.max() - shown.min() <= 1
    # Any window as long as there are classes, from a turn's start on, holds each class once.
    turns = target[: len(target) // len(counts) * len(counts)].reshape(-1, len(counts))
    assert (np.sort(turns, axis=1) == np.arange(len(counts))).all()


def test_balanced_batches_show_no_image_twice_before_all_of_its_class_once():
    dataset = data([6, 30])
    order = Batches(dataset, 4, np.random.RandomState(0), balanced=True)._order()
    rare = order[order < 6]
    assert len(rare) == 18
    assert all(sorted(rare[start : start + 6]) == [0, 1, 2, 3, 4, 5] for start in (0, 6, 12))


def test_balanced_batches_take_the_class_sizes_out_of_the_prediction(simple):
    """Where all images are alike a network learns how often each class comes: 4 of 40, or half."""
    X = np.full((40, 8, 8, 3), 128, dtype=np.uint8)
    y = np.arange(40) < 4
    shares = {
        balanced: simple(max_epochs=15, lr=1e-2, balanced_batches=balanced, head=Head(dropout=0.0))
        .fit(X, y)
        .predict_proba(X[:1])[0, 1]
        for balanced in (False, True)
    }
    assert shares[False] == pytest.approx(0.1, abs=0.1)
    assert shares[True] == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_labels_and_weights_give_the_loss_of_both_images(kind):
    """The mixed loss is share * w1 * loss(y1) + (1 - share) * w2 * loss(y2), for any loss row."""
    dataset = data([5, 5, 5], size=8)
    inputs, target = dataset[np.arange(15)]
    inputs["sample_weight"] = np.linspace(0.5, 2, 15).astype(np.float32)
    mixing = Mixer(Mixing(float(kind == "mixup"), float(kind == "cutmix")), 3)
    batch = inputs | {"images": inputs["images"].copy()}
    mixed, label = mixing(batch, target, np.random.RandomState(3))

    random_state = np.random.RandomState(3)
    other = random_state.permutation(15)
    share = random_state.beta(1.0, 1.0)
    images, weight = inputs["images"].astype(float), inputs["sample_weight"]
    if kind == "mixup":
        expected = share * images + (1 - share) * images[other]
        np.testing.assert_allclose(mixed["images"], expected, atol=1e-3)  # float32 of 0-255
    else:
        from_other = (mixed["images"] != inputs["images"]).any(axis=(0, 3))
        rows, columns = np.flatnonzero(from_other.any(1)), np.flatnonzero(from_other.any(0))
        area = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
        share = 1 - area / 64
        assert 0 < share < 1
        assert mixed["images"].dtype == np.uint8
        pasted = mixed["images"][:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (
            pasted == images[other][:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        ).all()
    loss_rows = np.random.RandomState(4).uniform(size=(15, 3))  # loss of image i were it class c
    expected = share * weight * loss_rows[np.arange(15), target]
    expected += (1 - share) * weight[other] * loss_rows[np.arange(15), target[other]]
    given_loss = mixed["sample_weight"] * (label * loss_rows).sum(axis=1)
    np.testing.assert_allclose(given_loss, expected, rtol=1e-5)
    np.testing.assert_allclose(label.sum(axis=1), 1, rtol=1e-6)


def test_with_both_given_a_coin_decides():
    inputs, target = data([5, 5])[np.arange(10)]
    mixing, random_state = Mixer(Mixing(1.0, 1.0), 2), np.random.RandomState(0)
    kinds = {mixing(dict(inputs), target, random_state)[0]["images"].dtype for _ in range(20)}
    assert kinds == {np.dtype(np.uint8), np.dtype(np.float32)}  # CutMix keeps bytes


@pytest.mark.parametrize("mixing", [Mixing(0.2), Mixing(cutmix=1.0), Mixing(1.0, 1.0)])
def test_mixing_trains_with_every_loss_and_weight(simple, cells, mixing):
    params = {"loss": FocalLoss(label_smoothing=0.1), "class_weight": "balanced"}
    clf = simple(mixing=mixing, **params).fit(cells.images, cells.target)
    again = simple(mixing=mixing, **params).fit(cells.images, cells.target)
    plain = simple(**params).fit(cells.images, cells.target)
    given = clf.predict_proba(cells.images)
    np.testing.assert_array_equal(given, again.predict_proba(cells.images))
    assert abs(given - plain.predict_proba(cells.images)).max() > 1e-4
