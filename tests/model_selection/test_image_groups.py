"""find_image_groups: copies of a cell are found, and different cells stay apart."""

import csv
import io

import cv2
import numpy as np
import pytest
from PIL import Image

from wbcclf import make_blood_cells
from wbcclf.exceptions import ImageReadError, SkippedFileWarning
from wbcclf.model_selection import find_image_groups
from wbcclf.model_selection.groups._chance import (
    FIRST,
    certainty_of_pictures,
    chance_counts,
    group_by,
    link,
)
from wbcclf.model_selection.groups._keypoints import find_keypoints
from wbcclf.model_selection.groups._registration import count_agreeing

CELLS = make_blood_cells(16, image_size=200, random_state=3).images


def turned(image, angle=17.0, scale=1.0, shear=0.0):
    """Return a picture turned about its middle; the corners become black."""
    middle = image.shape[0] / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), angle, scale)
    matrix[0, 1] += shear
    return cv2.warpAffine(image, matrix, image.shape[1::-1])


def saved(image, quality=60):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


COPIES = {
    "turned": turned,
    "mirrored and turned": lambda image: turned(image[:, ::-1].copy(), 200),
    "sheared": lambda image: turned(image, 5, shear=0.2),
    "shifted": lambda image: np.roll(image, 30, axis=1),
    "cropped": lambda image: image[20:170, 30:190],
    "smaller": lambda image: cv2.resize(image, (140, 140), interpolation=cv2.INTER_AREA),
    "larger": lambda image: cv2.resize(image, (260, 260)),
    "compressed": saved,
    "darker": lambda image: (image * 0.7).astype(np.uint8),
    "recoloured": lambda image: (image * np.array([0.8, 1.0, 0.9])).astype(np.uint8),
    "grey": lambda image: cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None],
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_found_and_nothing_else(kind):
    copies = [COPIES[kind](image) for image in CELLS]
    found = find_image_groups([*CELLS, *copies])
    assert found.groups.tolist() == [*range(16), *range(16)]
    assert found.n_groups == 16
    assert sorted(map(sorted, found.links.tolist())) == [[k, k + 16] for k in range(16)]
    assert (found.certainty > 0.99).all()
    np.testing.assert_array_equal(found.image_certainty[found.links.T], [found.certainty] * 2)
    assert found.skipped == []


def test_different_cells_stay_apart():
    cells = make_blood_cells(80, classes=8, image_size=128, random_state=1).images
    assert find_image_groups(cells).n_groups == 80


def test_the_order_of_pictures_and_the_threads_do_not_matter():
    pictures = [*CELLS, *map(turned, CELLS), *(turned(image, 90) for image in CELLS)]
    order = np.random.RandomState(0).permutation(len(pictures))
    found = find_image_groups(pictures, n_jobs=1)
    other = find_image_groups([pictures[k] for k in order], n_jobs=3)
    # The numbers of groups follow the order, what is together does not.
    same = found.groups[order]
    assert ((same[:, None] == same) == (other.groups[:, None] == other.groups)).all()
    again = find_image_groups(pictures, n_jobs=2)
    np.testing.assert_array_equal(again.links, found.links)
    np.testing.assert_array_equal(again.certainty, found.certainty)


def test_pictures_without_distinct_points_are_alone_unless_they_are_equal():
    white = np.full((40, 40, 3), 255, np.uint8)
    pictures = [white, white.copy(), white - 1, np.zeros((1, 1, 3), np.uint8), CELLS[0]]
    found = find_image_groups(pictures)
    assert found.groups.tolist() == [0, 0, 1, 2, 3]
    assert found.links.tolist() == [[0, 1]]
    assert (found.agreeing.tolist(), found.certainty.tolist()) == ([-1], [1.0])
    np.testing.assert_array_equal(found.image_certainty, [1, 1, np.nan, np.nan, np.nan])
    assert find_image_groups([white]).groups.tolist() == [0]


def test_a_broken_file_is_named_or_alone(tmp_path):
    paths = [tmp_path / f"{k}.png" for k in range(4)]
    for path in (paths[0], paths[3]):
        Image.fromarray(CELLS[0]).save(path)
    for path in paths[1:3]:
        path.write_text("no picture")
    with pytest.raises(
        ImageReadError, match=r"2 of 4 files .*\n.*1\.png.*\n.*2\.png.*\n.*on_error"
    ):
        find_image_groups(paths)
    with pytest.warns(SkippedFileWarning, match=r"1\.png"):
        found = find_image_groups(paths, on_error="warn")
    assert found.groups.tolist() == [0, 1, 2, 0]
    assert [path for path, _ in found.skipped] == list(map(str, paths[1:3]))
    assert find_image_groups(paths, on_error="skip").n_groups == 3


