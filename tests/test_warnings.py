"""Warnings name the line of the caller, however many libraries lie in between."""

import ast
import linecache
from contextlib import suppress
from inspect import signature
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from imblearn.pipeline import make_pipeline
from onnx_models.drawn_model import CROP, write_model
from PIL import Image
from sklearn.model_selection import cross_val_score
from sklearn.tree import DecisionTreeClassifier

import wbcclf
import wbcclf.onnx
from wbcclf import (
    SMOTE,
    CellCropper,
    CNNClassifier,
    ConformalClassifier,
    Head,
    ImageLoader,
    SimpleCNNClassifier,
    adapt,
    count_cells,
    make_blood_cells,
    save_model,
)
from wbcclf.backbones import get_backbone, list_backbones
from wbcclf.inspection import evaluate, explain, predict_files
from wbcclf.model_selection import train_test_split_cells

PACKAGE = Path(wbcclf.__file__).parent
# Rooms whose own tests pin the line; those that print; and the function itself.
ELSEWHERE = {"classifiers", "datasets", "_store.py", "cli", "_warnings.py"}
CELLS = make_blood_cells(24, classes=2, image_size=16, random_state=0)
LARGE = make_blood_cells(10, classes=2, image_size=160, random_state=5)  # all are found


def smote_of_a_small_class():
    SMOTE().fit_resample(CELLS.images[:15], [0] * 12 + [1] * 3)  # the caller


def smote_of_a_class_that_is_small_in_a_fold():
    pipeline = make_pipeline(SMOTE(), DecisionTreeClassifier())
    rows = CELLS.images[:18].reshape(18, -1)
    cross_val_score(pipeline, rows, [0] * 12 + [1] * 6, cv=2)  # the caller


def cropping_a_picture_without_a_cell():
    CellCropper().fit(np.zeros((1, 16, 16, 3), np.uint8))  # the caller


def cropping_in_a_pipeline():
    make_pipeline(CellCropper()).fit_transform(np.zeros((1, 16, 16, 3), np.uint8))  # the caller


def counting_with_a_model_of_whole_pictures():
    clf = SimpleCNNClassifier(max_epochs=1, device="cpu").fit(CELLS.images, CELLS.target)
    count_cells(clf, LARGE.images[:1])  # the caller


def counting_an_empty_field():
    clf = SimpleCNNClassifier(max_epochs=1, device="cpu")
    model = make_pipeline(CellCropper(image_size=16), clf).fit(LARGE.images, LARGE.target)
    count_cells(model, [np.full((64, 64, 3), 230, np.uint8)])  # the caller


def counting_cells_that_are_uncertain():
    clf = SimpleCNNClassifier(max_epochs=1, device="cpu")
    model = make_pipeline(CellCropper(image_size=16), clf).fit(LARGE.images, LARGE.target)
    count_cells(model, LARGE.images[:1], min_probability=1)  # the caller


def listing_an_intruder(install):
    install("intruder", {"vgg16": "intruder:NET"}, "")
    list_backbones()  # the caller


def getting_a_broken_plugin(install):
    install("broken", {"somenet": "broken:NET"}, "raise OSError")
    with suppress(ValueError):
        get_backbone("somenet")  # the caller


def fitting_a_broken_plugin(install):
    install("broken", {"somenet": "broken:NET"}, "raise OSError")
    with suppress(ValueError):
        CNNClassifier("somenet").fit(CELLS.images, CELLS.target)  # the caller


def saving_what_no_file_can_hold(tmp_path):
    clf = SimpleCNNClassifier(optimizer=torch.optim.SGD, max_epochs=1, device="cpu")
    clf.fit(CELLS.images, CELLS.target)
    save_model(clf, tmp_path / "m.wbcclf")  # the caller


def adapting_without_labels_or_batch_norm():
    clf = SimpleCNNClassifier(max_epochs=1, device="cpu").fit(CELLS.images, CELLS.target)
    adapt(clf, CELLS.images)  # the caller


