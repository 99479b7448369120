"""White cells of drawn and of real pictures: found, whole, and nothing else."""

import dataclasses

import cv2
import numpy as np
import pytest
from preprocessing.fields import LIGHT, Field, dice, whole
from scipy.ndimage import find_objects

from wbcclf import ImageLoader, find_cells, make_blood_cells
from wbcclf.cells._segment import _boxes

LOBES = ((-14, -10, 12), (14, -10, 12), (0, 14, 12))
POSITIONS = [(110, 90), (300, 210)]


def two_cells():
    return Field().red_cells(keep_off=[(110, 90, 38), (300, 210, 38)])


@pytest.fixture
def field():
    """Return a field with a round nucleus, a lobed one, red cells and platelets."""
    drawn = two_cells().white_cell(110, 90).white_cell(300, 210, lobes=LOBES)
    return drawn.platelet(205, 145).platelet(30, 290).platelet(370, 60)


def assert_found(cells, field, least=0.95, least_nucleus=0.9):
    """Each cell is found once; `least` and `least_nucleus` are Dice coefficients."""
    assert len(cells) == len(field.cells)
    for truth, nucleus in zip(field.cells, field.nuclei, strict=True):
        overlaps = [dice(whole(cell, truth.shape), truth) for cell in cells]
        assert max(overlaps) >= least
        assert dice_of_nucleus(cells[int(np.argmax(overlaps))], nucleus) >= least_nucleus


def dice_of_nucleus(cell, truth):
    return dice(whole(dataclasses.replace(cell, cell=cell.nucleus), truth.shape), truth)


def test_cells_of_a_field(field):
    assert_found(find_cells(field.picture()), field)


def test_masks_fit_their_box(field):
    picture = field.picture()
    for cell in find_cells(picture):
        top, left, bottom, right = cell.bbox
        assert 0 <= top < bottom <= picture.shape[0]
        assert 0 <= left < right <= picture.shape[1]
        assert cell.cell.shape == cell.nucleus.shape == (bottom - top, right - left)
        assert cell.cell.dtype == cell.nucleus.dtype == bool
        # The box is tight, and the nucleus is a part of the cell.
        assert cell.cell.any(axis=0).all() and cell.cell.any(axis=1).all()
        assert cell.nucleus.any() and not (cell.nucleus & ~cell.cell).any()
        assert 0.5 <= cell.score <= 1
        assert all(isinstance(side, int) for side in cell.bbox)


def test_a_cell_cannot_be_changed(field):
    with pytest.raises(dataclasses.FrozenInstanceError):
        find_cells(field.picture())[0].score = 1


@pytest.mark.parametrize(
    "light",
    [(230, 225, 215), (140, 225, 200), (250, 200, 160), (110, 105, 100), (255, 255, 255)],
    ids=["neutral", "cyan", "orange", "dark", "bright"],
)
def test_any_light(field, light):
    assert_found(find_cells(field.picture(light=light)), field)


@pytest.mark.parametrize("depth", [0.4, 0.7, 1.3])
def test_any_depth_of_stain(field, depth):
    field.density *= depth
    assert_found(find_cells(field.picture()), field)


