"""`wbcclf serve`: its options, and what becomes of corrections."""

import json
import shutil
import socket
import sys
from collections import Counter

import pytest
from PIL import Image

import wbcclf
from wbcclf import load_model
from wbcclf.serving import _server
from wbcclf.serving._corrections import Corrections


@pytest.fixture
def serve(call, monkeypatch, tmp_path):
    """Return a function that runs the command without waiting for requests, and the last API."""
    apps = []

    class Server:
        def run(self, sockets):
            assert sockets[0].getsockname()[1] > 0

    def make_server(app, limits):
        apps.append(app)
        return Server()

    monkeypatch.setattr(_server, "make_server", make_server)

    def serve(*arguments):
        figures = tmp_path / "figures.json"
        code, out, err = call("serve", *arguments, "--port", 0, "--json", figures)
        return code, out, err, json.loads(figures.read_text()) if figures.exists() else None

    return serve


def test_the_packaged_model_is_served_without_arguments(serve):
    code, out, err, found = serve()
    assert code == 0 and err == ""
    assert found["model"] == "wbcclf:blood-cells" and found["not_white"] == [
        "erythroblast",
        "platelet",
    ]
    assert found["address"].startswith("http://127.0.0.1:")
    assert f"Address: {found['address']} (Ctrl-C" in out and "not for diagnosis" in out
    assert found["sets"] is found["rejection"] is found["corrections"] is None
    assert found["limits"]["pictures"] == 100


def test_sets_are_learnt_from_labelled_pictures(serve, trained, tmp_path):
    folder = tmp_path / "corrected"
    code, out, err, found = serve(
        *(trained / "m.wbcclf", "--sets", trained / "test", "--groups", r"(\d+)\.png"),
        *("--corrections", folder, "--not-white", "neutrophil"),
    )
    assert code == 0, err
    assert found["sets"] == {
        "confidence_level": 0.9,
        "cells": {"lymphocyte": 10, "neutrophil": 10},
    }
    assert "Sets: from 20 cells" in out and f"Corrections: {folder}" in out
    assert found["corrections"] == ["lymphocyte", "neutrophil", ".other"]
    assert found["not_white"] == ["neutrophil"] and "is not known" in found["worth"]
    assert not folder.exists()


def test_pictures_of_one_cell_count_once(serve, trained, tmp_path):
    names = [path.relative_to(trained / "test") for path in (trained / "test").rglob("*.png")]
    same = {"0.png": "1.png", "10.png": "11.png"}
    lines = [f"{name.as_posix()},{same.get(name.name, name.name)}" for name in names]
    groups = tmp_path / "groups.csv"
    groups.write_text("\n".join(["path,group", *lines]))
    code, _, err, found = serve(
        trained / "m.wbcclf", "--sets", trained / "test", "--groups", groups
    )
    assert code == 0, err
    assert found["sets"]["cells"] == {"lymphocyte": 9, "neutrophil": 9}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--groups", "auto"), "--groups needs --sets"),
        (("--reject", "2"), "between 0 and 1"),
        (("--sets", "none"), "does not exist"),
        # An address for documentation, and names that no machine has.
        (("--host", "192.0.2.1"), "--host 192.0.2.1: this machine cannot listen there (Cannot"),
        (("--host", "none.invalid"), "or one of these"),
        (("--host", "a" * 100), "or one of these"),
    ],
)
def test_what_cannot_be_is_an_error(serve, trained, arguments, said):
    code, _, err, found = serve(trained / "m.wbcclf", *arguments)
    assert code == 1 and said in err and found is None


def test_sets_of_other_classes_or_broken_pictures_are_errors(serve, trained, tmp_path):
    sets = tmp_path / "sets"
    shutil.copytree(trained / "test", sets)
    (sets / "neutrophil" / "a.png").write_bytes(b"no picture")
    code, _, err, _ = serve(trained / "m.wbcclf", "--sets", sets)
    assert code == 1 and "1 images cannot be read" in err and "a.png" in err
    (sets / "neutrophil").rename(sets / "monocyte")
    code, _, err, _ = serve(trained / "m.wbcclf", "--sets", sets)
    assert code == 1 and "holds the classes monocyte" in err


def test_pictures_of_the_training_make_no_sets(serve, trained):
    code, _, err, _ = serve(trained / "m.wbcclf", "--sets", trained / "train")
    assert code == 1 and "was trained on" in err


def test_a_port_that_is_taken_is_an_error(call, trained):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        # The model is not read before.
        code, _, err = call("serve", trained / "none.wbcclf", "--port", port)
    assert code == 1 and f"--port {port}" in err and "Give another --port" in err
    assert "--host" not in err


def test_an_address_that_others_reach_is_warned_of(serve, trained):
    _, out, err, found = serve(trained / "m.wbcclf", "--host", "0.0.0.0")
    assert "warning" in err and "there is no password" in err
    # 0.0.0.0 is no address that a browser can open.
    assert found["address"].startswith("http://127.0.0.1:")
    assert f"http://{socket.gethostname()}:" in out and "0.0.0.0" not in out
    assert "password" not in serve(trained / "m.wbcclf", "--host", "localhost")[2]


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "python_multipart"])
def test_without_the_extra_it_says_what_to_install(call, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    code, _, err = call("serve")
    assert code == 1 and 'pip install "wbcclf[serve]"' in err


def test_training_and_adapting_take_the_corrections(trained, tmp_path, call, monkeypatch):
    folder, model = tmp_path / "corrected", trained / "m.wbcclf"
    corrections = Corrections(folder, load_model(model).classes_.tolist())
    for path in [*(trained / "test").rglob("*.png")]:
        corrections.save(path.read_bytes(), path.parent.name)
    Image.new("RGB", (48, 48)).save(tmp_path / "black.png")
    corrections.save((tmp_path / "black.png").read_bytes(), ".other")
    noted = []

    def note(classifier, X, y, **options):  # what comes after it takes minutes
        noted.append(Counter(y))
        raise RuntimeError("noted")

    monkeypatch.setattr(wbcclf, "adapt", note)
    monkeypatch.setattr(wbcclf.CNNClassifier, "fit", note)
    for command in (("adapt", model, folder), ("train", folder, "--image-size", 32)):
        code, out, err = call(*command, "-o", tmp_path / "new.wbcclf")
        assert code == 1 and "noted" in err
        assert "20 images of 2 classes: lymphocyte 10, neutrophil 10" in out
    assert noted == [{"lymphocyte": 10, "neutrophil": 10}] * 2
