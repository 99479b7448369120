"""`wbcclf explain`: what it prints, and the files that it writes."""

import csv
import json

import numpy as np

from wbcclf.cli._explain import spread


def test_a_folder_is_explained(trained, run, tmp_path):
    page, figures = tmp_path / "page.html", tmp_path / "figures.json"
    done = run(
        *("explain", trained / "m.wbcclf", trained / "test", "-o", page, "--json", figures),
        *("--most", 6),
    )
    assert done.returncode == 0, done.stderr
    assert "Explained: 6 of 20 images" in done.stdout and "map on the cell" in done.stdout
    assert page.read_text().count("<img") == 12
    found = json.loads(figures.read_text(), parse_constant=lambda name: 1 / 0)  # no NaN
    assert found["method"] == "gradcam" and len(found["files"]) == 6
    assert found["files"][0]["file"].startswith(str(trained / "test"))
    assert found["classes"][-1]["label"] is None and found["classes"][-1]["n_images"] == 6


def test_files_and_tables_are_explained(trained, call, tmp_path):
    files = sorted((trained / "new").iterdir())[:2]
    code, out, _ = call("explain", trained / "m.wbcclf", *files, "--method", "occlusion")
    assert code == 0 and "Explained" not in out
    table = tmp_path / "cells.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["where"], *[[path] for path in files]])
    code, out, err = call("explain", trained / "m.wbcclf", table, "--path-column", "where")
    assert code == 0, err
    code, _, err = call("explain", trained / "m.wbcclf", table, files[0])
    assert code == 1 and "Give one CSV file" in err


def test_wrong_arguments_fail_before_the_work(trained, call, tmp_path):
    model, image = trained / "m.wbcclf", next((trained / "new").iterdir())
    for arguments, message in (
        ((trained / "new", "-o", tmp_path), "is a folder"),
        ((image, "-o", image), "would be overwritten"),
        ((image, "-o", tmp_path / "a", "--json", tmp_path / "a"), "is also --output"),
        ((tmp_path / "none",), "does not exist"),
    ):
        code, _, err = call("explain", model, *arguments)
        assert code == 1 and message in err
    assert call("explain", model, image, "--method", "lime")[0] == 2


def test_pictures_are_drawn_evenly_from_the_classes():
    kinds = np.array([0] * 50 + [1] * 5 + [2] * 2)
    assert np.bincount(kinds[spread(kinds, 9)]).tolist() == [4, 3, 2]
    assert spread(kinds, 100).tolist() == list(range(57))
