"""Model files of older formats; classifiers of 1 and 2 had one parameter for each option."""

import json
import zipfile

import numpy as np
import pytest
from fuzz_model_files import with_document
from imblearn.pipeline import Pipeline

from wbcclf import (
    Augmenter,
    Averaging,
    CNN8Classifier,
    CNNClassifier,
    ConvNet,
    Cosine,
    CrossEntropy,
    EarlyStopping,
    FocalLoss,
    GradualUnfreezing,
    Head,
    ImageLoader,
    Mixing,
    OneCycle,
    Optimizer,
    Plateau,
    SepConvClassifier,
    SimpleCNNClassifier,
    StepDecay,
    load_model,
    make_blood_cells,
    save_model,
)
from wbcclf.exceptions import ModelFormatError


@pytest.fixture(scope="module")
def cells():
    return make_blood_cells(18, classes=3, image_size=32, random_state=0)


def older_file(clf, cells, path, version, params, names=()):
    """Fit a classifier and write it as a version of the format did that had other parameters."""
    clf.set_params(max_epochs=1, device="cpu", random_state=0).fit(cells.images, cells.target)
    new_path = path.with_suffix(".new")
    save_model(clf, new_path)
    names = dict(names)
    with zipfile.ZipFile(new_path) as new, zipfile.ZipFile(path, "w") as old:
        document = json.loads(new.read("model.json"))
        document["steps"][0][1]["params"] = params
        if version == 1:
            del document["backbone"], document["package"]
        old.writestr("model.json", json.dumps(document | {"format": version}))
        for name in new.namelist()[1:]:
            old.writestr(names.get(name, name), new.read(name))
        assert set(names) < set(new.namelist())
    return clf


def check_parameters(loaded, expected):
    """Compare what a classifier has in place of old parameters, and that nothing else is set."""
    params = loaded.get_params(deep=False)
    for name, default in type(loaded)().get_params(deep=False).items():
        assert repr(params[name]) == repr(expected.get(name, default)), name
    assert expected.keys() <= params.keys()


# What classifiers of format 2 wrote where a user had given nothing.
DEFAULTS = {
    "augment": None,
    "balanced_batches": False,
    "batch_size": 32,
    "callbacks": None,
    "class_weight": None,
    "cutmix": 0.0,
    "device": "auto",
    "dropout": 0.2,
    "early_stopping": False,
    "ema_decay": None,
    "focal_gamma": 2.0,
    "gradual_unfreezing": 0,
    "head": None,
    "image_shape": None,
    "input_size": None,
    "l1": 0.0,
    "l2": 0.0,
    "label_smoothing": 0.0,
    "layer_lr_decay": 1.0,
    "loss": "cross_entropy",
    "lr": 0.001,
    "lr_schedule": "onecycle",
    "lr_schedule_params": None,
    "max_epochs": 20,
    "max_grad_norm": None,
    "max_steps": None,
    "min_delta": 0.0,
    "mixup": 0.0,
    "monitor": "valid_loss",
    "optimizer": "adamw",
    "optimizer_params": None,
    "patience": 5,
    "precision": "float32",
    "random_state": None,
    "test_time_augmentation": False,
    "unfrozen_layers": "all",
    "validation_fraction": 0.1,
    "verbose": 0,
    "warm_start": False,
    "weight_decay": 0.0,
    "weights": None,
}
# What these have become.
NEW_DEFAULTS = {
    "head": Head(),
    "loss": CrossEntropy(),
    "lr": 0.001,
    "lr_schedule": OneCycle(),
    "optimizer": Optimizer(),
    "weights": None,
}


# ---------------------------------------------------------------- format 1

NAMES_1 = {
    "network/preprocessing.scale.npy": "network/scale.npy",
    "network/preprocessing.offset.npy": "network/offset.npy",
}


