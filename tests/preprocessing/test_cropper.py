"""CellCropper: the cell in the middle at one size, whatever picture it came from."""

import pickle

import cv2
import numpy as np
import pytest
from imblearn.pipeline import Pipeline
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from wbcclf import CellCropper, CNNClassifier, find_cells, make_blood_cells
from wbcclf.preprocessing import _picture


@pytest.fixture(scope="module")
def cells():
    """Eight synthetic cells, 160 x 160 pixels; read-only, so that no test changes them."""
    images = make_blood_cells(8, image_size=160, random_state=0).images
    images.flags.writeable = False
    return images


def difference(one, other):
    return np.abs(one.astype(float) - other).mean()


# ---------------------------------------------------------------- where and how large


def test_magnification_no_longer_matters(cells):
    twice = np.stack([cv2.resize(image, None, fx=2, fy=2) for image in cells])
    small, large = (CellCropper(image_size=48).fit_transform(X) for X in (cells, twice))
    apart = difference(small[0], small[1])  # two cells
    assert difference(small, large) < apart / 3


def test_the_cell_is_in_the_middle_wherever_it_was(cells):
    frame = np.tile(cells[:1], (1, 2, 2, 1))[:, :240, :240]  # the same cell four times
    moved = np.full((2, 200, 200, 3), np.median(cells[0], axis=(0, 1)), np.uint8)
    moved[0, :160, :160] = moved[1, 40:, 40:] = cells[0]
    first, second = CellCropper(scale=64, image_size=64).fit_transform(moved)
    np.testing.assert_array_equal(first, second)
    assert frame.shape == (1, 240, 240, 3)


@pytest.mark.parametrize(("scale", "factor"), [("nucleus", 2.0), ("nucleus", 4.0), ("cell", 1.5)])
def test_the_side_is_a_multiple_of_the_diameter(cells, scale, factor):
    (cell,) = find_cells(cells[0])
    side = round(factor * 2 * np.sqrt(getattr(cell, scale).sum() / np.pi))
    ours = CellCropper(scale, factor=factor, image_size=side).fit_transform(cells[:1])
    exact = CellCropper(side, image_size=side).fit_transform(cells[:1])
    np.testing.assert_array_equal(ours, exact)


def test_the_nearest_to_the_centre_or_the_largest(cells):
    large = cv2.resize(cells[1], None, fx=1.5, fy=1.5)
    field = np.concatenate([cv2.resize(cells[0], (240, 240))[:, 60:180], large], axis=1)[None]
    assert len(find_cells(field[0])) >= 1
    sides = {
        which: CellCropper(80, which=which, image_size=80).fit_transform(field)
        for which in ("centre", "largest")
    }
    cell = max(find_cells(field[0]), key=lambda cell: cell.cell.sum())
    row, column = np.rint(_picture.nucleus_centre(cell) - 39.5).astype(int)
    inner = field[0, max(row, 0) : row + 80, max(column, 0) : column + 80]
    np.testing.assert_array_equal(sides["largest"][0][: len(inner), : inner.shape[1]], inner)
