"""CellCropper: the cell in the middle, at one size, whatever picture it came from."""

import pickle

import cv2
import numpy as np
import pytest
from imblearn.pipeline import Pipeline
from preprocessing.fields import LIGHT, RADIUS, Field
from sklearn.base import clone
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from wbcclf import CellCropper, CNNClassifier, find_cells
from wbcclf.cells._stain import NUCLEUS, RED_CELL

SMALL_CELL = {"radius": 30, "lobes": ((0, 0, 20),)}


def one_cell(x=200, y=160, **params):
    field = Field().white_cell(x, y, **params)
    return field.red_cells(keep_off=[(x, y, params.get("radius", 38))]).picture()


def crops(pictures, *args, **params):
    return CellCropper(*args, **params).fit_transform(np.stack(pictures))


def apart(one, other):
    """Return the mean difference of two images in grey levels."""
    return np.abs(one.astype(float) - other).mean()


# ---------------------------------------------------------------- where, and how large


@pytest.mark.parametrize("scale", ["nucleus", "cell", "red cell"])
def test_magnification_no_longer_matters(scale):
    picture, other = one_cell(), one_cell(radius=44, lobes=((-14, 0, 18), (14, 0, 18)))
    magnified = cv2.resize(picture, None, fx=1.5, fy=1.5)
    params = {"background": "remove", "image_size": 48}
    (same,), (large,) = crops([picture], scale, **params), crops([magnified], scale, **params)
    (different,) = crops([other], scale, **params)
    assert apart(same, large) < apart(same, different) / 3


def test_the_cell_is_in_the_middle_wherever_it_was():
    picture = one_cell()
    moved = [np.roll(picture, shift, axis=(0, 1)) for shift in ((-40, -60), (30, 50))]
    one, other = crops(moved, 100, image_size=100)
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("scale", "factor"), [("nucleus", 2.0), ("nucleus", None), ("cell", 1.2)])
def test_the_side_is_a_multiple_of_the_diameter(scale, factor):
    picture = one_cell()
    (cell,) = find_cells(picture)
    multiple = {None: 3.0}.get(factor, factor)
    side = round(multiple * 2 * np.sqrt(getattr(cell, scale).sum() / np.pi))
    ours = crops([picture], scale, factor=factor, image_size=side)
    np.testing.assert_array_equal(ours, crops([picture], side, image_size=side))


def side_of(picture):
    """Return the side of the square in pixels of the picture, from how wide the cell is in it."""
    (square,) = crops([picture], "red cell", background="remove", image_size=240)
    (cell,) = find_cells(picture)
    shown = (square != 230).any(axis=-1).sum()  # of 240 x 240
    return 240 * np.sqrt(cell.cell.sum() / shown)


def test_red_cells_give_the_side_whatever_the_white_cell():
    small, large = one_cell(**SMALL_CELL), one_cell(radius=44)
    expected = 3 * 2 * RADIUS
    assert side_of(small) == pytest.approx(expected, rel=0.07)
    assert side_of(large) == pytest.approx(expected, rel=0.07)


@pytest.mark.parametrize(
    "picture",
    [Field().white_cell(200, 160).picture(), one_cell(radius=75, lobes=((0, 0, 50),))],
    ids=["no red cells", "too small to be red cells"],
)
def test_without_red_cells_the_white_cell_gives_the_side(picture):
    one, other = (crops([picture], scale, image_size=64) for scale in ("red cell", "cell"))
    np.testing.assert_array_equal(one, other)


def test_the_nearest_to_the_centre_or_the_largest():
    two = Field().white_cell(180, 160, **SMALL_CELL).white_cell(330, 90, radius=44)
    picture = two.red_cells(keep_off=[(180, 160, 30), (330, 90, 44)]).picture()
    small, large = sorted(find_cells(picture), key=lambda cell: cell.cell.sum())
    for which, cell in (("centre", small), ("largest", large)):
        y, x = np.rint(np.argwhere(cell.nucleus).mean(axis=0) + cell.bbox[:2] - 29.5).astype(int)
        (ours,) = crops([picture], 60, which=which, image_size=60)
        np.testing.assert_array_equal(ours, picture[y : y + 60, x : x + 60])


# ---------------------------------------------------------------- background and borders


def test_all_backgrounds_come_to_one_grey():
    lights = (230, 225, 215), (200, 190, 160), (150, 170, 190)
    field = Field().white_cell(200, 160).red_cells(keep_off=[(200, 160, 38)])
    out = crops([field.picture(light) for light in lights], background="normalise")
    brightest = np.sort(out.reshape(3, -1, 3), axis=1)[:, -2000:]
    assert abs(np.median(brightest, axis=1) - 230).max() <= 6  # the noise of the brighter half
    assert max(apart(out[0], out[1]), apart(out[0], out[2])) < 4


