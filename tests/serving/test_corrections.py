"""Corrections are a labelled folder, in which every picture is once."""

import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from fields.two_classes import DARK, PALE, draw
from PIL import Image
from serving.clients import encoded, serving

from wbcclf import list_image_folder
from wbcclf.serving._corrections import Corrections
from wbcclf.serving._limits import Limits
from wbcclf.serving._model import ServedModel

CLASSES = ["lymphocyte", "neutrophil"]


@pytest.fixture
def corrections(tmp_path):
    return Corrections(tmp_path / "corrected", CLASSES)


@pytest.fixture
def client(model, corrections):
    with serving(ServedModel(model, 10**6), Limits(), corrections) as client:
        yield client


def files(folder):
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if path.is_file()
    )


def test_the_last_word_counts_and_the_bytes_stay(client, corrections, new):
    data = encoded(new[0][0], "JPEG")
    picture = ("../../../../tmp/x.png", data)
    status, found = client.post("corrections", picture, **{"class": "neutrophil"})
    assert status == 201 and found["class"] == "neutrophil"
    file = corrections.folder / found["file"]
    assert file.read_bytes() == data and file.parent.name == "neutrophil" and file.suffix == ".jpg"
    for label in ("lymphocyte", "lymphocyte", ".other", "neutrophil", "lymphocyte"):
        status, found = client.post("corrections", picture, **{"class": label})
        assert status == 201
        assert files(corrections.folder) == [found["file"]] == [f"{label}/{file.name}"]
    assert (corrections.folder / found["file"]).read_bytes() == data


def test_a_cell_of_a_field_is_saved_as_a_picture_of_its_own(client, corrections, model):
    # Two cells near each other; one that the upper border cuts.
    field = draw([(80, 80, PALE), (100, 190, DARK), (8, 300, PALE)])
    _, counted = client.post("count", ("f.png", encoded(field)))
    assert len(counted["cells"]) == 3
    for cell in counted["cells"]:
        box = [cell[side] for side in ("min_row", "min_col", "max_row", "max_col")]
        where = {"class": "neutrophil", "box": ",".join(map(str, box))}
        status, found = client.post("corrections", ("f.png", encoded(field)), **where)
        assert status == 201
        data = (corrections.folder / found["file"]).read_bytes()
        saved = np.asarray(Image.open(io.BytesIO(data)))
        reach = 2.5 * max(box[2] - box[0], box[3] - box[1]) / 2
        rows, columns = ((box[k] + box[k + 2]) / 2 for k in (0, 1))
        top, left = max(0, round(rows - reach)), max(0, round(columns - reach))
        part = field[top : round(rows + reach), left : round(columns + reach)]
        np.testing.assert_array_equal(saved, part)
        # The model finds the cell in it again, and calls it as in the field.
        status, answer = client.post("predict", ("a.png", data))
        [picture] = answer["pictures"]
        assert picture["label"] == cell["label"] and picture["cell_found"]
        # Corrected again, it is moved.
        where["class"] = "lymphocyte"
        assert client.post("corrections", ("f.png", encoded(field)), **where)[0] == 201
    assert list_image_folder(corrections.folder).target.tolist() == ["lymphocyte"] * 3


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ("", "box must be min_row,min_col,max_row,max_col"),
        ("1,2,3", "box must be min_row,min_col,max_row,max_col"),
        ("-1,2,3,4", "box must be min_row,min_col,max_row,max_col"),
        ("4,2,4,3", "got '4,2,4,3'"),
        ("1,2,3,²", "box must be min_row,min_col,max_row,max_col"),
        ("0,0,10,65", "64 rows and 64 columns, got 0,0,10,65"),
        ("0,0,999999999,10", "64 rows and 64 columns"),
    ],
)
def test_a_box_that_is_not_in_the_field_is_refused(client, corrections, new, box, said):
    where = {"class": "neutrophil", "box": box}
    status, answer = client.post("corrections", ("a.png", encoded(new[0][0])), **where)
    assert status == 400 and said in answer["error"]
    assert not corrections.folder.exists()


def test_loaders_read_the_folder_without_what_is_no_cell(client, corrections, new):
    for number, label in enumerate([*CLASSES, ".other"]):
        client.post("corrections", ("a.png", encoded(new[0][number])), **{"class": label})
    listing = list_image_folder(corrections.folder)
    assert listing.target.tolist() == CLASSES
    [(left_out, reason)] = listing.skipped
    assert left_out.endswith(".other") and "hidden" in reason


@pytest.mark.parametrize("label", ["", "../up", "monocyte", ".other/x", "uncertain", "Neutrophil"])
def test_other_classes_are_refused(client, corrections, new, label):
    status, found = client.post("corrections", ("a.png", encoded(new[0][0])), **{"class": label})
    assert status == 400 and "lymphocyte, neutrophil, .other" in found["error"]
    assert not corrections.folder.exists()


def test_what_is_no_picture_is_not_saved(client, corrections):
    assert client.post("corrections", ("a.png", b"<html>"), **{"class": "neutrophil"})[0] == 415
    assert not corrections.folder.exists()


def test_without_a_folder_nothing_is_saved(model, new):
    with serving(ServedModel(model, 10**6), Limits()) as client:
        status, found = client.post("corrections", ("a.png", encoded(new[0][0])))
    assert status == 404 and "--corrections DIR" in found["error"]


def test_a_correction_that_cannot_be_saved_is_told(client, corrections, new):
    corrections.folder.touch()  # a file in its place
    picture = ("a.png", encoded(new[0][0]))
    status, found = client.post("corrections", picture, **{"class": "neutrophil"})
    assert status == 507 and "not saved (" in found["error"] and "--corrections" in found["error"]
    corrections.folder.unlink()
    assert client.post("corrections", picture, **{"class": "neutrophil"})[0] == 201


def test_a_crash_leaves_nothing_that_is_taken_for_a_picture(corrections, new, monkeypatch):
    def die(*paths):
        raise KeyboardInterrupt

    data = encoded(new[0][0])
    with monkeypatch.context() as patch:
        patch.setattr("wbcclf._files.os.replace", die)  # before the temporary name is changed
        with pytest.raises(KeyboardInterrupt):
            corrections.save(data, "neutrophil")
    assert files(corrections.folder) == []
    corrections.save(data, "neutrophil")
    assert len(files(corrections.folder)) == 1


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "a\\b", "a\0", "a\n", "C:", "x" * 201, "end.", " a"]
)
def test_a_class_that_cannot_be_a_folder_is_an_error_at_the_start(tmp_path, name):
    with pytest.raises(ValueError, match="cannot be the name of a folder"):
        Corrections(tmp_path, ["neutrophil", name])


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_calls_of_the_documentation_are_answered(client, new, tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    [block] = re.findall(r"^```bash\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    for name, image in zip(("cell.png", "other.png", "field.png"), new[0], strict=False):
        (tmp_path / name).write_bytes(encoded(image))
    calls = block.replace("http://127.0.0.1:8000", client.address).splitlines()
    assert len(calls) == 6
    for call in calls:
        command = [*call.split(), "--silent", "--fail-with-body"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stdout
        assert json.loads(done.stdout)