def adapting_to_pictures_of_one_class():
    clf = CNNClassifier("sepconv", head=Head(), max_epochs=1, device="cpu", random_state=0)
    clf.fit(CELLS.images, CELLS.target)
    alike = CELLS.images[[0, 0]]
    alike[1, 0, 0] = 0
    adapt(clf, alike)  # the caller


def adapting_to_cells_with_the_wrong_labels():
    clf = SimpleCNNClassifier(max_epochs=20, device="cpu", random_state=0)
    clf.fit(CELLS.images, CELLS.target)
    adapt(clf, CELLS.images[:4], ["neutrophil", "lymphocyte"] * 2)  # the caller


def adapting_a_model_that_leaves_cells_uncertain():
    clf = SimpleCNNClassifier(max_epochs=20, device="cpu", random_state=0)
    clf.fit(CELLS.images, CELLS.target[::-1]).set_params(rejection=0.2)
    adapt(clf, CELLS.images, CELLS.target)  # the caller


def splitting_a_class_of_one_cell():
    train_test_split_cells(["a", "a", "b"], [0, 1, 2])  # the caller


def evaluating_on_what_was_trained_on():
    clf = SimpleCNNClassifier(max_epochs=1, device="cpu").fit(CELLS.images, CELLS.target)
    evaluate(clf, CELLS.images, CELLS.target)  # the caller


def evaluating_on_unfamiliar_images():
    cells = make_blood_cells(100, classes=2, image_size=32, random_state=0)
    clf = SimpleCNNClassifier(max_epochs=3, device="cpu", random_state=0)
    clf.fit(cells.images, cells.target)
    evaluate(clf, 255 - cells.images, cells.target)  # the caller


def predicting_files_from_a_damaged_store(tmp_path):
    clf = SimpleCNNClassifier(max_epochs=1, device="cpu").fit(CELLS.images, CELLS.target)
    model = make_pipeline(ImageLoader(16, memory=tmp_path / "store"), clf)
    paths = [str(tmp_path / f"{number}.png") for number in range(2)]
    for path, image in zip(paths, CELLS.images, strict=False):
        Image.fromarray(image).save(path)
    model[0].transform(paths)
    for entry in (tmp_path / "store").rglob("*.entry"):
        entry.write_bytes(b"damaged")
    for _ in predict_files(model, paths):  # the caller
        pass


def explaining_a_network_that_knows_nothing():
    clf = SimpleCNNClassifier(max_epochs=1, device="cpu").fit(CELLS.images, CELLS.target)
    with torch.no_grad():
        clf.net_.module_.head[-1].weight.zero_()
    explain(clf, CELLS.images[:2], method="occlusion")  # the caller


def learning_sets_from_few_cells():
    clf = SimpleCNNClassifier(max_epochs=1, device="cpu").fit(CELLS.images, CELLS.target)
    cells = make_blood_cells(4, classes=2, image_size=16, random_state=1)
    ConformalClassifier(clf).fit(cells.images, cells.target)  # the caller


def predicting_with_onnx_a_file_that_is_broken(tmp_path):
    model = wbcclf.onnx.load(write_model(tmp_path / "model.onnx"))
    cv2.imwrite(str(tmp_path / "cell.png"), CELLS.images[0])
    files = [tmp_path / "cell.png", tmp_path / "missing.png"]
    model.answer(files, on_error="warn")  # the caller


def predicting_with_onnx_a_picture_without_a_cell(tmp_path):
    path = write_model(tmp_path / "model.onnx", image_size=[32, 32], crop=CROP)
    wbcclf.onnx.load(path).predict(np.full((1, 32, 32, 3), 230, np.uint8))  # the caller


def predicting_with_onnx_what_is_unfamiliar(tmp_path):
    model = wbcclf.onnx.load(write_model(tmp_path / "model.onnx"))
    model.predict(np.zeros((20, 32, 32, 3), np.uint8))  # the caller


