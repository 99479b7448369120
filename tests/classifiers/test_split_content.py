"""The early-stopping split by content: doubles, and rows that were moved, changed or stripped."""

import numpy as np
import pandas as pd
import pytest
from imblearn.over_sampling import RandomOverSampler
from imblearn.under_sampling import RandomUnderSampler

from wbcclf import SMOTE, Augmenter, ImageSampler, make_blood_cells
from wbcclf._resampled import sources_of
from wbcclf.classifiers.data._split import validation_split

COUNTS = {"neutrophil": 14, "lymphocyte": 9, "eosinophil": 6}
N_ORIGINALS = sum(COUNTS.values())


@pytest.fixture(scope="module")
def rare():
    """29 cells of three classes of different size."""
    return make_blood_cells(classes=list(COUNTS), imbalance=COUNTS, image_size=16, random_state=0)


def rows_of(images):
    return {image.tobytes() for image in images}


# ---------------------------------------------------------------- doubles


def split(X, y, used=None, fraction=0.25):
    """Split as `fit` does."""
    images, y_plain = np.asarray(X), np.asarray(y)
    used = np.arange(len(y_plain)) if used is None else used
    sources = sources_of(X, images, y)
    random_state = np.random.RandomState(0)
    return validation_split(images, y_plain, used, sources, fraction, random_state)


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99])
def test_every_class_of_two_images_gives_one_and_keeps_one(rare, fraction):
    rows = np.concatenate([np.flatnonzero(rare.target == label)[:2] for label in COUNTS])
    y = rare.target[rows]
    train, validation = split(rare.images[rows], y, fraction=fraction)
    assert sorted(y[train]) == sorted(y[validation]) == sorted(COUNTS)


@pytest.mark.parametrize("adapted", [False, True], ids=["bare", "stripped"])
def test_random_copies_without_a_record_are_found(rare, adapted):
    sampler = RandomOverSampler(random_state=0)
    sampler = ImageSampler(sampler) if adapted else sampler
    X, y = sampler.fit_resample(rare.images.reshape(N_ORIGINALS, -1), rare.target)
    X, y = np.array(X), np.array(y)
    train, validation = split(X, y)
    assert rows_of(X[train]).isdisjoint(rows_of(X[validation]))
    n_images = [len(rows_of(X[validation][y[validation] == label])) for label in COUNTS]
    assert n_images == [round(0.25 * n) for n in COUNTS.values()]


def test_doubles_in_two_classes_are_kept_on_one_side(rare):
    X = np.concatenate([rare.images, rare.images])
    y = np.concatenate([rare.target, np.roll(rare.target, 1)])
    train, validation = split(X, y)
    assert rows_of(X[train]).isdisjoint(rows_of(X[validation]))


