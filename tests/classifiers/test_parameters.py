"""Parameters: each is declared once, and plain values stand for objects with options."""

import ast
import inspect
import re

import numpy as np
import pytest
import torch
from imblearn.pipeline import Pipeline
from sklearn.model_selection import GridSearchCV

import wbcclf
from wbcclf import (
    Augmenter,
    Averaging,
    Cache,
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
    OneCycle,
    Optimizer,
    Plateau,
    StepDecay,
)
from wbcclf._parameters import Machine, Option, Training, belongs_to

# Objects by the parameter that holds them, with every option off its default.
OPTIONS = [
    ("averaging", Averaging(decay=0.5)),
    (
        "early_stopping",
        EarlyStopping(patience=1, monitor="valid_acc", min_delta=0.1, validation_fraction=0.3),
    ),
    ("head", Head("max", hidden=(4,), dropout=0.1, batch_norm=True)),
    ("loss", CrossEntropy(label_smoothing=0.1, l1=0.01, l2={"head": 0.1})),
    ("loss", FocalLoss(gamma=1.0, label_smoothing=0.1, l1=0.01, l2={"head": 0.1})),
    ("lr_schedule", Constant(warmup_epochs=1)),
    ("lr_schedule", Cosine(warmup_epochs=1)),
    ("lr_schedule", InverseTimeDecay(decay=0.1, warmup_epochs=1)),
    ("lr_schedule", OneCycle()),
    ("lr_schedule", Plateau(factor=0.5, patience=1, min_lr=1e-5)),
    ("lr_schedule", StepDecay(step_size=1, gamma=0.5, warmup_epochs=1)),
    ("mixing", Mixing(mixup=0.5, cutmix=0.5)),
    ("optimizer", Optimizer("sgd", 0.01, 0.5, 1.0, {"momentum": 0.5})),
    ("unfrozen_layers", GradualUnfreezing(layers=0, epochs_per_layer=2)),
]
OBJECTS = [type(option) for _, option in OPTIONS]

TRAINING = {
    *("weights", "image_shape", "max_epochs", "max_steps", "lr", "lr_schedule", "optimizer"),
    *("averaging", "loss", "class_weight", "balanced_batches", "augment", "mixing"),
    *("early_stopping", "calibrate", "callbacks", "random_state", "warm_start"),
}
MACHINE = {"checkpoint_dir", "device", "compile", "cache_gb", "memory", "verbose"}
MODEL = {
    *("backbone", "unfrozen_layers", "head", "input_size", "test_time_augmentation"),
    *("rejection", "batch_size", "precision"),
}


def documented(cls):
    """Return the parameters in a class's docstring and their defaults, in its order."""
    found = {}
    section = re.search(r"\nParameters\n-+\n(.*?)(\n\n\w[\w ]+\n-+\n|$)", inspect.getdoc(cls), re.S)
    for names, kind in re.findall(r"^(\w[\w, ]*) : (.*)$", section[1] if section else "", re.M):
        default = re.search(r"default=(.+)$", kind)
        for name in names.split(", "):
            found[name] = ast.literal_eval(default[1]) if default else inspect.Parameter.empty
    return found


# ---------------------------------------------------------------- declared


def test_the_constructor_fits_on_a_screen():
    assert len(inspect.signature(CNNClassifier).parameters) <= 32


def test_every_object_with_options_is_known_here():
    exported = {getattr(wbcclf, name) for name in wbcclf.__all__}
    assert set(OBJECTS) == {
        cls for cls in exported if inspect.isclass(cls) and issubclass(cls, Option)
    }
    for _, option in OPTIONS:
        for name, default in type(option)().get_params().items():
            assert getattr(option, name) != default


@pytest.mark.parametrize("cls", [CNNClassifier, Augmenter, Cache, ConvNet, *OBJECTS])
def test_a_parameter_is_declared_and_documented_with_its_default(cls):
    signature = inspect.signature(cls).parameters
    assert list(cls._parameter_constraints) == list(signature)
    assert documented(cls) == {name: own.default for name, own in signature.items()}


def test_a_parameter_belongs_to_the_model_to_training_or_to_the_machine():
    names = set(CNNClassifier._parameter_constraints)
    assert {name for name in names if belongs_to(CNNClassifier, name, Training)} == TRAINING
    assert {name for name in names if belongs_to(CNNClassifier, name, Machine)} == MACHINE
    assert names - TRAINING - MACHINE == MODEL


# ---------------------------------------------------------------- plain values