@pytest.mark.parametrize("zoom", [0.5, 2.0])
def test_any_magnification(field, zoom):
    picture = cv2.resize(field.picture(), None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    cells = find_cells(picture)
    assert len(cells) == 2
    for cell, (x, y) in zip(cells, POSITIONS, strict=True):
        np.testing.assert_allclose(
            cell.bbox, np.array([y - 38, x - 38, y + 38, x + 38]) * zoom, atol=4 * max(zoom, 1)
        )


@pytest.mark.parametrize("change", [np.fliplr, np.flipud, np.rot90, lambda p: p.swapaxes(0, 1)])
def test_turned_and_mirrored(field, change):
    picture = field.picture()
    field.cells = [change(mask) for mask in field.cells]
    field.nuclei = [change(mask) for mask in field.nuclei]
    assert_found(find_cells(change(picture)), field)


def test_two_cells_that_touch():
    field = Field().red_cells(keep_off=[(160, 150, 40), (236, 150, 40)])
    field.white_cell(160, 150).white_cell(236, 150)
    assert_found(find_cells(field.picture()), field, least=0.9)


def test_red_cells_that_touch_a_white_one():
    field = Field().red_cells(keep_off=[(200, 160, 38)])
    field.red_cell(200 + 38 + 17, 160).red_cell(200 - 30, 160 + 48).white_cell(200, 160)
    assert_found(find_cells(field.picture()), field, least=0.94)


def test_cells_that_the_border_cuts():
    field = Field().red_cells(keep_off=[(0, 100, 38), (250, 320, 38)])
    field.white_cell(0, 100).white_cell(250, 320)
    cells = find_cells(field.picture())
    assert_found(cells, field, least=0.93)
    assert cells[0].bbox[1] == 0
    assert cells[1].bbox[2] == 320


def test_a_nucleus_without_cytoplasm():
    field = Field().red_cells(keep_off=[(200, 160, 30)])
    field.white_cell(200, 160, radius=30, lobes=((0, 0, 30),))
    assert_found(find_cells(field.picture(), method="stain"), field, least=0.93)
    assert_found(find_cells(field.picture()), field, least=0.92)  # a rim of two pixels


def test_an_orange_cytoplasm():
    field = Field().red_cells(keep_off=[(200, 160, 40)])
    field.white_cell(200, 160, radius=40, lobes=LOBES[:2], cytoplasm=(0.25, 0.8, 0.45))
    assert_found(find_cells(field.picture()), field, least=0.94)


def test_the_black_wedges_of_a_turned_picture(field):
    turn = cv2.getRotationMatrix2D((200, 160), 17, 1)
    picture = cv2.warpAffine(field.picture(), turn, (400, 320))
    field.cells, field.nuclei = (
        [cv2.warpAffine(mask.astype(np.uint8), turn, (400, 320)) > 0 for mask in masks]
        for masks in (field.cells, field.nuclei)
    )
    assert (picture == 0).all(axis=2).mean() > 0.05
    assert_found(find_cells(picture), field, least=0.94)


@pytest.mark.parametrize(("side", "corner", "width"), [(1100, 49, 24), (2000, 55, 31)])
def test_a_few_pixels_of_picture_in_much_black(side, corner, width):
    picture = np.zeros((side, side, 3), np.uint8)
    shown = picture[corner : corner + width, corner : corner + width]
    shown[...] = 235
    shown[4 : width - 10, 4 : width - 10] = (90, 40, 130)
    # What cells lie on is read from evenly spaced pixels: none is far from the nucleus, or shown.
    assert find_cells(picture) == []


def test_a_crop_without_red_cells():
    field = Field(120, 120).white_cell(60, 60)
    assert_found(find_cells(field.picture()), field)


def test_out_of_focus(field):
    cells = find_cells(cv2.GaussianBlur(field.picture(), (0, 0), 6))
    assert_found(cells, field, least=0.85, least_nucleus=0.8)


def test_order_and_repetition(field):
    picture = field.picture()
    first, second = find_cells(picture), find_cells(picture)
    assert [cell.bbox for cell in first] == sorted(cell.bbox for cell in first)
    for one, other in zip(first, second, strict=True):
        assert one.bbox == other.bbox and one.score == other.score
        np.testing.assert_array_equal(one.cell, other.cell)


@pytest.mark.parametrize("dtype, scale", [(np.uint16, 257), (np.uint16, 16), (float, 1 / 255)])
def test_any_numbers(field, dtype, scale):
    picture = field.picture(light=(255, 255, 255))
    assert picture.max() == 255
    cells = find_cells((picture * float(scale)).astype(dtype))
    assert [cell.bbox for cell in cells] == [cell.bbox for cell in find_cells(picture)]


def test_integers_within_bytes_are_bytes(field):
    picture = field.picture()
    expected = find_cells(picture)
    for other in (picture.astype(np.uint16), picture.tolist()):
        for one, same in zip(find_cells(other), expected, strict=True):
            np.testing.assert_array_equal(one.cell, same.cell)


def test_a_hot_pixel_is_not_white(field):
    picture = field.picture().astype(np.uint16) * 16
    picture[0, 0] = 65535
    assert_found(find_cells(picture), field)


def test_an_input_that_must_not_be_written_to(field):
    picture = field.picture()
    before = picture.copy()
    picture.flags.writeable = False
    assert len(find_cells(picture)) == 2
    np.testing.assert_array_equal(picture, before)


EMPTY = {
    "all black": lambda: np.zeros((96, 96, 3), np.uint8),
    "all white": lambda: np.full((96, 96, 3), 255, np.uint8),
    "one colour": lambda: np.full((96, 96, 3), (150, 40, 160), np.uint8),
    "no cells": lambda: Field().picture(),
    "red cells": lambda: Field().red_cells().picture(),
    "platelets": lambda: Field().red_cells().platelet(205, 145).platelet(30, 290).picture(),
    "platelets alone": lambda: (
        Field(480, 640).platelet(205, 145).platelet(30, 290).platelet(400, 300).picture()
    ),
    "grey, as RGB": lambda: np.repeat(two_cells().white_cell(110, 90).picture()[..., 1:2], 3, 2),
    "noise": lambda: np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8),
    "one pixel": lambda: np.full((1, 1, 3), 200, np.uint8),
    "all nucleus": lambda: np.clip(
        np.array(LIGHT) * np.exp(-np.array((0.9, 1.7, 0.5)))
        + np.random.default_rng(0).normal(0, 2, (96, 96, 3)),
        0,
        255,
    ).astype(np.uint8),
}


