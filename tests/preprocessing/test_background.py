"""BackgroundRemover: the white cell as it was, and one grey."""

import pickle

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from preprocessing.fields import LIGHT, Field, dice
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from wbcclf import BackgroundRemover, CellCropper, CNNClassifier

GREY = 230
SMALL, LARGE = (180, 160, 30), (330, 90, 44)  # x, y, radius


def two_cells():
    field = Field()
    for x, y, radius in (SMALL, LARGE):
        field.white_cell(x, y, radius=radius, lobes=((0, 0, radius * 0.65),))
    return field.red_cells(keep_off=[SMALL, LARGE])


def kept(out, picture):
    """Return where the picture was left; all else must be grey."""
    changed = (out != picture).any(axis=2)
    assert (out[changed] == GREY).all()
    return ~changed & (out != GREY).any(axis=2)


@pytest.mark.parametrize(("which", "number"), [("centre", 0), ("largest", 1)])
def test_one_cell_stays_as_it_is_and_all_else_is_grey(which, number):
    field = two_cells()
    picture = field.picture()
    (out,) = BackgroundRemover(which).fit_transform(picture[None])
    assert dice(kept(out, picture), field.cells[number]) > 0.95


def test_black_wedges_become_grey_too():
    field = two_cells()
    picture = field.picture()
    cv2.fillPoly(picture, [np.array([[300, 319], [399, 319], [399, 200]], np.int32)], (0, 0, 0))
    (out,) = BackgroundRemover().fit_transform(picture[None])
    assert dice(kept(out, picture), field.cells[0]) > 0.95


@settings(max_examples=15, deadline=None)
@given(
    x=st.integers(60, 340),
    y=st.integers(60, 260),
    radius=st.integers(26, 44),
    light=st.tuples(*[st.integers(150, 245)] * 3),
)
def test_wherever_the_cell_is_and_whatever_the_light(x, y, radius, light):
    field = Field().white_cell(x, y, radius=radius, lobes=((0, 0, 0.65 * radius),))
    picture = field.red_cells(keep_off=[(x, y, radius)]).picture(light)
    remover = BackgroundRemover()
    (out,) = remover.fit_transform(picture[None])
    assert remover.found_.all()
    assert dice(kept(out, picture), field.cells[0]) > 0.9


@pytest.mark.parametrize(
    "picture",
    [np.full((60, 80, 3), LIGHT, np.uint8), np.zeros((60, 80, 3), np.uint8)],
    ids=["empty", "black"],
)
def test_an_image_without_a_cell_stays_and_is_flagged(picture):
    remover = BackgroundRemover()
    with pytest.warns(UserWarning, match=r"in 1 of 1 images \(first in image 0\); they stay as"):
        (out,) = remover.fit_transform(picture[None])
    assert remover.found_.tolist() == [False]
    np.testing.assert_array_equal(out, picture)


def test_grey_images_stay_and_are_flagged():
    grey = two_cells().picture()[None, ..., :1]
    with pytest.warns(UserWarning, match="No white cell"):
        out = BackgroundRemover().fit_transform(grey)
    np.testing.assert_array_equal(out, grey)


@pytest.mark.parametrize(
    ("dtype", "scale"), [(np.float32, 1), (np.float64, 1 / 255), (np.uint16, 1), (np.int64, 1)]
)
def test_other_dtypes_and_scales_give_the_same(dtype, scale):
    picture = two_cells().picture()
    expected = BackgroundRemover().fit_transform(picture[None])
    ours = BackgroundRemover().fit_transform((picture * scale).astype(dtype)[None])
    assert ours.dtype == dtype
    np.testing.assert_allclose(ours / scale, expected, rtol=1e-6)


def test_rows_give_rows_and_frames_frames():
    picture = cv2.resize(two_cells().picture(), (100, 80), interpolation=cv2.INTER_AREA)[None]
    expected = BackgroundRemover().fit_transform(picture).reshape(1, -1)
    remover = BackgroundRemover(image_shape=(80, 100, 3))
    np.testing.assert_array_equal(remover.fit_transform(picture.reshape(1, -1)), expected)
    frame = remover.set_output(transform="pandas").transform(picture.reshape(1, -1))
    assert frame.columns[0] == "backgroundremover0"
    np.testing.assert_array_equal(frame, expected)


def test_threads_folders_and_pickles_change_nothing(tmp_path):
    pictures = np.stack([two_cells().picture(), two_cells().picture()[:, ::-1]])
    remover = BackgroundRemover(n_jobs=1).fit(pictures)
    expected = remover.transform(pictures)
    for other in (
        clone(remover).set_params(n_jobs=2),
        clone(remover).set_params(spill_dir=tmp_path),
        pickle.loads(pickle.dumps(remover)),
    ):
        np.testing.assert_array_equal(other.fit_transform(pictures), expected)
    spilled = clone(remover).set_params(spill_dir=tmp_path).fit_transform(pictures)
    assert isinstance(spilled, np.memmap)


def test_it_is_a_step_of_a_pipeline():
    pictures = np.stack([two_cells().picture()] * 8)[:, ::4, ::4]
    clf = CNNClassifier(max_epochs=1, device="cpu", random_state=0)
    pipe = make_pipeline(BackgroundRemover(), clf).fit(pictures, ["a", "b"] * 4)
    assert pipe.predict_proba(pictures).shape == (8, 2)


def test_the_cropper_finds_the_cell_again():
    pictures = two_cells().picture()[None]
    alone = BackgroundRemover().fit_transform(pictures)
    cropper = CellCropper("cell", background="remove", image_size=64)
    before, after = cropper.fit_transform(pictures), cropper.fit_transform(alone)
    assert cropper.found_.all()
    assert np.abs(before.astype(float) - after).mean() < 5


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"which": "all"}, "'which' parameter"),
        ({"n_jobs": 0}, "n_jobs must be None or an int other than 0"),
        ({"spill_dir": "no such folder"}, "is not a folder"),
        ({"image_shape": (9, 9, 9)}, "image_shape must be"),
    ],
)
def test_a_wrong_parameter_is_named(params, message):
    with pytest.raises(ValueError, match=message):
        BackgroundRemover(**params).fit(np.zeros((2, 12), np.uint8))


def test_images_of_another_size_or_scale_are_refused():
    pictures = two_cells().picture()[None]
    remover = BackgroundRemover().fit(pictures)
    with pytest.raises(ValueError, match="works on 320x400x3"):
        remover.transform(pictures[:, :300])
    with pytest.raises(ValueError, match="another scale"):
        remover.transform(pictures / 255)


# The checks' numbers show no cells, which it says; tests above assert when it does.
@pytest.mark.filterwarnings("ignore:No white cell was found")
@parametrize_with_checks([BackgroundRemover()])
def test_scikit_learn_agrees(estimator, check):
    check(estimator)


def test_the_number_of_checks_does_not_shrink():
    assert len(list(estimator_checks_generator(BackgroundRemover()))) >= 42  # of scikit-learn 1.9.1
