"""The shell's commands, called as a shell calls them, and a model trained by one."""

import csv
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.utils import Bunch

import wbcclf
from wbcclf import cli


@pytest.fixture(scope="session")
def start():
    """Return a function that runs `wbcclf` in a new process, as a shell does."""

    def start(*arguments, **options):
        return subprocess.run(
            [sys.executable, "-c", "from wbcclf.cli import main; main()", *map(str, arguments)],
            **({"capture_output": True, "text": True, "timeout": 300, "check": False} | options),
        )

    return start


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Return a function that runs `wbcclf` in a process of its own, forked after the imports."""
    folder = tmp_path_factory.mktemp("run")
    server = [sys.executable, Path(__file__).with_name("forking.py")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}

    with subprocess.Popen(server, **pipes) as process:

        def run(*arguments, cwd=folder):
            files = {name: folder / f"{name}.txt" for name in ("stdout", "stderr")}
            call = {"arguments": arguments, "cwd": cwd, "stdin": os.devnull, **files}
            print(json.dumps(call, default=str), file=process.stdin, flush=True)
            code = int(process.stdout.readline())
            printed = {name: file.read_text() for name, file in files.items()}
            for file in files.values():
                file.unlink()
            return subprocess.CompletedProcess(arguments, code, **printed)

        yield run
        process.stdin.close()


@pytest.fixture
def call(capsys, monkeypatch):
    """Return a function that runs `wbcclf` in this process: (exit code, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["wbcclf", *map(str, arguments)])
        # main() shows warnings on one line by replacing this hook for the whole process.
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def seen(monkeypatch):
    """Note what a classifier is fitted on: the images as "train", and what else `fit` is given."""
    noted = {}
    fit = wbcclf.CNNClassifier.fit

    def spy(self, X, y, **params):
        noted.update(train=X, **params)
        return fit(self, X, y, **params)

    monkeypatch.setattr(wbcclf.CNNClassifier, "fit", spy)
    return noted


@pytest.fixture
def held_out(seen, trained):
    """Return a function that finds the files of train/ that the classifier validates on."""

    def find():
        paths = sorted((trained / "train").rglob("*.png"))
        cropper = wbcclf.CellCropper("nucleus", background="normalise")
        images = wbcclf.ImageLoader(image_size=32, crop=cropper).transform(paths)
        held = {image.tobytes() for image in seen["X_val"]}
        assert held.isdisjoint(image.tobytes() for image in seen["train"])
        return [path for path, image in zip(paths, images, strict=True) if image.tobytes() in held]

    return find


@pytest.fixture(scope="session")
def read_csv():
    """Return a function that reads a CSV file into a list of dicts."""

    def read(path):
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    return read


@pytest.fixture(scope="session")
def write_cells():
    """Return a function that writes synthetic cells of two classes into a folder."""

    def write(root, n_samples, seed, labelled=True):
        cells = wbcclf.make_blood_cells(2 * n_samples, classes=2, image_size=48, random_state=seed)
        # In a few of such small drawings no cell is found, of which `train` warns.
        found = np.array([len(wbcclf.find_cells(image)) > 0 for image in cells.images])
        first, second = (np.flatnonzero(found & (cells.target == c)) for c in cells.target_names)
        rows = [*first[: (n_samples + 1) // 2], *second[: n_samples // 2]]
        cells = Bunch(images=cells.images[rows], target=cells.target[rows])
        for number, (image, label) in enumerate(zip(cells.images, cells.target, strict=True)):
            path = root / (label if labelled else ".") / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
        return cells

    return write


@pytest.fixture(scope="session")
def trained(tmp_path_factory, run, write_cells):
    """Return a folder with train/, test/, new/ and a model trained through the command line."""
    root = tmp_path_factory.mktemp("cli")
    write_cells(root / "train", 60, 0)
    write_cells(root / "test", 20, 1)
    write_cells(root / "new", 12, 2, labelled=False)
    done = run("train", root / "train", "-o", root / "m.wbcclf", "--image-size", 32, "--epochs", 4)
    assert done.returncode == 0, done.stderr
    assert "60 images of 2 classes: lymphocyte 30, neutrophil 30" in done.stdout
    return root