def stained(matrix, red_cells=True, light=LIGHT):
    """Return a field with one cell, its densities changed as another stain or camera would."""
    field = Field().white_cell(200, 160, lobes=((-12, 0, 16), (12, 0, 16)))
    if red_cells:
        field.red_cells(keep_off=[(200, 160, 38)])
    field.density = field.density @ np.array(matrix, np.float32).T
    return field.picture(light, noise=0.3)


STAINS = {
    "as it is": np.eye(3),
    "pale": np.eye(3) * 0.4,
    "more eosin": np.array([[1, 0.1, 0], [0, 1.1, 0.1], [0, -0.1, 1.3]]),
    "a camera that mixes channels": np.array([[0.6, 0.3, 0.1], [0, 0.8, 0], [0, 0.3, 0.5]]),
}


def test_all_stains_come_to_one():
    pictures = [
        stained(matrix, light=light)
        for matrix, light in zip(
            STAINS.values(), [LIGHT, (200, 190, 160), LIGHT, (150, 170, 190)], strict=True
        )
    ]
    kept = crops(pictures, background="normalise")
    ours = crops(pictures, background="normalise", stain="normalise")
    for number in range(1, len(pictures)):
        assert apart(ours[0], ours[number]) < apart(kept[0], kept[number]) / 2


@pytest.mark.parametrize("red_cells", [True, False])
def test_nucleus_and_red_cells_get_their_colours(red_cells):
    picture = stained(STAINS["more eosin"], red_cells)
    (cell,) = find_cells(picture)
    (ours,) = crops([picture], 200, background="normalise", stain="normalise", image_size=200)
    density = np.log(231 / (ours + 1.0))
    top, left = 160 - 100, 200 - 100
    nucleus = np.zeros((320, 400), bool)
    nucleus[cell.bbox[0] : cell.bbox[2], cell.bbox[1] : cell.bbox[3]] = cell.nucleus
    nucleus = cv2.erode(nucleus[top:, left:][:200, :200].astype(np.uint8), np.ones((9, 9))) > 0
    np.testing.assert_allclose(np.median(density[nucleus], axis=0), NUCLEUS, atol=0.1)
    if red_cells:
        is_red = (density[..., 1] > 0.3) & (density[..., 1] < 0.6) & (density[..., 0] < 0.35)
        is_red[50:150, 50:150] = False  # cytoplasm
        np.testing.assert_allclose(np.median(density[is_red], axis=0), RED_CELL, atol=0.05)


def test_one_stain_in_its_own_light():
    lights = LIGHT, (150, 170, 190)
    ours = crops([stained(np.eye(3), light=light) for light in lights], stain="normalise")
    brightest = np.sort(ours.reshape(2, -1, 3), axis=1)[:, -2000:]
    np.testing.assert_allclose(np.median(brightest, axis=1), lights, atol=4)


def test_only_the_cell_remains():
    picture = one_cell()
    (cell,) = find_cells(picture)
    (ours,) = crops([picture], 200, background="remove", image_size=200)
    assert (ours == 230).all(axis=2).sum() == pytest.approx(200**2 - cell.cell.sum(), abs=50)


@pytest.mark.parametrize("background", ["keep", "normalise", "remove"])
def test_a_wedge_and_a_border_show_no_black_and_no_second_cell(background):
    picture = one_cell(x=360, y=40)
    wedge = np.array([[300, 0], [400, 0], [400, 14]], np.int32)
    cv2.fillPoly(picture, [wedge], (0, 0, 0))
    (ours,) = crops([picture], 180, background=background, image_size=180)
    assert ours.max(axis=2).min() > 50
    found = find_cells(ours)
    assert len(found) == 1 or background == "remove"  # no background is left to read the light from


def test_a_square_that_fits_is_the_picture_itself():
    picture = one_cell()
    (ours,) = crops([picture], 120, image_size=120)
    assert any(
        (picture[y : y + 120, x : x + 120] == ours).all()
        for y in range(90, 110)
        for x in range(130, 150)
    )


# ---------------------------------------------------------------- no cell


def nothing(height=120, width=160):
    return np.full((height, width, 3), LIGHT, np.uint8)


@pytest.mark.parametrize(
    "picture",
    [
        nothing(),
        np.zeros((120, 160, 3), np.uint8),
        np.full((120, 160, 3), 255, np.uint8),
        Field(120, 160).red_cells().picture(),
        Field(120, 160).red_cells(keep_off=[(80, 60, 7)]).platelet(80, 60).picture(),
    ],
    ids=["empty", "black", "white", "red cells", "platelet"],
)
@pytest.mark.parametrize("background", ["keep", "normalise", "remove"])
@pytest.mark.parametrize("stain", ["keep", "normalise"])
def test_an_image_without_a_cell_passes_and_is_flagged(picture, background, stain):
    cropper = CellCropper(background=background, stain=stain, image_size=120)
    with pytest.warns(UserWarning, match=r"No white cell was found in 1 of 1 images \(first in im"):
        (ours,) = cropper.fit_transform(picture[None])
    assert cropper.found_.tolist() == [False]
    if background == "keep":
        np.testing.assert_array_equal(ours, picture[:, 20:140])


