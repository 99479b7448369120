"""Model files: what is read is what was saved, and nothing else is."""

import copy
import io
import json
import pickle
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from imblearn.pipeline import Pipeline
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer

from wbcclf import (
    SMOTE,
    Augmenter,
    BackgroundRemover,
    Cache,
    CellCropper,
    CNNClassifier,
    ConvNet,
    CrossEntropy,
    FocalLoss,
    Head,
    ImageLoader,
    Optimizer,
    ResNet18Classifier,
    SimpleCNNClassifier,
    StepDecay,
    load_model,
    make_blood_cells,
    save_model,
)
from wbcclf.backbones import get_backbone
from wbcclf.exceptions import ModelFormatError
from wbcclf.inspection import predict_files


@pytest.fixture(scope="module")
def cells():
    return make_blood_cells(30, classes=3, image_size=24, random_state=0)


@pytest.fixture(scope="module")
def fitted(cells):
    clf = SimpleCNNClassifier(max_epochs=1, device="cpu", random_state=0)
    return clf.fit(cells.images, cells.target)


def test_a_pipeline_predicts_the_same_in_a_fresh_process(cells, tmp_path):
    model = Pipeline(
        [
            ("aug", Augmenter(random_state=0)),
            ("smote", SMOTE(random_state=0)),
            ("clf", CNNClassifier(max_epochs=1, head=Head(hidden=[5]), augment=Augmenter())),
        ]
    ).fit(cells.images, cells.target)
    save_model(model, tmp_path / "m.wbcclf")
    np.save(tmp_path / "x.npy", cells.images)
    code = (
        "import sys, numpy as np, wbcclf\n"
        "model = wbcclf.load_model(sys.argv[1] + '/m.wbcclf')\n"
        "np.save(sys.argv[1] + '/p.npy', model.predict_proba(np.load(sys.argv[1] + '/x.npy')))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=120)
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), model.predict_proba(cells.images))