def assert_same_but_for_rounding(loaded, clf, cells):
    """The old file has another batch size, and some CPUs sum batches of other sizes otherwise."""
    assert loaded.batch_size != clf.batch_size
    np.testing.assert_allclose(
        loaded.predict_proba(cells.images), clf.predict_proba(cells.images), rtol=1e-6
    )


def test_a_file_of_format_1_predicts_as_it_did(cells, tmp_path):
    params = {
        "weights": "/home/me/start.pth",  # later versions left paths out
        "unfrozen_layers": 2,
        "head": {"class": "Head", "params": {"pooling": "max", "hidden": [5]}},
        "dropout": [0.1, 0.3],
        "input_size": [36, 40],
        "image_shape": None,
        "max_epochs": 7,
        "batch_size": 5,
        "optimizer": "sgd",
        "lr": 0.02,
        "weight_decay": 0.03,
        "lr_schedule": "cosine",
        "class_weight": "balanced",
        "early_stopping": True,
        "validation_fraction": 0.3,
        "patience": 4,
        "augment": {"class": "Augmenter", "params": {"rotation": 20}},
        "device": "cuda:1",
        "precision": "float32",
        "callbacks": None,
        "random_state": 3,
        "verbose": 1,
        "warm_start": True,
    }
    head = Head("max", hidden=(5,), dropout=(0.1, 0.3))
    clf = older_file(
        SimpleCNNClassifier(head=head, input_size=(36, 40)),
        cells,
        tmp_path / "old",
        1,
        params,
        NAMES_1,
    )
    loaded = load_model(tmp_path / "old")
    assert_same_but_for_rounding(loaded, clf, cells)
    expected = {
        "augment": Augmenter(rotation=20),
        "batch_size": 5,
        "class_weight": "balanced",
        "early_stopping": EarlyStopping(patience=4, validation_fraction=0.3),
        "head": head,
        "input_size": (36, 40),
        "loss": CrossEntropy(),
        "lr": 0.02,
        "lr_schedule": Cosine(),
        "max_epochs": 7,
        "optimizer": Optimizer("sgd", weight_decay=0.03),
        "random_state": 3,
        "unfrozen_layers": 2,
        "warm_start": True,
        "weights": None,
    }
    check_parameters(loaded, expected)
    assert loaded.partial_fit(cells.images, cells.target).n_iter_ == 2


# ---------------------------------------------------------------- format 2

CHANGED = {
    "augment": {"class": "Augmenter", "params": {"rotation": 20, "image_shape": [32, 32, 3]}},
    "balanced_batches": True,
    "batch_size": 7,
    "callbacks": [],
    "class_weight": {"dict": [["eosinophil", 2], ["lymphocyte", 1], ["neutrophil", 1.5]]},
    "cutmix": 0.4,
    "device": "cpu",
    "dropout": [0.1, 0.3],
    "early_stopping": True,
    "ema_decay": 0.9,
    "focal_gamma": 1.5,
    "gradual_unfreezing": 2,
    "head": {
        "class": "Head",
        "params": {"pooling": "max", "hidden": [6], "batch_norm": [False, True]},
    },
    "image_shape": [32, 32, 3],
    "input_size": [40, 36],
    "l1": 0.001,
    "l2": {"dict": [["conv4", 0.01], ["head", 0.1]]},
    "label_smoothing": 0.1,
    "layer_lr_decay": 0.9,
    "loss": "focal",
    "lr": 0.01,
    "lr_schedule": "step",
    "lr_schedule_params": {"dict": [["step_size", 2], ["gamma", 0.5], ["warmup_epochs", 1]]},
    "max_epochs": 30,
    "max_grad_norm": 2.0,
    "max_steps": 3,
    "min_delta": 0.01,
    "mixup": 0.3,
    "monitor": "valid_acc",
    "optimizer": "sgd",
    "optimizer_params": {"dict": [["momentum", 0.5], ["nesterov", False]]},
    "patience": 7,
    "precision": "auto",
    "random_state": 3,
    "test_time_augmentation": True,
    "unfrozen_layers": 3,
    "validation_fraction": 0.3,
    "verbose": 1,
    "warm_start": True,
    "weight_decay": 0.03,
    "weights": "imagenet",
}


