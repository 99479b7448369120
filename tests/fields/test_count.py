"""count_cells: every white cell of a field, cut out as the model wants it, and counted once."""

import os
import weakref
from inspect import signature

import numpy as np
import pandas as pd
import pytest
from fields.two_classes import DARK, PALE, SIZE, draw, fit
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from wbcclf import (
    CellCropper,
    ImageLoader,
    SimpleCNNClassifier,
    count_cells,
    find_cells,
    make_blood_cells,
)
from wbcclf.exceptions import ImageReadError, SkippedFileWarning, UnfamiliarImagesWarning
from wbcclf.fields import _count, _fields
from wbcclf.inspection import evaluate_predictions


@pytest.fixture(scope="module")
def fields():
    """Return three fields: two dark cells and a pale one in all, and none in the second."""
    return [
        draw([(100, 100, DARK), (300, 200, PALE)], seed=0),
        draw([], seed=1),
        draw([(200, 150, DARK)], height=300, width=360, seed=2),
    ]


@pytest.fixture(scope="module")
def model():
    return fit(ImageLoader(SIZE, crop=CellCropper()))


@pytest.fixture
def files(fields, tmp_path):
    for number, field in enumerate(fields):
        Image.fromarray(field).save(tmp_path / f"{number}.png")
    return tmp_path


def test_the_table_of_three_fields(model, fields):
    count = count_cells(model, fields)
    table = pd.DataFrame(count.table).set_index("class")
    assert table.index.tolist() == ["dark", "pale", "uncertain"]
    assert table.cells.tolist() == [2, 1, 0]
    assert table.percent.tolist()[:2] == pytest.approx([200 / 3, 100 / 3])
    assert (table.low < table.percent)[:2].all() and (table.percent < table.high)[:2].all()
    assert (table.low_all < table.low)[:2].all() and (table.high < table.high_all)[:2].all()
    assert table.loc["uncertain"].isna().tolist() == [False, *[True] * 5]
    cells = pd.DataFrame(count.cells)
    assert cells.field.tolist() == ["0", "0", "2"] and count.fields == ["0", "1", "2"]
    assert cells.label.tolist() == ["dark", "pale", "dark"]
    assert (cells.status == "called").all() and count.skipped == []
    boxes = [cell.bbox for field in fields for cell in find_cells(field)]
    assert cells[["min_row", "min_col", "max_row", "max_col"]].to_numpy().tolist() == [
        list(box) for box in boxes
    ]
    assert count.probabilities.shape == (3, 2)
    assert (count.probabilities.max(axis=1) == cells.probability).all()


def test_files_give_what_pictures_give(model, fields, files):
    of_pictures = count_cells(model, fields)
    for given in (str(files), files, sorted(files.iterdir()), [str(p) for p in files.iterdir()]):
        of_files = count_cells(model, given)
        assert sorted(of_files.fields) == [str(files / f"{number}.png") for number in range(3)]
        for name, column in of_pictures.table.items():
            np.testing.assert_array_equal(of_files.table[name], column)
    assert count_cells(model, files / "0.png").table["cells"].tolist() == [1, 1, 0]
    assert count_cells(model, fields[0]).table["cells"].tolist() == [1, 1, 0]
    assert count_cells(model, np.array([fields[0]] * 2)).table["cells"].tolist() == [2, 2, 0]


@pytest.mark.parametrize("step", [CellCropper("cell", image_size=SIZE), None])
def test_cells_are_cut_out_as_the_models_cropper_cuts(step, fields):
    cropper = CellCropper("cell", image_size=SIZE)
    model = fit(step or ImageLoader(SIZE, crop=CellCropper("cell")))
    count_cells(model, fields)
    expected = np.concatenate(
        [cropper.crop_cells(f, find_cells(f)) for f in (fields[0], fields[2])]
    )
    assert (model[-1].seen == expected).all()


