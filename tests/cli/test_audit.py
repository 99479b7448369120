"""`wbcclf audit`, and what `train` and `evaluate` say of the data."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from wbcclf import make_blood_cells

HOSTILE = ["<script>alert(1)</script>".replace("/", "\u2215"), '"><img src=x onerror=alert(1)>']


@pytest.fixture
def sets(tmp_path):
    """Return a folder with train/ and test/, two classes each, without a leak."""
    cells = make_blood_cells(24, classes=2, image_size=80, random_state=7)
    for k, (image, label) in enumerate(zip(cells.images, cells.target, strict=True)):
        folder = tmp_path / ("train" if k < 16 else "test") / label
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{k}.png")
    return tmp_path


def some_picture(folder):
    return min(folder.rglob("*.png"))


def test_exit_codes_json_and_page(sets, call):
    code, out, err = call("audit", sets / "train", sets / "test")
    assert code == 0, err
    assert "effective cells" in out and "LEAK" not in out
    same = some_picture(sets / "train")
    shutil.copy(same, sets / "test" / same.parent.name / "again.png")
    files = sets / "a.json", sets / "a.html"
    code, out, err = call(
        "audit", sets / "train", sets / "test", "--json", files[0], "-o", files[1]
    )
    assert code == 1
    assert "wbcclf: error" not in err
    assert "LEAK: cells in both sets\n1 cells (or fields) are in both sets" in out
    assert f"  {same}  {sets / 'test' / same.parent.name / 'again.png'} (the same file" in out
    found = json.loads(files[0].read_text())
    assert found["has_leak"] is True
    assert found["findings"][0]["kind"] == "cells in both sets"
    assert len(found["groups"]) == 16 and len(found["test_groups"]) == 9
    page = files[1].read_text()
    assert page.count("<img ") >= 2
    assert "again.png" in page and "the same file, byte for byte" in page


def test_a_page_is_one_file_without_scripts_and_harmless(sets, call):
    for old, new in zip(sorted((sets / "train").iterdir()), HOSTILE, strict=True):
        old.rename(old.with_name(new))
    one = some_picture(sets / "train")
    other = next(each for each in (sets / "train").iterdir() if each != one.parent)
    shutil.copy(one, other / "<b>&.png")
    (other / "<i>.png").write_bytes(b"")
    page = sets / "page.html"
    code, _, err = call("audit", sets / "train", "-o", page)
    assert code == 0, err
    text = page.read_text()
    assert "label conflicts" in text and "broken files" in text
    assert "<script" not in text and "onerror=alert" not in re.sub(
        r"&#34;&gt;&lt;img.*?&gt;", "", text
    )
    assert "<b>" not in text and "<i>" not in text
    assert "&lt;script&gt;" in text and "&lt;b&gt;&amp;.png" in text
    # Nothing is asked for from anywhere.
    assert set(re.findall(r'(?:src|href)="([^":#]*)', text)) == {"data", ""}
    assert "default-src 'none'" in text


def test_a_page_with_many_findings_is_below_two_megabytes(sets, call):
    random_state = np.random.RandomState(0)
    noise = [random_state.randint(256, size=(150, 150, 3), dtype=np.uint8) for _ in range(20)]
    for k, image in enumerate(noise):
        for part in ("train", "test"):
            for label in ("lymphocyte", "neutrophil"):
                Image.fromarray(image).save(sets / part / label / f"noise{k}.png")
    page = sets / "page.html"
    code, _, _ = call("audit", sets / "train", sets / "test", "-o", page)
    assert code == 1
    assert page.stat().st_size < 2_000_000
    assert "And 4 more, which are not shown." in page.read_text()


def test_a_csv_file_and_one_class(sets, call):
    table = sets / "cells.csv"
    rows = [f"train/{path.parent.name}/{path.name},all" for path in (sets / "train").rglob("*.png")]
    table.write_text("path,label\n" + "\n".join(rows) + "\n")
    code, out, err = call("audit", table)
    assert code == 0, err
    assert "WARNING: one class\nAll pictures are of one class, all." in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none"], "IMAGES: none does not exist"),
        (["empty"], "is empty: there is no image to load"),
        (["."], "holds several sets of class folders (test, train)"),
        (["train", "--weights", "imagenet"], "--weights is for --labels"),
        (["train", "--labels", "--weights", "none.pth"], "weights='none.pth': there is no such"),
        (["train", "--json", "none/a.json"], "the folder none does not exist"),
        (["train", "--groups", "auto"], "an audit always looks for images of the same cell"),
        (["flat", "--labels"], "has no class folders: there are no labels"),
        (["train/neutrophil/no.png"], "does not exist"),
    ],
)
def test_errors_say_what_to_do(sets, call, arguments, said, monkeypatch):
    monkeypatch.chdir(sets)
    if arguments[0] == "empty":
        (sets / "empty").mkdir()
    if arguments[0] == "flat":
        (sets / "flat").mkdir()
        shutil.copy(some_picture(sets), sets / "flat" / "1.png")
    code, _, err = call("audit", *arguments)
    assert code == 1
    assert said in err


def test_the_groups_of_a_table_are_believed(sets, call, tmp_path):
    pictures = sorted(sets.rglob("*.png"))
    rows = [f"{p},{p.parent.name},{k % 5},{p.parts[-3]}" for k, p in enumerate(pictures)]
    table = tmp_path / "split.csv"
    table.write_text("path,class,group,part\n" + "\n".join(rows) + "\n")
    code, out, err = call("audit", table, table, "--part", "train", "--test-part", "test")
    assert code == 1, err
    given = "groups (cells, fields, or those that you gave)"
    assert f"LEAK: cells in both sets\n5 {given} are in both sets" in out
    assert "effective groups" in out
    assert "(the same group, as you gave it)" in out
    # Numbers of two tables mean nothing to each other, names do.
    for name, changed, expected in (("a", "{}", 0), ("b", "patient {}", 1)):
        for part in ("train", "test"):
            kept = [
                ",".join([*row.split(",")[:2], changed.format(row.split(",")[2])])
                for row in rows
                if row.endswith(part)
            ]
            (tmp_path / f"{name}-{part}.csv").write_text("path,class,group\n" + "\n".join(kept))
        tables = tmp_path / f"{name}-train.csv", tmp_path / f"{name}-test.csv"
        code, _, err = call("audit", *tables)
        assert code == expected
        assert ("not taken for the same cell or patient" in err) == (name == "a")
    (tmp_path / "known.csv").write_text("path,group\n" + "".join(f"{p},1\n" for p in pictures))
    code, out, _ = call("audit", sets / "train", sets / "test", "--groups", "neutrophil|lymphocyte")
    assert code == 1
    assert f"2 {given} are in both sets" in out


def test_rows_and_files_that_are_left_out_are_named(sets, call, tmp_path):
    pictures = sorted((sets / "train").rglob("*.png"))
    rows = [f"{p},{p.parent.name}" for p in pictures]
    rows += [f"{pictures[0]},{pictures[0].parent.name}", f"{pictures[1]},", "none.png,neutrophil"]
    table = tmp_path / "cells.csv"
    table.write_text("file_name,kind\n" + "\n".join(rows) + "\n")
    code, out, err = call("audit", table, "--path-column", "file_name", "--label-column", "kind")
    assert code == 0, err
    assert "WARNING: broken files\n1 of 17 files cannot be read" in out and "none.png" in out
    assert "NOTE: left out" in out and "the same file as in line 2" in out
    (sets / "train" / pictures[0].parent.name / "link.png").symlink_to("nowhere.png")
    code, out, err = call("audit", sets / "train")
    assert code == 0, err
    assert "link.png" in out


def test_a_page_never_replaces_a_picture(sets, call):
    picture = some_picture(sets)
    code, _, err = call("audit", picture.parents[1], "-o", picture)
    assert code == 1
    assert "would be overwritten" in err
    table = sets / "test.csv"
    table.write_text(f"path,label\n{picture},all\n")
    for option in ("-o", "--json"):
        code, _, err = call("audit", picture.parents[1], table, option, table)
        assert code == 1
        assert "would be overwritten" in err
    assert table.read_text().startswith("path,label")


def test_wrong_labels(tmp_path, call):
    cells = make_blood_cells(
        60, classes=["lymphocyte", "eosinophil"], image_size=96, random_state=3
    )
    for k, (image, label) in enumerate(zip(cells.images, cells.target, strict=True)):
        if k in (5, 6):
            label = "lymphocyte" if label == "eosinophil" else "eosinophil"
        folder = tmp_path / "cells" / label
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{k}.png")
    (tmp_path / "cells" / "eosinophil" / "broken.png").write_bytes(b"")
    output = tmp_path / "a.json"
    code, out, err = call("audit", tmp_path / "cells", "--labels", "--json", output)
    assert code == 0, err
    assert "wrong labels" in out and ", more likely " in out
    found = json.loads(output.read_text())["findings"]
    wrong = next(each for each in found if each["kind"] == "wrong labels")
    names = [path.split("/")[-1] for [path] in wrong["files"]]
    assert {*names[:2]} == {"5.png", "6.png"}
    assert wrong["figures"]["n_labels"] == 60
    assert wrong["figures"]["confidence"] == sorted(wrong["figures"]["confidence"])


def test_labels_of_one_cell_each_cannot_be_checked(tmp_path, call):
    cells = make_blood_cells(2, classes=2, image_size=64, random_state=0)
    for image, label in zip(cells.images, cells.target, strict=True):
        (tmp_path / label).mkdir()
        Image.fromarray(image).save(tmp_path / label / "1.png")
    code, _, err = call("audit", tmp_path, "--labels")
    assert code == 1
    assert "--labels needs two classes of two cells or more" in err


def test_train_and_evaluate_warn_of_files_that_give_the_class_away(trained, tmp_path, call):
    images = shutil.copytree(trained / "test", tmp_path / "test")
    for path in sorted((images / "neutrophil").iterdir()):
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    said = "The file format alone tells these classes from all others"
    code, _, err = call("evaluate", trained / "m.wbcclf", images)
    assert code == 0, err
    assert said in err and f"`wbcclf audit {images}` tells more" in err
    size = ("--image-size", 32, "--epochs", 1, "--backbone", "simple_cnn")
    code, _, err = call("train", images, "-o", tmp_path / "m.wbcclf", *size)
    assert code == 0, err
    assert said in err
    code, _, err = call("evaluate", trained / "m.wbcclf", trained / "test")
    assert said not in err


def test_train_warns_of_small_classes_and_evaluate_of_one_file_in_two(trained, tmp_path, call):
    images = shutil.copytree(trained / "test", tmp_path / "test")
    for path in sorted((images / "neutrophil").iterdir())[3:]:
        path.unlink()
    size = ("--image-size", 32, "--epochs", 1, "--backbone", "simple_cnn")
    code, _, err = call("train", images, "-o", tmp_path / "m.wbcclf", *size)
    assert code == 0, err
    assert "neutrophil (3: is in no more than 3 of 5 folds" in err
    shutil.copy(some_picture(images / "neutrophil"), images / "lymphocyte" / "again.png")
    code, _, err = call("evaluate", trained / "m.wbcclf", images)
    assert code == 0, err
    assert "is in several classes, so one label is wrong" in err and "again.png (lymphocyte)" in err
