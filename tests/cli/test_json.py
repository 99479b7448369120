"""Every command as a process of its own, and the JSON file that it writes."""

import json
import signal
import subprocess
import sys
import time
import tracemalloc
import urllib.request

import numpy as np
import pytest
import typer
from PIL import Image
from preprocessing.fields import Field

import wbcclf
from wbcclf.backbones import list_backbones
from wbcclf.cli import _demo
from wbcclf.cli._main import COMMANDS, app
from wbcclf.cli._output import save_figures, write_json
from wbcclf.exporting import _page
from wbcclf.recipes import list_recipes

VENDORED = all((_page._RUNTIME / name).is_file() for name in _page.RUNTIME_FILES)
BY_TENS = r"(\d)\.png"  # the groups of the pictures of `trained`: ten, by their last digit


@pytest.fixture(scope="module")
def smear(tmp_path_factory):
    """Return a folder with three fields: one cell, two cells, and none."""
    root = tmp_path_factory.mktemp("smear")
    light, dark = (0.1, 0.2, 0.1), (0.3, 0.65, 0.3)
    drawn = [Field(160, 220, number).red_cell(60, 20).red_cell(110, 140) for number in range(3)]
    drawn[0].white_cell(60, 80, cytoplasm=light)
    drawn[1].white_cell(60, 80, cytoplasm=dark).white_cell(165, 80, cytoplasm=light)
    for number, field in enumerate(drawn):
        Image.fromarray(field.picture()).save(root / f"{number}.png")
    return root