def test_a_model_of_whole_pictures_is_warned_of(fields):
    model = fit(ImageLoader((SIZE, 2 * SIZE)))
    with pytest.warns(UserWarning, match=r"trained on whole pictures.*2\.5 diameters") as warned:
        count = count_cells(model, fields)
    assert len(warned) == 1 and warned[0].filename == __file__
    assert model[-1].seen.shape == (3, SIZE, 2 * SIZE, 3)
    assert count.table["cells"].sum() == 3


def test_cells_at_the_border_of_neighbouring_fields_are_counted_once(model):
    # A cell on every border that four fields share, about half of it on each side, and one in the
    # middle of each field.
    at_borders = [(220, 110), (220, 330), (110, 220), (330, 220)]
    inside = [(110, 110), (330, 110), (110, 330), (330, 330)]
    whole = draw([(x, y, DARK) for x, y in at_borders + inside], 440, 440)
    quarters = [whole[r : r + 220, c : c + 220] for r in (0, 220) for c in (0, 220)]
    count = count_cells(model, quarters)
    status = count.cells["status"].tolist()
    assert len(status) == 12 and status.count("border") == 4
    assert count.table["cells"].sum() == 8
    for side, limit in (("max_row", 220), ("max_col", 220)):
        assert (count.cells["status"][count.cells[side] == limit] == "border").all()


def test_uncertain_cells_have_a_row_and_no_per_cent(model, fields):
    between = tuple((a + b) / 2 for a, b in zip(PALE, DARK, strict=True))
    unclear = [*fields, draw([(120, 120, between)])]
    certainty = count_cells(model, unclear).cells["probability"]
    assert certainty[3] < 0.8 < certainty[:3].min()
    count = count_cells(model, unclear, min_probability=0.8)
    assert count.table["cells"].tolist() == [2, 1, 1]
    assert count.table["percent"][:2].sum() == pytest.approx(100)
    assert count.cells["status"].tolist() == ["called"] * 3 + ["uncertain"]
    assert count_cells(model, unclear, min_probability=0).table["cells"][2] == 0
    # A probability that is the threshold is enough.
    least = float(certainty.min())
    assert count_cells(model, unclear, min_probability=least).table["cells"][2] == 0
    with pytest.warns(UserWarning, match="4 of 4 cells are uncertain"):
        assert count_cells(model, unclear, min_probability=1).table["cells"].tolist() == [0, 0, 4]


def test_more_than_a_quarter_of_uncertain_cells_is_warned_of(model, fields):
    between = tuple((a + b) / 2 for a, b in zip(PALE, DARK, strict=True))
    unclear = draw([(120, 120, between)])
    count_cells(model, [*fields, unclear], min_probability=0.8)  # one of four
    with pytest.warns(UserWarning, match="1 of 3 cells are uncertain, more than a quarter"):
        count_cells(model, [fields[0], unclear], min_probability=0.8)
    # A cell that the border cuts is not counted, certain or not.
    at_border = draw([(90, 310, DARK), (280, 310, DARK)])
    with pytest.warns(UserWarning, match="1 of 3 cells are uncertain"):
        count = count_cells(model, [fields[0], unclear, at_border], min_probability=0.8)
    assert (count.cells["status"] == "border").sum() == 2


