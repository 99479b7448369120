"""What an image batch is: checks, rows and images, value ranges."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import BaseEstimator

from wbcclf import Augmenter, Cache, CellCropper, EarlyStopping, ImageLoader, SimpleCNNClassifier
from wbcclf._images import (
    as_images,
    check_image_size,
    check_images,
    check_value_range,
    images_to_rows,
    infer_image_shape,
    rows_to_images,
    validate_images,
    value_range,
)

QUICK = settings(max_examples=50, deadline=None)
shapes = st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]))


def noise(n, shape=(6, 5, 3), dtype=np.uint8):
    return np.random.RandomState(0).randint(0, 256, (n, *shape)).astype(dtype)


# ------------------------------------------------------------------ Interval


@pytest.mark.parametrize(
    "estimator",
    [
        Augmenter(n_copies=True),
        Cache("folder", max_gb=True),
        CellCropper(scale=True),
        EarlyStopping(patience=True),
        ImageLoader(max_pixels=True),
        SimpleCNNClassifier(lr=True),
    ],
)
def test_true_is_no_number(estimator):
    with pytest.raises(ValueError, match="Got True instead"):
        estimator._validate_params()


# ------------------------------------------------------------------ check_image_size


@pytest.mark.parametrize(
    ("given_size", "size"),
    [
        (None, None),
        (7, (7, 7)),
        (np.int64(7), (7, 7)),
        (7.0, (7, 7)),
        ((7, 9), (7, 9)),
        ([7, 9], (7, 9)),
        (np.array([7, 9]), (7, 9)),
    ],
    ids=repr,
)
def test_an_image_size_is_a_side_or_a_pair(given_size, size):
    assert check_image_size(given_size) == size


@pytest.mark.parametrize(
    "bad", [0, -1, 1.5, True, "12", (7,), (7, 8, 9), [], (0, 7), (7, False), 2**16], ids=repr
)
def test_a_bad_image_size_is_refused_by_name_and_value(bad):
    with pytest.raises(ValueError, match=r"crop must be a positive int or a pair") as caught:
        check_image_size(bad, name="crop")
    assert repr(bad) in str(caught.value)


# BUG 4: int()'s own errors (TypeError, OverflowError, "invalid literal"), which name nothing.
@pytest.mark.parametrize(
    "bad", ["ab", float("nan"), float("inf"), {}, (None, 3), {4, 5}, np.True_], ids=repr
)
def test_an_image_size_that_is_no_number_is_refused_in_the_same_words(bad):
    with pytest.raises(ValueError, match=r"crop must be a positive int or a pair"):
        check_image_size(bad, name="crop")


# ------------------------------------------------------------------ check_images


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint16, np.float16, np.float32, float])
@pytest.mark.parametrize("n", [0, 1, 4])
def test_good_images_come_back_without_a_copy(dtype, n):
    images = noise(n, dtype=dtype)
    assert check_images(images) is images


def test_a_list_of_images_becomes_a_batch():
    images = noise(3)
    np.testing.assert_array_equal(check_images(list(images)), images, strict=True)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 3)), r"image batch.*shape \(2, 3\)"),
        (np.zeros((4, 5, 3)), r"X\[None\] for a single image"),
        (np.zeros((2, 4, 5, 3, 1)), "image batch"),
        (np.zeros((2, 4, 5, 2)), "got 2 in"),
        (np.zeros((2, 4, 5, 4)), "got 4 in"),
        (np.zeros((2, 0, 5, 3)), "without pixels"),
        (np.zeros((2, 4, 0, 3)), "without pixels"),
        (np.zeros((2, 4, 5, 3), bool), "numbers .*got dtype bool"),
        (np.zeros((2, 4, 5, 3), complex), "numbers"),
        (np.zeros((2, 4, 5, 3), object), "numbers"),
        (np.full((2, 4, 5, 3), "a"), "numbers"),
        ([np.zeros((4, 5, 3)), np.zeros((4, 6, 3))], r"one size.*image_size"),
    ],
)
def test_what_is_no_batch_is_refused_by_name(images, message):
    with pytest.raises(ValueError, match=f"(?s)^photos .*{message}"):
        check_images(images, "photos")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bad", [[np.nan], [np.inf], [-np.inf], [np.inf, -np.inf]], ids=repr)
def test_holes_are_counted_and_the_first_is_named(dtype, bad):
    images = noise(6, dtype=dtype)
    images[2, 0, 0, : len(bad)] = bad
    images[4, 1, 1, 1] = bad[0]
    with pytest.raises(ValueError, match=r"first in image 2 \(2 of 6 images\)"):
        check_images(images)


def test_finite_values_whose_sum_overflows_are_finite():
    images = np.full((2, 4, 5, 3), np.finfo(float).max)
    assert check_images(images) is images


# ------------------------------------------------------------------ rows and images


@QUICK
@given(st.integers(0, 4), shapes)
def test_rows_and_images_are_views_of_the_same_pixels(n, shape):
    images = noise(n, shape)
    rows = images_to_rows(images)
    assert rows.shape == (n, np.prod(shape))
    back = rows_to_images(rows, shape)
    np.testing.assert_array_equal(back, images, strict=True)
    if n:
        assert np.shares_memory(images, back)


@QUICK
@given(st.integers(1, 60))
def test_the_number_of_features_tells_square_images(side):
    assert infer_image_shape(3 * side**2) == (side, side, 3)
    assert infer_image_shape(side**2) == (side, side, 1)  # no square is three times a square


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 100_000))
def test_an_inferred_shape_holds_all_features(n_features):
    height, width, channels = infer_image_shape(n_features)
    assert height * width * channels == n_features
    assert height == width or (height, channels) == (1, 1)


def test_a_shape_that_does_not_fit_the_rows_is_an_error_with_both_numbers():
    with pytest.raises(ValueError, match=r"image_shape=4x5x3 has 60 values.*have 59"):
        rows_to_images(np.zeros((2, 59)), (4, 5, 3))


@pytest.mark.parametrize(
    "rows",
    [
        np.zeros((2, 3)),
        [[1, 2], [3, 4]],
        [1, 2],
        [],
        pd.DataFrame({"a": [1, 2]}),
        sparse.csr_matrix(np.eye(3)),
    ],
    ids=["array", "lists", "list", "empty", "frame", "sparse"],
)
def test_rows_are_not_taken_for_images(rows):
    assert as_images(rows) is None


def test_images_are_recognised_in_arrays_and_lists():
    images = noise(3)
    assert as_images(images) is images
    np.testing.assert_array_equal(as_images(list(images)), images)
    np.testing.assert_array_equal(as_images(images.tolist()), images)
    with pytest.raises(ValueError, match=r"X\[None\]"):
        as_images(images[0])


class Estimator(BaseEstimator):
    pass


def test_images_and_their_rows_are_validated_alike():
    images, target = noise(3), [0, 1, 0]
    for X, shape in [(images, None), (images_to_rows(images), (6, 5, 3))]:
        estimator = Estimator()
        batch, y = validate_images(estimator, X, target, image_shape=shape)
        assert estimator.n_features_in_ == 90
        np.testing.assert_array_equal(batch, images, strict=True)
        assert np.shares_memory(batch, images)
        assert y.tolist() == target


def test_data_frames_leave_their_names():
    frame = pd.DataFrame(np.zeros((2, 4)), columns=list("abcd"))
    estimator = Estimator()
    assert validate_images(estimator, frame).shape == (2, 2, 2, 1)
    assert estimator.feature_names_in_.tolist() == list("abcd")


def test_images_of_another_shape_than_in_fit_are_an_error_that_names_both():
    estimator = Estimator()
    validate_images(estimator, noise(3))
    with pytest.raises(ValueError, match=r"5x6x3.*Estimator works on 6x5x3.*image_size=\(6, 5\)"):
        validate_images(estimator, noise(3, (5, 6, 3)), image_shape=(6, 5, 3), reset=False)
    with pytest.raises(ValueError, match="75 features, but Estimator is expecting 90"):
        validate_images(estimator, np.zeros((3, 75)), image_shape=(6, 5, 3), reset=False)


# ------------------------------------------------------------------ value ranges


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        (np.array([3, 7], np.uint8), (0, 255)),
        (np.array([0, 1], np.uint8), (0, 255)),
        (np.array([0, 1]), (0, 255)),
        (np.array([0, 300]), (0, 300)),
        (np.array([-5, 100]), (-5, 100)),
        (np.array([0.2, 0.4]), (0, 1)),
        (np.array([0.0, 1.0], np.float32), (0, 1)),
        (np.array([0.0, 1.5]), (0, 1.5)),
        (np.array([0.0, 30.0]), (0, 255)),
        (np.array([0.0, 255.0]), (0, 255)),
        (np.array([0.0, 255.5]), (0, 255.5)),
        (np.array([-2.0, 2.5]), (-2, 2.5)),
    ],
    ids=str,
)
def test_the_scale_that_values_are_on(values, scale):
    assert value_range(values.reshape(1, 1, 2, 1)) == scale


@pytest.mark.parametrize(
    ("values", "fitted"),
    [
        (np.array([0, 255], np.uint8), (0, 1)),
        (np.array([0.0, 200.0]), (0, 1)),
        (np.array([0.0, 1.0]), (0, 255)),
        (np.array([0.1, 0.6], np.float32), (0, 255)),
        (np.array([0.0, 1.05]), (0, 255)),  # 0-1 with overshoot
        (np.array([-2.1, 2.6]), (0, 255)),  # standardised
        (np.array([-1.0, 1.0]), (0, 1)),
        (np.array([3, 200], np.uint8), (0, 65535)),
        (np.array([0.1, 0.9]), (0, 65535)),
        (np.array([-300.0, 10.0]), (0, 255)),
        (np.array([0, 65535], np.uint16), (0, 255)),
        (np.array([0.0, 255.0]), (-2.0, 2.5)),
    ],
    ids=str,
)
def test_another_scale_than_in_fit_is_an_error_that_names_both(values, fitted):
    with pytest.raises(ValueError, match="another scale") as caught:
        check_value_range(values.reshape(1, 1, 2, 1), fitted)
    for number in (values.min(), values.max(), *fitted):
        assert f"{number:g}" in str(caught.value)


@pytest.mark.parametrize(
    ("values", "fitted"),
    [
        (np.array([0, 1], np.uint8), (0, 255)),  # dark, but bytes
        (np.array([0, 1]), (0, 255)),
        (np.array([0.0, 0.0]), (0, 255)),  # black
        (np.array([0.0, 20.0]), (0, 255)),
        (np.array([0.0, 1.2]), (0, 1)),  # overshoot
        (np.array([-0.05, 1.05]), (0, 1)),
        (np.array([-3.0, 3.0]), (-2.0, 2.5)),
        (np.array([5.0, 7.0]), (4.0, 4.0)),  # fitted on a constant: no scale to speak of
    ],
    ids=str,
)
def test_the_scale_of_fit_is_accepted_with_room_for_overshoot(values, fitted):
    check_value_range(values.reshape(1, 1, 2, 1), fitted)


def test_an_empty_batch_is_on_any_scale():
    check_value_range(np.empty((0, 4, 4, 3)), (0, 1))


@QUICK
@given(st.sampled_from([np.uint8, np.float32, np.float64]), st.sampled_from([1, 255]), shapes)
def test_a_batch_is_on_its_own_scale(dtype, high, shape):
    images = (noise(3, shape) / 255 * high).astype(dtype)
    check_value_range(images, value_range(images))


@pytest.mark.parametrize(
    "paths", ["a.jpg", Path("a.jpg"), ["a.jpg", "b.jpg"], np.array(["a.jpg"]), [Path("a.jpg")]]
)
def test_paths_are_no_images(paths):
    with pytest.raises(ValueError, match=r"X holds paths, but Augmenter takes images.*ImageLoader"):
        validate_images(Augmenter(), paths)