@pytest.fixture
def ran(run, tmp_path):
    """Return a function that runs a command with --json: (what it printed, what the file holds)."""

    def ran(*arguments):
        figures = tmp_path / "figures.json"
        done = run(*arguments, "--json", figures, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert f"Figures: {figures}" in done.stdout
        # Strictly: NaN and Infinity are no JSON.
        found = json.loads(figures.read_text(), parse_constant=pytest.fail)
        return " ".join(done.stdout.split()), found

    return ran


def counts(classes):
    return {row["label"]: row["n_images"] for row in classes}


def check_explore(ran, trained, **folders):
    out, found = ran("explore", trained / "train", "--groups", BY_TENS)
    assert counts(found["classes"]) == {"lymphocyte": 30, "neutrophil": 30}
    assert found["sizes"] == [{"height": 48, "width": 48, "images": 60}]
    assert "48x48 (60)" in out
    for row in found["classes"]:
        assert f"{row['effective_cells']:.1f}" in out


def check_audit(ran, trained, **folders):
    out, found = ran("audit", trained / "train", "--groups", BY_TENS)
    assert [row["n_pictures"] for row in found["classes"]] == [30, 30]
    for each in found["findings"]:
        assert " ".join(each["what"].split()) in out


def check_groups(ran, trained, tmp_path, read_csv, **folders):
    out, found = ran("groups", trained / "test", "-o", tmp_path / "groups.csv")
    assert (
        f"{found['n_images']} images in {found['n_groups']} groups: one cell, or one field, "
        f"each. {found['n_alone']} images are alone." in out
    )
    rows = read_csv(tmp_path / "groups.csv")
    assert [each["group"] for each in found["files"]] == [int(row["group"]) for row in rows]
    assert all((tmp_path / each["file"]).is_file() for each in found["files"])
    assert found["left_out"] == found["unread"] == []


def check_split(ran, trained, tmp_path, read_csv, **folders):
    out, found = ran("split", trained / "train", "-o", tmp_path / "s.csv", "--groups", BY_TENS)
    rows = read_csv(tmp_path / "s.csv")
    columns = ("label", "group", "part")
    assert [[each[name] for name in columns] for each in found["files"]] == [
        [row[name] for name in ("class", "group", "part")] for row in rows
    ]
    for train, test in zip(found["train"], found["test"], strict=True):
        assert train["label"] == test["label"] and train["n_cells"] + test["n_cells"] == 10
        assert train["n_images"] + test["n_images"] == 30
        cells = (part[name] for part in (train, test) for name in ("n_images", "n_cells"))
        assert " │ ".join([train["label"], *map(str, cells)]) in out.replace("  ", " ")


def check_train(ran, trained, tmp_path, **folders):
    model = tmp_path / "m.wbcclf"
    out, found = ran(
        *("train", trained / "train", "-o", model, "--image-size", 32, "--epochs", 2),
        *("--early-stopping", "--groups", r"(\d+)\.png", "--lr", 0.002),
    )
    assert counts(found["classes"]) == {"lymphocyte": 30, "neutrophil": 30}
    assert [row["n_cells"] for row in found["classes"]] == [30, 30]
    held = found["held_out"]
    low, high = held["accuracy_interval"]
    assert (
        f"watched {held['n_groups']} groups, in {held['n_images']} images: accuracy "
        f"{held['accuracy']:.3f} (95% interval by group {low:.2f} to {high:.2f})" in out
    )
    last = found["history"][-1]
    assert f"valid_loss {last['valid_loss']:.3f}" in out
    assert found["n_epochs"] == len(found["history"]) == wbcclf.load_model(model)[-1].n_iter_
    assert found["parameters"]["loader__image_size"] == 32
    assert found["parameters"]["clf__lr"] == 0.002
    assert found["parameters"]["clf__augment"] == "Augmenter()"
    assert 0 < found["seconds"] < 300
    assert found["versions"]["wbcclf"] == wbcclf.__version__
    assert f"Model: {found['model']}" in out
    assert f"Network: {found['backbone']}, from" in out


def check_evaluate(ran, trained, tmp_path, **folders):
    report, card, audit = (tmp_path / name for name in ("page.html", "card.md", "audit.json"))
    audit.write_text(
        '{"findings": [{"kind": "k", "severity": "note", "what": "Seen.", "advice": "Look."}]}'
    )
    out, found = ran(
        *("evaluate", trained / "m.wbcclf", trained / "test", "--groups", BY_TENS),
        *("--report", report, "--card", card, "--audit", audit),
    )
    assert "Seen." in report.read_text()
    assert f"Independent cells: {found['n_groups']}, in {found['n_images']} images" in out
    for name, text in (("kappa", "Cohen's kappa"), ("log_loss", "log loss")):
        low, high = found[f"{name}_interval"]
        assert f"{text} {found[name]:.3f} ({low:.2f} to {high:.2f})" in out
    assert f"Calibration error {found['calibration']['error']:.3f}" in out
    assert f"{found['model_sha256']}" in report.read_text()
    assert f"{found['images_sha256']}" in card.read_text()


def check_explain(ran, trained, tmp_path, **folders):
    out, found = ran("explain", trained / "m.wbcclf", trained / "test", "-o", tmp_path / "p.html")
    assert len(found["files"]) == 20
    assert {each["label"] for each in found["classes"][:-1]} == {
        each["predicted"] for each in found["files"]
    }
    total = found["classes"][-1]
    assert f"│ {total['inside']:.0%}" in out and f"│ {total['cell_share']:.0%}" in out


def check_adapt(ran, trained, tmp_path, **folders):
    # Without labels, which is done in seconds; test_adapt.py has the figures with labels.
    new = tmp_path / "new.wbcclf"
    out, found = ran("adapt", trained / "m.wbcclf", trained / "new", "-o", new)
    assert f"{found['n_images']} images without labels" in out and found["classes"] is None
    assert found["is_adapted"] == ("Adapted to 12 images" in out)
    assert found["is_adapted"] == (found["adaptation"] is not None)
    assert f"Model: {found['model']}" in out


def check_predict(ran, trained, tmp_path, read_csv, **folders):
    (trained / "new" / "note.txt").write_text("no picture")
    table = tmp_path / "p.csv"
    out, found = ran("predict", trained / "m.wbcclf", trained / "new", "-o", table)
    (trained / "new" / "note.txt").unlink()
    rows = read_csv(table)
    assert rows.pop()["file"] == "note.txt"
    assert [each["file"] for each in found["left_out"]] == [str(trained / "new" / "note.txt")]
    assert f"Images predicted: {found['n_images']} (" in out
    for label, n_images in counts(found["classes"]).items():
        assert f"{label} {n_images}" in out
    assert len(found["files"]) == len(rows) == 12
    for each, row in zip(found["files"], rows, strict=True):
        assert each["file"] == str(trained / "new" / row["file"])
        assert each["label"] == row["label"]
        for name, share in each["probabilities"].items():
            assert f"{share:.6f}" == row[name]
    if found["familiarity"] is not None:
        assert f"Mean familiarity: {found['familiarity']:.2f}" in out


def check_count(ran, trained, tmp_path, smear, **folders):
    out, found = ran("count", trained / "m.wbcclf", smear, "-o", tmp_path / "c.csv")
    assert (
        f"Fields: {found['n_fields']} ({found['n_empty_fields']} without a white cell). Cells: "
        f"{found['n_called']} called, {found['n_uncertain']} uncertain, {found['n_border']} not "
        "counted" in out
    )
    assert (found["n_fields"], found["n_empty_fields"]) == (3, 1)
    assert [row["label"] for row in found["classes"]] == ["lymphocyte", "neutrophil", "uncertain"]
    assert sum(row["n_cells"] for row in found["classes"]) == len(found["cells"]) == 3
    assert found["classes"][-1]["percent"] is None  # in the table it is empty
    for cell in found["cells"]:
        assert cell["field"] in found["fields"]
        assert sum(cell["probabilities"].values()) == pytest.approx(1)


def check_serve(trained, tmp_path, **folders):
    # A process of its own, until Ctrl-C. The file is there when the server listens.
    figures = tmp_path / "f.json"
    arguments = ["serve", str(trained / "m.wbcclf"), "--port", "0", "--json", str(figures)]
    command = [sys.executable, "-c", "from wbcclf.cli import main; main()", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        while not figures.exists() and process.poll() is None:
            time.sleep(0.05)
        found = json.loads(figures.read_text())
        with urllib.request.urlopen(f"{found['address']}/api/model", timeout=60) as answer:
            told = json.load(answer)
        with urllib.request.urlopen(found["address"], timeout=60) as answer:
            assert b"<h1>White blood cells</h1>" in answer.read()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err == ""
    assert {"address": found["address"]} | told == found
    assert f"Address: {found['address']} (" in out and f"Figures: {figures}" in out
    assert found["model"] == str(trained / "m.wbcclf") and found["model_sha256"]
    assert found["classes"] == ["lymphocyte", "neutrophil"]


def check_export(ran, trained, tmp_path, **folders):
    pytest.importorskip("onnxruntime", reason="export needs onnxruntime")
    path, page = tmp_path / "m.onnx", tmp_path / "page"
    with_page = VENDORED * ["--page", page]
    out, found = ran(
        *("export", trained / "m.wbcclf", trained / "train", "-o", path, "--int8"),
        *("--allow-loss", 100, "--groups", BY_TENS, *with_page),
    )
    assert found["page"] == (str(page / "index.html") if VENDORED else None)
    assert (f"Page: {found['page']}" in out) == page.is_dir() == VENDORED
    assert found["n_images"] == 45 + 60 and f"Compared on {found['n_images']} pictures" in out
    assert found["n_bytes"] == path.stat().st_size
    assert f"Model: {path} ({found['n_bytes'] / 1e6:.1f} MB)" in out
    of_int8 = found["int8"]
    assert [row["n_groups"] for row in of_int8["classes"]] == [5, 5]
    for row in of_int8["classes"]:
        assert f"{row['float32']:.3f}" in out and f"{row['int8']:.3f}" in out
    assert of_int8["n_trained_on"] == 30  # the test is not about accuracy
    assert wbcclf.onnx.load(path, n_threads=1).metadata["int8"] is True


def check_demo(call, tmp_path, monkeypatch, **folders):
    pytest.importorskip("matplotlib", reason="the demo's confusion matrix needs matplotlib")
    # In this process, to draw fewer cells: as a process of its own it takes most of a minute.
    monkeypatch.setattr(_demo, "CELLS", {"train": 80, "test": 40, "unlabelled": 6})
    code, out, err = call("demo", "-o", tmp_path / "demo", "--json", tmp_path / "figures.json")
    assert code == 0, err
    out, found = " ".join(out.split()), json.loads((tmp_path / "figures.json").read_text())
    training, evaluation, predictions = (
        found[step] for step in ("training", "evaluation", "predictions")
    )
    assert f"{training['n_images']} images of" in out
    assert f"accuracy {evaluation['accuracy']:.3f}" in out
    assert f"Images predicted: {predictions['n_images']} (" in out
    assert training["model"] == predictions["model"]


def check_recipes(ran, **folders):
    out, found = ran("recipes")
    assert [each["name"] for each in found["recipes"]] == list_recipes()
    for each in found["recipes"]:
        assert f"{each['name']} {each['system']} {each['published']}" in out


def check_backbones(ran, **folders):
    out, found = ran("backbones", "compact_cnn")
    assert f"takes {found['smallest_size']}x{found['smallest_size']} pixels and more" in out
    for block in found["blocks"]:
        assert f"{block['name']} {block['n_parameters']:,}" in out
    assert [f"{each['name']!r} ({each['licence']})" in out for each in found["weights"]] == [True]


CHECKS = {
    name.removeprefix("check_"): check
    for name, check in globals().items()
    if name.startswith("check_")
}


def test_every_command_has_a_json_file_with_one_help_text_and_is_run_here():
    commands = {command.__name__ for command in COMMANDS}
    assert {*CHECKS} == commands
    texts = set()
    for name, command in typer.main.get_command(app).commands.items():
        options = {option for each in command.params for option in each.opts}
        assert "--json" in options, name
        texts |= {each.help for each in command.params if "--json" in each.opts}
    assert len(texts) == 1


@pytest.mark.filterwarnings("always:No white cell was found:UserWarning")  # of the demo
@pytest.mark.parametrize("command", sorted(CHECKS))
def test_the_file_agrees_with_what_is_printed(
    command, ran, call, trained, smear, tmp_path, read_csv, monkeypatch
):
    CHECKS[command](
        **{"ran": ran, "call": call, "trained": trained, "smear": smear, "tmp_path": tmp_path},
        **{"read_csv": read_csv, "monkeypatch": monkeypatch},
    )


def test_the_networks_are_listed(call, tmp_path):
    code, out, err = call("backbones", "--json", tmp_path / "f.json")
    assert code == 0, err
    found = json.loads((tmp_path / "f.json").read_text())
    assert found == {"backbones": list_backbones()}
    assert out.split()[: len(found["backbones"])] == found["backbones"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("explore", "IMAGES"),
        ("audit", "IMAGES"),
        ("groups", "IMAGES"),
        ("split", "IMAGES"),
        ("train", "IMAGES"),
        ("adapt", "MODEL", "IMAGES"),
        ("predict", "MODEL", "IMAGES"),
        ("count", "MODEL", "IMAGES"),
        ("export", "MODEL", "IMAGES"),
    ],
)
def test_it_is_not_written_over_an_image_or_another_result(arguments, trained, tmp_path, call):
    image = next((trained / "train" / "neutrophil").iterdir())
    before = image.read_bytes()
    paths = {"MODEL": trained / "m.wbcclf", "IMAGES": trained / "train"}
    command = [paths.get(argument, argument) for argument in arguments]
    code, _, err = call(*command, "-o", tmp_path / "o.wbcclf", "--json", image)
    assert code == 1 and f"{image} would be overwritten" in err
    assert image.read_bytes() == before
    same = tmp_path / "same.wbcclf"
    code, _, err = call(*command, "-o", same, "--json", same)
    assert code == 1 and f"--json {same}: it is also --output" in err
    code, _, err = call(*command, "-o", same, "--json", tmp_path / "none" / "f.json")
    assert code == 1 and "none does not exist" in err
    assert not [*tmp_path.iterdir()]


def test_what_json_lacks_is_null(tmp_path):
    path = tmp_path / "f.json"
    figures = {
        "array": np.array([[1.5, np.nan]]),
        "number": np.float32(0.5),
        "deep": [{"x": float("nan"), 3: (np.inf, np.int64(2), np.str_("a"), True, None)}],
        "none": iter([]),
        "some": iter([{"x": np.nan}, 'a "quoted" name\udcff']),
    }
    write_json(path, figures)
    assert json.loads(path.read_text()) == {
        "array": [[1.5, None]],
        "number": 0.5,
        "deep": [{"x": None, "3": [None, 2, "a", True, None]}],
        "none": [],
        "some": [{"x": None}, 'a "quoted" name\udcff'],
    }
    assert path.read_text().count("\n") < 30  # an item of an iterator is one line
    write_json(path, {})
    assert json.loads(path.read_text()) == {}


def test_a_list_of_many_files_is_never_whole_in_memory(tmp_path):
    def peak(n_files):
        files = (
            {"file": f"{number}.png", "probabilities": {"a": 0.5}} for number in range(n_files)
        )
        tracemalloc.start()
        write_json(tmp_path / "f.json", {"files": files})
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(json.loads((tmp_path / "f.json").read_text())["files"]) == n_files
        return peak

    assert peak(20_000) < 2 * peak(200) < 2**20


def test_figures_that_do_not_fit_on_the_disk_are_kept_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="The result is in"):
        save_figures(tmp_path / "none" / "f.json", lambda: {"files": iter([1, 2])})
    [kept] = tmp_path.iterdir()
    assert json.loads(kept.read_text()) == {"files": [1, 2]}
