"""Adapting to another laboratory: what is gained, what is kept, and what is refused."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from imblearn.pipeline import Pipeline, make_pipeline
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.tree import DecisionTreeClassifier

from wbcclf import (
    CNNClassifier,
    Head,
    ImageLoader,
    SimpleCNNClassifier,
    adapt,
    load_model,
    make_blood_cells,
    save_model,
)
from wbcclf.adapting import _folds, _macro_recall
from wbcclf.classifiers.training import _adapt

# The old models of these tests say so of most of what they are shown.
pytestmark = pytest.mark.filterwarnings(
    "ignore:These .* images do not look like:wbcclf.exceptions.UnfamiliarImagesWarning"
)

HOME = make_blood_cells(240, classes=3, image_size=32, random_state=0)
AWAY = make_blood_cells(120, classes=3, image_size=32, random_state=1)
AWAY.images = AWAY.images[..., ::-1]  # other colours, the same cells
FEW, REST = np.s_[:30], np.s_[30:]


def fitted(backbone, **options):
    clf = CNNClassifier(backbone, device="cpu", random_state=0, lr=3e-3, **options)
    return clf.fit(HOME.images, HOME.target)


@pytest.fixture(scope="module")
def plain():
    return fitted("simple_cnn", max_epochs=8)


@pytest.fixture(scope="module")
def with_batch_norm():
    return fitted("sepconv", head=Head(), max_epochs=8)


@pytest.fixture(scope="module")
def adapted(plain):
    return adapt(plain, AWAY.images[FEW], AWAY.target[FEW])


@pytest.fixture
def in_a_hurry(monkeypatch):
    """Train a fifth as long: enough to be better, on these cells."""
    monkeypatch.setattr(_adapt, "STEPS", 12)


def state_of(model):
    return copy.deepcopy(model.net_.module_.state_dict())


def equal(state, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in state.items())


def test_labels_make_it_better_on_other_cells(plain, adapted):
    images, target = AWAY.images[REST], AWAY.target[REST]
    assert adapted.score(images, target) > plain.score(images, target) + 0.05
    figures = adapted.adaptation_
    assert figures.after > figures.before and figures.n_cells == 30
    for when in ("before", "after"):
        low, high = figures[f"{when}_interval"]
        assert low < figures[when] <= high + 0.2 and high - low > 0.1


def test_the_new_laboratory_is_its_home(plain, adapted, in_a_hurry):
    others = AWAY.images[60:]
    new = adapt(plain, AWAY.images[:60], AWAY.target[:60])
    assert plain.familiarity(others).mean() < 0.3 < new.familiarity(others).mean()
    assert adapted._description is None  # of too few


def test_it_is_repeatable_and_touches_nothing_else(plain, in_a_hurry):
    before, attributes, state = state_of(plain), {*vars(plain)}, torch.get_rng_state()
    one, other = (adapt(plain, AWAY.images[FEW], AWAY.target[FEW]) for _ in range(2))
    assert one is not plain and equal(state_of(one), state_of(other))
    assert equal(before, plain.net_.module_.state_dict())
    assert {*vars(plain)} == attributes
    assert torch.equal(state, torch.get_rng_state())


def test_one_that_is_not_better_is_not_returned(plain, in_a_hurry):
    wrong = np.roll(AWAY.target[FEW], 1)
    rng = np.random.RandomState(0)
    with pytest.warns(UserWarning, match=r"macro recall of 0\.\d+ .*30 cells"):
        kept = adapt(plain, HOME.images[FEW], rng.permutation(wrong))
    assert kept is plain and not hasattr(plain, "adaptation_")


def test_absent_classes_are_not_forgotten(plain):
    absent = plain.classes_[-1]
    few = np.flatnonzero(AWAY.target != absent)[:30]
    new = adapt(plain, AWAY.images[few], AWAY.target[few])
    assert new is not plain
    of_absent = HOME.target == absent
    assert (new.predict(HOME.images[of_absent]) == absent).mean() > 0.8


@pytest.mark.filterwarnings("ignore:The old model is kept")
def test_one_cell_of_each_class_is_enough_to_try(plain, in_a_hurry):
    first = [np.flatnonzero(AWAY.target == label)[0] for label in plain.classes_]
    new = adapt(plain, AWAY.images[first], AWAY.target[first])
    assert new.predict_proba(AWAY.images[:2]).shape == (2, 3)


def test_copies_count_once_and_stay_in_one_fold(plain, in_a_hurry):
    images = np.concatenate([AWAY.images[FEW], AWAY.images[:10]])
    target = np.concatenate([AWAY.target[FEW], AWAY.target[:10]])
    assert adapt(plain, images, target).adaptation_.n_cells == 30


def test_a_pipeline_stays_one_and_can_be_saved(plain, in_a_hurry, tmp_path):
    model = make_pipeline(ImageLoader(32), plain)
    new = adapt(model, list(AWAY.images[FEW]), AWAY.target[FEW])
    assert isinstance(new, Pipeline) and model[-1] is plain and new[-1] is not plain
    new.set_params(imageloader__image_size=64)  # they have nothing in common
    assert model[0].image_size == 32
    new.set_params(imageloader__image_size=32)
    save_model(new, tmp_path / "m.wbcclf")
    loaded = load_model(tmp_path / "m.wbcclf")
    np.testing.assert_array_equal(loaded.predict_proba(AWAY.images), new.predict_proba(AWAY.images))


def test_frozen_blocks_stay_as_they_are(plain, in_a_hurry, tmp_path):
    save_model(plain, tmp_path / "m.wbcclf")
    frozen = fitted("simple_cnn", weights=tmp_path / "m.wbcclf", unfrozen_layers=2, max_epochs=2)
    new = adapt(frozen, AWAY.images[FEW], AWAY.target[FEW])
    before, after = state_of(frozen), state_of(new)
    changed = {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}
    assert {"conv4", "conv5"} <= changed and not changed & {"conv1", "conv2", "conv3"}


def test_without_labels_batch_norm_learns_the_pictures(with_batch_norm):
    new = adapt(with_batch_norm, AWAY.images)
    assert new.adaptation_.n_cells == 120 and 1 < new.adaptation_.n_classes_found <= 3
    before, after = state_of(with_batch_norm), state_of(new)
    changed = {
        name.rsplit(".", 1)[1] for name in before if not torch.equal(before[name], after[name])
    }
    assert changed <= {"running_mean", "running_var", "num_batches_tracked"} and changed
    old, now = (m.predict_proba(HOME.images).argmax(axis=1) for m in (with_batch_norm, new))
    assert (old != now).any()
    assert not new.net_.module_.training


def test_more_pictures_move_the_statistics_further(with_batch_norm):
    state = state_of(with_batch_norm)
    name = next(name for name in state if name.endswith("running_mean"))
    before = state[name]
    moved = [
        (state_of(adapt(with_batch_norm, images))[name] - before).norm()
        for images in (AWAY.images[:60], AWAY.images)
    ]
    assert moved[0] < moved[1]


def test_without_labels_or_batch_norm_it_is_the_old_one(plain):
    with pytest.warns(UserWarning, match="have none. Give some cells with"):
        assert adapt(plain, AWAY.images) is plain


def test_pictures_of_one_class_do_not_break_it(with_batch_norm):
    found = with_batch_norm.predict(AWAY.images)
    one = AWAY.images[found == found[0]]
    with pytest.warns(UserWarning, match=r"finds 1\.0 of its 3 classes in the \d+ pictures"):
        assert adapt(with_batch_norm, one) is with_batch_norm


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        (4, ["neutrophil", "lymphocyte", "blast", "blast"], "'blast', but the model knows .*train"),
        (4, ["neutrophil"] * 4, "one class only, 'neutrophil'"),
        (4, ["neutrophil"] * 3, "3 labels, X 4 pictures"),
        (3, ["neutrophil", None, "lymphocyte"], r"y\[1\] is None: give every picture a label"),
        (3, ["neutrophil", pd.NA, "lymphocyte"], r"y\[1\] is <NA>: give every picture a label"),
        (0, None, "minimum of 1|fewer than two"),
        (1, None, "fewer than two different pictures"),
    ],
)
def test_what_cannot_be_adapted_to_is_refused(plain, rows, labels, message):
    with pytest.raises(ValueError, match=message):
        adapt(plain, AWAY.images[:rows], labels)


def test_only_fitted_networks_are_adapted(plain):
    with pytest.raises(TypeError, match="got DecisionTreeClassifier"):
        adapt(DecisionTreeClassifier(), AWAY.images)
    with pytest.raises(NotFittedError):
        adapt(clone(plain), AWAY.images)


@pytest.mark.filterwarnings("ignore:The old model is kept")
def test_integers_and_rows_work(in_a_hurry):
    target = np.array([7, 3])[(HOME.target == HOME.target[0]).astype(int)]
    rows = HOME.images.reshape(len(HOME.images), -1)
    clf = SimpleCNNClassifier(max_epochs=2, device="cpu", random_state=0).fit(rows, target)
    away = AWAY.images[FEW].reshape(30, -1)
    labels = np.array([7, 3])[(AWAY.target[FEW] == HOME.target[0]).astype(int)]
    assert set(adapt(clf, away, labels).predict(away)) <= {3, 7}


def test_every_class_is_in_every_fold_where_it_can_be():
    target = np.repeat([0, 1, 2], [7, 3, 1])
    folds = _folds(target, np.random.RandomState(0))
    assert [len(set(folds[target == number])) for number in range(3)] == [3, 3, 1]
    assert np.bincount(folds).tolist() == [4, 4, 3]


def test_the_interval_of_the_macro_recall_covers_it():
    rng, truth, n_cells = np.random.RandomState(0), np.array([0.95, 0.6, 0.8]), [8, 10, 20]
    target = np.repeat([0, 1, 2], n_cells)
    covered = 0
    for _ in range(400):
        hits = (rng.uniform(size=len(target)) < truth[target]).astype(float)
        recall, (low, high) = _macro_recall(hits, target)
        assert recall == pytest.approx(np.mean([hits[target == k].mean() for k in range(3)]))
        covered += low <= truth.mean() <= high
    assert covered >= 0.93 * 400


@pytest.mark.filterwarnings("error")
def test_cells_that_teach_nothing_change_nothing(plain):
    two = [np.flatnonzero(AWAY.target == label)[0] for label in plain.classes_[:2]]
    with pytest.warns(UserWarning, match="The old model is kept"):
        assert adapt(plain, AWAY.images[two], AWAY.target[two]) is plain


def test_one_picture_of_two_classes_is_refused(plain):
    images, labels = AWAY.images[[0, 1, 2, 0]], list(plain.classes_[[0, 1, 2, 1]])
    with pytest.raises(ValueError, match=r"X\[0\] and X\[3\] are the same picture, but y calls it"):
        adapt(plain, images, labels)


def test_the_figures_go_with_the_next_training(plain, in_a_hurry):
    new = adapt(plain, AWAY.images[:60], AWAY.target[:60])
    new.set_params(max_epochs=1).fit(AWAY.images[:60], AWAY.target[:60])
    assert not hasattr(new, "adaptation_") and plain.max_epochs == 8
