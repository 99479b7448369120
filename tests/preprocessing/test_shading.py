"""Uneven light and noise: cells, squares and measures as without; other pictures stay the same."""

import cv2
import numpy as np
import pytest
from preprocessing.fields import LIGHT, Field, dice, whole

from wbcclf import CellCropper, find_cells
from wbcclf.cells._measures import measure
from wbcclf.cells._picture import Picture

SIZE = 480, 640
PALE = 0.06, 0.12, 0.06  # cytoplasm that is lost in the dark
CELLS = [(90, 80), (560, 90), (320, 240), (80, 400), (570, 410)]  # most are in the corners


def fall(kind, size=SIZE, least=0.5):
    """Return the share of light (height, width, 1) that is left at each place."""
    y, x = (np.linspace(-1, 1, side) for side in size)
    if kind == "ramp":
        return (1 - (1 - least) * (np.add.outer(y, x) / 4 + 0.5))[..., None]
    centre = {"corners": (0, 0), "off centre": (0.4, -0.5), "one corner": (-1, 1)}[kind]
    square = np.add.outer((y - centre[0]) ** 2, (x - centre[1]) ** 2)
    # The fourth power of the cosine of the angle that light falls in at.
    return ((1 + square / square.max() * (least**-0.5 - 1)) ** -2)[..., None]


KINDS = ["corners", "off centre", "one corner", "ramp"]


def drawn(size=SIZE, cells=CELLS):
    field = Field(*size).red_cells(keep_off=[(x, y, 38) for x, y in cells])
    for x, y in cells:
        field.white_cell(x, y, cytoplasm=PALE)
    return field


@pytest.fixture(scope="module")
def field():
    return drawn()