def test_every_parameter_of_format_2_has_become_another_of_the_same_meaning(cells, tmp_path):
    assert CHANGED.keys() == DEFAULTS.keys()
    assert not [name for name, value in CHANGED.items() if value == DEFAULTS[name]]
    head = Head("max", hidden=(6,), dropout=(0.1, 0.3), batch_norm=(False, True))
    clf = SimpleCNNClassifier(head=head, input_size=(40, 36), test_time_augmentation=True)
    older_file(clf, cells, tmp_path / "old", 2, CHANGED)
    loaded = load_model(tmp_path / "old")
    expected = {
        "augment": Augmenter(rotation=20, image_shape=(32, 32, 3)),
        "averaging": Averaging(decay=0.9),
        "balanced_batches": True,
        "batch_size": 7,
        "callbacks": (),
        "class_weight": {"eosinophil": 2, "lymphocyte": 1, "neutrophil": 1.5},
        "early_stopping": EarlyStopping(
            patience=7, monitor="valid_acc", min_delta=0.01, validation_fraction=0.3
        ),
        "head": head,
        "image_shape": (32, 32, 3),
        "input_size": (40, 36),
        "loss": FocalLoss(
            gamma=1.5, label_smoothing=0.1, l1=0.001, l2={"conv4": 0.01, "head": 0.1}
        ),
        "lr": 0.01,
        "lr_schedule": StepDecay(step_size=2, gamma=0.5, warmup_epochs=1),
        "max_epochs": 30,
        "max_steps": 3,
        "mixing": Mixing(mixup=0.3, cutmix=0.4),
        "optimizer": Optimizer(
            "sgd",
            weight_decay=0.03,
            layer_lr_decay=0.9,
            max_grad_norm=2.0,
            params={"momentum": 0.5, "nesterov": False},
        ),
        "precision": "auto",
        "random_state": 3,
        "test_time_augmentation": True,
        "unfrozen_layers": GradualUnfreezing(layers=3, epochs_per_layer=2),
        "warm_start": True,
        "weights": None,  # simple_cnn has none that are called so
    }
    check_parameters(loaded, expected)
    loaded.set_params(precision="float32")
    assert_same_but_for_rounding(loaded, clf, cells)


@pytest.mark.parametrize(
    ("make", "dropout", "head"),
    [
        (CNN8Classifier, 0.0, Head("flatten", dropout=0.0)),
        (
            SepConvClassifier,
            [0.0, 0.7, 0.5, 0.3],
            Head("flatten", hidden=(512, 128, 64), dropout=(0.0, 0.7, 0.5, 0.3)),
        ),
        (lambda: CNNClassifier("cnn8", head=Head()), 0.2, Head()),
        (lambda: CNNClassifier(ConvNet(filters=(4,))), 0.3, Head(dropout=0.3)),
    ],
)
def test_no_head_of_format_2_is_the_head_that_it_was(make, dropout, head, cells, tmp_path):
    """Named classifiers had heads of their own; a CNNClassifier of the same backbone had not."""
    clf = make()
    params = DEFAULTS | {"dropout": dropout}
    backbone = clf.get_params(deep=False).get("backbone")
    if isinstance(backbone, str):
        params["backbone"] = backbone
    elif backbone is not None:
        params["backbone"] = {"class": "ConvNet", "params": {"filters": [4]}}
    older_file(clf, cells, tmp_path / "old", 2, params)
    loaded = load_model(tmp_path / "old")
    np.testing.assert_array_equal(
        loaded.predict_proba(cells.images), clf.predict_proba(cells.images)
    )
    assert type(loaded) is type(clf) and repr(loaded.backbone) == repr(clf.backbone)
    own = {} if backbone is None else {"backbone": backbone}
    check_parameters(loaded, NEW_DEFAULTS | {"head": head} | own)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"loss": "focal"}, {"loss": FocalLoss()}),
        ({"focal_gamma": 3.0, "l1": 0.1}, {"loss": CrossEntropy(l1=0.1)}),
        ({"mixup": 0.3}, {"mixing": Mixing(mixup=0.3)}),
        ({"ema_decay": 0.0}, {"averaging": Averaging(decay=0.0)}),
        ({"gradual_unfreezing": 1}, {"unfrozen_layers": GradualUnfreezing()}),
        ({"unfrozen_layers": "conv4"}, {"unfrozen_layers": "conv4"}),
        ({"patience": 3, "monitor": "valid_acc"}, {}),  # without early stopping
        (
            {"lr_schedule": "plateau", "lr_schedule_params": {"dict": [["min_lr", 1e-6]]}},
            {"lr_schedule": Plateau(min_lr=1e-6)},
        ),
    ],
)
def test_options_of_format_2_that_are_off_or_alone(old, new, cells, tmp_path):
    older_file(SimpleCNNClassifier(), cells, tmp_path / "old", 2, DEFAULTS | old)
    check_parameters(load_model(tmp_path / "old"), NEW_DEFAULTS | new)


