"""Outlines by the network of the package: as good as by colours, and better where those fail."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from preprocessing.fields import CYTOPLASM, RED_CELL, Field, dice, whole

from wbcclf import find_cells, make_blood_cells
from wbcclf._threads import run_in_threads
from wbcclf.cells import _network
from wbcclf.cells._cells import cells_of
from wbcclf.cells._picture import Picture

LOBES = ((-14, -10, 12), (14, -10, 12), (0, 14, 12))


def two_cells(cytoplasm=CYTOPLASM):
    """Return a field with red cells, a round nucleus and a lobed one."""
    field = Field().red_cells(keep_off=[(110, 90, 38), (300, 210, 38)])
    field.white_cell(110, 90, cytoplasm=cytoplasm)
    return field.white_cell(300, 210, lobes=LOBES, cytoplasm=cytoplasm)


def scores(picture, truths, method="network"):
    """Return the Dice of each true cell with the cell that was found for it."""
    cells = find_cells(picture, method=method)
    assert len(cells) == len(truths)
    return [max(dice(whole(cell, truth.shape), truth) for cell in cells) for truth in truths]


def assert_same(before, after):
    assert [cell.bbox for cell in before] == [cell.bbox for cell in after]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one.cell, other.cell)


def boxes_in_a_process(picture):
    return [cell.bbox for cell in find_cells(picture)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_does_not_wait_for_threads_that_it_does_not_have():
    code = """
import multiprocessing
from preprocessing.test_network import boxes_in_a_process, two_cells

picture = two_cells().picture()
expected = boxes_in_a_process(picture)
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(boxes_in_a_process, [picture, picture]) == [expected, expected]
"""
    tests = os.path.dirname(os.path.dirname(__file__))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([tests, *sys.path])}
    subprocess.run([sys.executable, "-c", code], env=environment, timeout=120, check=True)


def test_cells_of_a_field():
    field = two_cells()
    assert min(scores(field.picture(), field.cells)) > 0.97


def test_pale_cytoplasm():
    """Colours hardly differ from the background, but there is an edge."""
    field = two_cells(0.15 * np.array(CYTOPLASM))
    picture = field.picture()
    assert max(scores(picture, field.cells, "stain")) < 0.8
    assert min(scores(picture, field.cells)) > 0.9


def test_cytoplasm_with_the_colour_of_red_cells():
    field = two_cells(RED_CELL)
    assert min(scores(field.picture(), field.cells)) > 0.97


def test_cells_that_touch():
    field = Field().red_cells(keep_off=[(160, 150, 40), (236, 150, 40)])
    field.white_cell(160, 150).white_cell(236, 150)
    assert min(scores(field.picture(), field.cells)) > 0.95


def test_cells_that_the_border_cuts():
    field = Field().red_cells(keep_off=[(0, 100, 38), (250, 320, 38)])
    field.white_cell(0, 100).white_cell(250, 320)
    picture = field.picture()
    assert min(scores(picture, field.cells)) > 0.95
    left, lower = find_cells(picture, method="network")
    assert left.bbox[1] == 0
    assert lower.bbox[2] == 320


@pytest.mark.parametrize("zoom", [0.5, 2.0])
def test_any_magnification(zoom):
    field = two_cells()
    picture = cv2.resize(field.picture(), None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    size = picture.shape[1::-1]
    truths = [cv2.resize(mask.astype(np.uint8), size) > 0 for mask in field.cells]
    assert min(scores(picture, truths)) > 0.95


def test_nuclei_are_those_of_the_stain_method():
    picture = two_cells().picture()
    both = [find_cells(picture, method=method) for method in ("stain", "network")]
    for by_stain, by_network in zip(*both, strict=True):
        # It comes from the area of an outline by the stain, which is rough for the network.
        assert by_network.score == pytest.approx(by_stain.score, abs=0.01)
        nuclei = []
        for cell in (by_stain, by_network):
            top, left, bottom, right = cell.bbox
            assert cell.cell.shape == cell.nucleus.shape == (bottom - top, right - left)
            assert all(isinstance(side, int) for side in cell.bbox)
            assert cell.cell.any(axis=0).all() and cell.cell.any(axis=1).all()
            assert not (cell.nucleus & ~cell.cell).any()
            nuclei.append(np.argwhere(cell.nucleus) + np.array([top, left]))
        np.testing.assert_array_equal(*nuclei)


def test_tiles_give_what_one_piece_gives():
    field = two_cells()
    height, width = field.density.shape[:2]
    large = Field(2600, 500)
    large.density[2000 : 2000 + height, :width] = field.density  # two tiles share these rows
    large.red_cells(keep_off=[(200, 2160, 300)])
    truths = [np.zeros((2600, 500), bool) for _ in field.cells]
    for truth, cell in zip(truths, field.cells, strict=True):
        truth[2000 : 2000 + height, :width] = cell
    assert min(scores(large.picture(), truths)) > 0.95


def test_pictures_without_cells():
    assert find_cells(Field().red_cells().picture(), method="network") == []


def test_threads_change_nothing():
    pictures = make_blood_cells(12, image_size=128, random_state=0).images
    alone = [find_cells(picture, method="network") for picture in pictures]
    together = [None] * len(pictures)

    def find(number):
        together[number] = find_cells(pictures[number], method="network")

    run_in_threads(find, len(pictures), n_jobs=3)
    for before, after in zip(alone, together, strict=True):
        assert_same(before, after)


def test_a_picture_among_others_gives_what_it_gives_alone():
    pictures = [*make_blood_cells(5, image_size=128, random_state=0).images, two_cells().picture()]
    together = cells_of([Picture(picture) for picture in pictures])
    for picture, cells in zip(pictures, together, strict=True):
        assert_same(find_cells(picture), cells)


def test_log_odds_are_those_of_the_same_network_in_pytorch():
    weights = {name: torch.from_numpy(each) for name, each in _network.shipped().items()}

    def block(x, name):
        x = F.pad(torch.cat([x[:, :, -1:], x, x[:, :, :1]], 2), (1, 1))
        return F.relu(F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"]))

    channels = np.random.RandomState(0).rand(6, _network.RAYS, _network.STEPS).astype(np.float32)
    x = F.pixel_unshuffle(torch.from_numpy(channels[None, :5]), _network.FOLD)
    top = block(block(x, "top.0"), "top.1")
    bottom = block(block(F.max_pool2d(top, 2), "bottom.0"), "bottom.1")
    up = block(torch.cat([top, F.interpolate(bottom, scale_factor=2)], 1), "up")
    odds = F.conv2d(up, weights["head.weight"], weights["head.bias"])
    expected = F.pixel_shuffle(odds, _network.FOLD)[0, 0].numpy()
    assert np.ptp(expected) > 1
    found = _network.log_odds(channels, _network.shipped())
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


def test_weights_are_small_and_finite():
    assert _network.WEIGHTS.stat().st_size <= 1_000_000
    assert all(np.isfinite(each).all() for each in _network.shipped().values())


def test_unknown_method():
    with pytest.raises(ValueError, match="method must be 'stain' or 'network', got 'unet'"):
        find_cells(np.zeros((64, 64, 3), np.uint8), method="unet")
