"""No parameter is forgotten: each one, off its default alone, changes what is learnt."""

import inspect

import numpy as np
import pytest
from skorch.callbacks import Callback

import wbcclf
from wbcclf import (
    Augmenter,
    Averaging,
    CNNClassifier,
    Constant,
    ConvNet,
    Cosine,
    CrossEntropy,
    EarlyStopping,
    FocalLoss,
    GradualUnfreezing,
    Head,
    InverseTimeDecay,
    Mixing,
    Optimizer,
    Plateau,
    StepDecay,
)
from wbcclf._parameters import Machine, Option, belongs_to


class Fast(Callback):
    """Train at a rate of 0.1."""

    def on_batch_begin(self, net, training=False, **kwargs):
        if training:
            for group in net.optimizer_.param_groups:
                group["lr"] = 0.1


# Another value of every parameter that is not the machine's.
PARAMETERS = {
    "backbone": ConvNet(filters=(4,)),
    "unfrozen_layers": 1,
    "head": Head("max"),
    "input_size": 24,
    "test_time_augmentation": True,
    "max_epochs": 3,
    "max_steps": 1,
    "batch_size": 8,
    "lr": 0.1,
    "lr_schedule": "constant",
    "optimizer": "sgd",
    "averaging": True,
    "loss": "focal",
    "class_weight": {"neutrophil": 5, "lymphocyte": 1, "eosinophil": 1},
    "balanced_batches": True,
    "augment": Augmenter(),
    "mixing": "mixup",
    "early_stopping": True,
    "precision": "bfloat16",
    "callbacks": [Fast()],
    "random_state": 1,
}
NEVER = 10.0  # No loss falls by so much: training stops as soon as patience allows.
ROUGH = {"max_epochs": 6, "lr": 1e-5, "head": Head(dropout=0.5)}  # Some epochs are no better.
# Another value of every option, its object, and what makes the option matter.
OPTIONS = [
    ("averaging", Averaging(), "decay", 0.5, {}),
    ("early_stopping", EarlyStopping(2, min_delta=NEVER), "patience", 1, {"max_epochs": 5}),
    ("early_stopping", EarlyStopping(1), "monitor", "valid_acc", {"max_epochs": 5}),
    ("early_stopping", EarlyStopping(1), "min_delta", NEVER, {"max_epochs": 5}),
    ("early_stopping", EarlyStopping(), "validation_fraction", 0.4, {}),
    ("head", Head(), "pooling", "max", {}),
    ("head", Head(), "hidden", (4,), {}),
    ("head", Head(), "dropout", 0.7, {}),
    ("head", Head(hidden=(4,)), "batch_norm", True, {}),
    ("loss", CrossEntropy(), "label_smoothing", 0.3, {}),
    ("loss", CrossEntropy(), "l1", 0.1, {}),
    ("loss", CrossEntropy(), "l2", 0.1, {}),
    ("loss", FocalLoss(), "gamma", 1.0, {}),
    ("loss", FocalLoss(), "label_smoothing", 0.3, {}),
    ("loss", FocalLoss(), "l1", 0.1, {}),
    ("loss", FocalLoss(), "l2", 0.1, {}),
    ("lr_schedule", Constant(), "warmup_epochs", 1, {}),
    ("lr_schedule", Cosine(), "warmup_epochs", 1, {}),
    ("lr_schedule", InverseTimeDecay(), "decay", 1.0, {}),
    ("lr_schedule", InverseTimeDecay(), "warmup_epochs", 1, {}),
    ("lr_schedule", Plateau(patience=0), "factor", 0.5, ROUGH),
    ("lr_schedule", Plateau(patience=0), "patience", 5, ROUGH),
    ("lr_schedule", Plateau(patience=0), "min_lr", 1e-5, ROUGH),
    ("lr_schedule", StepDecay(), "step_size", 1, {}),
    ("lr_schedule", StepDecay(1), "gamma", 0.5, {}),
    ("lr_schedule", StepDecay(), "warmup_epochs", 1, {}),
    ("mixing", Mixing(), "mixup", 1.0, {}),
    ("mixing", Mixing(), "cutmix", 1.0, {}),
    ("optimizer", Optimizer(), "method", "sgd", {}),
    ("optimizer", Optimizer(), "weight_decay", 0.5, {}),
    ("optimizer", Optimizer(), "layer_lr_decay", 0.5, {}),
    ("optimizer", Optimizer(), "max_grad_norm", 0.01, {}),
    ("optimizer", Optimizer(), "params", {"betas": (0.5, 0.5)}, {}),
    ("unfrozen_layers", GradualUnfreezing(1), "layers", 2, {"max_epochs": 5}),
    ("unfrozen_layers", GradualUnfreezing(1), "epochs_per_layer", 2, {"max_epochs": 3}),
]


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Return a maker of classifiers with weights from a file, so that any block can be frozen."""
    backbone = ConvNet(filters=(4, 4))
    given = {"max_epochs": 2, "batch_size": 16, "device": "cpu", "random_state": 0}
    path = tmp_path_factory.mktemp("quick") / "m.wbcclf"
    cells = wbcclf.make_blood_cells(6, classes=2, image_size=16, random_state=0)
    first = CNNClassifier(backbone, **given).fit(cells.images, cells.target)
    wbcclf.save_model(first, path)

    def make(**params):
        weights = None if "backbone" in params else path
        return CNNClassifier(**(given | {"backbone": backbone, "weights": weights} | params))

    return make


@pytest.fixture(scope="module")
def learnt(quick, cells):
    """Return the epochs and predictions of a classifier; those of the same one computed once."""
    known = {}

    def outcome(**params):
        key = repr(sorted(params.items()))
        if key not in known:
            clf = quick(**params).fit(cells.images, cells.target)
            known[key] = clf.n_iter_, clf.predict_proba(cells.images).tolist()
        return known[key]

    return outcome


def test_all_parameters_but_the_machines_are_tried():
    names = CNNClassifier._parameter_constraints
    own = {name for name in names if not belongs_to(CNNClassifier, name, Machine)}
    # These three need more than a value: see the tests after the next. For `rejection` and
    # `calibrate`, which need validation images, see test_familiarity.py and test_calibrating.py.
    tried_elsewhere = {"weights", "image_shape", "warm_start", "rejection", "calibrate"}
    assert set(PARAMETERS) == own - tried_elsewhere


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_changes_what_is_learnt(learnt, name):
    assert learnt(**{name: PARAMETERS[name]}) != learnt()


def test_the_same_parameters_learn_the_same(learnt, quick, cells):
    clf = quick().fit(cells.images, cells.target)
    assert (clf.n_iter_, clf.predict_proba(cells.images).tolist()) == learnt()


def test_weights_change_what_is_learnt(learnt):
    assert learnt(weights=None) != learnt()


def test_the_shape_of_rows_changes_what_is_learnt(quick, cells):
    rows = cells.images.reshape(len(cells.images), -1)
    square, flat = (
        quick(image_shape=shape).fit(rows, cells.target).predict_proba(rows)
        for shape in (None, (8, 32, 3))
    )
    assert not np.array_equal(square, flat)


def test_warm_start_changes_what_is_learnt_again(quick, cells):
    new, warm = (
        quick(warm_start=value).fit(cells.images, cells.target).fit(cells.images, cells.target)
        for value in (False, True)
    )
    assert warm.n_iter_ == 2 * new.n_iter_


def test_all_options_are_tried():
    exported = {getattr(wbcclf, name) for name in wbcclf.__all__}
    classes = {cls for cls in exported if inspect.isclass(cls) and issubclass(cls, Option)}
    own = {(cls, name) for cls in classes for name in inspect.signature(cls).parameters}
    assert {(type(option), name) for _, option, name, _, _ in OPTIONS} == own


@pytest.mark.parametrize(
    ("parameter", "option", "name", "value", "params"),
    [pytest.param(*row, id=f"{type(row[1]).__name__}.{row[2]}") for row in OPTIONS],
)
def test_an_option_changes_what_is_learnt(learnt, parameter, option, name, value, params):
    other = type(option)(**(option.get_params() | {name: value}))
    assert learnt(**(params | {parameter: other})) != learnt(**(params | {parameter: option}))