# File and function of every call of warn, what it says, and how it comes to that.
WARNINGS = [
    ("sampling/_smote.py", "_neighbours", "has 3 images", smote_of_a_small_class),
    ("sampling/_smote.py", "_neighbours", "has 3 im", smote_of_a_class_that_is_small_in_a_fold),
    ("preprocessing/_base.py", "_transform", "No white", cropping_a_picture_without_a_cell),
    ("preprocessing/_base.py", "_transform", "No white", cropping_in_a_pipeline),
    ("fields/_fields.py", "_cutter", "whole pictures", counting_with_a_model_of_whole_pictures),
    ("fields/_count.py", "count_fields", "No white cell", counting_an_empty_field),
    ("fields/_count.py", "count_fields", "uncertain", counting_cells_that_are_uncertain),
    ("backbones/_registry.py", "list_backbones", "taken by wbcclf", listing_an_intruder),
    ("backbones/_registry.py", "_broken", "OSError", getting_a_broken_plugin),
    ("backbones/_registry.py", "_broken", "OSError", fitting_a_broken_plugin),
    (
        "model_selection/_split.py",
        "_warn_of_single_groups",
        "only: b",
        splitting_a_class_of_one_cell,
    ),
    ("adapting.py", "_adapt_to_pictures", "none", adapting_without_labels_or_batch_norm),
    ("adapting.py", "_adapt_to_pictures", "1.0 of its 2", adapting_to_pictures_of_one_class),
    ("adapting.py", "_adapt_to_cells", "recall of", adapting_to_cells_with_the_wrong_labels),
    ("adapting.py", "_adapted", "rejection=0.2", adapting_a_model_that_leaves_cells_uncertain),
    (
        "inspection/evaluation/_evaluation.py",
        "evaluate",
        "too good",
        evaluating_on_what_was_trained_on,
    ),
    ("inspection/_files.py", "predict_all", "do not look", evaluating_on_unfamiliar_images),
    ("inspection/_files.py", "_predict", "Damaged files", predicting_files_from_a_damaged_store),
    (
        "inspection/explaining/_explain.py",
        "explain",
        "maps are empty",
        explaining_a_network_that_knows_nothing,
    ),
    (
        "decoding/_failures.py",
        "report_failures",
        "1 of 2 files",
        predicting_with_onnx_a_file_that_is_broken,
    ),
    (
        "cells/_square.py",
        "warn_of_missing_cells",
        "No white cell",
        predicting_with_onnx_a_picture_without_a_cell,
    ),
    ("onnx/_model.py", "_answers", "do not look", predicting_with_onnx_what_is_unfamiliar),
    ("conformal.py", "_warn_of_small_classes", "needs 9 cells", learning_sets_from_few_cells),
    ("_saved.py", "_encode_parameters", "optimizer=.*default", saving_what_no_file_can_hold),
]


@pytest.mark.parametrize(("said", "situation"), [row[2:] for row in WARNINGS])
def test_a_warning_names_the_line_of_the_caller(said, situation, request):
    fixtures = {name: request.getfixturevalue(name) for name in signature(situation).parameters}
    with pytest.warns(UserWarning, match=said) as caught:
        situation(**fixtures)
    for warning in caught:
        assert warning.filename == __file__
        assert linecache.getline(__file__, warning.lineno).endswith("# the caller\n")


def calls_of_warn(path):
    """Yield the function around every call of a function or method named warn."""
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Call):
                    name = getattr(node.func, "id", getattr(node.func, "attr", None))
                    if name == "warn":
                        yield function.name


def test_every_warning_is_in_the_table():
    found = {
        (path.relative_to(PACKAGE).as_posix(), function)
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0] not in ELSEWHERE
        for function in calls_of_warn(path)
    }
    assert found == {row[:2] for row in WARNINGS}