def test_the_correction_is_of_all_that_is_counted(model, fields):
    y = np.repeat(["dark", "pale"], 50)
    predicted = np.concatenate([np.repeat(["dark", "pale"], [40, 10]), np.repeat("pale", 50)])
    evaluation = evaluate_predictions(y, predicted)
    one = count_cells(model, fields, evaluation=evaluation).table
    with pytest.warns(UserWarning, match="uncertain"):
        none_called = count_cells(model, fields, evaluation=evaluation, min_probability=1).table
    # Two of three were called dark, as eight in ten dark ones are: 0.8 p = 2 / 3.
    assert one["corrected"][:2] == pytest.approx([100 / 1.2, 100 - 100 / 1.2], abs=0.1)
    assert (one["corrected_low"] < one["corrected"])[:2].all()
    assert (one["corrected"] < one["corrected_high"])[:2].all()
    for name in ("corrected", "corrected_low", "corrected_high"):
        np.testing.assert_array_equal(one[name], none_called[name])
        assert np.isnan(one[name][2])
    # Their order is that of the model's classes, whatever that of the evaluation is.
    turned = {"classes": ["pale", "dark"], "confusion": evaluation.confusion[::-1, ::-1].tolist()}
    again = count_cells(model, fields, evaluation=turned).table
    np.testing.assert_array_equal(one["corrected_low"], again["corrected_low"])


def test_classes_that_are_not_white_come_last_per_100_white_cells(model, fields):
    count = count_cells(model, fields, not_white=["dark"])
    assert count.table["class"].tolist() == ["pale", "dark", "uncertain"]
    assert count.table["cells"].tolist() == [1, 2, 0]
    assert count.table["percent"][:2].tolist() == [100, 200]
    assert count.cells["label"].tolist() == ["dark", "pale", "dark"]
    with pytest.raises(ValueError, match=r"not_white names odd, unknown .* classes are dark, pale"):
        count_cells(model, fields, not_white=["odd", "dark"])


def test_a_class_called_uncertain_would_be_taken_for_the_uncertain_cells(model, fields):
    other = fit(ImageLoader(SIZE, crop=CellCropper()))
    other[-1].classes_ = np.array(["dark", "Uncertain"])
    with pytest.raises(ValueError, match=r"The model has a class 'Uncertain'.*another name"):
        count_cells(other, fields)


def test_a_large_scan_is_read_if_it_is_allowed(model, files):
    n_pixels = 320 * 400  # of the largest
    with pytest.raises(ImageReadError, match=r"2 of 3 files.*\n.*max_pixels=127999.*raise max_pix"):
        count_cells(model, files, max_pixels=n_pixels - 1)
    assert count_cells(model, files, max_pixels=n_pixels).table["cells"].tolist() == [2, 1, 0]


def test_files_that_cannot_be_read(model, files):
    (files / "a.png").write_bytes(b"no image")
    (files / "b.txt").write_text("no image either")
    with pytest.raises(ImageReadError, match=r"1 of 4 files.*\n.*a\.png: not a JPEG"):
        count_cells(model, files)
    with pytest.warns(SkippedFileWarning, match=r"a\.png"):
        count = count_cells(model, files, on_error="warn")
    assert count.table["cells"].tolist() == [2, 1, 0] and len(count.fields) == 3
    silent = count_cells(model, files, on_error="skip")
    assert silent.skipped == count.skipped
    assert [path for path, _ in count.skipped] == [str(files / "b.txt"), str(files / "a.png")]
    assert set(count.cells["field"]) == {str(files / "0.png"), str(files / "2.png")}
    with pytest.raises(ImageReadError, match="nothing to load"):
        count_cells(model, [files / "a.png"], on_error="skip")