@pytest.mark.parametrize(
    "old",
    [
        {"loss": {"class": "FocalLoss", "params": {}}},
        {"loss": "hinge"},
        {"lr_schedule": "step", "lr_schedule_params": {"dict": [["telepathy", 1]]}},
        {"lr_schedule_params": {"dict": [["name", "os.system"]]}},
        {"lr_schedule": ["step"]},
        {"head": {"class": "ConvNet", "params": {}}},
        {"head": [1]},
        {"dropout": ["0.1"]},
        {"dropout": [0.1] * 33},
        {"l2": {"dict": [["conv7", 0.1]]}},
        {"l2": {"dict": [["conv4", "0.1"]]}},
        {"optimizer": "SGD"},
        {"optimizer": {"class": "Optimizer", "params": {}}},
        {"optimizer_params": {"dict": [["betas", {"dict": []}]]}},
        {"mixup": [1]},
        {"ema_decay": "0.9"},
        {"early_stopping": True, "patience": -1},
        {"gradual_unfreezing": 1.5},
        {"memory": "folder"},
        {"checkpoint_dir": "folder"},
        {"compile": True},
        {"telepathy": 1},
        {"averaging": 0.9},
        {"mixing": "mixup"},
        {"early_stopping": {"class": "EarlyStopping", "params": {}}},
        {"unfrozen_layers": {"class": "GradualUnfreezing", "params": {}}},
    ],
)
def test_what_format_2_never_held_is_refused(old, cells, tmp_path):
    older_file(SimpleCNNClassifier(), cells, tmp_path / "old", 2, DEFAULTS | old)
    with pytest.raises(ModelFormatError):
        load_model(tmp_path / "old")


# ---------------------------------------------------------------- format 3


def test_a_file_of_format_3_knows_no_transformers(cells, tmp_path):
    clf = SimpleCNNClassifier(max_epochs=1, device="cpu", random_state=0)
    model = Pipeline([("load", ImageLoader(32)), ("clf", clf)]).fit(cells.images, cells.target)
    save_model(model, tmp_path / "new")

    def change(document, loader, clf):
        document["format"] = 3
        assert document.pop("transformers") == {}
        assert loader.pop("crop") is None

    (tmp_path / "old").write_bytes(with_document(tmp_path / "new", change))
    loaded = load_model(tmp_path / "old")
    assert str(loaded["load"]) == str(model["load"])
    np.testing.assert_array_equal(
        loaded.predict_proba(cells.images), model.predict_proba(cells.images)
    )