@pytest.mark.parametrize("name", EMPTY)
def test_pictures_without_a_white_cell(name):
    assert find_cells(EMPTY[name]()) == []


@pytest.mark.parametrize(
    "image, words",
    [
        (np.zeros((8, 8), np.uint8), r"shape \(height, width, 3\), got .* \(8, 8\).*grey"),
        (np.zeros((8, 8, 1), np.uint8), r"\(8, 8, 1\)"),
        (np.zeros((8, 8, 4), np.uint8), r"\(8, 8, 4\)"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"\(2, 8, 8, 3\).*one by one"),
        (np.zeros((0, 8, 3), np.uint8), r"\(0, 8, 3\)"),
        (np.full((8, 8, 3), "a"), "dtype <U1"),
        (np.zeros((8, 8, 3), bool), "dtype bool"),
        (np.full((8, 8, 3), np.nan), "from nan"),
        (np.full((8, 8, 3), -1.0), "from -1 to -1"),
        ("cell.png", "got str. Read a file first"),
        (None, "got NoneType"),
    ],
)
def test_what_is_no_picture(image, words):
    with pytest.raises(ValueError, match=words):
        find_cells(image)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_a_wrong_value_anywhere_is_named(field, value):
    picture = field.picture().astype(float)
    picture[1, 1, 1] = value
    with pytest.raises(ValueError, match="image must hold finite values of 0 or more"):
        find_cells(picture)


def large_field(positions):
    """Return a field wider and higher than a tile, with white cells at `positions`."""
    field = Field(2300, 2600)
    field.red_cells(keep_off=[(x, y, 38) for x, y in positions])
    patch = Field(81, 81).white_cell(40, 40)
    for x, y in positions:
        # Cells near the border are cut by it.
        top, left = max(y - 40, 0), max(x - 40, 0)
        height, width = min(y + 41, 2300) - top, min(x + 41, 2600) - left
        cut = np.s_[top - y + 40 : top - y + 40 + height, left - x + 40 : left - x + 40 + width]
        target = field.density[top : top + height, left : left + width]
        target[patch.cells[0][cut]] = patch.density[cut][patch.cells[0][cut]]
    return field


