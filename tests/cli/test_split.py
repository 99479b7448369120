"""`wbcclf groups` and `wbcclf split`, and what other commands make of their tables."""

import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.utils import Bunch

from wbcclf import load_image_csv, load_image_folder, make_blood_cells
from wbcclf.cli._groups import weakest


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a folder with 10 cells of two classes, one to three pictures of each."""
    root = tmp_path_factory.mktemp("split") / "cells"
    cells = make_blood_cells(10, classes=2, image_size=160, random_state=4)
    for number, (image, label) in enumerate(zip(cells.images, cells.target, strict=True)):
        (root / label).mkdir(parents=True, exist_ok=True)
        for turns in range(1 + number % 3):
            Image.fromarray(np.rot90(image, turns)).save(root / label / f"{number}-{turns}.png")
    return root


@pytest.fixture
def images(made, tmp_path):
    """Return a copy of the pictures, which a test may change."""
    return shutil.copytree(made, tmp_path / "cells")


@pytest.fixture
def split(images, tmp_path, call, read_csv):
    """Return a function that splits the pictures by their names: (stdout, stderr, rows)."""

    def split(*options, source=images, output=tmp_path / "split.csv", groups=r"(\d+)-"):
        code, out, err = call("split", source, "-o", output, "--groups", groups, *options)
        assert code == 0, err
        return out, err, read_csv(output)

    return split


def cell_of(path):
    return path.rpartition("/")[2].partition("-")[0]


def test_groups_are_what_the_pictures_show(images, tmp_path, call, read_csv):
    moved = images / "neutrophil" / "moved.png"
    (images / "lymphocyte" / "2-1.png").rename(moved)
    shutil.copy(images / "neutrophil" / "4-0.png", images / "neutrophil" / "4-same.png")
    (images / "neutrophil" / "99-0.png").write_text("no picture")
    table, links = tmp_path / "tables" / "groups.csv", tmp_path / "links.csv"
    table.parent.mkdir()
    code, out, err = call("groups", images, "-o", table, "--links", links)
    assert code == 0
    assert "1 of 21 images cannot be read. Each is a group of its own: " in err
    rows = read_csv(table)
    assert list(rows[0]) == ["path", "group", "certainty"]
    assert len(rows) == 21 and rows[0]["path"].startswith("../cells/lymphocyte/")
    cells = {}
    for row in rows:
        cell = "2" if row["path"].endswith("moved.png") else cell_of(row["path"])
        cells.setdefault(cell, set()).add(row["group"])
        assert not row["certainty"] or 0.99 <= float(row["certainty"]) <= 1
    alone = {cell_of(row["path"]) for row in rows if not row["certainty"]}
    assert alone == {"0", "3", "6", "9", "99"}
    assert all(len(groups) == 1 for groups in cells.values())
    assert len(set.union(*cells.values())) == 11
    # What is printed.
    assert out.startswith("21 images in 11 groups: one cell, or one field, each. 5 images are alo")
    assert "Largest groups, in images: 3, 3, 3, 3, 2, and 1 more\n" in out
    assert "Groups with images of several classes: 1\n" in out
    assert "lymphocyte 2, neutrophil 1" in out and f" {moved} " in out
    # The pairs.
    pairs = read_csv(links)
    assert list(pairs[0]) == ["path", "other_path", "agreeing_points", "certainty"]
    group_of = {row["path"].removeprefix("../"): row["group"] for row in rows}
    assert all(group_of[pair["path"]] == group_of[pair["other_path"]] for pair in pairs)
    (same,) = [pair for pair in pairs if not pair["agreeing_points"]]
    assert {same["path"], same["other_path"]} == {
        f"cells/neutrophil/4-{name}.png" for name in ("0", "same")
    }
    # The least certain links are listed, the least first; of three pictures the two surer ones.
    lines = [line.split() for line in out.partition("Least certain")[2].splitlines()[4:9]]
    listed = [float(line[-2]) for line in lines]
    assert listed == sorted(listed)
    assert listed[0] >= min(float(pair["certainty"]) for pair in pairs)
    # What takes the table.
    expected = [group_of[f"cells/{path.parent.name}/{path.name}"] for path in all_of(images)]
    for given in (table, str(table)):
        cells = load_image_folder(images, groups=given, on_error="skip")
        by_name = dict(zip(cells.paths.tolist(), cells.groups.tolist(), strict=True))
        for path, group in zip(all_of(images), expected, strict=True):
            assert str(path) not in by_name or by_name[str(path)] == group
        assert len(by_name) == 20


def test_the_weakest_links_are_those_that_groups_need():
    found = Bunch(
        groups=np.zeros(5, int),
        links=np.array([[0, 1], [1, 2], [0, 2], [3, 4], [2, 3], [1, 4]]),
        certainty=np.array([1.0, 0.999, 0.995, 1.0, 0.991, 0.992]),
        agreeing=np.array([30, 12, 9, -1, 8, 9]),
    )
    # 0-2 is not needed beside 0-1-2, and 2-3 not beside 1-4. Equal bytes are surer than points.
    assert weakest(found).tolist() == [5, 1, 0, 3]


def all_of(images):
    return sorted(images.rglob("*.png"))


def test_groups_need_no_classes_and_can_stop_at_broken_files(images, tmp_path, call, read_csv):
    folder, table = images / "lymphocyte", tmp_path / "groups.csv"
    assert call("groups", folder, "-o", table)[0] == 0
    assert read_csv(table)[0]["path"].startswith("cells/lymphocyte/")
    table.unlink()
    (folder / "99-0.png").write_text("no picture")
    code, _, err = call("groups", folder, "-o", table, "--on-error", "raise")
    assert code == 1 and "1 of " in err and "99-0.png" in err
    assert not table.exists()
    code, _, err = call("groups", folder, "-o", table, "--links", table)
    assert code == 1 and f"--links {table}: it is also --output" in err
    code, _, err = call("groups", folder, "-o", folder / "1-0.png")
    assert code == 1 and "would be overwritten" in err


def test_pictures_that_are_all_alone(images, tmp_path, call):
    for path in all_of(images):
        if not path.stem.endswith("-0"):
            path.unlink()
    code, out, err = call("groups", images, "-o", tmp_path / "groups.csv")
    assert code == 0, err
    assert out.startswith("10 images in 10 groups: one cell, or one field, each. 10 images are")
    assert "Largest" not in out and "Least" not in out


def test_a_split_names_every_picture_and_copies_none(split, images):
    before = all_of(images)
    out, _, rows = split()
    assert list(rows[0]) == ["path", "class", "group", "part"]
    assert all_of(images) == before
    assert [images.parent / row["path"] for row in rows] == sorted(
        before, key=lambda path: (path.parent, [int(n) for n in path.stem.split("-")])
    )
    parts = {"train": [], "test": []}
    for row in rows:
        assert row["class"] == row["path"].split("/")[1]
        assert row["group"] == cell_of(row["path"])
        parts[row["part"]].append(row)
    cells = {part: {row["group"] for row in of_part} for part, of_part in parts.items()}
    assert cells["train"].isdisjoint(cells["test"]) and len(cells["train"] | cells["test"]) == 10
    for label in ("lymphocyte", "neutrophil"):
        members = {part: [row for row in parts[part] if row["class"] == label] for part in parts}
        counts = [
            (len(of_part), len({row["group"] for row in of_part})) for of_part in members.values()
        ]
        assert counts[1][1] == 1  # of five cells
        (line,) = [line for line in out.splitlines() if label in line]
        assert [int(word) for word in line.split() if word.isdecimal()] == [*counts[0], *counts[1]]


def test_seed_and_size_choose_the_split(split, images, tmp_path, call):
    _, _, rows = split()
    assert split("--seed", 0, "--test-size", 0.2)[2] == rows
    assert any(split("--seed", seed)[2] != rows for seed in (1, 2, 3))
    code, _, err = call("split", images, "-o", tmp_path / "new", "--test-size", 1)
    assert code == 1 and "--test-size 1: give a share between 0 and 1." in err
    _, _, half = split("--test-size", 0.6)
    assert len({row["group"] for row in half if row["part"] == "test"}) == 6


def test_without_groups_they_are_found(images, tmp_path, call, read_csv):
    output = tmp_path / "split.csv"
    code, out, err = call("split", images, "-o", output)
    assert code == 0, err
    assert out.startswith("--groups auto put 19 images in 10 groups")
    parts = {}
    for row in read_csv(output):
        parts.setdefault(cell_of(row["path"]), set()).add(row["part"])
    assert all(len(each) == 1 for each in parts.values())


@pytest.mark.filterwarnings("always::wbcclf.exceptions.SmallClassWarning")  # a line on stderr
def test_a_class_of_one_cell_is_trained_on_with_a_warning(split, images):
    for path in (images / "lymphocyte").iterdir():
        if cell_of(path.name) != "2":
            path.unlink()
    _, err, rows = split()
    assert "warning: Classes with one group only: lymphocyte" in err
    assert {row["part"] for row in rows if row["class"] == "lymphocyte"} == {"train"}


def test_a_model_is_trained_and_tested_on_parts(split, tmp_path, call, seen):
    elsewhere = tmp_path / "tables"
    elsewhere.mkdir()
    table, model = elsewhere / "split.csv", tmp_path / "m"
    _, _, rows = split(output=table)
    n_train = sum(row["part"] == "train" for row in rows)
    training = ("train", table, "-o", model, "--image-size", 32, "--epochs", 1, "--crop", "none")
    training = (*training, "--backbone", "simple_cnn")
    code, _, err = call(*training)
    assert code == 1 and "holds several parts (test, train), which would be mixed: " in err
    assert "choose with --part test or --part train." in err
    code, out, err = call(*training, "--part", "train")
    assert code == 0, err
    assert f"{n_train} images of 2 classes" in out and "groups have no effect" not in err
    assert len(seen["train"]) == n_train
    code, out, err = call("evaluate", model, table, "--part", "test")
    assert code == 0, err
    assert out.startswith(f"Independent cells: 2, in {len(rows) - n_train} images\n")
    code, out, err = call("evaluate", model, table, "--part", "test", "--part", "train")
    assert code == 0, err
    assert out.startswith(f"Independent cells: 10, in {len(rows)} images\n")
    # Early stopping holds out whole groups of the part.
    code, out, err = call(*training, "--part", "train", "--early-stopping")
    assert code == 0, err
    assert "Early stopping watched 2 groups" in out
    code, out, err = call("adapt", model, table, "--part", "test", "-o", tmp_path / "adapted")
    assert f"{len(rows) - n_train} images of 2 classes" in out, err


def test_a_part_is_loaded_in_python(split, tmp_path):
    _, _, rows = split()
    test = load_image_csv(tmp_path / "split.csv", part="test", group_column="group")
    expected = [row for row in rows if row["part"] == "test"]
    assert test.groups.tolist() == [row["group"] for row in expected]
    assert test.target.tolist() == [row["class"] for row in expected]
    both = load_image_csv(tmp_path / "split.csv", part=["train", "test"])
    assert len(both.images) == len(load_image_csv(tmp_path / "split.csv").images) == len(rows)
    with pytest.raises(ValueError, match=r"no part 'val' in its column 'part': there is test, tra"):
        load_image_csv(tmp_path / "split.csv", part="val")


def test_the_training_part_can_be_split_again(split, tmp_path, call, read_csv):
    _, _, rows = split()
    again = tmp_path / "again.csv"
    command = ("split", tmp_path / "split.csv", "-o", again)
    code, _, err = call(*command, "--part", "train")
    assert code == 0, err
    assert {row["path"] for row in read_csv(again)} == {
        row["path"] for row in rows if row["part"] == "train"
    }
    code, _, err = call(*command[:-1], tmp_path / "split.csv", "--part", "train")
    assert code == 1 and "would be overwritten" in err


def test_parts_that_are_not_there_are_named(images, tmp_path, call):
    for options in (("split", images), ("train", images)):
        code, _, err = call(*options, "-o", tmp_path / "new", "--part", "train")
        assert code == 1 and "--part: " in err and "is not a CSV file" in err
    table = tmp_path / "images.csv"
    table.write_text("path,class\ncells/neutrophil/4-0.png,neutrophil\n")
    code, _, err = call("split", table, "-o", tmp_path / "new", "--part", "train")
    assert code == 1 and "has no column part or split, but its part train was asked for" in err
    table.write_text("path,class,split\ncells/neutrophil/4-0.png,neutrophil,TRAIN\n")
    code, _, err = call("split", table, "-o", tmp_path / "new", "--part", "TRAIN")
    assert code == 1 and "groups names one group only" in err  # which auto has found


def test_links_to_folders_and_a_table_reached_by_one(split, images, tmp_path, call):
    linked = tmp_path / "linked"
    linked.symlink_to(images / "lymphocyte")
    (tmp_path / "deep" / "below").mkdir(parents=True)
    (tmp_path / "tables").symlink_to(tmp_path / "deep" / "below")
    (images / "lymphocyte").rename(tmp_path / "moved")
    (images / "lymphocyte").symlink_to(tmp_path / "moved")
    (tmp_path / "also").symlink_to(images)
    table = tmp_path / "tables" / "split.csv"
    _, _, rows = split(source=tmp_path / "also", output=table)
    assert rows[0]["path"] == "../../cells/lymphocyte/1-0.png"
    assert len(load_image_csv(table, part=["train", "test"]).images) == 19
    assert len(set(load_image_folder(tmp_path / "also", groups=table).groups)) == 10


def test_a_broken_image_stops_a_split_or_is_left_out(images, tmp_path, call, read_csv):
    (images / "neutrophil" / "99-0.png").write_text("no picture")
    table = tmp_path / "split.csv"
    code, _, err = call("split", images, "-o", table)
    assert code == 1 and "99-0.png" in err and "--on-error" in err and not table.exists()
    code, _, err = call("split", images, "-o", table, "--on-error", "warn")
    assert code == 0 and "99-0.png" in err
    assert not [row for row in read_csv(table) if "99-0.png" in row["path"]]


def test_a_file_in_two_parts_is_an_error(split, tmp_path, call):
    _, _, rows = split()
    table = tmp_path / "split.csv"
    first = rows[0]
    other = "test" if first["part"] == "train" else "train"
    with table.open("a", newline="") as file:
        file.write(f"{first['path']},{first['class']},{first['group']},{other}\r\n")
    code, _, err = call("explore", table, "--part", "train")
    assert code == 1 and "are the same file" in err and "Keep one." in err


@pytest.mark.parametrize("name", ["blast, other", "a\nb"])
def test_a_class_that_a_table_cannot_hold_is_an_error(images, tmp_path, call, name):
    (images / "neutrophil").rename(images / name)
    table = tmp_path / "split.csv"
    code, _, err = call("split", images, "-o", table, "--groups", r"(\d+)-")
    assert code == 1 and "Rename the class" in err and not table.exists()


def test_a_column_named_group_is_used(split, tmp_path, call, read_csv):
    _, _, rows = split()
    table = tmp_path / "whole.csv"
    lines = [f"{row['path']},{row['class']},{row['group']}" for row in rows]
    table.write_text("\n".join(["path,class,group", *lines]))
    code, out, err = call("explore", table)
    assert code == 0, err
    lines = [line.split("│")[1:4] for line in out.splitlines() if line.startswith("│")]
    classes = {row["class"] for row in rows}
    assert sum(int(n_cells) for name, _, n_cells in lines if name.strip() in classes) == 10
    code, _, err = call("split", table, "-o", tmp_path / "again.csv")
    assert code == 0 and "auto" not in err, err
    assert {row["group"] for row in read_csv(tmp_path / "again.csv")} == {
        row["group"] for row in rows
    }


def test_the_parts_of_a_split_are_explored_and_audited(split, tmp_path, call):
    split()
    table = tmp_path / "split.csv"
    code, out, err = call("explore", table, "--part", "test")
    assert code == 0 and "lymphocyte" in out, err
    code, out, err = call("audit", table, table, "--part", "train", "--test-part", "test")
    assert code == 0 and "cells in both sets" not in out, err
    code, _, err = call("audit", table, "--test-part", "test")
    assert code == 1 and "--test-part is for TEST" in err


def test_groups_that_are_no_file_are_named(images, tmp_path, call):
    for given, message in ((tmp_path / "no.csv", "does not exist"), (tmp_path, "is a folder")):
        code, _, err = call("explore", images, "--groups", given)
        assert code == 1 and f"--groups: {given} {message}; give a CSV file" in err
    code, _, err = call("explore", images, "--part", "train")
    assert code == 1 and "--part" in err and "`wbcclf split` writes one" in err
    for command in ("explore", "audit"):
        code, _, err = call(command, images, "-o", tmp_path / "x", "--json", tmp_path / "x")
        assert code == 1 and "it is also --output" in err