def test_flags_are_in_the_order_of_the_images():
    pictures = np.stack([one_cell(), nothing(320, 400), one_cell(x=150)])
    cropper = CellCropper()
    with pytest.warns(UserWarning, match=r"1 of 3 images \(first in image 1\)"):
        cropper.fit(pictures)
    assert cropper.found_.tolist() == [True, False, True]


# ---------------------------------------------------------------- one picture, without a fit


@pytest.mark.parametrize("background", ["keep", "normalise", "remove"])
@pytest.mark.parametrize("stain", ["keep", "normalise"])
def test_a_picture_alone_gives_what_a_batch_gives(background, stain):
    cropper = CellCropper(background=background, stain=stain, image_size=40)
    for picture in (one_cell(), one_cell(x=30)[:, :250]):
        (square,), (found,) = cropper.crop_pictures([picture])
        assert found
        np.testing.assert_array_equal(square[None], clone(cropper).fit_transform(picture[None]))
    assert not hasattr(cropper, "found_")


@pytest.mark.parametrize("shape", [(120, 160), (160, 90), (1, 1), (1, 701)])
def test_a_picture_without_a_cell_gives_its_central_square(shape):
    picture, side = nothing(*shape), min(shape)
    picture[...] = 100 + np.arange(shape[1])[:, None] % 100
    (square,), (found,) = CellCropper(image_size=side).crop_pictures([picture])
    assert not found
    top, left = ((length - side) // 2 for length in shape)
    np.testing.assert_array_equal(square, picture[top : top + side, left : left + side])


def two_close_cells():
    field = Field().white_cell(160, 150).white_cell(240, 150)
    return field.red_cells(keep_off=[(160, 150, 38), (240, 150, 38)]).picture()


def test_each_of_the_cells_in_the_order_given(tmp_path):
    field = np.memmap(tmp_path / "field", np.uint8, "w+", shape=(320, 400, 3))
    field[:] = two_close_cells()
    cells = find_cells(field)[::-1]
    assert len(cells) == 2
    squares = CellCropper(160, image_size=160).crop_cells(field, cells)
    assert type(squares) is np.ndarray and squares.dtype == np.uint8
    for square, cell in zip(squares, cells, strict=True):
        y, x = np.rint(np.argwhere(cell.nucleus).mean(axis=0) + cell.bbox[:2] - 79.5).astype(int)
        # The other cell stays as it is.
        np.testing.assert_array_equal(square, field[y : y + 160, x : x + 160])


def test_no_cells_give_no_squares():
    assert CellCropper(image_size=7).crop_cells(nothing(), []).shape == (0, 7, 7, 3)


def test_a_mirror_image_shows_no_cell():
    picture = two_close_cells()[:, :270]  # cuts the right one
    cells = find_cells(picture)
    square = CellCropper(200, image_size=200).crop_cells(picture, cells)[1]
    assert len(find_cells(square)) == 2
    border = np.flatnonzero((square[100] == square[100, -1]).all(axis=1))[0]  # one colour from here
    assert 120 < border < 150
    assert square[90:110, border + 1 : border + 25].min() > 150


@pytest.mark.parametrize(("dtype", "scale"), [(np.uint16, 257), (float, 1 / 255)])
def test_pictures_of_other_numbers_give_bytes(dtype, scale):
    picture = one_cell()
    picture[:2] = 255
    cropper = CellCropper(image_size=50)
    (expected,), _ = cropper.crop_pictures([picture])
    (square,), (found,) = cropper.crop_pictures([(picture.astype(float) * scale).astype(dtype)])
    assert found and square.dtype == np.uint8
    np.testing.assert_array_equal(square, expected)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (nothing()[..., :1], r"must be one RGB picture .*\(120, 160, 1\)"),
        (nothing()[None], "one by one"),
        (np.full((4, 4, 3), -1), "from -1 to -1"),
    ],
)
def test_what_is_no_picture(picture, message):
    for call in (
        lambda p: CellCropper().crop_pictures([p]),
        lambda p: CellCropper().crop_cells(p, []),
    ):
        with pytest.raises(ValueError, match=message):
            call(picture)


def test_cells_of_another_picture_are_refused():
    picture = one_cell()
    cells = find_cells(picture)
    for not_a_list in (cells[0], [1], None, iter(cells)):
        with pytest.raises(ValueError, match="cells must be a list of Cell"):
            CellCropper().crop_cells(picture, not_a_list)
    with pytest.raises(ValueError, match=r"100x100 pixels, got bbox=\(.*\) of cells\[0\]"):
        CellCropper().crop_cells(picture[:100, :100], cells)


