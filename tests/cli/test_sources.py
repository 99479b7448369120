"""Images from tables, folders and single files; and what is wrong before any is read."""

import csv
import json

import pytest
import torch

from wbcclf.backbones import get_backbone


@pytest.fixture
def table(trained, tmp_path):
    """Return a function that writes a table of the images of train/ or test/."""

    def write(folder, header=("path", "label", "group")):
        root = trained / folder
        path = tmp_path / f"{folder}_{header[0]}.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            for image in sorted(root.rglob("*.png")):
                relative = image.relative_to(root).as_posix()
                writer.writerow([relative, image.parent.name, int(image.stem) // 3])
        return path

    return write


def test_a_table_is_evaluated_as_a_folder_is(trained, table, tmp_path, call):
    figures = {}
    for name, arguments in {
        "folder": [trained / "test"],
        "table": [table("test", ("path", "class", "number")), "--root", trained / "test"],
        "columns": [
            *(table("test", ("here", "cell", "number")), "--root", trained / "test"),
            *("--path-column", "here", "--label-column", "cell"),
        ],
    }.items():
        output = tmp_path / f"{name}.json"
        code, _, err = call("evaluate", trained / "m.wbcclf", *arguments, "--json", output)
        assert code == 0, err
        figures[name] = json.loads(output.read_text())
    assert figures["folder"] == figures["table"] == figures["columns"]
    grouped = ("evaluate", trained / "m.wbcclf", table("test"), "--root", trained / "test")
    code, out, err = call(*grouped)  # which has a column group
    assert code == 0 and out.startswith("Independent cells: 7, in 20 images"), err


@pytest.mark.parametrize("given", ["column", "pattern"])
def test_a_model_is_trained_from_a_table_with_its_groups(
    given, trained, table, tmp_path, seen, held_out, call
):
    groups = {"column": ("--group-column", "group"), "pattern": ("--groups", r"(\d+)\.png")}[given]
    code, out, err = call(
        *("train", table("train"), "--root", trained / "train", "-o", tmp_path / "m"),
        *("--image-size", 32, "--epochs", 1, "--early-stopping", *groups),
    )
    assert code == 0, err
    assert "60 images of 2 classes: lymphocyte 30, neutrophil 30" in out
    assert len(seen["X_val"]) + len(seen["train"]) == 60
    held = held_out()
    groups = {int(path.stem) // 3 for path in held}
    n_groups = len(groups if given == "column" else held)
    assert f"Early stopping watched {n_groups} groups, in {len(held)} images: accuracy " in out
    assert (len(held) == 3 * len(groups)) == (given == "column")


def test_options_of_tables_are_refused_for_folders(trained, tmp_path, call):
    code, _, err = call("train", trained / "train", "--label-column", "x", "-o", tmp_path / "m")
    assert code == 1 and "--label-column: " in err and "is not a CSV file" in err
    (tmp_path / "t.csv").write_text("path,cell\na.png,x\n")
    (tmp_path / "a.png").touch()
    code, _, err = call("train", tmp_path / "t.csv", "-o", tmp_path / "m")
    assert code == 1 and "name it with --label-column" in err


def test_images_that_are_not_there_are_named_with_what_to_do(trained, table, tmp_path, call):
    code, _, err = call("train", tmp_path / "cells", "-o", tmp_path / "m")
    assert code == 1 and f"IMAGES: {tmp_path / 'cells'} does not exist" in err
    code, _, err = call("train", table("train"), "-o", tmp_path / "m")
    assert code == 1 and "and 57 more. Give root (in the shell --root)" in err
    assert err.count(".png") == 3


def assert_same(rows, expected):
    """Compare predictions: sums over batches of another size are rounded otherwise."""
    for ours, theirs in zip(rows, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for column in ("file", "label", "error"):
            assert ours[column] == theirs[column]
        for column in ("lymphocyte", "neutrophil"):
            assert float(ours[column]) == pytest.approx(float(theirs[column]), abs=2e-6)


def test_single_files_are_predicted(trained, tmp_path, monkeypatch, call, read_csv):
    output = tmp_path / "out.csv"
    whole = tmp_path / "whole.csv"
    model = trained / "m.wbcclf"
    assert call("predict", model, trained / "new", "-o", whole)[0] == 0
    expected = {row["file"]: row for row in read_csv(whole)}
    monkeypatch.chdir(trained / "new")
    assert call("predict", model, "3.png", "-o", output)[0] == 0
    assert_same(read_csv(output), [expected["3.png"]])
    assert call("predict", model, "7.png", "1.png", trained / "test", "-o", output)[0] == 0
    rows = read_csv(output)
    assert_same(rows[:2], [expected["7.png"], expected["1.png"]])
    assert len(rows) == 22 and rows[2]["file"] == f"{trained}/test/lymphocyte/0.png"
    code, _, err = call("predict", model, "3.png", "gone.png", "-o", output)
    assert code == 1 and "gone.png does not exist" in err


@pytest.fixture(scope="module")
def unreadable(tmp_path_factory):
    """Return a folder of class folders with files that are no images: reading them is an error."""
    root = tmp_path_factory.mktemp("unreadable")
    for name in ("lymphocyte", "neutrophil"):
        (root / name).mkdir()
        (root / name / "1.png").write_bytes(b"no image")
    torch.save(get_backbone("cnn_3block").build().state_dict(), root / "other.pt")
    return root


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--unfrozen-layers", "block9"), "'block9' is not a block"),
        (("--unfrozen-layers", "99"), "99"),
        (("--recipe", "pbc-cnn8", "--unfrozen-layers", "block9"), "'block9' is not a block"),
        (("--recipe", "field-cnn", "--image-size", "8"), "too small"),
        (("--weights", "gone.pt"), "gone.pt"),
        (("--weights", "OTHER"), "other.pt"),
        (("--weights", "imagenet"), "imagenet"),
        (("--backbone", "cnn9"), "cnn9"),
        (("--device", "cuda:99"), "cuda:99"),
        (("--precision", "float16"), "float16"),
        (("--lr", "-1"), "'lr'"),
        (("--epochs", "1", "--steps", "3"), "--epochs and --steps"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_can_be_known_to_be_wrong_is_found_before_reading(
    arguments, expected, unreadable, tmp_path, call
):
    arguments = [
        str(unreadable / "other.pt") if argument == "OTHER" else argument for argument in arguments
    ]
    code, _, err = call("train", unreadable, "-o", tmp_path / "m", *arguments)
    assert code == 1 and expected in err and "cannot be read as" not in err
    assert "2 of 2 images" not in err