@pytest.mark.parametrize(
    ("name", "plain", "option", "other"),
    [
        ("averaging", True, Averaging(decay=0.99), False),
        ("averaging", 0.5, Averaging(decay=0.5), True),
        ("early_stopping", True, EarlyStopping(), EarlyStopping(validation_fraction=0.5)),
        ("head", None, Head(dropout=0.2), Head(dropout=0.5)),
        ("loss", "cross_entropy", CrossEntropy(), CrossEntropy(label_smoothing=0.1)),
        ("loss", "focal", FocalLoss(gamma=2.0), FocalLoss(gamma=1.0)),
        ("lr_schedule", "constant", Constant(), Constant(warmup_epochs=1)),
        ("lr_schedule", "cosine", Cosine(), Cosine(warmup_epochs=1)),
        ("lr_schedule", "decay", InverseTimeDecay(decay=1e-4), InverseTimeDecay(decay=1.0)),
        ("lr_schedule", "onecycle", OneCycle(), "cosine"),
        ("lr_schedule", "plateau", Plateau(), "onecycle"),
        ("lr_schedule", "step", StepDecay(), StepDecay(warmup_epochs=1)),
        ("mixing", "mixup", Mixing(mixup=0.2), Mixing(mixup=1.0)),
        ("mixing", "cutmix", Mixing(cutmix=1.0), "mixup"),
        ("mixing", None, Mixing(), "mixup"),
        ("optimizer", "adam", Optimizer("adam"), "sgd"),
        ("optimizer", "adamw", Optimizer(), Optimizer(weight_decay=0.5)),
        ("optimizer", "rmsprop", Optimizer("rmsprop"), "adam"),
        ("optimizer", "sgd", Optimizer("sgd"), "adam"),
        ("optimizer", torch.optim.NAdam, Optimizer(torch.optim.NAdam), "adam"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_plain_value_is_an_object_with_the_defaults(simple, cells, name, plain, option, other):
    expected, same, different = (
        simple(max_epochs=1, **{name: value})
        .fit(cells.images, cells.target)
        .predict_proba(cells.images)
        for value in (plain, option, other)
    )
    np.testing.assert_array_equal(same, expected)
    assert abs(different - expected).max() > 1e-6


def test_a_folder_is_a_cache_with_the_defaults(simple, cells, tmp_path):
    first, again = (
        simple(memory=memory).fit(cells.images, cells.target)
        for memory in (tmp_path, Cache(tmp_path))
    )
    assert again.history_ == first.history_  # durations, too: it was not trained again


def test_an_option_of_a_plain_value_says_which_object_to_give():
    clf = CNNClassifier(loss="focal")
    with pytest.raises(
        ValueError, match=r"loss__gamma .* loss='focal' .* loss=CrossEntropy\(\) or"
    ):
        clf.set_params(loss__gamma=1.0)
    assert clf.set_params(loss=FocalLoss(), loss__gamma=1.0).loss.gamma == 1.0
    with pytest.raises(ValueError, match="Invalid parameter 'los' for estimator CNNClassifier"):
        clf.set_params(los__gamma=1.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("loss", "nonsense"), ("lr_schedule", "x"), ("mixing", "x"), ("head", "x")),
        *(("optimizer", 3), ("batch_size", 0), ("batch_size", -5), ("precision", "float16")),
    ],
)
def test_a_parameter_that_was_spoilt_after_fit_is_named(simple, cells, name, value):
    clf = simple(max_epochs=1).fit(cells.images, cells.target).set_params(**{name: value})
    for call in (clf.predict, lambda X: clf.partial_fit(X, cells.target)):
        with pytest.raises(ValueError, match=f"The '{name}' parameter of SimpleCNNClassifier"):
            call(cells.images)


@pytest.mark.parametrize(
    "params",
    [
        *({name: np.int64(2)} for name in ("max_epochs", "max_steps", "batch_size")),
        {"unfrozen_layers": GradualUnfreezing(np.int64(5), np.int64(1)), "max_epochs": 6},
    ],
    ids=lambda params: next(iter(params)),
)
def test_integers_of_numpy_are_integers(simple, cells, params):
    plain = {
        name: GradualUnfreezing(5, 1) if isinstance(value, GradualUnfreezing) else int(value)
        for name, value in params.items()
    }
    ours, expected = (
        simple(**given).fit(cells.images, cells.target).predict_proba(cells.images)
        for given in (params, plain)
    )
    np.testing.assert_array_equal(ours, expected)


def test_true_is_no_number_of_blocks(simple, cells):
    with pytest.raises(ValueError, match=r"'unfrozen_layers' .* Got True instead"):
        simple(unfrozen_layers=True).fit(cells.images, cells.target)


# ---------------------------------------------------------------- options


def test_every_option_is_searched_by_its_name(cells, weights_file):
    """In one search over a pipeline, which hands each candidate to the scorer."""
    clf = CNNClassifier(
        weights=weights_file("simple_cnn"), max_epochs=1, device="cpu", random_state=0
    )
    grid = [
        {f"clf__{name}": [type(option)()]}
        | {f"clf__{name}__{key}": [value] for key, value in option.get_params().items()}
        for name, option in OPTIONS
    ]
    seen = []

    def note(pipe, X, y):
        seen.append(pipe["clf"].get_params())
        return pipe.score(X, y)

    pipe = Pipeline([("aug", Augmenter(random_state=0)), ("clf", clf)])
    search = GridSearchCV(pipe, grid, scoring=note, cv=2, refit=False, error_score="raise")
    search.fit(cells.images, cells.target)
    assert len(seen) == 2 * len(OPTIONS)
    for (name, option), params in zip(np.repeat(OPTIONS, 2, axis=0), seen, strict=True):
        assert type(params[name]) is type(option)
        assert params[name].get_params() == option.get_params()


@pytest.mark.parametrize(
    ("name", "cls", "option"),
    [
        (name, type(option), key)
        for name, option in OPTIONS
        for key in inspect.signature(type(option)).parameters
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_an_option_out_of_its_range_is_named_with_its_object(simple, cells, name, cls, option):
    clf = simple(**{name: cls(**{option: -1})})
    message = rf"The '{option}' parameter of {cls.__name__} must be .* Got -1 instead"
    with pytest.raises(ValueError, match=message):
        clf.fit(cells.images, cells.target)