# ---------------------------------------------------------------- an ordinary transformer


def test_grey_images_stay_grey_and_are_flagged():
    grey = one_cell()[..., :1]
    with pytest.warns(UserWarning, match="No white cell"):
        ours = crops([grey], image_size=320)
    np.testing.assert_array_equal(ours[0], grey[:, 40:360])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint16, np.int64])
def test_other_dtypes_give_the_same_squares(dtype):
    picture = one_cell()
    for background in ("keep", "normalise"):
        (expected,) = crops([picture], background=background)
        (ours,) = crops([picture.astype(dtype)], background=background)
        assert ours.dtype == dtype
        assert abs(ours.astype(float) - expected).max() <= 1  # rounded before or after resizing


def test_rows_give_rows():
    pictures = np.stack([one_cell(), one_cell(x=150)])
    rows = pictures.reshape(2, -1)
    ours = CellCropper(image_shape=(320, 400, 3), image_size=24).fit_transform(rows)
    expected = CellCropper(image_size=24).fit_transform(pictures)
    np.testing.assert_array_equal(ours, expected.reshape(2, -1))


def test_threads_folders_and_pickles_change_nothing(tmp_path):
    pictures = np.stack([one_cell(), one_cell(x=150), one_cell(y=120)])
    cropper = CellCropper(n_jobs=1).fit(pictures)
    expected = cropper.transform(pictures)
    for other in (
        clone(cropper).set_params(n_jobs=2),
        clone(cropper).set_params(spill_dir=tmp_path),
        pickle.loads(pickle.dumps(cropper)),
    ):
        np.testing.assert_array_equal(other.fit_transform(pictures), expected)
    assert isinstance(
        clone(cropper).set_params(spill_dir=tmp_path).fit_transform(pictures), np.memmap
    )


def test_it_is_the_first_step_of_a_pipeline():
    pictures = np.stack([one_cell(), one_cell(lobes=((-12, 0, 14), (12, 0, 14)))] * 4)
    clf = CNNClassifier(max_epochs=2, device="cpu", random_state=0)
    pipe = Pipeline([("crop", CellCropper(image_size=32)), ("clf", clf)])
    pipe.fit(pictures, ["a", "b"] * 4)
    assert pipe.predict_proba(pictures).shape == (8, 2)
    assert pipe["clf"].image_shape_ == (32, 32, 3)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"scale": "lobe"}, "'scale' parameter"),
        ({"scale": 0}, "'scale' parameter"),
        ({"factor": 0}, "'factor' parameter"),
        ({"factor": 17}, "'factor' parameter"),
        ({"scale": 50, "factor": 2}, "factor must be None .* got factor=2 and scale=50"),
        ({"which": "first"}, "'which' parameter"),
        ({"background": "black"}, "'background' parameter"),
        ({"stain": "azure"}, "'stain' parameter"),
        ({"image_size": 0}, "'image_size' parameter"),
        ({"n_jobs": 0}, "n_jobs must be None or an int other than 0"),
        ({"spill_dir": "no such folder"}, "is not a folder"),
    ],
)
def test_a_wrong_parameter_is_named(params, message):
    with pytest.raises(ValueError, match=message):
        CellCropper(**params).fit(one_cell()[None])
    if not {"n_jobs", "spill_dir"} & set(params):
        with pytest.raises(ValueError, match=message):
            CellCropper(**params).crop_pictures([one_cell()])
        with pytest.raises(ValueError, match=message):
            CellCropper(**params).crop_cells(one_cell(), [])


def test_a_square_that_shows_next_to_nothing_is_refused():
    cropper = CellCropper(10**6)
    with pytest.raises(ValueError, match=r"gives a square of 1000000 .* wide as pictures\[0\]"):
        cropper.crop_pictures([one_cell()])
    with pytest.raises(ValueError, match=r"more than 16 times as wide as every image"):
        cropper.fit(one_cell()[None])


def test_images_of_another_size_are_refused():
    cropper = CellCropper().fit(one_cell()[None])
    with pytest.raises(ValueError, match="works on 320x400x3"):
        cropper.transform(one_cell()[None, :300])


# The checks' numbers show no cells, which the cropper says; tests above assert when it does.
@pytest.mark.filterwarnings("ignore:No white cell was found")
@parametrize_with_checks([CellCropper(image_size=2)])
def test_scikit_learn_agrees(estimator, check):
    check(estimator)


def test_the_number_of_checks_does_not_shrink():
    assert len(list(estimator_checks_generator(CellCropper()))) >= 42  # of scikit-learn 1.9.1
