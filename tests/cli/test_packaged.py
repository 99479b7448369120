"""The model that comes with the package, from the shell."""

import pytest
from PIL import Image

from wbcclf import make_blood_cells

NAME = "wbcclf:blood-cells"
CELLS = make_blood_cells(5, image_size=160, random_state=5)


def test_a_folder_is_predicted_without_a_model(call, read_csv, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, image in enumerate(CELLS.images):
        Image.fromarray(image).save(folder / f"{number}.png")
    code, out, err = call("predict", folder, "-o", tmp_path / "p.csv")
    assert code == 0, err
    assert "warning" not in err
    assert f"Model: {NAME}" in out
    assert "erythroblast" in out
    rows = read_csv(tmp_path / "p.csv")
    assert [row["file"] for row in rows] == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    assert {"label", "platelet"} <= rows[0].keys()
    code, named, err = call("predict", NAME, folder, "-o", tmp_path / "q.csv")
    assert code == 0, err
    assert "warning" not in err
    assert (tmp_path / "q.csv").read_bytes() == (tmp_path / "p.csv").read_bytes()
    assert f"Model: {NAME}" in named


def test_a_file_is_an_image_by_its_name(call, read_csv, tmp_path):
    Image.fromarray(CELLS.images[0]).save(tmp_path / "a.PNG")
    code, _, err = call("predict", tmp_path / "a.PNG", "-o", tmp_path / "p.csv")
    assert code == 0, err
    assert "warning" not in err
    assert len(read_csv(tmp_path / "p.csv")) == 1


@pytest.mark.parametrize("command", ["predict", "evaluate", "adapt", "count"])
def test_a_model_that_there_is_not(call, tmp_path, command):
    missing, output = tmp_path / "missing.wbcclf", tmp_path / "result"
    (tmp_path / "images").mkdir()
    code, _, err = call(command, missing, tmp_path / "images", "-o", output)
    assert code == 1
    assert f"The model file {missing} does not exist. Give one that `wbcclf train`" in err
    assert NAME in err


@pytest.mark.parametrize("command", ["evaluate", "adapt"])
def test_a_folder_is_no_model(call, tmp_path, command):
    folder = tmp_path / "images"
    folder.mkdir()
    code, _, err = call(command, folder, folder, "-o", tmp_path / "result")
    assert code == 1
    assert f"{folder} is a folder, not a model file. Give one that `wbcclf train`" in err


@pytest.mark.parametrize("command", [["train"], ["adapt", NAME]])
def test_no_model_is_written_under_such_a_name(call, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(*command, tmp_path / "no-images", "-o", "wbcclf:mine")
    assert code == 1
    assert "'wbcclf:mine' cannot be the file of a model" in err


def test_a_model_without_images_and_an_unknown_one(call, tmp_path):
    code, _, err = call("predict", tmp_path / "model.wbcclf")
    assert code != 0
    assert "model.wbcclf is no folder and no image" in err
    code, _, err = call("evaluate", "wbcclf:marrow", tmp_path)
    assert code != 0
    assert f"no model 'wbcclf:marrow', but '{NAME}'" in err