@pytest.mark.parametrize("picture", ["black", "white", "one colour", "grey", "red cells"])
def test_fields_without_white_cells(model, picture):
    grey = np.repeat(draw([(100, 100, DARK)])[..., :1], 3, axis=2)
    colours = {"black": 0, "white": 255, "one colour": (200, 120, 180)}
    field = {"grey": grey, "red cells": draw([])}.get(picture)
    if field is None:
        field = np.full((120, 160, 3), colours[picture], np.uint8)
    with pytest.warns(UserWarning, match="No white cell was found in any of 1 field"):
        count = count_cells(model, [field])
    assert count.table["cells"].tolist() == [0, 0, 0]
    assert np.isnan(count.table["percent"]).all() and np.isnan(count.table["high_all"]).all()
    assert count.fields == ["0"] and len(count.cells["field"]) == 0
    assert count.probabilities.shape == (0, 2)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([], ValueError, "fields is empty"),
        (3, TypeError, "fields must be a folder, a file or several"),
        ([3], TypeError, "fields must hold paths .* number 0 is of type int"),
        ("nowhere", FileNotFoundError, "fields='nowhere'"),
        (np.zeros((8, 8), np.uint8), TypeError, r"fields\[0\] must be .* shape .8, 8."),
        (np.zeros((2, 8, 8, 1), np.uint8), TypeError, r"fields\[0\] must be an RGB picture"),
        (np.zeros((0, 8, 3), np.uint8), TypeError, r"fields\[0\] must be .* shape .0, 8, 3."),
        (np.zeros((8, 8, 3)), TypeError, r"fields\[0\] must be uint8 .*float64"),
        ([np.zeros((8, 8, 3), np.uint8), "x.png"], TypeError, r"fields\[1\] .* got str"),
    ],
)
def test_fields_that_are_none(model, given, error, message):
    with pytest.raises(error, match=message):
        count_cells(model, given)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"min_probability": 1.5}, "min_probability must be from 0 to 1"),
        ({"min_probability": "high"}, "min_probability must be"),
        ({"min_probability": True}, "min_probability must be .* got True"),
        ({"max_pixels": 0}, "max_pixels must be a positive int, got 0"),
        ({"on_error": "ignore"}, "on_error must be one of"),
        ({"n_jobs": 0}, "n_jobs"),
    ],
)
def test_parameters_out_of_range(model, fields, parameters, message):
    with pytest.raises(ValueError, match=message):
        count_cells(model, fields, **parameters)


def test_models_that_are_none(fields):
    with pytest.raises(NotFittedError):
        count_cells(LogisticRegression(), fields)
    with pytest.raises(TypeError, match="model must be a fitted classifier"):
        count_cells(CellCropper, fields)


def test_overlays_show_every_cell(model, fields, files, tmp_path_factory):
    (files / "below").mkdir()
    (files / "2.png").rename(files / "below" / "0.png")
    (files / "a.png").write_bytes(b"no image")
    folder = tmp_path_factory.mktemp("seen") / "new"
    with pytest.warns(SkippedFileWarning):
        count = count_cells(model, files, overlay_dir=folder, on_error="warn")
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
    assert found == ["0.png.overlay.jpg", "1.png.overlay.jpg", "below/0.png.overlay.jpg"]
    with Image.open(folder / "0.png.overlay.jpg") as image:
        seen = np.asarray(image).astype(int)
    changed = np.abs(seen - fields[0]).max(axis=2) > 60
    for row in range(2):
        sides = [count.cells[side][row] for side in ("min_row", "min_col", "max_row", "max_col")]
        top, left, bottom, right = sides
        for line in (changed[top, left:right], changed[bottom - 1, left:right]):
            assert line.mean() > 0.9
        for line in (changed[top:bottom, left], changed[top:bottom, right - 1]):
            assert line.mean() > 0.9
        assert changed[top - 16 : top - 2, left : left + 60].mean() > 0.3  # the label
        changed[max(top - 25, 0) : bottom + 4, left - 4 : max(right, left + 110) + 4] = False
    assert changed.mean() < 0.01  # nothing elsewhere
    count_cells(model, fields, overlay_dir=folder / "arrays")
    assert len(list((folder / "arrays").iterdir())) == 3


def test_overlays_do_not_lie_among_the_fields(model, files):
    for folder in (files, files / "seen"):
        with pytest.raises(ValueError, match=r"overlay_dir=.* is where the fields are"):
            count_cells(model, files, overlay_dir=folder)
    with pytest.raises(ValueError, match="is where the fields are"):
        count_cells(model, sorted(files.iterdir()), overlay_dir=files)
    assert len(list(files.iterdir())) == 3


