"""Files and classes are called anything, and tables go anywhere."""

import csv
import os

import pandas as pd
import pytest
from PIL import Image

STRANGE = ["\x1b[31mred", "\u202ethgir", "bell\a", "bas\u00f6phil", ":smile:"]
CLASSES = [*STRANGE, *(f"a long name for a class of cells {number:02}" for number in range(15))]


@pytest.fixture(scope="module")
def twenty(tmp_path_factory, start):
    """Train on twenty classes where stdout takes ASCII alone; return the folder and the run."""
    root = tmp_path_factory.mktemp("twenty")
    for number, name in enumerate(CLASSES):
        for copy in range(2):
            path = root / "cells" / name / f"{copy}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (number * 12, 0, 0)).save(path)
    arguments = ("train", root / "cells", "-o", root / "m", "--image-size", 16, "--epochs", 1)
    done = start(*arguments, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    return root, done


def test_names_are_printed_escaped_where_a_terminal_would_obey_or_not_show_them(twenty):
    _, done = twenty
    for shown in (r"\x1b[31mred 2", r"\u202ethgir 2", r"bell\x07 2", r"bas\xf6phil 2", ":smile: 2"):
        assert shown in done.stdout
    assert done.stdout.isascii() and "\x1b" not in done.stdout + done.stderr


def test_tables_are_whole_where_stdout_is_no_terminal(twenty, call):
    root, _ = twenty
    code, out, err = call("evaluate", root / "m", root / "cells")
    assert code == 0, err
    assert "…" not in out
    [header] = [line for line in out.splitlines() if "true \\ predicted" in line]
    for name in CLASSES[3:]:
        assert f" {name} " in header
        assert sum(line.startswith(f"│ {name} ") for line in out.splitlines()) == 2
    assert "\x1b" not in out and "\u202e" not in out


def test_the_table_of_predictions_keeps_every_name(trained, tmp_path, call):
    names = ["a\rb.png", "a\nb.png", 'qu"o;t,e.png', "=1+1.png", "@x.png", "\tx.png", "  y.png"]
    image = (trained / "new" / "0.png").read_bytes()
    for name in names:
        (tmp_path / "new").mkdir(exist_ok=True)
        (tmp_path / "new" / name).write_bytes(image)
    (tmp_path / "new" / "\x1b[31m.png").write_bytes(b"no image")
    output = tmp_path / "out.csv"
    code, _, err = call("predict", trained / "m.wbcclf", tmp_path / "new", "-o", output)
    assert code == 0, err
    assert r"\x1b[31m.png (not a" in err and "\x1b" not in err
    assert "may take" in err and "for a formula (3 such names" in err
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = pd.read_csv(output)
    assert sorted(row["file"] for row in rows) == sorted([*names, "\x1b[31m.png"])
    assert table.file.tolist() == [row["file"] for row in rows]
    assert table.label.isna().sum() == table.error.notna().sum() == 1
    assert table.lymphocyte.dtype == float
