"""Augmenter: how many copies of what, and what it refuses."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError
from sklearn.utils._param_validation import InvalidParameterError

from wbcclf import SMOTE, Augmenter
from wbcclf.sampling._augmenter import _spread


def batch(counts, shape=(6, 5, 3), seed=0):
    rng = np.random.RandomState(seed)
    target = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    return rng.randint(0, 256, (sum(counts), *shape)).astype(np.uint8), target


def counted(aug, counts):
    """Return the number of images per class after resampling, and per source image."""
    images, target = batch(counts)
    out = aug.fit_resample(images, target)[1]
    return np.bincount(out).tolist(), np.bincount(aug.sample_indices_), target


# ------------------------------------------------------------------ how many


@pytest.mark.parametrize(("n_copies", "wanted"), [(None, 2), (0, 1), (1, 2), (3, 4)])
def test_n_copies_of_every_image(n_copies, wanted):
    per_class, per_image, _ = counted(Augmenter(n_copies=n_copies), [5, 3])
    assert per_class == [5 * wanted, 3 * wanted]
    assert set(per_image) == {wanted}


@pytest.mark.parametrize(
    ("strategy", "wanted"),
    [
        ("auto", [9, 9, 9]),
        ("not majority", [9, 9, 9]),
        ("all", [9, 9, 9]),
        ("minority", [9, 5, 9]),
        ("not minority", [9, 9, 4]),
        ({2: 30}, [9, 5, 30]),
        ({0: 20, 1: 5}, [20, 5, 4]),
        (lambda y: {label: 2 * count for label, count in Counter(y).items()}, [18, 10, 8]),
    ],
    ids=["auto", "not majority", "all", "minority", "not minority", "dict", "two", "callable"],
)
def test_sampling_strategy_means_what_it_means_in_imbalanced_learn(strategy, wanted):
    assert counted(Augmenter(sampling_strategy=strategy), [9, 5, 4])[0] == wanted


def test_a_number_as_strategy_is_the_ratio_of_two_classes():
    assert counted(Augmenter(sampling_strategy=0.75), [8, 3])[0] == [8, 6]


def test_fit_tells_the_number_of_copies():
    images, target = batch([9, 5, 4])
    assert Augmenter(n_copies=2).fit(images, target).sampling_strategy_ == {0: 18, 1: 10, 2: 8}
    strategy = Augmenter(sampling_strategy="auto").fit(images, target).sampling_strategy_
    assert {label: count for label, count in strategy.items() if count} == {1: 4, 2: 5}


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=4),
    st.integers(0, 40),
    st.integers(0, 99),
)
def test_copies_are_spread_evenly_over_the_images_of_a_class(counts, extra, seed):
    goal = {label: count + extra for label, count in enumerate(counts)}
    aug = Augmenter(sampling_strategy=goal, random_state=seed)
    per_class, per_image, target = counted(aug, counts)
    assert per_class == list(goal.values())
    for label in goal:
        mine = per_image[target == label]
        assert mine.max() - mine.min() <= 1


def test_which_images_get_the_odd_copy_is_drawn():
    members = np.arange(10, 20)
    drawn = {tuple(sorted(_spread(members, 3, np.random.RandomState(s)))) for s in range(20)}
    # 120 equally likely triples: 20 draws are all but surely of more than ten kinds.
    assert len(drawn) > 10


def test_targets_above_the_largest_class_do_not_warn():
    # filterwarnings=error: imbalanced-learn's "After over-sampling ..." would fail this test.
    assert counted(Augmenter(sampling_strategy={0: 50, 1: 60}), [5, 3])[0] == [50, 60]


# ------------------------------------------------------------------ labels and containers


def test_string_labels_keep_their_type():
    images, target = batch([5, 3])
    names = np.array(["monocyte", "ig"])[target]
    aug = Augmenter(sampling_strategy={"ig": 8})
    out = aug.fit_resample(images, names)[1]
    assert out.dtype == names.dtype
    assert Counter(out.tolist()) == {"monocyte": 5, "ig": 8}


def test_lists_and_data_frames_come_back_as_they_came():
    images, target = batch([4, 3], shape=(4, 4, 3))
    as_list, labels = Augmenter(random_state=0).fit_resample(list(images), target.tolist())
    assert isinstance(as_list, list)
    assert isinstance(labels, list)
    rows = images.reshape(7, -1)
    frame = pd.DataFrame(rows, columns=[f"p{i}" for i in range(48)])
    as_frame, _ = Augmenter(random_state=0).fit_resample(frame, target)
    as_rows, _ = Augmenter(random_state=0).fit_resample(rows, target)
    assert list(as_frame.columns) == list(frame.columns)
    assert set(as_frame.dtypes) == {np.dtype(np.uint8)}
    np.testing.assert_array_equal(as_frame.to_numpy(), np.asarray(as_rows))
    np.testing.assert_array_equal(np.reshape(as_list, (14, 48)), np.asarray(as_rows))


def test_rows_of_a_square_image_need_no_shape():
    images, target = batch([4, 3], shape=(4, 4, 3))
    aug = Augmenter(random_state=0)
    by_rows = aug.fit_resample(images.reshape(7, -1), target)[0]
    assert aug.image_shape_ == (4, 4, 3)
    assert aug.n_features_in_ == 48
    by_images = Augmenter(random_state=0).fit_resample(images, target)[0]
    np.testing.assert_array_equal(np.asarray(by_rows), np.asarray(by_images).reshape(14, -1))


def test_image_shape_is_ignored_for_image_batches():
    images, target = batch([4, 3])
    aug = Augmenter(image_shape=(4, 4, 3)).fit(images, target)
    assert aug.image_shape_ == (6, 5, 3)


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.int16, np.float16, np.int8])
def test_other_number_types_keep_theirs(dtype):
    images, target = batch([4, 3])
    images = (images // 3).astype(dtype)
    out = np.asarray(Augmenter(random_state=0, brightness=0).fit_resample(images, target)[0])
    assert out.dtype == dtype
    np.testing.assert_array_equal(out[:7], images)
    assert out.min() >= 0
    if np.dtype(dtype).kind in "iu":  # rounded, not cut off
        exact = Augmenter(random_state=0, brightness=0).fit_resample(images.astype(float), target)
        np.testing.assert_array_equal(out, np.rint(np.asarray(exact[0])))


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
@pytest.mark.parametrize("make", [Augmenter, SMOTE])
def test_the_largest_integers_do_not_wrap_around(make, dtype):
    high = np.iinfo(dtype).max
    images = np.full((14, 6, 5, 3), high, dtype)
    images[::3] -= 3
    target = np.repeat([0, 1], [8, 6])
    out, _ = make(random_state=0).fit_resample(images, target)
    np.testing.assert_array_equal(np.asarray(out)[:14], images)
    # Brightness takes up to a tenth twice, and 64 bits are computed in 53.
    assert int(out.min()) > 0.75 * float(high)


@pytest.mark.parametrize(
    "layout",
    [
        np.asfortranarray,
        lambda images: np.moveaxis(np.moveaxis(images, 3, 1).copy(), 1, 3),  # as PyTorch's
        lambda images: images[::-1, ::-1].copy()[::-1, ::-1],
    ],
    ids=["Fortran", "channels first", "backwards"],
)
@pytest.mark.parametrize("stain", [0, 0.05])
def test_the_layout_in_memory_does_not_matter(layout, stain):
    images, _ = batch([4, 3])
    aug = Augmenter(stain=stain)
    expected = aug.augment(images, random_state=0)
    np.testing.assert_array_equal(aug.augment(layout(images), random_state=0), expected)


# ------------------------------------------------------------------ refusals


def test_two_ways_to_say_how_many_are_one_too_many():
    images, target = batch([4, 3])
    with pytest.raises(ValueError, match=r"n_copies=2 and sampling_strategy='auto'.*give one"):
        Augmenter(n_copies=2, sampling_strategy="auto").fit_resample(images, target)


@pytest.mark.parametrize("params", [{}, {"sampling_strategy": "auto"}], ids=repr)
@pytest.mark.parametrize("n", [1, 5])
def test_a_single_class_is_refused(params, n):
    images, target = batch([n])
    with pytest.raises(ValueError, match="class"):
        Augmenter(**params).fit_resample(images, target)


def test_a_target_below_what_is_there_is_refused():
    with pytest.raises(ValueError, match="greater or equal"):
        counted(Augmenter(sampling_strategy={0: 2}), [4, 3])


def test_a_target_for_an_unknown_class_is_refused():
    with pytest.raises(ValueError, match="not present"):
        counted(Augmenter(sampling_strategy={7: 20}), [4, 3])


@pytest.mark.parametrize("shape", [(0, 6, 5, 3), (0, 90)])
def test_an_empty_batch_is_refused(shape):
    with pytest.raises(ValueError, match="0 sample"):
        Augmenter().fit_resample(np.empty(shape, np.uint8), np.empty(0, int))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_augmenting_no_images_gives_none(dtype):
    assert Augmenter(stain=0.1).augment(np.empty((0, 6, 5, 3), dtype)).shape == (0, 6, 5, 3)


BAD = {
    "rotation": [-1, 361, "90", None],
    "shear": [-1, 90],
    "shift": [-0.1, 1.1, (0.1, 0.1)],
    "zoom": [-0.1, 1],
    "horizontal_flip": ["yes", 0.5],
    "vertical_flip": ["yes", None],
    "brightness": [-0.1, 1.1],
    "contrast": [-0.1, 1.1],
    "saturation": [-0.1, 1.1],
    "hue": [-0.1, 0.6],
    "stain": [-0.1, 1.1],
    "laboratory": [-0.1, 1.1],
    "fill": ["wrap", None],
    "n_copies": [-1, 1.5, "auto"],
    "sampling_strategy": ["some", 0, 1.5],
    "image_shape": [48, "48"],
    "spill_dir": [3, ["."]],
    "random_state": ["x", 0.5],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values]
)
def test_a_bad_parameter_is_named(name, value):
    images, target = batch([4, 3])
    with pytest.raises(InvalidParameterError, match=f"'{name}' parameter of Augmenter"):
        Augmenter(**{name: value}).fit_resample(images, target)
    with pytest.raises(InvalidParameterError, match=f"'{name}' parameter of Augmenter"):
        Augmenter(**{name: value}).augment(images)


def test_every_parameter_is_validated():
    assert set(BAD) == set(Augmenter().get_params())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda images: images[..., :2], "1 channel .* or 3 .*got 2"),
        (lambda images: images[..., 0], "image batch"),
        (lambda images: images[:, :0], "without pixels"),
        (lambda images: np.where(images > 250, np.nan, images), "NaN"),
        (lambda images: np.where(images > 250, np.inf, images), "infinity"),
        (lambda images: images.astype(str), "numbers"),
        (lambda images: [images[0], images[1][:3]], "one size"),
    ],
    ids=["channels", "axes", "pixels", "NaN", "infinity", "text", "sizes"],
)
def test_a_wrong_batch_is_refused(spoil, message):
    images, target = batch([4, 3])
    with pytest.raises(ValueError, match=message):
        Augmenter().fit_resample(spoil(images), target)
    with pytest.raises(ValueError, match=message):
        Augmenter().augment(spoil(images))


@pytest.mark.parametrize("spoil", [np.nan, np.inf])
def test_rows_with_gaps_are_refused(spoil):
    images, target = batch([4, 3])
    rows = images.reshape(7, -1).astype(float)
    rows[3, 3] = spoil
    with pytest.raises(ValueError, match=r"contains (NaN|infinity)"):
        Augmenter().fit_resample(rows, target)


def test_labels_of_another_length_are_refused():
    images, target = batch([4, 3])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        Augmenter().fit_resample(images, target[1:])


@pytest.mark.parametrize(  # BUG 2: cv2.error, IndexError ...
    "image_shape", [(6, 5, 4), (6, 5, 1, 3), (9, 5, 2), (6, 15), (-6, -5, 3), (6.0, 5.0, 3.5)]
)
def test_an_impossible_image_shape_is_named(image_shape):
    images, target = batch([4, 3])
    with pytest.raises(ValueError, match="image_shape"):
        Augmenter(image_shape=image_shape).fit_resample(images.reshape(7, -1), target)


def test_a_row_too_long_for_opencv_says_to_give_its_shape():  # BUG 3: cv2.error
    # Above 32766 pixels a side OpenCV refuses floats; only a guessed strip is ever that long.
    rows = np.random.RandomState(0).uniform(size=(4, 40001))
    try:
        out = Augmenter().fit_resample(rows, [0, 0, 1, 1])[0]
    except ValueError as error:
        assert "image_shape" in str(error)
    else:
        assert out.shape == (8, 40001)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_longest_side_that_opencv_takes(dtype):
    for shape in ((1, 1, 32766, 1), (1, 32766, 1, 1)):
        assert Augmenter().augment(np.ones(shape, dtype), 0).shape == shape
    for shape in ((1, 1, 32767, 1), (1, 32767, 1, 1)):
        with pytest.raises(ValueError, match="no side may be longer than 32766"):
            Augmenter().augment(np.ones(shape, dtype), 0)


def test_names_of_features_are_known_after_fitting_only():
    with pytest.raises(NotFittedError):
        Augmenter().get_feature_names_out()
    images, target = batch([4, 3])
    assert len(Augmenter().fit(images, target).get_feature_names_out()) == 90


@pytest.mark.parametrize("make", [Augmenter, SMOTE])
def test_half_an_image_is_refused(make):
    images, target = batch([4, 3])
    with pytest.raises(ValueError, match=r"sampling_strategy must give .* as an int, got {1: 7.5}"):
        make(sampling_strategy={1: 7.5}).fit_resample(images, target)


@pytest.mark.parametrize("make", [Augmenter, SMOTE])
def test_booleans_are_no_pixels(make):
    images, target = batch([4, 3])
    for X in (images > 99, (images > 99).reshape(7, -1)):
        with pytest.raises(ValueError, match=r"X must hold numbers .* got dtype bool"):
            make(random_state=0).fit_resample(X, target)


def test_the_image_shape_of_rows_is_a_tuple_of_three():
    images, target = batch([4, 3])
    rows = images.reshape(7, -1)
    assert Augmenter(image_shape=[6, 5, 3]).fit(rows, target).image_shape_ == (6, 5, 3)
    with pytest.raises(ValueError, match="image_shape"):
        Augmenter(image_shape=()).fit_resample(rows, target)
