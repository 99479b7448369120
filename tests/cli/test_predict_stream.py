"""`wbcclf predict` on many files: killed runs, formats, and memory that does not grow."""

import csv
import json
import os
import shutil
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from PIL import Image
from sklearn.utils import Bunch

from wbcclf import SimpleCNNClassifier, _predictions, load_model, make_blood_cells, save_model
from wbcclf._predictions import Predictions, pack
from wbcclf.cli import _predict
from wbcclf.cli._listing import list_images, walk
from wbcclf.cli._tables import Format, Row, format_of, write_table

# Runs commands one after the other, each in a fork that is killed at a rename, after what is to be
# renamed was cut in half. Prints how each ended, and what then lies beside its output.
KILLED = """
import json, os, signal, sys
from pathlib import Path
import wbcclf.classifiers.training._fit  # what the forks import late: torch, skorch
from wbcclf.cli import _predict, main

_predict.CHUNK = 8
replace = os.replace

def kill_or_replace(old, new):
    global n_left
    n_left -= 1
    if n_left == 0:
        os.truncate(old, os.path.getsize(old) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    replace(old, new)

ended = []
for n_left, *arguments in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        os.replace = kill_or_replace
        sys.argv[1:] = arguments
        main()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    folder = Path(arguments[arguments.index("-o") + 1]).parent
    ended.append([os.WTERMSIG(status), os.listdir(folder)])
print(json.dumps(ended))
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Return a folder with a model, and cells/: 36 images in two folders, two broken, one note."""
    root = tmp_path_factory.mktemp("stream")
    cells = make_blood_cells(40, classes=2, image_size=32, random_state=0)
    clf = SimpleCNNClassifier(max_epochs=1, device="cpu", random_state=0)
    save_model(clf.fit(cells.images, cells.target), root / "m.wbcclf")
    for number, image in enumerate(cells.images[:36]):
        path = root / "cells" / f"{number % 2}" / f"cell{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    for number in (5, 20):
        (root / "cells" / f"{number % 2}" / f"cell{number}.png").write_bytes(b"no image")
    (root / "cells" / "note.txt").touch()
    return root


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(_predict, "CHUNK", 8)  # five parts


@pytest.fixture
def computed(monkeypatch):
    """Return a list of the files of every part that is computed in this process."""
    noted = []
    monkeypatch.setattr(
        _predictions, "pack", lambda files, *rest: noted.append(files) or pack(files, *rest)
    )
    return noted


def arguments(root, output, *options):
    return ("predict", root / "m.wbcclf", root / "cells", "-o", output, *options)


@pytest.fixture(scope="module")
def expected(root, tmp_path_factory):
    """Return the table of a run that is not killed, in parts of 256 files."""
    output = tmp_path_factory.mktemp("expected") / "p.csv"
    _predict.predict([root / "m.wbcclf", root / "cells"], output=output)
    return table(output)


