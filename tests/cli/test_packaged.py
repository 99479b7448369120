"""The model that comes with the package, from the shell."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import wbcclf
from wbcclf import make_blood_cells
from wbcclf.classifiers.familiarity._description import FEWEST
from wbcclf.persistence import find_model

NAME = "wbcclf:blood-cells"
APART = ["erythroblast", "platelet"]
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


def test_platelets_are_no_white_cells_but_have_a_class(call, read_csv, tmp_path, wbcclf_data):
    # The model was trained on some of them: this is no test of its accuracy.
    paths = sorted((wbcclf_data / "pbc" / "train" / "platelet").glob("*"))[:5]
    code, _, err = call("predict", *paths, "-o", tmp_path / "p.csv")
    assert code == 0, err
    rows = read_csv(tmp_path / "p.csv")
    assert [row["label"] for row in rows] == ["platelet"] * 5
    n_uncut = sum(row["error"].startswith("no white cell found") for row in rows)
    assert n_uncut
    assert err.count("warning") == 1
    says = f"no white cell was found in {n_uncut} of 5 images; their central square was used. "
    assert f"{says}They are called: platelet {n_uncut}. " in err


def test_pictures_of_nothing(call, read_csv, tmp_path):
    Image.fromarray(np.full((120, 160, 3), 225, np.uint8)).save(tmp_path / "empty.png")
    code, _, err = call("predict", tmp_path / "empty.png", "-o", tmp_path / "p.csv")
    assert code == 0, err
    [row] = read_csv(tmp_path / "p.csv")
    assert float(row["familiarity"]) < 0.01
    assert f"central square was used. They are called: {row['label']} 1. " in err


@pytest.fixture
def fields(tmp_path):
    """Return a folder with three pictures of a cell each."""
    folder = tmp_path / "fields"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(CELLS.images[number]).save(folder / f"{number}.png")
    return folder


def test_fields_are_counted_without_a_model(call, read_csv, tmp_path, fields):
    def count(*given):
        output = tmp_path / "count.csv"
        code, out, err = call("count", *given, "-o", output)
        assert code == 0, err
        return read_csv(output), out, err

    white = ["basophil", "eosinophil", "ig", "lymphocyte", "monocyte", "neutrophil"]
    rows, out, _ = count(fields)
    assert [row["class"] for row in rows] == [*white, "erythroblast", "platelet", "uncertain"]
    assert sum(int(row["cells"]) for row in rows) == 3
    assert f"Model: {NAME}. Not of white cells: erythroblast and platelet (--not-white)." in out
    assert "platelet, per 100 white cells" in out
    assert count(NAME, fields)[:2] == (rows, out)

    own, out, _ = count(fields, "--not-white", "erythroblast")
    assert [row["class"] for row in own][-3:] == ["platelet", "erythroblast", "uncertain"]
    assert (
        f"Model: {NAME}. Not of white cells: erythroblast (--not-white). It was trained on" in out
    )

    wbcclf.save_model(wbcclf.load_model(NAME), tmp_path / "copy.wbcclf")
    other, out, _ = count(tmp_path / "copy.wbcclf", fields)  # a model of the user's
    assert [row["class"] for row in other] == [*sorted([*white, *APART]), "uncertain"]
    assert "Model:" not in out


def test_figures_of_the_packaged_model_correct_its_count(call, read_csv, tmp_path, fields):
    classes = wbcclf.load_model(NAME).classes_.tolist()
    confusion = (20 * np.eye(8, dtype=int)).tolist()
    digest = hashlib.sha256(Path(find_model(NAME)).read_bytes()).hexdigest()
    figures = tmp_path / "figures.json"
    arguments = ("count", fields, "--evaluation", figures, "-o", tmp_path / "count.csv")
    for of, code in ((digest, 0), ("0" * 64, 1)):
        content = {"classes": classes, "confusion": confusion, "model_sha256": of}
        figures.write_text(json.dumps(content))
        assert (done := call(*arguments))[0] == code, done
    assert "corrected" in read_csv(tmp_path / "count.csv")[0]
    assert f"is of another model than {NAME}" in done[2]
    assert f"`wbcclf evaluate {NAME} IMAGES --json FILE`" in done[2]


@pytest.mark.filterwarnings("always:No white cell was found:UserWarning")
@pytest.mark.parametrize("n_images", [FEWEST - 1, FEWEST])
def test_a_model_of_few_images_says_that_it_knows_no_familiarity(call, tmp_path, n_images):
    folder = tmp_path / "pictures"
    folder.mkdir()
    cells = make_blood_cells(n_images, image_size=160, random_state=5)
    for number, image in enumerate(cells.images):
        Image.fromarray(image).save(folder / f"{number}.png")
    code, out, err = call("adapt", NAME, folder, "-o", tmp_path / "new.wbcclf")
    assert code == 0, err
    assert f"Adapted to {n_images} images without labels, in which the old model finds" in out
    says = f"For that, adapt it to {FEWEST} or more different images"
    assert (says in out) == (n_images < FEWEST)


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
    option = "--json" if command == "evaluate" else "-o"
    code, _, err = call(command, missing, tmp_path / "images", option, output)
    assert code == 1
    assert f"The model file {missing} does not exist. Give one that `wbcclf train`" in err
    assert NAME in err


@pytest.mark.parametrize("command", ["evaluate", "adapt"])
def test_a_folder_is_no_model(call, tmp_path, command):
    folder = tmp_path / "images"
    folder.mkdir()
    option = "--json" if command == "evaluate" else "-o"
    code, _, err = call(command, folder, folder, option, tmp_path / "result")
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
    assert "model.wbcclf is not a folder and not an image" in err
    code, _, err = call("evaluate", "wbcclf:marrow", tmp_path)
    assert code != 0
    assert f"no model 'wbcclf:marrow', but '{NAME}'" in err