@pytest.mark.parametrize(
    ("images", "params", "error", "says"),
    [
        ([], {}, ValueError, "images is empty"),
        ("cells", {}, TypeError, "images must be an array of paths, got a single one"),
        (CELLS[0], {}, ValueError, r"images\[0\] must be an image"),
        (CELLS / 255, {}, TypeError, r"images\[0\] must be uint8"),
        (CELLS, {"on_error": "stop"}, ValueError, "on_error must be one of raise, warn, skip"),
        (CELLS, {"n_jobs": 0}, ValueError, "n_jobs must be"),
    ],
)
def test_wrong_input_is_named(images, params, error, says):
    with pytest.raises(error, match=says):
        find_image_groups(images, **params)


# ---------------------------------------------------------------- parts


def test_mirrored_points_are_those_of_the_mirrored_picture():
    for image in CELLS[:4]:
        derived = find_keypoints(image).mirrored()
        computed = find_keypoints(np.ascontiguousarray(image[:, ::-1]))
        # Rows of pixels end elsewhere, so a few points differ.
        assert count_agreeing(derived, computed) > 0.8 * len(computed.points)
        assert count_agreeing(derived, find_keypoints(image)) < 8


def test_chance_falls_by_the_measured_factor():
    of_others = np.repeat([0, 4, 5, 6, 7, 8], [1000, 300, 160, 40, 10, 2])
    expected = chance_counts(np.repeat([0, 5, 6, 20], [500, 49, 9, 30]), of_others)
    assert expected[:FIRST].tolist() == [500, 0, 0, 0, 0]
    assert expected[FIRST] == 50
    # 52 of 210 have one point more; so have 3 of 10 that are taken where few pairs tell.
    np.testing.assert_allclose(expected[FIRST + 1 :] / expected[FIRST:-1], 55 / 220)


def test_one_weak_link_makes_no_chain():
    # Two groups of three that strong links make, and weak links between them.
    strong = [[0, 1], [1, 2], [3, 4], [4, 5]]
    expected = np.zeros(31)
    expected[:12] = 0.006  # certain enough for 10 points; more than 0.01 in all
    one = np.array([*strong, [2, 3]])
    chosen, certainty = link(one, np.array([30, 30, 30, 30, 10]), expected, 7)
    assert chosen.tolist() == [0, 1, 2, 3]
    assert (certainty > 0.99).all()
    two = np.array([*strong, [2, 3], [0, 5]])
    chosen, _ = link(two, np.array([30, 30, 30, 30, 10, 10]), expected, 7)
    assert group_by(two[chosen], 7).tolist() == [0, 0, 0, 0, 0, 0, 1]
    # A single picture joins a group by one.
    alone = np.array([*strong, [2, 6]])
    chosen, _ = link(alone, np.array([30, 30, 30, 30, 10]), expected, 7)
    assert group_by(alone[chosen], 7).tolist() == [0, 0, 0, 1, 1, 1, 0]


def test_a_picture_is_as_sure_as_what_joins_it_to_most_of_its_group():
    # 0-1-2 hang together, 3-4 too; one link joins the two. 5 hangs on 0, and on 1 less surely.
    links = np.array([[0, 1], [1, 2], [3, 4], [2, 3], [5, 0], [5, 1], [7, 8]])
    certainty = np.array([1.0, 0.999, 1.0, 0.991, 0.998, 0.992, 0.995])
    found = certainty_of_pictures(group_by(links, 9), links, certainty)
    # Four of six make most of the group: 0, 1, 2 with 5.
    expected = [0.998, 0.998, 0.998, 0.991, 0.991, 0.998, np.nan, 0.995, 0.995]
    np.testing.assert_array_equal(found, expected)
    none = np.empty((0, 2), np.intp)
    assert np.isnan(certainty_of_pictures(np.arange(3), none, np.empty(0))).all()


def test_copies_of_real_photographs_are_found(wbcclf_data):
    with (wbcclf_data / "blood-cells" / "cells.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "TRAIN"]
    rows = [row for row in rows if float(row["margin"]) >= 0.1]
    cells = np.random.RandomState(0).permutation(sorted({row["cell_id"] for row in rows}))[:25]
    chosen = [[row for row in rows if row["cell_id"] == cell][:6] for cell in cells]
    paths = [wbcclf_data / "blood-cells" / row["path"] for of_cell in chosen for row in of_cell]
    truth = np.repeat(np.arange(25), [len(of_cell) for of_cell in chosen])
    groups = find_image_groups(paths).groups
    same, found = truth[:, None] == truth, groups[:, None] == groups
    assert not (found & ~same).any()
    assert (found & same).sum() > 0.95 * same.sum()