def test_overlays_cannot_lie_in_a_file(model, files):
    for folder in (files / "0.png", files / "0.png" / "below"):
        with pytest.raises(ValueError, match=r"cannot be a folder.*0\.png is a file"):
            count_cells(model, files, overlay_dir=folder)


def test_overlays_overwrite_no_field(model, files):
    (files / "below").mkdir()
    os.link(files / "0.png", files / "below" / "1.png")
    paths = [files / "1.png", files / "below" / "1.png"]
    before = [path.read_bytes() for path in paths]
    count_cells(model, paths, overlay_dir=files / "below")
    assert [path.read_bytes() for path in paths] == before
    assert (files / "below" / "1.png.overlay.jpg").exists()


def test_a_field_is_counted_once(model, files):
    with pytest.raises(ValueError, match=r"fields names .*1\.png 2 times; give each field once"):
        count_cells(model, [files / "0.png", files / "1.png", files / "below" / ".." / "1.png"])


def test_a_field_that_could_not_be_read_is_tried_again(model, files, tmp_path):
    broken = files / "1.png"
    whole = broken.read_bytes()
    status = broken.stat()

    defaults = {name: each.default for name, each in signature(count_cells).parameters.items()}
    options = defaults | {"model": model, "fields": files, "on_error": "skip"}

    def count():
        return _count.count_fields(**options, parts=tmp_path)

    broken.write_bytes(b"x" * len(whole))
    os.utime(broken, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert len(count().skipped) == 1
    broken.write_bytes(whole)  # its size and time are those of before
    os.utime(broken, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert count().skipped == []


@pytest.mark.filterwarnings("ignore:.* cells are uncertain", "ignore:No white cell was found")
def test_cells_of_another_laboratory_are_warned_of(tmp_path):
    pictures = make_blood_cells(240, classes=2, image_size=64, random_state=0)
    cropper = CellCropper("cell", image_size=32)
    home = cropper.fit_transform(pictures.images)
    clf = SimpleCNNClassifier(max_epochs=4, device="cpu", random_state=0, rejection=0.3)
    clf.fit(home[:160], pictures.target[:160], X_val=home[160:], y_val=pictures.target[160:])
    model = make_pipeline(cropper, clf)
    others = list(make_blood_cells(40, classes=2, image_size=64, random_state=1).images)
    assert np.mean(count_cells(model, others).cells["familiarity"]) > 0.2
    darker = [(field * [0.5, 0.4, 0.4]).astype(np.uint8) for field in others]
    with pytest.warns(UnfamiliarImagesWarning, match=r"These \d+ cells do not look like"):
        count_cells(model, darker)


def test_the_result_does_not_depend_on_threads(model, fields):
    one, two = (count_cells(model, fields * 8, n_jobs=n) for n in (1, 2))
    assert (one.probabilities == two.probabilities).all()
    for name, column in one.cells.items():
        np.testing.assert_array_equal(column, two.cells[name])  # nan equals nan


def test_no_more_pictures_than_threads_are_in_memory(model, files, monkeypatch):
    alive, most = [], []
    read = _fields.read_image

    def spy(*arguments):
        picture, digest = read(*arguments)
        alive.append(weakref.ref(picture))
        most.append(sum(each() is not None for each in alive))
        return picture, digest

    monkeypatch.setattr(_fields, "read_image", spy)
    paths = [files / f"again{number}.png" for number in range(3 * _count.BLOCK)]
    for path in paths:
        os.link(files / "0.png", path)
    count_cells(model, paths, n_jobs=2, overlay_dir=files / "seen")
    assert len(most) == 6 * _count.BLOCK  # once more for the overlay
    assert max(most) <= 3  # and the last one, until the next is there


def test_a_bar_for_long_runs(model, fields, capsys):
    count_cells(model, fields, verbose=1)
    assert "Fields" in capsys.readouterr().err
    count_cells(model, fields)
    assert capsys.readouterr() == ("", "")