@pytest.mark.parametrize("labels", [["a", "b", "c"], [3, 1, 7], [0.5, 1.5, 2.5]])
def test_labels_keep_their_type(labels, cells, tmp_path):
    y = np.array(labels)[np.unique(cells.target, return_inverse=True)[1]]
    if y.dtype.kind == "f":
        y = y * 2  # scikit-learn takes only whole floats for classes
    clf = SimpleCNNClassifier(max_epochs=1, device="cpu").fit(cells.images, y)
    save_model(clf, tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert loaded.classes_.dtype == clf.classes_.dtype
    np.testing.assert_array_equal(loaded.predict(cells.images), clf.predict(cells.images))


def test_everything_learnt_comes_back(fitted, tmp_path):
    save_model(fitted, tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    for name in ("image_shape_", "value_range_", "n_features_in_", "history_", "n_iter_"):
        assert getattr(loaded, name) == getattr(fitted, name)
    assert type(loaded) is type(fitted)
    assert loaded.get_params() == fitted.get_params() | {"device": "auto"}  # it is a machine's


def test_batchnorm_statistics_and_pretrained_defaults_come_back(cells, tmp_path):
    clf = ResNet18Classifier(weights=None, unfrozen_layers="all", max_epochs=1, device="cpu")
    clf.fit(cells.images, cells.target)
    save_model(clf, tmp_path / "m")
    np.testing.assert_array_equal(
        load_model(tmp_path / "m").predict_proba(cells.images), clf.predict_proba(cells.images)
    )


def test_a_loaded_model_can_be_trained_on(fitted, cells, tmp_path):
    save_model(fitted, tmp_path / "m")
    loaded = load_model(tmp_path / "m").partial_fit(cells.images, cells.target)
    assert loaded.n_iter_ == fitted.n_iter_ + 1


def test_a_parameter_without_a_text_form_is_left_out_loudly(cells, tmp_path):
    clf = SimpleCNNClassifier(max_epochs=1, random_state=np.random.RandomState(0))
    clf.fit(cells.images, cells.target)
    with pytest.warns(UserWarning, match="random_state"):
        save_model(clf, tmp_path / "m")
    assert load_model(tmp_path / "m").random_state is None


def test_dicts_and_a_head_of_ones_own_come_back(cells, tmp_path):
    clf = CNNClassifier(
        head=Head(pooling="max", hidden=(6,), dropout=(0.1, 0.2), batch_norm=(False, True)),
        lr_schedule=StepDecay(step_size=1, gamma=0.5),
        optimizer=Optimizer(params={"betas": (0.8, 0.9)}),
        loss=CrossEntropy(l2={"conv2": 0.01, "head": np.float64(0.1)}),
        class_weight={"neutrophil": 2, "lymphocyte": 1, "eosinophil": 1},
        checkpoint_dir=tmp_path / "checkpoints",
        max_epochs=1,
        device="cpu",
        random_state=0,
    ).fit(cells.images, cells.target)
    save_model(clf, tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    expected = clf.get_params() | {"checkpoint_dir": None, "device": "auto"}  # of this machine
    assert str(loaded.get_params()) == str(expected).replace("np.float64(0.1)", "0.1")
    np.testing.assert_array_equal(
        loaded.predict_proba(cells.images), clf.predict_proba(cells.images)
    )
    assert loaded.partial_fit(cells.images, cells.target).n_iter_ == 2


def test_a_network_of_ones_own_comes_back(cells, tmp_path):
    network = ConvNet(filters=(4, 6), kernel_size=(5, 3), dropout=(0.0, 0.1))
    clf = CNNClassifier(network, max_epochs=1, device="cpu", random_state=0)
    clf.fit(cells.images, cells.target)
    save_model(clf, tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert repr(loaded.backbone) == repr(network)
    np.testing.assert_array_equal(
        loaded.predict_proba(cells.images), clf.predict_proba(cells.images)
    )


@pytest.mark.parametrize(
    "optimizer", [torch.optim.SGD, Optimizer(torch.optim.SGD, params={"momentum": 0.5})]
)
def test_an_optimizer_class_is_left_out_with_what_it_was_given(optimizer, cells, tmp_path):
    clf = SimpleCNNClassifier(max_epochs=1, optimizer=optimizer, device="cpu")
    clf.fit(cells.images, cells.target)
    with pytest.warns(UserWarning, match="optimizer=.*SGD"):
        save_model(clf, tmp_path / "m")
    loaded = load_model(tmp_path / "m").partial_fit(cells.images, cells.target)
    assert loaded.optimizer == "adamw"


class MyLoss(FocalLoss):
    """Somebody's own."""


def test_an_option_of_somebodys_own_class_is_left_out_loudly(cells, tmp_path):
    clf = SimpleCNNClassifier(max_epochs=1, loss=MyLoss(), device="cpu")
    clf.fit(cells.images, cells.target)
    with pytest.warns(UserWarning, match=r"loss=MyLoss\(\).*left at its default"):
        save_model(clf, tmp_path / "m")
    assert load_model(tmp_path / "m").loss == "cross_entropy"


def test_what_belongs_to_the_machine_stays_there(cells, tmp_path):
    clf = SimpleCNNClassifier(
        max_epochs=1,
        device="cpu",
        cache_gb=0.5,
        memory=Cache(tmp_path / "cache", max_gb=1),
        checkpoint_dir=tmp_path / "checkpoints",
        verbose=1,
        random_state=0,
    ).fit(cells.images, cells.target)
    loader = ImageLoader(image_size=24, n_jobs=2, memory=str(tmp_path / "cache"), verbose=1)
    save_model(Pipeline([("load", loader), ("clf", clf)]), tmp_path / "m")
    assert str(tmp_path).encode() not in (tmp_path / "m").read_bytes()
    params = load_model(tmp_path / "m").get_params()
    machine = "device cache_gb memory checkpoint_dir compile verbose".split()
    for name, value in SimpleCNNClassifier().get_params().items():
        assert name not in machine or params[f"clf__{name}"] == value
    for name, value in ImageLoader(image_size=24).get_params().items():
        assert params[f"load__{name}"] == value
    document = json.loads(zipfile.ZipFile(tmp_path / "m").read("model.json"))
    written = {name for _, step in document["steps"] for name in step["params"]}
    assert written.isdisjoint({*machine, "n_jobs", "spill_dir"})


class MyNet(ConvNet):
    """Somebody's own."""


def test_a_parameter_that_predictions_depend_on_is_never_left_out(cells, tmp_path):
    clf = CNNClassifier(MyNet(filters=(4,)), max_epochs=1, device="cpu")
    clf.fit(cells.images, cells.target)
    with pytest.raises(TypeError, match=r"CNNClassifier\(backbone=MyNet.*joblib"):
        save_model(clf, tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_a_parameter_changed_after_fit_is_not_written_as_if_it_had_been_there(fitted, tmp_path):
    changed = copy.deepcopy(fitted).set_params(input_size=48, head=Head(dropout=0.7))
    with pytest.raises(ValueError, match=r"head, input_size changed after the network"):
        save_model(changed, tmp_path / "m")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- cut and cleaned


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Write cells in pictures of three sizes; return the paths and the classes."""
    root = tmp_path_factory.mktemp("files")
    paths, target = [], []
    for size in [(96, 96), (96, 120), (150, 110)]:
        drawn = make_blood_cells(4, classes=2, image_size=size, random_state=0)
        for image, label in zip(drawn.images, drawn.target, strict=True):
            paths.append(str(root / f"{len(paths)}.png"))
            Image.fromarray(image).save(paths[-1])
            target.append(label)
    return paths, target


CUT = {
    "nucleus": [("load", ImageLoader(24, crop=CellCropper()))],
    "cell": [
        ("load", ImageLoader(crop=CellCropper("cell", background="remove", image_size=24))),
    ],
    "pixels": [
        (
            "load",
            ImageLoader((24, 24), crop=CellCropper(80, which="largest", background="normalise")),
        )
    ],
    "factor": [("load", ImageLoader(24, crop=CellCropper(factor=np.float64(2.5))))],
    "a step": [("load", ImageLoader((80, 100))), ("crop", CellCropper(image_size=24, n_jobs=2))],
    "removed": [("load", ImageLoader(64, crop=CellCropper())), ("remove", BackgroundRemover())],
    "all": [
        ("load", ImageLoader(100)),
        ("remove", BackgroundRemover(which="largest", spill_dir=tempfile.gettempdir())),
        ("crop", CellCropper(background="normalise", image_size=24)),
        ("smote", SMOTE(random_state=0)),
    ],
}


@pytest.mark.filterwarnings("ignore:No white cell was found")  # in tiny drawings
@pytest.mark.parametrize("name", CUT)
def test_a_model_that_cuts_predicts_files_as_before(name, files, tmp_path):
    paths, target = files
    classifier = SimpleCNNClassifier(max_epochs=1, device="cpu", random_state=0)
    model = Pipeline([*CUT[name], ("clf", classifier)]).fit(paths, target)
    expected = model.predict_proba(paths)
    save_model(model, tmp_path / "m")
    assert tempfile.gettempdir().encode() not in (tmp_path / "m").read_bytes()
    loaded = load_model(tmp_path / "m")
    np.testing.assert_array_equal(loaded.predict_proba(paths), expected)
    [chunk] = predict_files(loaded, paths)
    np.testing.assert_array_equal(chunk.probabilities, expected)
    assert [name for name, _ in loaded.steps] == [
        name for name, _ in model.steps if name != "smote"
    ]
    for name, step in loaded.steps[:-1]:
        fitted = model[name]
        for learnt in ("image_shape_", "value_range_", "n_features_in_", "_n_features_out"):
            assert getattr(step, learnt, None) == getattr(fitted, learnt, None)
        assert not hasattr(step, "found_")
        machine = {"n_jobs": None, "spill_dir": None}
        left = {key: value for key, value in machine.items() if key in fitted.get_params()}
        assert str(step.get_params() | {"crop": None}) == str(
            fitted.get_params() | left | {"crop": None}
        ).replace("np.float64(2.5)", "2.5")


@pytest.mark.filterwarnings("ignore:No white cell was found")
def test_columns_and_scale_of_a_cropper_come_back(tmp_path):
    cells = make_blood_cells(8, classes=2, image_size=96, random_state=0)
    rows = pd.DataFrame(cells.images.reshape(8, -1) / 255).rename(columns="p{}".format)
    clf = SimpleCNNClassifier(max_epochs=1, device="cpu", random_state=0)
    model = Pipeline([("crop", CellCropper(image_size=16)), ("clf", clf)]).fit(rows, cells.target)
    save_model(model, tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    np.testing.assert_array_equal(loaded.predict_proba(rows), model.predict_proba(rows))
    assert loaded["crop"].feature_names_in_.tolist() == rows.columns.tolist()
    assert loaded["crop"].get_feature_names_out()[-1] == "cellcropper767"
    assert not hasattr(loaded["clf"], "feature_names_in_")
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(rows[rows.columns[::-1]])
    with pytest.raises(ValueError, match="another scale"):
        loaded.predict(rows * 255)


class MyCropper(CellCropper):
    """Somebody's own."""


@pytest.mark.filterwarnings("ignore:No white cell was found")
@pytest.mark.parametrize(
    ("crop", "message"),
    [
        (MyCropper(), r"ImageLoader\(crop=MyCropper\(\)\) cannot be written.*joblib"),
        (CellCropper(2_049), r"crop=CellCropper\(scale=2049\)\) cannot be written.*joblib"),
        (CellCropper(factor=16.1), r"crop=CellCropper\(factor=16.1\)\) cannot be written.*joblib"),
    ],
)
def test_a_cropper_that_a_file_cannot_hold_is_refused(crop, message, files, tmp_path):
    classifier = SimpleCNNClassifier(max_epochs=1, device="cpu")
    model = Pipeline([("load", ImageLoader(24)), ("clf", classifier)]).fit(*files)
    with pytest.raises(TypeError, match=message):
        save_model(model.set_params(load__crop=crop), tmp_path / "m")
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:No white cell was found")
def test_steps_that_do_not_fit_together_any_more_are_refused(files, tmp_path):
    steps = [
        ("load", ImageLoader(96)),
        ("crop", CellCropper(image_size=24)),
        ("clf", SimpleCNNClassifier(max_epochs=1, device="cpu")),
    ]
    model = Pipeline(steps).fit(*files)
    for params, message in (
        ({"load__image_size": 90}, r"image_size=90\) makes no images of 96x96 .*CellCropper was"),
        (
            {"load__image_size": None, "load__crop": CellCropper(image_size=95)},
            r"crop=CellCropper\(image_size=95\)\) makes no images of 96x96",
        ),
        ({"crop__image_size": 25}, r"CellCropper\(image_size=25\) makes no images of 24x24"),
    ):
        with pytest.raises(ValueError, match=message):
            save_model(copy.deepcopy(model).set_params(**params), tmp_path / "m")
    order = Pipeline([model.steps[1], model.steps[0], model.steps[2]])
    with pytest.raises(ValueError, match="CellCropper, ImageLoader, SimpleCNNClassifier: not an"):
        save_model(order, tmp_path / "m")
    assert not list(tmp_path.iterdir())
    save_model(model, tmp_path / "m")


# ---------------------------------------------------------------- other versions


@pytest.mark.parametrize("name", ["SimpleCNNClassifier", "FocalLoss"])
def test_a_parameter_of_a_newer_version_is_named(name, fitted, tmp_path):
    save_model(fitted, tmp_path / "m")
    document = json.loads(zipfile.ZipFile(tmp_path / "m").read("model.json"))
    params = document["steps"][0][1]["params"]
    new = {"telepathy": 1}
    params |= {"loss": {"class": name, "params": new}} if name == "FocalLoss" else new
    rewrite(tmp_path / "m", tmp_path / "new", **{"model.json": json.dumps(document)})
    with pytest.raises(ModelFormatError, match=rf"{name} .*'telepathy'.*update wbcclf"):
        load_model(tmp_path / "new")


def test_a_backbone_that_is_not_installed_is_named(cells, registry, tmp_path):
    spec = replace(get_backbone("simple_cnn"), name="from_a_plugin")
    registry[spec.name] = spec
    clf = CNNClassifier(spec.name, max_epochs=1, device="cpu").fit(cells.images, cells.target)
    save_model(clf, tmp_path / "m")
    del registry[spec.name]
    with pytest.raises(ModelFormatError, match=r"'from_a_plugin' is not known here"):
        load_model(tmp_path / "m")


# ---------------------------------------------------------------- what is no such file


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (LogisticRegression(), TypeError, "LogisticRegression"),
        (Pipeline([("f", FunctionTransformer()), ("c", SimpleCNNClassifier())]), TypeError, "'f'"),
        (Pipeline([("load", ImageLoader())]), TypeError, "last step"),
        (Pipeline([("smote", SMOTE())]), TypeError, "last step"),
        (SimpleCNNClassifier(), NotFittedError, "not fitted"),
    ],
)
def test_what_cannot_be_saved_is_refused_and_leaves_no_file(model, error, message, tmp_path):
    with pytest.raises(error, match=message):
        save_model(model, tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_an_interrupted_save_leaves_the_old_file(fitted, tmp_path, limit_files):
    path = tmp_path / "m"
    save_model(fitted, path)
    before = path.read_bytes()
    limit_files(len(before) // 2)
    with pytest.raises(OSError, match="File too large"):
        save_model(fitted, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code was run')",))


def rewrite(source, target, **changes):
    """Copy a model file with members replaced."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = changes.get(name, old.read(name))
            if content is not None:
                new.writestr(name, content)


def pickled_array():
    buffer = io.BytesIO()
    np.save(buffer, np.array([Evil()], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def test_files_that_are_no_model_are_refused(fitted, tmp_path):
    good, bad = tmp_path / "good", tmp_path / "bad"
    save_model(fitted, good)
    document = json.loads(zipfile.ZipFile(good).read("model.json"))

    def check(match):
        with pytest.raises(ModelFormatError, match=match):
            load_model(bad)

    bad.write_bytes(pickle.dumps(Evil()))
    check("not a model")
    bad.write_bytes(good.read_bytes()[:-200])
    check("not a model")
    rewrite(good, bad, **{"classes.npy": pickled_array()})
    check("not a model")
    rewrite(good, bad, **{"network/head.2.weight.npy": None})
    check("head.2.weight")
    rewrite(good, bad, **{"model.json": json.dumps(document | {"format": 99})})
    check("update wbcclf")
    document["steps"][0][1]["class"] = "os.system"
    rewrite(good, bad, **{"model.json": json.dumps(document)})
    check("os.system")
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "none")
