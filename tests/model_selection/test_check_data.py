"""check_data: planted leaks of every kind are found, and clean sets are left alone."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.utils import Bunch

from wbcclf import list_image_folder, make_blood_cells
from wbcclf.exceptions import ImageReadError
from wbcclf.model_selection import check_data
from wbcclf.model_selection.audit._findings import laboratories
from wbcclf.model_selection.audit._laboratories import Kinds, find_kinds
from wbcclf.model_selection.audit._shortcuts import (
    bin_sizes,
    call_by_colour,
    call_by_fact,
    find_shortcuts,
)

CELLS = make_blood_cells(40, classes=2, image_size=112, random_state=5)
IMAGES = [np.ascontiguousarray(image) for image in CELLS.images]
WHOLE = "colour of the whole picture gives the class away"
KINDS = ["lymphocyte", "neutrophil"]


def write(folder, image, name, **options):
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(folder / name, **options)


@pytest.fixture
def cells(tmp_path):
    """Return a folder of two classes, train/, without any leak, and cells that are not in it."""
    for label in KINDS:
        of_class = [k for k, each in enumerate(CELLS.target) if each == label]
        for k in of_class[:12]:
            write(tmp_path / "train" / label, IMAGES[k], f"{k}.png")
        for k in of_class[12:18]:
            write(tmp_path / "test" / label, IMAGES[k], f"{k}.png")
    return tmp_path


def kinds(found):
    return {each.kind: each for each in found.findings}


def test_nothing_is_found_in_clean_sets(cells):
    found = check_data(cells / "train", cells / "test")
    assert not found.has_leak
    # Drawn cells of a class are alike, but for the nucleus: that a colour tells them is true.
    assert {each.kind for each in found.findings} <= {
        "colour of the whole picture gives the class away"
    }
    assert len(set(found.groups)) == len(found.groups) == 24
    assert len(found.test_groups) == 12
    assert [(row.label, row.n_pictures, row.n_cells) for row in found.classes] == [
        (label, 12, 12) for label in KINDS
    ]
    assert [row.effective_cells for row in found.classes] == [12, 12]
    assert check_data(cells / "train").test_groups is None


def test_cells_in_both_sets(cells):
    paths = sorted((cells / "train").rglob("*.png"))
    same, turned = paths[0], paths[-1]
    shutil.copy(same, cells / "test" / same.parent.name / "again.png")
    image = np.rot90(np.asarray(Image.open(turned)), 1)
    write(cells / "test" / turned.parent.name, image, "turned.png")
    found = check_data(cells / "train", cells / "test")
    leak = found.findings[0]
    assert found.has_leak
    assert (leak.kind, leak.severity) == ("cells in both sets", "leak")
    assert leak.figures["n_cells"] == leak.figures["n_pictures"] == 2
    assert leak.figures["n_same_file"] == 1
    assert leak.files == [
        [str(same), str(cells / "test" / same.parent.name / "again.png")],
        [str(turned), str(cells / "test" / turned.parent.name / "turned.png")],
    ]
    assert "2 of 14 pictures of the second set (14%)" in leak.what


def test_copies_within_a_set_and_effective_cells(cells):
    first = min((cells / "train" / "neutrophil").iterdir())
    for k in range(4):
        write(first.parent, np.rot90(np.asarray(Image.open(first)), k), f"copy{k}.png")
    found = check_data(cells / "train")
    copies = kinds(found)["several pictures of a cell"]
    assert copies.severity == "warning"
    assert not found.has_leak
    assert copies.figures["n_cells"] == 24
    # 5 of 28 pictures, each with 4 others: one of them is trained on unless all are tested on.
    assert copies.figures["share_of_random_split"] == pytest.approx(5 / 28 * (1 - 0.2**4))
    row = found.classes[1]
    assert (row.n_pictures, row.n_cells) == (16, 12)
    assert row.effective_cells == pytest.approx(16**2 / (11 + 5**2))


def test_one_cell_under_two_labels(cells):
    one, other = (min((cells / "train" / label).iterdir()) for label in KINDS)
    shutil.copy(one, other.parent / "wrong.png")
    conflict = kinds(check_data(cells / "train"))["label conflicts"]
    assert conflict.files == [[str(one), str(other.parent / "wrong.png")]]
    assert conflict.figures["n_same_file"] == 1
    # In two sets, if both know the class, however it is spelled.
    (other.parent / "wrong.png").unlink()
    assert "label conflicts" not in kinds(check_data(cells / "train", cells / "test"))
    (cells / "test" / "neutrophil").rename(cells / "test" / "NEUTROPHIL")
    shutil.copy(one, cells / "test" / "NEUTROPHIL" / "wrong.png")
    assert "label conflicts" in kinds(check_data(cells / "train", cells / "test"))


def test_classes_by_other_names_are_no_conflict(cells):
    (cells / "test" / "neutrophil").rename(cells / "test" / "neut")
    one = min((cells / "train" / "neutrophil").iterdir())
    shutil.copy(one, cells / "test" / "neut" / "again.png")
    found = kinds(check_data(cells / "train", cells / "test"))
    assert "label conflicts" not in found
    assert found["other classes"].figures == {
        "only_first": ["neutrophil"],
        "only_second": ["neut"],
    }


def resaved(cells, label, change):
    for path in sorted((cells / "train" / label).iterdir()):
        image = Image.open(path)
        image.load()
        path.unlink()
        change(image, path)


EXIF = Image.Exif()
EXIF[271] = "A microscope"
CHANGES = {
    "file format": lambda image, path: image.save(path.with_suffix(".bmp")),
    "picture size": lambda image, path: image.resize((120, 120)).save(path),
    "colour mode": lambda image, path: image.convert("RGBA").save(path),
    "metadata": lambda image, path: image.save(path, exif=EXIF),
}


@pytest.mark.parametrize("fact", CHANGES)
def test_a_file_that_gives_the_class_away(cells, fact):
    resaved(cells, "neutrophil", CHANGES[fact])
    found = check_data(cells / "train")
    leak = next(each for each in found.findings if each.figures.get("fact") == fact)
    # In pictures that are cut around the cell, the size is the cell's.
    severity = "warning" if fact == "picture size" else "leak"
    assert (leak.kind, leak.severity) == ("file gives the class away", severity)
    assert ("size is that of the cell" in leak.advice) == (fact == "picture size")
    assert found.has_leak == (severity == "leak")
    told = {each["label"]: each for each in leak.figures["classes"]}
    assert told.keys() == {*KINDS}
    assert told["neutrophil"]["score"] == 1
    assert 0.75 < told["neutrophil"]["low"] < 1
    assert all(len({path.split("/")[-2] for path in pair}) == 2 for pair in leak.files)


def test_jpeg_quality_gives_the_class_away(cells):
    for label, quality in zip(KINDS, (95, 70), strict=True):
        resaved(
            cells,
            label,
            lambda image, path, quality=quality: image.save(
                path.with_suffix(".jpg"), quality=quality
            ),
        )
    leak = check_data(cells / "train").findings[0]
    assert leak.figures["fact"] == "compression"
    assert "quality 70, 4:2:0 in 12 of 12" in leak.what


def test_the_colour_of_the_corners_gives_the_class_away(cells):
    for path in (cells / "train" / "neutrophil").iterdir():
        image = np.asarray(Image.open(path))
        Image.fromarray((image * [0.9, 0.9, 0.4]).astype(np.uint8)).save(path)
    found = kinds(check_data(cells / "train"))
    told = found["colour of the corners gives the class away"]
    assert told.severity == "warning"
    assert told.figures["classes"][0]["score"] > 0.9


def test_broken_files(cells):
    (cells / "train" / "neutrophil" / "broken.jpg").write_bytes(b"no picture")
    (cells / "train" / "neutrophil" / "empty.png").write_bytes(b"")
    found = check_data(cells / "train")
    broken = kinds(found)["broken files"]
    assert broken.severity == "warning"
    assert broken.figures["n"] == 2
    assert [path.split("/")[-1] for [path] in broken.files] == ["broken.jpg", "empty.png"]
    assert found.classes[1].n_pictures == 12
    shutil.rmtree(cells / "train" / "lymphocyte")
    for path in (cells / "train" / "neutrophil").iterdir():
        path.write_bytes(b"?")
    with pytest.raises(ImageReadError, match="nothing to load"):
        check_data(cells / "train")


def test_small_classes_and_a_single_one(cells):
    write(cells / "train" / "basophil", IMAGES[-1], "1.png")
    found = kinds(check_data(cells / "train"))["small classes"]
    assert found.figures == {"cells": {"basophil": 1}}
    assert "cannot be trained on and tested on, SMOTE stops" in found.what
    found = kinds(check_data(list_of(cells / "train", "lymphocyte")))
    assert found["one class"].severity == "warning"


def list_of(folder, label):
    listing = list_image_folder(folder)
    rows = listing.target == label
    return Bunch(paths=listing.paths[rows], target=listing.target[rows])


def test_unlabelled_pictures_have_cells_all_the_same(cells):
    listing = list_image_folder(cells / "train", labelled=False)
    found = check_data(listing, cells / "train")
    assert found.classes == []
    assert kinds(found)["cells in both sets"].figures["n_cells"] == 24


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        (lambda root: root, ValueError, "several sets of class folders .test, train."),
        (lambda root: root / "none", FileNotFoundError, "does not exist"),
        (lambda root: CELLS, TypeError, "train must be a folder, or a Bunch with paths"),
        (lambda root: Bunch(paths=[]), ValueError, "train has no picture"),
        (
            lambda root: Bunch(paths=["a"], target=[]),
            ValueError,
            "train has 1 paths, but 0 in target",
        ),
    ],
)
def test_what_is_no_data(cells, data, error, said):
    with pytest.raises(error, match=said):
        check_data(data(cells))


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_labels_and_groups_that_are_missing(cells, missing):
    paths = sorted(map(str, (cells / "train").rglob("*.png")))
    for column in ("target", "groups"):
        values = ["a", *[missing] * (len(paths) - 1)]
        with pytest.raises(ValueError, match=rf"train.{column}\[1\] is"):
            check_data(Bunch(paths=paths, **{column: values}))


def test_groups_that_are_given_are_believed(cells):
    """Pictures of other cells, but of one patient each, in both sets."""
    train, test = (list_image_folder(cells / part) for part in ("train", "test"))
    train.groups = [f"patient {k % 3}" for k in range(len(train.paths))]
    test.groups = ["patient 1"] * 2 + [f"other {k}" for k in range(len(test.paths) - 2)]
    alone = check_data(list_image_folder(cells / "train"), list_image_folder(cells / "test"))
    found = check_data(train, test)
    assert [each.kind for each in found.findings if each.severity == "leak"][:1] == [
        "cells in both sets"
    ]
    leak = next(each for each in found.findings if each.kind == "cells in both sets")
    assert "the same group, as you gave it" in leak.notes
    assert found.classes[0].n_cells <= 3 < alone.classes[0].n_cells
    # A patient has cells of many classes: no conflict.
    assert [each.kind for each in found.findings].count("label conflicts") == [
        each.kind for each in alone.findings
    ].count("label conflicts")


def test_an_empty_folder(tmp_path):
    with pytest.raises(ValueError, match="is empty"):
        check_data(tmp_path)


def test_findings_are_json(cells):
    shutil.copytree(cells / "train", cells / "again")
    found = check_data(cells / "train", cells / "again")
    assert json.loads(json.dumps(found.findings)) == found.findings


def test_facts_that_say_nothing_tell_no_class():
    """Of random facts and labels hardly any is reported: 200 small sets, 4 classes."""
    random_state = np.random.RandomState(0)
    n_found = 0
    for _ in range(200):
        y = random_state.choice(list("abcd"), 40, p=[0.5, 0.3, 0.1, 0.1])
        values = random_state.choice(list("xyz"), 40).tolist()
        groups = random_state.randint(20, size=40)
        n_found += len(find_shortcuts(call_by_fact(values, y, groups), y, groups))
    assert n_found <= 4


def test_a_fact_is_told_by_other_groups_only():
    """One value a cell, and cells of several pictures: nothing is known of another cell."""
    groups = np.repeat(np.arange(20), 5)
    y = np.where(groups < 10, "a", "b")
    values = [f"value {group}" for group in groups]
    assert not call_by_fact(values, y, groups).any()
    values = [f"value {group // 10}" for group in groups]
    assert (call_by_fact(values, y, groups) == np.stack([y == "a", y == "b"], axis=1)).all()
    colours = np.repeat(np.random.RandomState(0).normal(size=(20, 3)), 5, axis=0)
    assert find_shortcuts(call_by_colour(colours, y, groups), y, groups) == []


def test_two_classes_that_share_a_fact_or_a_colour_are_both_told():
    y = np.repeat(list("abcdef"), 40)
    groups = np.arange(len(y))
    called = call_by_fact(["png" if label in "ab" else "jpg" for label in y], y, groups)
    assert {each.label for each in find_shortcuts(called, y, groups) if each.low > 0.75} == {*"ab"}
    colours = np.random.RandomState(0).normal(size=(len(y), 3))
    colours[:80] += 10
    called = call_by_colour(colours, y, groups)
    assert {each.label for each in find_shortcuts(called, y, groups) if each.low > 0.75} == {*"ab"}


def test_many_sizes_are_put_into_bins():
    assert bin_sizes(["3 x 4", "3 x 4"]) == ["3 x 4", "3 x 4"]
    binned = bin_sizes([f"{side} x 20" for side in range(1, 101)])
    assert 10 < len(set(binned)) <= 16
    assert bin_sizes([*(f"{k} x 1" for k in range(30)), "a header that cannot be read"])[-1]


@pytest.mark.parametrize(
    ("n_crossing", "kind", "severity"),
    [(1, "classes unlike the others", "note"), (8, "several laboratories", "warning")],
)
def test_kinds_that_go_with_the_classes_may_be_the_cells(n_crossing, kind, severity):
    y = np.repeat(["a", "b", "c"], 40)
    is_other = y == "c"
    is_other[:n_crossing] = True
    found = laboratories(
        Kinds(is_other, 0.0, np.where(is_other, 1.0, -1.0)),
        y,
        np.zeros(120, bool),
        [f"{k}.png" for k in range(120)],
        "",
    )
    assert (found.kind, found.severity) == (kind, severity)
    assert found.figures["share_of_class"] == {"a": n_crossing / 40, "b": 0.0, "c": 1.0}


def test_two_laboratories_are_told_apart_and_one_is_not():
    random_state = np.random.RandomState(0)
    one = random_state.normal(size=(400, 27)) * np.linspace(1, 4, 27)
    assert find_kinds(one, random_state) is None
    skewed = np.exp(random_state.normal(size=(400, 27)))
    assert find_kinds(skewed, random_state) is None
    other = one[:40] + 6 * (np.arange(27) < 5)
    found = find_kinds(np.concatenate([one, other]), random_state)
    assert found.is_other[400:].mean() > 0.95
    assert found.is_other[:400].mean() < 0.01
    assert found.valley < 0.1
    assert find_kinds(np.zeros((100, 27)), random_state) is None
    assert find_kinds(one[:30], random_state) is None


def test_pictures_of_two_laboratories(tmp_path):
    # Each drawn cell is stained in its own way, so the other laboratory is dark and blurred.
    drawn = make_blood_cells(60, classes=2, image_size=64, random_state=1).images
    for k, image in enumerate(drawn):
        if k >= 36:
            small = Image.fromarray((image * [0.3, 0.3, 0.5]).astype(np.uint8)).resize((12, 12))
            image = np.asarray(small.resize((64, 64)))
        write(tmp_path / KINDS[k % 2], image, f"{k}.png")
    found = kinds(check_data(tmp_path))["several laboratories"]
    assert found.severity == "warning"
    assert found.figures["n"] == 24
    assert found.figures["share_of_class"] == dict.fromkeys(KINDS, 0.4)
    assert len(found.files) == 12


def test_real_pictures_of_a_laboratory_with_one_class_of_other_slides(wbcclf_data):
    """Raabin's basophils come from four dates, by another microscope."""
    listing = list_image_folder(wbcclf_data / "raabin")
    rows = np.arange(0, len(listing.paths), 8)
    found = check_data(Bunch(paths=listing.paths[rows], target=listing.target[rows]))
    told = kinds(found)["colour of the corners gives the class away"].figures["classes"]
    assert [each["label"] for each in told] == ["basophil"]
    assert told[0]["score"] > 0.9


def test_the_one_file_of_pbc_that_has_two_labels(wbcclf_data):
    listing = list_image_folder(wbcclf_data / "pbc" / "train")
    rows = [*np.arange(0, len(listing.paths), 300)]
    for name in ("EO_225902", "BNE_191112"):
        rows += [k for k, path in enumerate(listing.paths) if name in path]
    rows = np.unique(rows)
    found = check_data(Bunch(paths=listing.paths[rows], target=listing.target[rows]))
    conflict = kinds(found)["label conflicts"]
    assert conflict.figures == {"n_cells": 1, "n_same_file": 1}
    assert conflict.notes == ["eosinophil and neutrophil: the same file, byte for byte"]
