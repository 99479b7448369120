"""`wbcclf evaluate` where several images show one cell."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from wbcclf import make_blood_cells
from wbcclf.cli._held_out import held_out_text, score_held_out
from wbcclf.inspection import evaluate_predictions


@pytest.fixture
def groups(trained, tmp_path):
    """Return a table of the groups of test/: three images of a cell of one class."""
    path = tmp_path / "groups.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "cell_id", "slide"])
        for number, image in enumerate(sorted((trained / "test").rglob("*.png"))):
            relative = image.relative_to(trained / "test").as_posix()
            writer.writerow([relative, f"{image.parent.name}{number // 3}", f"s{number % 2}"])
    return path


@pytest.fixture
def evaluate(trained, tmp_path, call):
    """Return a function that evaluates test/: (stdout, figures)."""

    def evaluate(*options, images=trained / "test"):
        output = tmp_path / "figures.json"
        code, out, err = call("evaluate", trained / "m.wbcclf", images, "--json", output, *options)
        assert code == 0, err
        return out, json.loads(output.read_text())

    return evaluate


def test_auto_finds_the_cells_in_the_images(trained, tmp_path, call, seen):
    cells = make_blood_cells(8, classes=2, image_size=160, random_state=4)
    for number, (image, label) in enumerate(zip(cells.images, cells.target, strict=True)):
        (tmp_path / "test" / label).mkdir(parents=True, exist_ok=True)
        for turns in range(3):
            picture = Image.fromarray(np.rot90(image, turns))
            picture.save(tmp_path / "test" / label / f"{number}-{turns}.png")
    images, output = tmp_path / "test", tmp_path / "figures.json"
    code, out, err = call(
        *("evaluate", trained / "m.wbcclf", images, "--groups", "auto", "--json", output)
    )
    assert code == 0, err
    assert out.startswith(
        "--groups auto put 24 images in 8 groups: one cell, or one field, each.\nIndependent c"
    )
    assert json.loads(output.read_text())["n_groups"] == 8
    training = ("train", images, "-o", tmp_path / "m", "--early-stopping", "--groups", "auto")
    code, out, err = call(*training, *("--image-size", 32, "--epochs", 1))
    assert code == 0, err
    assert "24 images in 8 groups" in out
    assert len(seen["X_val"]) == 6  # of two cells: one of four is held out, of each class
    code, _, err = call(
        "evaluate", trained / "m.wbcclf", images, *("--groups", "auto"), *("--group-column", "cell")
    )
    assert code == 1 and "--groups auto reads none" in err


def test_intervals_are_by_cell(evaluate, groups):
    _, plain = evaluate()
    out, figures = evaluate("--groups", groups)
    first, second, *_ = out.splitlines()
    assert first == "Independent cells: 8, in 20 images"
    assert second == "Each image counts the same:"
    assert figures["n_groups"] == 8
    assert figures["accuracy"] == plain["accuracy"]
    assert np.ptp(figures["accuracy_interval"]) > np.ptp(plain["accuracy_interval"])
    low, high = figures["accuracy_interval"]
    assert f"\naccuracy {figures['accuracy']:.3f} ({low:.2f} to {high:.2f}), balanced" in out
    by_cell = figures["by_group"]
    assert f"By cell: accuracy {by_cell['accuracy']:.3f} (" in out
    assert out.count("; 8 independent cells, 95% intervals by cell") == 2
    (low, high), recall = by_cell["recall_interval"][0], by_cell["recall"][0]
    tables = out.partition("Each cell counts the same")[2]
    row = next(line for line in tables.splitlines() if figures["classes"][0] in line)
    assert re.search(rf"\b{by_cell['support'][0]}\b", row)
    assert f"{recall:.3f} ({low:.2f} to {high:.2f})" in row


def test_groups_come_from_a_table_a_column_or_a_pattern(evaluate, groups, trained, tmp_path):
    _, of_slides = evaluate("--groups", groups, "--group-column", "slide")
    assert of_slides["n_groups"] == 2
    table = tmp_path / "images.csv"
    table.write_text(groups.read_text().replace("path,", "path,label,").replace(".png,", ".png,?,"))
    lines = [line.replace("?", line.partition("/")[0]) for line in table.read_text().splitlines()]
    table.write_text("\n".join(lines))
    for options in (("--group-column", "cell_id"), ("--groups", groups)):
        _, figures = evaluate("--root", trained / "test", *options, images=table)
        assert figures["n_groups"] == 8
    _, figures = evaluate("--groups", r"(\d)\.png")
    assert 2 < figures["n_groups"] <= 10


def test_figures_of_the_known_classes_are_by_cell_too(evaluate, trained, tmp_path):
    folder = shutil.copytree(trained / "test", tmp_path / "more")
    shutil.copytree(folder / "neutrophil", folder / "blast")
    out, figures = evaluate("--groups", r"(\w+/\d)", images=folder)
    _, known = evaluate("--groups", r"(\w+/\d)")
    only = figures["known_classes_only"]
    assert only == {name: known[name] for name in only}
    assert {"n_groups", "macro_f1_interval"} <= only.keys()
    assert f"; {known['n_groups']} independent cells, 95% intervals by cell" in out
    # One cell tells nothing.
    _, figures = evaluate("--groups", "blast/|/", images=folder)
    assert figures["n_groups"] == 2 and "known_classes_only" not in figures


def test_json_has_no_nan(evaluate, tmp_path, trained):
    folder = tmp_path / "one"
    shutil.copytree(trained / "test" / "neutrophil", folder / "neutrophil")
    _, figures = evaluate("--groups", r"(\d)\.png", images=folder)
    at = figures["classes"].index("neutrophil")
    assert figures["precision_interval"][at] == [None, None]
    assert figures["recall_interval"][at][0] > 0
    assert "NaN" not in (tmp_path / "figures.json").read_text()


def test_one_group_is_an_error(trained, call):
    code, _, err = call("evaluate", trained / "m.wbcclf", trained / "test", "--groups", "png")
    assert code == 1
    assert "groups names one group only, 'png', for all 20 images" in err


def test_a_table_without_a_row_for_an_image_is_an_error(trained, groups, call):
    groups.write_text("\n".join(groups.read_text().splitlines()[:-1]))
    code, _, err = call("evaluate", trained / "m.wbcclf", trained / "test", "--groups", groups)
    assert code == 1
    assert "has no row for neutrophil" in err


def test_what_early_stopping_watched_has_an_interval_by_group():
    y_true, y_pred, groups = ["a", "a", "b", "b"], ["a", "a", "b", "a"], [0, 0, 1, 2]
    low, high = evaluate_predictions(y_true, y_pred, groups).accuracy_interval
    text = held_out_text(score_held_out(np.array(y_true), np.array(y_pred), groups))
    assert text.startswith(
        "Early stopping watched 3 groups, in 4 images: accuracy 0.750 (95% interval by group "
        f"{low:.2f} to {high:.2f})"
    )
    text = held_out_text(score_held_out(np.array(["a", "a"]), np.array(["a", "b"]), [0, 0]))
    assert text.endswith("in 2 images: too few to say how good the model is.")