def test_copies_of_a_double_are_not_trained_on(rare):
    # Of two equal images, the copies of one are as good as those of the other; also where that
    # one is no longer there, or has no weight.
    augmenter = Augmenter(random_state=0)
    X, y = augmenter.fit_resample(np.repeat(rare.images, 2, axis=0), np.repeat(rare.target, 2))
    truth = dict(zip((row.tobytes() for row in X), augmenter.sample_indices_ // 2, strict=True))
    dropped = ImageSampler(RandomUnderSampler(sampling_strategy="all", random_state=0))
    for X_out, y_out, used in (
        (X, y, None),
        (X, y, np.flatnonzero(np.arange(len(y)) % 4 != 1)),
        (*dropped.fit_resample(X, y), None),
    ):
        image = np.array([truth[row.tobytes()] for row in X_out])
        train, validation = split(X_out, y_out, used)
        assert len(validation)
        assert not set(image[train]) & set(image[validation])


def test_a_class_of_one_image_many_times_is_trained_on(rare):
    first = {label: np.flatnonzero(rare.target == label)[0] for label in COUNTS}
    rows = np.r_[np.flatnonzero(rare.target != "eosinophil"), [first["eosinophil"]] * 5]
    train, validation = split(rare.images[rows], rare.target[rows])
    assert (rare.target[rows[train]] == "eosinophil").sum() == 5
    assert "eosinophil" not in rare.target[rows[validation]]


def test_a_class_whose_images_are_all_validated_on_elsewhere_is_an_error(rare):
    X = np.concatenate([rare.images[:14], rare.images[:14]])
    y = np.repeat(["a", "b"], 14)
    with pytest.raises(ValueError, match="no image of class 'a' is left to train on"):
        split(X, y, fraction=0.95)


# ---------------------------------------------------------------- moved, changed, stripped


def beacons(kind, tmp_path):
    """Resample images of which one pixel tells what they were made from: see test_resampled."""
    rng = np.random.RandomState(0)
    X = np.diag(rng.uniform(60, 120, 24))
    y = rng.permutation(np.repeat(["ig", "monocyte"], [14, 10]))
    if kind == "bytes":
        X = X.astype(np.uint8)
    elif kind == "list":
        X, y = X.tolist(), y.tolist()
    elif kind == "frame":
        X, y = pd.DataFrame(X), pd.Series(y)
    spill = tmp_path if kind == "mapped" else None
    only_brighter = dict.fromkeys(["rotation", "shear", "shift", "zoom", "contrast", "hue"], 0)
    flips = {"horizontal_flip": False, "vertical_flip": False}
    augmenter = Augmenter(**only_brighter, **flips, saturation=0, brightness=0.3, random_state=0)
    smote = SMOTE(k_neighbors=2, random_state=0, spill_dir=spill)
    X, y = smote.fit_resample(*augmenter.fit_resample(X, y))
    assert (spill is None) or len(list(tmp_path.iterdir())) == 1
    return X, y


def in_place(batch, values):
    """Write `values` to where the batch is, whatever it is, and return the batch."""
    if isinstance(batch, pd.Series):
        batch.iloc[:] = values
    else:
        batch[:] = values.tolist() if isinstance(batch, list) else values
    return batch


def plain(batch, values):
    """Return `values` as what the batch is, without a record."""
    if isinstance(batch, list):
        return values.tolist()
    if isinstance(batch, pd.DataFrame | pd.Series):
        return type(batch)(values)
    return np.array(values)


ORDER = np.random.RandomState(1).permutation(56)  # 24 images, 24 copies, 8 synthetics
SCALED = 0.5  # nothing of a beacon vanishes
MOVES = {
    "kept": lambda write, X: X,
    "moved": lambda write, X: write(X, np.array(X)[ORDER]),
    "changed": lambda write, X: write(X, (np.array(X) * SCALED).astype(np.array(X).dtype)),
    "both": lambda write, X: write(X, (np.array(X) * SCALED).astype(np.array(X).dtype)[ORDER]),
}
# Places of X and of y, and whether the split is right then, or an error.
TABLE = {
    ("kept", "kept"): "right",
    ("kept", "moved"): "right",
    ("kept", "plain"): "right",
    ("moved", "kept"): "right",
    ("moved", "moved"): "right",
    ("moved", "plain"): "right",
    ("changed", "kept"): "right",  # by the labels
    ("changed", "moved"): "error",
    ("changed", "plain"): "error",
    ("both", "moved"): "error",
    ("both", "plain"): "error",
    ("plain kept", "kept"): "right",
    ("plain kept", "moved"): "right",
    ("plain moved", "kept"): "right",
    ("plain moved", "moved"): "right",
    ("plain changed", "kept"): "right",  # a scaler
    ("plain changed", "moved"): "error",
    ("plain both", "moved"): "error",
}


@pytest.mark.parametrize("kind", ["floats", "bytes", "list", "frame", "mapped"])
@pytest.mark.parametrize(("of_X", "of_y"), TABLE, ids=lambda words: words)
def test_what_was_moved_or_changed_never_leaks(kind, of_X, of_y, tmp_path):
    X, y = beacons(kind, tmp_path)
    assert len(X) == len(ORDER)
    *is_plain, what = of_X.split()
    X = MOVES[what](plain if is_plain else in_place, plain(X, np.array(X)) if is_plain else X)
    if of_y == "moved":
        y = in_place(y, np.array(y)[ORDER])
    elif of_y == "plain":
        y = plain(y, np.array(y))
    if TABLE[of_X, of_y] == "error":
        with pytest.raises(ValueError, match=r"the record .* was lost"):
            split(X, y)
        return
    train, validation = split(X, y)
    shines = np.array(X) > 0
    assert (shines[validation].sum(axis=1) == 1).all()
    assert not (shines[train].any(axis=0) & shines[validation].any(axis=0)).any()
    left_out = np.setdiff1d(np.arange(len(X)), [*train, *validation])
    assert (shines[left_out] & shines[validation].any(axis=0)).any(axis=1).all()
    if ("moved" in of_X) == (of_y == "moved"):  # every image has its own label
        assert len(validation) == round(0.25 * 14) + round(0.25 * 10)


@pytest.mark.parametrize("of_y", ["kept", "moved", "plain"])
@pytest.mark.parametrize(
    "shuffled",
    [
        lambda X: X.sample(frac=1, random_state=0).reset_index(drop=True),
        lambda X: X.sample(frac=1, random_state=0, ignore_index=True),
        lambda X: X.sort_values(0, ignore_index=True),
        lambda X: pd.concat([X[30:], X[:30]], ignore_index=True),
    ],
    ids=["reset_index", "ignore_index", "sorted", "concat"],
)
def test_a_shuffled_data_frame_never_leaks(shuffled, of_y, tmp_path):
    X, y = beacons("frame", tmp_path)
    X = shuffled(X)
    y = {"kept": y, "moved": y.sample(frac=1, random_state=0, ignore_index=True)}.get(of_y)
    train, validation = split(X, np.repeat([0, 1], 28) if y is None else y)
    shines = np.array(X) > 0
    assert not (shines[train].any(axis=0) & shines[validation].any(axis=0)).any()


def test_rows_of_one_class_that_were_moved_are_found_though_others_were_changed(tmp_path):
    X, y = beacons("floats", tmp_path)
    of_class = np.flatnonzero(y == "ig")
    X[of_class] = X[of_class[::-1]]  # the labels stay as they are
    X[of_class[:5]] *= SCALED
    with pytest.raises(ValueError, match="was lost"):
        split(X, y)
