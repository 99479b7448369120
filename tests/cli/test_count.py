"""`wbcclf count`: the tables, and a run that is killed and started again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from preprocessing.fields import Field
from sklearn.pipeline import Pipeline

import wbcclf
from wbcclf.cli import _count as count_command
from wbcclf.fields import _count, _fields

N_FIELDS = 5 * _count.BLOCK - 3
PATIENCE = 120  # seconds


@pytest.fixture(scope="module")
def smear(tmp_path_factory):
    """Return a folder with fields/ of one or two cells each, and a model of two classes."""
    root = tmp_path_factory.mktemp("smear")
    (root / "fields" / "more").mkdir(parents=True)
    light, dark = (0.1, 0.2, 0.1), (0.3, 0.65, 0.3)
    pictures, labels = [], []
    for number in range(4):
        drawn = Field(160, 220, number).white_cell(60, 80, cytoplasm=(light, dark)[number % 2])
        if number == 3:
            drawn.white_cell(165, 80, cytoplasm=light)
        pictures.append(drawn.red_cell(60, 20).red_cell(110, 140).picture())
        labels.append(("light", "dark")[number % 2])
    for number in range(N_FIELDS):
        folder = root / "fields" / ("more" if number % 2 else ".")
        Image.fromarray(pictures[number % 4]).save(folder / f"{number}.png")
    loader = wbcclf.ImageLoader(24, crop=wbcclf.CellCropper())
    X = loader.transform(pictures * 8)
    classifier = wbcclf.SimpleCNNClassifier(max_epochs=4, device="cpu", random_state=0)
    classifier.fit(X, labels * 8)
    model = Pipeline([("load", loader), ("clf", classifier)])
    wbcclf.save_model(model, root / "m.wbcclf")
    return root


@pytest.fixture(scope="module")
def counted(smear, run):
    """Return a folder with what an undisturbed run has written, and the run."""
    folder = smear / "undisturbed"
    folder.mkdir()
    done = run(*arguments(smear, folder))
    assert done.returncode == 0, done.stderr
    return folder, done


def arguments(smear, folder):
    outputs = ("-o", folder / "count.csv", "--cells", folder / "cells.csv")
    return "count", smear / "m.wbcclf", smear / "fields", *outputs, "--overlay", folder / "seen"


def test_the_tables_and_the_overlays(smear, counted):
    folder, done = counted
    table = pd.read_csv(folder / "count.csv").set_index("class")
    cells = pd.read_csv(folder / "cells.csv")
    assert table.index.tolist() == ["dark", "light", "uncertain"]
    assert table.columns.tolist() == ["cells", "percent", "low", "high", "low_all", "high_all"]
    n_cells = N_FIELDS + N_FIELDS // 4
    assert table.cells.sum() == n_cells == len(cells)
    called = cells[cells.status == "called"].label.value_counts()
    assert table.cells[["dark", "light"]].to_dict() == called.to_dict()
    assert table.percent[:2].sum() == pytest.approx(100, abs=0.02)
    assert cells.columns.tolist()[:6] == [
        "field",
        "error",
        "min_row",
        "min_col",
        "max_row",
        "max_col",
    ]
    of_cells = ["status", "label", "probability", "familiarity"]
    assert cells.columns.tolist()[6:] == [*of_cells, "dark", "light"]
    assert (cells[["dark", "light"]].max(axis=1) == cells.probability).all()
    assert set(cells.field) == {
        f"{'more/' * (number % 2)}{number}.png" for number in range(N_FIELDS)
    }
    assert f"Fields: {N_FIELDS} (0 without a white cell). Cells: " in done.stdout
    assert "95% interval" in done.stdout and str(folder / "cells.csv") in done.stdout
    assert len(list((folder / "seen").rglob("*.jpg"))) == N_FIELDS
    assert not (folder / "count.csv.parts").exists()
    of_model = wbcclf.count_cells(wbcclf.load_model(smear / "m.wbcclf"), smear / "fields")
    assert of_model.table["cells"].tolist() == table.cells.tolist()


def test_a_killed_run_goes_on_where_it_was(smear, counted, tmp_path, monkeypatch, call):
    command = [sys.executable, "-c", "from wbcclf.cli import main; main()"]
    command += map(str, arguments(smear, tmp_path))
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    parts = tmp_path / "count.csv.parts"
    for _ in range(PATIENCE * 500):
        kept = list(parts.rglob("*.entry"))
        if kept or process.poll() is not None:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    n_kept = len(list(parts.rglob("*.entry")))
    assert 1 <= n_kept < 5
    assert not (tmp_path / "count.csv").exists() and not (tmp_path / "cells.csv").exists()

    read = _fields.FieldReader._read
    blocks = []

    def spy(self, sources, n_jobs):
        blocks.append(sources)
        return read(self, sources, n_jobs)

    monkeypatch.setattr(_fields.FieldReader, "_read", spy)
    code, _, err = call(*arguments(smear, tmp_path))
    assert code == 0, err
    assert len(blocks) == 5 - n_kept
    assert not parts.exists()
    undisturbed, _ = counted
    for name in ("count.csv", "cells.csv"):
        assert (tmp_path / name).read_bytes() == (undisturbed / name).read_bytes()
    for path in (undisturbed / "seen").rglob("*.jpg"):
        seen = tmp_path / "seen" / path.relative_to(undisturbed / "seen")
        assert seen.read_bytes() == path.read_bytes()
    # Who is killed while writing an overlay leaves it under its temporary name.
    whole = [path for path in (tmp_path / "seen").rglob("*") if ".part." not in path.name]
    assert len(whole) == N_FIELDS + 1  # and the folder more/


@pytest.mark.parametrize(
    ("fails", "code"), [(RuntimeError("the model failed"), 1), (KeyboardInterrupt(), 130)]
)
@pytest.mark.parametrize("n_read", [0, 2])
def test_a_run_that_failed_keeps_what_it_found_and_says_so(
    smear, tmp_path, monkeypatch, call, fails, code, n_read
):
    read, blocks = _fields.FieldReader._read, []

    def failing(*given):
        blocks.append(0)
        if len(blocks) > n_read:
            raise fails
        return read(*given)

    command = ("count", smear / "m.wbcclf", smear / "fields", "-o", tmp_path / "count.csv")
    parts = tmp_path / "count.csv.parts"
    with monkeypatch.context() as patch:
        patch.setattr(_fields.FieldReader, "_read", failing)
        ended, _, err = call(*command)
    assert ended == code
    if n_read == 0:  # there is nothing to go on from
        assert not list(tmp_path.iterdir()) and "is kept" not in err
        return
    assert len(list(parts.rglob("*.entry"))) == n_read
    assert f"what was found is kept in {parts}. Run the same command again to resume" in err
    assert call(*command)[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["count.csv"]


def test_so_does_one_that_a_broken_field_stopped(smear, tmp_path, call):
    shutil.copytree(smear / "fields" / "more", tmp_path / "fields")
    (tmp_path / "fields" / "z.png").write_bytes(b"no image")  # in the last block
    command = ("count", smear / "m.wbcclf", tmp_path / "fields", "-o", tmp_path / "count.csv")
    parts = tmp_path / "count.csv.parts"
    code, _, err = call(*command, "--on-error", "raise")
    assert code == 1 and "z.png" in err and f"is kept in {parts}" in err
    assert call(*command)[0] == 0 and not parts.exists()
    for path in (tmp_path / "fields").glob("?*.png"):
        if path.name != "z.png":
            path.unlink()
    assert call(*command, "--on-error", "raise")[0] == 1 and not parts.exists()


def test_a_field_that_was_changed_is_read_again(smear, tmp_path, monkeypatch, call):
    fields = tmp_path / "fields"
    shutil.copytree(smear / "fields" / "more", fields)
    output = tmp_path / "count.csv"
    command = ("count", smear / "m.wbcclf", fields, "-o", output)
    with monkeypatch.context() as patch:
        patch.setattr(count_command, "save", lambda *_: 1 / 0)  # after all was found
        code, _, err = call(*command)
    assert code == 1 and "what was found is kept in" in err
    n_parts = len(list((tmp_path / "count.csv.parts").rglob("*.entry")))
    assert n_parts == -(-len(list(fields.iterdir())) // _count.BLOCK)
    shutil.copy(smear / "fields" / "0.png", fields / "1.png")  # another picture, and time
    os.utime(fields / "1.png", (0, 0))
    read, blocks = _fields.FieldReader._read, []
    monkeypatch.setattr(
        _fields.FieldReader, "_read", lambda *given: blocks.append(0) or read(*given)
    )
    code, _, err = call(*command)
    assert code == 0, err
    assert len(blocks) == 1


@pytest.fixture
def evaluated(smear, tmp_path, call):
    """Return a folder with test/, some labelled cells, and figures.json, what is right of them."""
    for name in ("dark", "light"):
        (tmp_path / "test" / name).mkdir(parents=True)
    for number in range(8):
        label = ("light", "dark")[number % 2]
        source = smear / "fields" / ("more" if number % 2 else ".") / f"{number}.png"
        shutil.copy(source, tmp_path / "test" / label)
    figures = tmp_path / "figures.json"
    code, _, err = call("evaluate", smear / "m.wbcclf", tmp_path / "test", "--json", figures)
    assert code == 0, err
    return tmp_path


def corrected(model, folder):
    options = ("-o", folder / "count.csv", "--evaluation", folder / "figures.json")
    return "count", model, folder / "test", *options


def test_what_evaluate_has_written_corrects_the_count(smear, evaluated, call):
    code, out, err = call(*corrected(smear / "m.wbcclf", evaluated))
    assert code == 0 and "warning" not in err, err
    table = pd.read_csv(evaluated / "count.csv")
    assert table.columns.tolist()[-3:] == ["corrected", "corrected_low", "corrected_high"]
    assert table.corrected[:2].sum() == pytest.approx(100, abs=0.02) and np.isnan(
        table.corrected[2]
    )
    assert "corrected" in out


def test_an_evaluation_corrects_the_counts_of_its_model_alone(smear, evaluated, call):
    shutil.copy(smear / "m.wbcclf", evaluated / "copy.wbcclf")
    assert call(*corrected(evaluated / "copy.wbcclf", evaluated))[0] == 0
    model = wbcclf.load_model(smear / "m.wbcclf")
    next(model[-1].net_.module_.parameters()).data.mul_(1.01)
    wbcclf.save_model(model, evaluated / "other.wbcclf")
    (evaluated / "count.csv").unlink()
    code, _, err = call(*corrected(evaluated / "other.wbcclf", evaluated))
    assert code == 1 and "figures.json is of another model than" in err
    assert f"`wbcclf evaluate {evaluated / 'other.wbcclf'} IMAGES --json FILE`" in err
    assert not (evaluated / "count.csv").exists()
    figures = json.loads((evaluated / "figures.json").read_text())
    del figures["model_sha256"]
    (evaluated / "figures.json").write_text(json.dumps(figures))
    code, _, err = call(*corrected(evaluated / "other.wbcclf", evaluated))
    assert code == 0 and "figures.json does not say which model it is of" in err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no JSON", "figures.json is not a JSON file"),
        ("[" * 100_000, "figures.json is not a JSON file"),
        ("[1]", "figures.json holds no confusion matrix. Write one with `wbcclf evaluate"),
        ('{"confusion": [[1]]}', "evaluation must be what evaluate returned"),
        ('{"classes": 5, "confusion": [[1]]}', "evaluation['classes'] must be a list of classes"),
        ('{"classes": ["a", "b"], "confusion": [[1], [1, 2]]}', "rows of different lengths"),
    ],
)
def test_a_file_that_is_no_evaluation(smear, evaluated, call, text, says):
    (evaluated / "figures.json").write_text(text)
    code, _, err = call(*corrected(smear / "m.wbcclf", evaluated))
    assert code == 1 and says in err
    assert sorted(path.name for path in evaluated.iterdir()) == ["figures.json", "test"]


def test_classes_that_are_not_white(smear, tmp_path, call):
    command = ("count", smear / "m.wbcclf", smear / "fields" / "more", "-o", tmp_path / "c.csv")
    code, out, err = call(*command, "--not-white", "dark")
    assert code == 0, err
    table = pd.read_csv(tmp_path / "c.csv").set_index("class")
    assert table.index.tolist() == ["light", "dark", "uncertain"]
    assert table.percent["light"] == 100
    assert table.percent["dark"] == pytest.approx(
        100 * table.cells["dark"] / table.cells["light"], abs=0.01
    )
    assert table.low_all.isna().tolist() == [False, True, True]
    assert "dark, per 100 white cells" in out and "light, per" not in out
    code, _, err = call(*command, "--not-white", "erythroblast")
    assert (
        code == 1
        and "erythroblast, unknown to the model. The model's classes are dark, light" in err
    )


def test_a_scan_larger_than_the_limit_of_pixels(smear, tmp_path, call):
    field = smear / "fields" / "0.png"
    command = ("count", smear / "m.wbcclf", field, "-o", tmp_path / "c.csv", "--max-pixels")
    code, _, err = call(*command, 160 * 220 - 1)
    assert code == 1 and "220 x 160 pixels are more than max_pixels=35199" in err
    assert "--max-pixels" in err
    assert call(*command, 160 * 220)[0] == 0


def test_files_that_cannot_be_read_are_in_the_table_of_cells(smear, tmp_path, call):
    fields = tmp_path / "fields"
    fields.mkdir()
    shutil.copy(smear / "fields" / "0.png", fields)
    (fields / "=1.png").write_bytes(b"no image")
    (fields / "notes.txt").write_text("none")
    cells = tmp_path / "cells.csv"
    command = ("count", smear / "m.wbcclf", fields, "-o", tmp_path / "c.csv", "--cells", cells)
    code, _, err = call(*command)
    assert code == 0 and "1 of 2 images that cannot be read" in err and "notes.txt" in err
    assert "may take =1.png for a formula" in err
    rows = pd.read_csv(cells)
    assert rows.field.tolist() == ["0.png", "=1.png", "notes.txt"]
    assert rows.error.isna().tolist() == [True, False, False]
    assert rows.status.isna().tolist() == [False, True, True]
    code, _, err = call(*command, "--on-error", "raise")
    assert code == 1 and "Leave them out with --on-error warn" in err
    assert call(*command, "--on-error", "skip")[2].count("warning") == 1  # of the formula


def test_wrong_options(smear, tmp_path, call):
    (tmp_path / "empty").mkdir()
    for given, message in (
        ((tmp_path / "empty",), "there is no image to load"),
        ((tmp_path / "nowhere",), "nowhere does not exist"),
        ((smear / "fields", "--overlay", smear / "fields" / "seen"), "is where the fields are"),
        ((smear / "fields", "--cells", tmp_path / "no" / "cells.csv"), "does not exist"),
        ((smear / "fields", "--overlay", smear / "m.wbcclf"), "m.wbcclf' is a file"),
        ((smear / "fields", "--evaluation", tmp_path), "is a directory"),
        ((smear / "fields", "--min-probability", 2), "--min-probability"),
        ((smear / "fields", "--max-pixels", 0), "--max-pixels"),
    ):
        code, _, err = call("count", smear / "m.wbcclf", *given, "-o", tmp_path / "c.csv")
        assert code in (1, 2) and message in err
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize("command", ["count", "predict", "evaluate"])
def test_model_and_images_the_wrong_way_round(smear, tmp_path, call, command):
    fields, model = smear / "fields", smear / "m.wbcclf"
    for images in (fields, fields / "0.png"):
        option = "--json" if command == "evaluate" else "-o"
        code, _, err = call(command, images, model, option, tmp_path / "result")
        assert (
            code == 1 and f"{images} is not a model file, but {model} is. Give the model f" in err
        )
    assert not list(tmp_path.iterdir())


def test_the_table_goes_to_a_pipe(smear, start):
    done = start("count", smear / "m.wbcclf", smear / "fields" / "0.png", "-o", "/dev/stdout")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("class,cells,percent,low,high,low_all,high_all\n")


def test_no_result_is_written_over_what_is_read(smear, call, tmp_path):
    field = smear / "fields" / "0.png"
    before = field.read_bytes()
    model, same = smear / "m.wbcclf", tmp_path / "same.csv"
    for command, output, says in (
        (("count", model, smear / "fields"), ("-o", field), field),
        (("count", model, smear / "fields"), ("-o", same, "--cells", same), None),
        (("count", model, smear / "fields"), ("-o", same, "--cells", model), model),
        (("predict", model, smear / "fields"), ("-o", field), field),
    ):
        code, _, err = call(*command, *output)
        assert code != 0
        expected = f"{says} would be overwritten, but it is also an input"
        if says is None:
            expected = f"--cells {same}: it is also --output"
        assert expected in " ".join(err.split())
    assert field.read_bytes() == before and not same.exists()