@pytest.mark.parametrize("kind", KINDS)
def test_cells_in_uneven_light(field, kind):
    cells = find_cells(field.picture(LIGHT * fall(kind)))
    assert len(cells) == len(CELLS)
    for truth in field.cells:
        assert max(dice(whole(cell, SIZE), truth) for cell in cells) > 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_the_background_is_as_bright_everywhere(field, kind):
    picture = Picture(field.picture(LIGHT * fall(kind)))
    empty = field.density.max(axis=2) == 0
    empty = (
        cv2.erode(empty.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    )  # the drawing is blurred
    even = cv2.blur(picture[:, :], (9, 9))[empty] / picture.light
    # It was half as bright at one place as at another. A stain begins at a tenth.
    np.testing.assert_allclose(even, 1, atol=0.08)


@pytest.mark.parametrize("least", [1, 0.9])
def test_even_light_stays_as_it_is(field, least):
    """A fall by a tenth is in pictures of every microscope, and is no harm."""
    pixels = field.picture(LIGHT * fall("corners", least=least))
    picture = Picture(pixels)
    assert picture.shading is None
    np.testing.assert_array_equal(picture[:, :], pixels)


def stained_side():
    """Return a field of which one side is under thick plasma, with no more light to tell."""
    field = drawn()
    field.density[:, 300:] = np.maximum(field.density[:, 300:], (0.2, 0.45, 0.4))
    return field.picture()


def one_large_cell():
    return Field(120, 120).white_cell(60, 60, radius=56, lobes=((0, 0, 40),)).picture()


@pytest.mark.parametrize("draw", [stained_side, one_large_cell])
def test_what_is_stained_is_not_in_the_dark(draw):
    assert Picture(draw()).shading is None


def test_black_wedges_stay_black(field):
    turn = cv2.getRotationMatrix2D((320, 240), 17, 1)
    picture = cv2.warpAffine(field.picture(LIGHT * fall("corners")), turn, SIZE[::-1])
    wedge = (picture == 0).all(axis=2)
    picture[wedge] = 12  # as JPEG leaves it
    even = Picture(picture)
    assert even.shading is not None
    assert (even[:, :][wedge] == 12).all()
    assert len(find_cells(picture)) >= 3  # those that the turn has left


def test_the_blurred_edge_of_an_eyepiece_is_no_shading(field):
    y, x = np.indices(SIZE) - np.array(SIZE)[:, None, None] / 2
    seen = np.clip((230 - np.hypot(x, y)) / 20, 0, 1)[..., None]
    assert Picture(field.picture(LIGHT * seen)).shading is None


@pytest.mark.parametrize("noise", [2, 15])
def test_every_part_is_the_same_part(field, noise, tmp_path):
    pixels = field.picture(LIGHT * fall("one corner"), noise)
    scan = np.memmap(tmp_path / "scan", np.uint8, "w+", shape=pixels.shape)
    scan[:] = pixels
    picture = Picture(scan)
    assert (picture.blur > 0) == (noise > 6)
    for part in (np.s_[100:300, 250:600], np.s_[400:480, 0:9], np.s_[::7, ::7]):
        np.testing.assert_array_equal(picture[part], picture[:, :][part])


@pytest.mark.parametrize("noise", [15, 25])
def test_a_small_cell_in_noise(noise):
    field = Field(120, 120).white_cell(60, 60, radius=20, lobes=((0, 0, 12),))
    (cell,) = find_cells(field.picture(noise=noise))
    assert dice(whole(cell, (120, 120)), field.cells[0]) > 0.9


def test_noise_is_measured():
    """A blur of this width leaves 3 grey levels of it.

    The noise is that of a new field, whatever ran before: it is measured by a median of whole
    levels, 9.5 on average for a noise of 10, and one level is 10% of it.
    """
    for noise in (10, 20):
        expected = noise / (2 * np.sqrt(np.pi) * 3)
        assert Picture(drawn().picture(noise=noise)).blur == pytest.approx(expected, rel=0.1)
    assert Picture(drawn().picture(noise=3)).blur == 0


def test_squares_keep_their_noise(field):
    picture = field.picture(noise=20)
    cells = find_cells(picture)
    cropper = CellCropper(100, image_size=100, background="normalise")
    spread = [
        square[:8, :8].std(axis=(0, 1)).min() for square in cropper.crop_cells(picture, cells)
    ]
    assert min(spread) > 10


def test_tiles_of_a_large_picture():
    cells = [(x, y) for x in (100, 1000, 1750, 2500) for y in (100, 1100, 1780, 2200)]
    size = 2300, 2600
    found = find_cells(drawn(size, cells).picture(LIGHT * fall("ramp", size)))
    assert len(found) == len(cells)
    areas = [cell.cell.sum() for cell in found]
    np.testing.assert_allclose(areas, np.pi * 38**2, rtol=0.08)


def test_squares_in_one_light(field):
    even, uneven = field.picture(), field.picture(LIGHT * fall("one corner"))
    cropper = CellCropper(120, background="normalise")
    one, other = (
        cropper.crop_cells(each, find_cells(even)).astype(float) for each in (even, uneven)
    )
    np.testing.assert_allclose(other.mean(axis=(1, 2)), one.mean(axis=(1, 2)), rtol=0.05)


def test_squares_with_their_own_background_are_as_lit(field):
    picture = field.picture(LIGHT * fall("one corner"))
    (cell,) = (cell for cell in find_cells(picture) if cell.bbox[0] < 240 < cell.bbox[2])
    (square,) = CellCropper(100, image_size=100).crop_cells(picture, [cell])
    places = np.lib.stride_tricks.sliding_window_view(picture, (100, 100, 3))[150:250, 200:340]
    assert (places == square).all(axis=(3, 4, 5)).any()


def test_measures_in_uneven_light(field):
    """Densities of each cell are those of even light."""
    even = field.picture()
    uneven = field.picture(LIGHT * fall("ramp"))
    for cell in find_cells(even):
        one, other = (measure(Picture(each), cell, [cell]) for each in (even, uneven))
        for name in ("nucleus green density (OD)", "cytoplasm green density (of nucleus green)"):
            assert other[name] == pytest.approx(one[name], abs=0.04)