def table(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def same(output, expected):
    """Compare tables: sums over batches of another size are rounded otherwise."""
    found = table(output)
    assert [row[:3] for row in found] == [row[:3] for row in expected]
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        assert [bool(value) for value in ours] == [bool(value) for value in theirs]
        for a, b in zip(ours[3:], theirs[3:], strict=True):
            assert not a or float(a) == pytest.approx(float(b), abs=2e-3)


@pytest.fixture(scope="module")
def killed(root):
    """Return a folder with the output of killed runs: two/p.csv of two, one/p.csv of one."""
    for name in ("two", "one"):
        (root / name).mkdir()
    # The first ends amid the third part. To the second, three more remain, then what is no image,
    # then the table, in which it ends. The third ends amid its first part.
    runs = [
        [n_left, *map(str, arguments(root, root / name / "p.csv"))]
        for name, n_left in (("two", 3), ("two", 5), ("one", 1))
    ]
    command = [sys.executable, "-W", "ignore", "-c", KILLED, json.dumps(runs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [[9, ["p.csv.parts"]]] * 3
    return root


def test_a_killed_run_goes_on_with_nothing_lost_or_doubled(killed, expected, call, computed):
    output = killed / "two" / "p.csv"
    code, out, err = call(*arguments(killed, output))
    assert code == 0, err
    assert not computed
    same(output, expected)
    assert os.listdir(output.parent) == ["p.csv"]
    assert "Images predicted: 34 (" in out and "left out, 2 of 36 images" in err


def test_a_run_that_is_killed_amid_its_first_part_begins_anew(killed, expected, call, computed):
    output = killed / "one" / "p.csv"
    assert call(*arguments(killed, output))[0] == 0
    assert len(computed) == 5
    same(output, expected)
    assert os.listdir(output.parent) == ["p.csv"]


@pytest.fixture
def interrupt(monkeypatch):
    """Return a function after which Ctrl+C comes when so many parts are to be written."""

    def interrupt(n_parts):
        write, n_left = _predictions.Store.write, [n_parts]

        def interrupted(*arguments):
            n_left[0] -= 1
            if n_left[0] == 0:
                raise KeyboardInterrupt
            write(*arguments)

        monkeypatch.setattr(_predictions.Store, "write", interrupted)

    return interrupt


@pytest.mark.filterwarnings("always:Damaged files:UserWarning")
def test_an_interrupted_run_says_how_to_go_on(root, expected, tmp_path, call, interrupt):
    output = tmp_path / "p.csv"
    interrupt(3)
    code, _, err = call(*arguments(root, output))
    assert code == 130 and f"what was found is kept in {output}.parts. Run the same" in err
    # A part that was damaged meanwhile is not taken.
    path = next(tmp_path.rglob("*.entry"))
    path.write_bytes(path.read_bytes()[:-1])
    code, _, err = call(*arguments(root, output))
    assert code == 0 and "Damaged files in" in err
    same(output, expected)
    assert os.listdir(tmp_path) == ["p.csv"]


def test_what_changed_meanwhile_is_predicted_anew(root, tmp_path, call, computed):
    folder = shutil.copytree(root / "cells", tmp_path / "cells")
    model = tmp_path / "m.wbcclf"
    shutil.copy(root / "m.wbcclf", model)
    output = tmp_path / "p.csv"

    def n_computed():
        computed.clear()
        code, _, err = call("predict", model, folder, "-o", output, "--on-error", "raise")
        assert code == 1 and "2 of 36 images cannot be read" in err  # so that the parts are kept
        return len(computed)

    assert n_computed() == 5
    assert n_computed() == 0
    os.utime(folder / "0" / "cell0.png")
    assert n_computed() == 1
    (folder / "0" / "cell2.png").chmod(0o600)  # which may let it be read at last
    assert n_computed() == 1
    (folder / "1" / "cell35.png").unlink()
    shutil.copy(folder / "1" / "cell1.png", folder / "1" / "cell37.png")
    assert n_computed() == 1
    save_model(load_model(model).set_params(batch_size=7), model)
    assert n_computed() == 5
    assert len(os.listdir(f"{output}.parts")) == 2  # each model has its own


def test_a_run_that_can_read_nothing_leaves_nothing(root, tmp_path, call):
    (tmp_path / "a.png").write_bytes(b"no image")
    output = tmp_path / "p.csv"
    code, _, err = call("predict", root / "m.wbcclf", tmp_path, "-o", output)
    assert code == 1 and "1 of 1 images cannot be read" in err and "is kept in" not in err
    assert os.listdir(tmp_path) == ["a.png"]


def test_a_file_in_the_place_of_the_parts_is_named(root, tmp_path, call):
    place = tmp_path / "p.csv.parts"
    place.write_text("mine")
    code, _, err = call(*arguments(root, tmp_path / "p.csv"))
    assert code == 1 and f"{place} is a file" in err and "--output" in err
    assert place.read_text() == "mine"


def test_parts_that_another_command_removes_are_told(root, tmp_path, call, monkeypatch):
    output = tmp_path / "p.csv"
    # Between the summary and the table.
    monkeypatch.setattr(_predict, "root_of", lambda images: shutil.rmtree(f"{output}.parts"))
    code, _, err = call("predict", root / "m.wbcclf", root / "cells", "-o", output)
    assert code == 1 and "Parts are gone from" in err and "Run this one again" in err, err
    assert "could not be written" not in err and not os.listdir(tmp_path)


def test_the_table_may_lie_among_the_images(root, expected, tmp_path, call, computed, interrupt):
    folder = shutil.copytree(root / "cells", tmp_path / "cells")
    output = folder / "p.csv"
    interrupt(4)
    assert call("predict", root / "m.wbcclf", folder, "-o", output)[0] == 130
    assert (folder / "p.csv.parts").is_dir()
    computed.clear()
    code, _, err = call("predict", root / "m.wbcclf", folder, "-o", output)
    assert code == 0, err
    assert len(computed) == 2
    same(output, expected)


def test_all_formats_say_the_same(root, expected, tmp_path, call):
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    lines, columns, figures = tmp_path / "p.jsonl", tmp_path / "p", tmp_path / "f.json"
    assert call(*arguments(root, lines, "--json", figures))[0] == 0
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [row["file"] for row in rows] == [row[0] for row in expected[1:]]
    assert [row["label"] or "" for row in rows] == [row[1] for row in expected[1:]]
    assert [row["error"] or "" for row in rows] == [row[2] for row in expected[1:]]
    assert call(*arguments(root, columns, "--format", "parquet"))[0] == 0
    found = pq.read_table(columns).to_pylist()
    assert list(found[0]) == expected[0]
    for ours, theirs in zip(found, rows, strict=True):
        shares = theirs.pop("probabilities") or {"lymphocyte": None, "neutrophil": None}
        assert ours == pytest.approx(theirs | shares, nan_ok=True)
    written = json.loads(figures.read_text())
    assert written["n_images"] == len(written["files"]) == 34
    assert [each["label"] for each in written["files"]] == [
        row["label"] for row in rows if row["label"]
    ]
    assert [os.path.basename(each["file"]) for each in written["left_out"]] == [
        *("cell20.png", "cell5.png", "note.txt")
    ]


def test_the_suffix_is_the_format_unless_told(tmp_path, monkeypatch, call, root):
    chosen = {
        ("p.csv", None): Format.csv,
        ("p.JSONL", None): Format.jsonl,
        ("p.parquet", None): Format.parquet,
        ("p.txt", None): Format.csv,
        ("p", Format.jsonl): Format.jsonl,
        ("p.csv", Format.csv): Format.csv,
    }
    for (name, asked), expected in chosen.items():
        assert format_of(tmp_path / name, asked, ["a"]) is expected
    code, _, err = call(*arguments(root, tmp_path / "p.csv", "--format", "jsonl"))
    assert code == 1
    assert "--format jsonl, but" in err and "Leave out --format, or name the file p.jsonl" in err
    with pytest.raises(ValueError, match="is called error, label, as is another column"):
        format_of(tmp_path / "p.parquet", None, ["label", "error", "a"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, err = call(*arguments(root, tmp_path / "p.parquet"))
    assert code == 1 and 'pip install "wbcclf[parquet]"' in err
    assert not os.listdir(tmp_path)


def test_numbers_stay_numbers_and_names_that_are_not_utf8_stay_legible(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    rows = [Row("a\udcff.png", -1, None, 0.5, [0.25, 0.75]), Row("b.png", None, "why", None, None)]
    write_table(tmp_path / "p", Format.parquet, iter(rows), [3, 7], None)
    found = pq.read_table(tmp_path / "p")
    assert found.column_names == ["file", "label", "error", "familiarity", "3", "7"]
    assert found.column("label").to_pylist() == [-1, None]
    assert found.column("file").to_pylist() == ["a\\xff.png", "b.png"]
    assert found.column("7").to_pylist() == [0.75, None]
    write_table(tmp_path / "l", Format.jsonl, iter(rows), [3, 7], None)
    first, second = map(json.loads, (tmp_path / "l").read_text().splitlines())
    assert first["probabilities"] == {"3": 0.25, "7": 0.75} and first["label"] == -1
    assert second["probabilities"] is None and first["file"] == "a\\xff.png"


def test_memory_does_not_grow_with_the_files(tmp_path):
    def fake(todo):
        for key, files in todo:
            n = len(files)
            found = Bunch(
                labels=np.repeat("a", n),
                probabilities=np.ones((n, 1)),
                familiarity=None,
                found=None,
                skipped=[],
            )
            yield key, pack(files, files, found)

    def peak(n_files):
        listing = (
            (f"{n_files}/cell{number:07}.png", "no image" if number % 2 else None)
            for number in range(n_files)
        )
        tracemalloc.start()
        found = Predictions(tmp_path / str(n_files), "", 64)
        found.complete(listing, fake)
        n_rows = sum(1 for _ in _predict.each_row(found, None))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert n_rows == n_files
        return peak

    few, many = peak(500), peak(4000)
    assert many < few + 4000 * 20  # bytes: less than the names of the files would take


def test_a_walk_gives_what_a_list_gives(root, tmp_path):
    listing = list_images([root / "cells"])
    found = list(walk([root / "cells"]))
    assert [path for path, reason in found if reason is None] == listing.paths
    assert [item for item in found if item[1]] == listing.skipped
    assert [os.path.basename(path) for path in listing.paths[:6]] == [
        f"cell{number}.png" for number in range(0, 12, 2)
    ]
    assert not [path for path, _ in walk([root], own=root / "cells") if "cells" in path]