def centres(cells):
    return np.array([np.reshape(cell.bbox, (2, 2)).mean(axis=0) for cell in cells])


def test_each_cell_of_a_large_field_once(tmp_path):
    """Cells lie on both edges of the tiles' overlap, between them, and at the border."""
    edges = (200, 700, 1536, 1790, 2048, 2250)
    positions = [(x, y) for k, y in enumerate(edges) for x in edges[k % 2 :: 2]]
    picture = np.memmap(tmp_path / "scan", np.uint8, "w+", shape=(2300, 2600, 3))
    picture[:] = large_field(positions).picture()
    cells = find_cells(picture)
    assert len(cells) == len(positions)
    for position in positions:
        distance = np.abs(centres(cells) - position[::-1]).max(axis=1)
        assert distance.min() <= 4
        assert cells[distance.argmin()].cell.sum() == pytest.approx(np.pi * 38**2, rel=0.08)


def test_tiles_in_another_order():
    positions = [(300, 200), (1000, 800), (1800, 300), (2300, 900), (700, 1700), (2200, 2000)]
    picture = large_field(positions).picture()
    moved = np.roll(picture, (1150, 1300), axis=(0, 1))  # quarters change places
    wanted = (centres(find_cells(picture)) + np.array((1150, 1300))) % (2300, 2600)
    found = centres(find_cells(moved))
    assert len(found) == len(wanted) == len(positions)
    for centre in wanted:
        assert np.abs(found - centre).max(axis=1).min() <= 2


def test_the_drawn_cells_of_the_package():
    drawn = make_blood_cells(
        40, ["neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil"],
        image_size=160, random_state=3,
    )  # fmt: skip
    found = [find_cells(image) for image in drawn.images]
    holds_centre = [
        any(whole(cell, (160, 160))[60:100, 60:100].any() for cell in cells) for cells in found
    ]
    assert np.mean(holds_centre) >= 0.9


def test_real_cells_with_masks(wbcclf_data):
    paths = sorted((wbcclf_data / "bcisc" / "images").iterdir())[1::9]
    scores = []
    for path, image in zip(paths, ImageLoader(256).transform([str(p) for p in paths]), strict=True):
        truth = cv2.imread(str(wbcclf_data / "bcisc" / "masks" / f"{path.stem}.png"), -1) > 0
        cells = find_cells(image)
        found = np.any([whole(cell, truth.shape) for cell in cells], axis=0)
        assert all(0.1 < cell.nucleus.sum() / cell.cell.sum() <= 1 for cell in cells)
        scores.append(dice(found, truth) if cells else 0)
    assert np.mean(scores) >= 0.94


def test_real_cells_of_three_other_laboratories(wbcclf_data):
    """The cell of the picture is at its centre; platelets are no white cells."""
    folders = [*(wbcclf_data / "raabin").iterdir(), *(wbcclf_data / "pbc" / "train").iterdir()]
    found = {}
    for folder in sorted(folder for folder in folders if folder.is_dir()):
        paths = [str(path) for path in sorted(folder.iterdir())[::29][:30]]
        for image in ImageLoader(192).transform(paths):
            masks = [whole(cell, image.shape) for cell in find_cells(image)]
            at_centre = any(mask[86:106, 86:106].any() for mask in masks)
            found.setdefault(folder.name == "platelet", []).append(at_centre)
    assert np.mean(found[False]) >= 0.95
    assert np.mean(found[True]) <= 0.5


@pytest.mark.parametrize("n_parts", [0, 1, 9])
def test_boxes_of_nuclei_are_those_of_scipy(n_parts):
    rng = np.random.RandomState(n_parts)
    nuclei = np.zeros((40, 60), np.int32)
    for number in range(1, n_parts + 1):  # of several parts each, some at the border
        nuclei[rng.randint(40, size=5), rng.randint(60, size=5)] = number
    expected = dict(enumerate(find_objects(nuclei), start=1))
    assert _boxes(nuclei) == expected
