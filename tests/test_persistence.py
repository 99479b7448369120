"""Model files: what is read is what was saved, and nothing else is."""

import copy
import io
import json
import pickle
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from imblearn.pipeline import Pipeline
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer

from wbcclf import (
    SMOTE,
    Augmenter,
    CNNClassifier,
    ConvNet,
    Head,
    ImageLoader,
    ResNet18Classifier,
    SimpleCNNClassifier,
    load_model,
    make_blood_cells,
    save_model,
)
from wbcclf.backbones import get_backbone
from wbcclf.classifiers.options._values import digest
from wbcclf.exceptions import ModelFormatError


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
    assert loaded.get_params() == fitted.get_params()


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
        head=Head(pooling="max", hidden=(6,), batch_norm=(False, True)),
        dropout=(0.1, 0.2),
        lr_schedule="step",
        lr_schedule_params={"step_size": 1, "gamma": 0.5},
        optimizer_params={"betas": (0.8, 0.9)},
        l2={"conv2": 0.01, "head": np.float64(0.1)},
        class_weight={"neutrophil": 2, "lymphocyte": 1, "eosinophil": 1},
        checkpoint_dir=tmp_path / "checkpoints",
        max_epochs=1,
        device="cpu",
        random_state=0,
    ).fit(cells.images, cells.target)
    save_model(clf, tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    expected = clf.get_params() | {"checkpoint_dir": None}  # a folder of this machine
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


def test_an_optimizer_class_is_left_out_with_what_it_was_given(cells, tmp_path):
    clf = SimpleCNNClassifier(
        max_epochs=1, optimizer=torch.optim.SGD, optimizer_params={"momentum": 0.5}, device="cpu"
    ).fit(cells.images, cells.target)
    with pytest.warns(UserWarning, match="optimizer=.*SGD"):
        save_model(clf, tmp_path / "m")
    loaded = load_model(tmp_path / "m").partial_fit(cells.images, cells.target)
    assert (loaded.optimizer, loaded.optimizer_params) == ("adamw", None)


def test_a_parameter_that_predictions_depend_on_is_never_left_out(fitted, tmp_path):
    odd = copy.deepcopy(fitted).set_params(input_size=np.array([24, 24]))
    odd.net_.module_.built_from["input_size"] = digest(odd.input_size)  # as if built so
    with pytest.raises(TypeError, match=r"SimpleCNNClassifier\(input_size=.*joblib"):
        save_model(odd, tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_a_parameter_changed_after_fit_is_not_written_as_if_it_had_been_there(fitted, tmp_path):
    changed = copy.deepcopy(fitted).set_params(input_size=48, dropout=0.7)
    with pytest.raises(ValueError, match=r"dropout, input_size changed after the network"):
        save_model(changed, tmp_path / "m")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- other versions


OLD_NAMES = {
    "network/preprocessing.scale.npy": "network/scale.npy",
    "network/preprocessing.offset.npy": "network/offset.npy",
}
# Parameters of version 0.1.0, which wrote format 1.
OLD_PARAMETERS = (
    "weights unfrozen_layers head dropout input_size image_shape max_epochs batch_size optimizer "
    "lr weight_decay lr_schedule class_weight early_stopping validation_fraction patience augment "
    "device precision callbacks random_state verbose warm_start"
).split()


def test_a_file_of_format_1_predicts_as_it_did(cells, tmp_path):
    clf = SimpleCNNClassifier(max_epochs=1, head=Head(hidden=(5,)), device="cpu", random_state=0)
    clf.fit(cells.images, cells.target)
    save_model(clf, tmp_path / "new")
    with zipfile.ZipFile(tmp_path / "new") as new, zipfile.ZipFile(tmp_path / "old", "w") as old:
        document = json.loads(new.read("model.json"))
        params = document["steps"][0][1]["params"]
        assert set(params) > set(OLD_PARAMETERS)
        document["steps"][0][1]["params"] = {name: params[name] for name in OLD_PARAMETERS}
        del params["head"]["params"]["batch_norm"], document["backbone"]
        old.writestr("model.json", json.dumps(document | {"format": 1}))
        for name in new.namelist()[1:]:
            old.writestr(OLD_NAMES.get(name, name), new.read(name))
        assert set(OLD_NAMES) < set(new.namelist())
    loaded = load_model(tmp_path / "old")
    np.testing.assert_array_equal(
        loaded.predict_proba(cells.images), clf.predict_proba(cells.images)
    )
    assert loaded.get_params()["head__hidden"] == (5,)


def test_a_parameter_of_a_newer_version_is_named(fitted, tmp_path):
    save_model(fitted, tmp_path / "m")
    document = json.loads(zipfile.ZipFile(tmp_path / "m").read("model.json"))
    document["steps"][0][1]["params"]["telepathy"] = 1
    rewrite(tmp_path / "m", tmp_path / "new", **{"model.json": json.dumps(document)})
    with pytest.raises(ModelFormatError, match=r"SimpleCNNClassifier.*'telepathy'.*update wbcclf"):
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
        (SimpleCNNClassifier(), NotFittedError, "not fitted"),
    ],
)
def test_what_cannot_be_saved_is_refused_and_leaves_no_file(model, error, message, tmp_path):
    with pytest.raises(error, match=message):
        save_model(model, tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_an_interrupted_save_leaves_the_old_file(fitted, tmp_path, monkeypatch):
    path = tmp_path / "m"
    save_model(fitted, path)
    before = path.read_bytes()

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full_disk)
    with pytest.raises(OSError, match="No space left"):
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
