"""Every published system as a pipeline: what it is made of, and that it runs."""

from collections import Counter
from contextlib import nullcontext

import numpy as np
import pytest
from sklearn.utils import check_random_state

from wbcclf import Plateau, StepDecay, make_blood_cells
from wbcclf.backbones import get_backbone
from wbcclf.classifiers.options._settings import Settings
from wbcclf.recipes import get_recipe, list_recipes, make_recipe

# What a system was published with, beyond the classes' defaults.
ADAM = {
    "clf__optimizer__method": "adam",
    "clf__optimizer__params": {"eps": 1e-7},
    "clf__lr": 1e-3,
}
RMSPROP = {
    "clf__optimizer__method": "rmsprop",
    "clf__optimizer__params": {"alpha": 0.9, "eps": 1e-7},
}
PUBLISHED = {
    "nine-class-vgg16": {
        "clf__backbone": "vgg16",
        "clf__input_size": 256,
        "clf__weights": "imagenet",
        "clf__unfrozen_layers": "block5_conv3",
        "clf__head__dropout": 0.0,
        "clf__head__hidden": (64,),
        "clf__lr": 1e-3,
        "clf__max_epochs": 10,
        "clf__batch_size": 32,
        "clf__early_stopping": False,
        "aug__rotation": 20,
        "aug__shift": 0.1,
        "aug__fill": "constant",
        "smote__k_neighbors": 5,
        "smote__random_state": 62,
        **RMSPROP,
    },
    "nine-class-resnet152": {
        "clf__backbone": "resnet152",
        "clf__unfrozen_layers": 0,
        "clf__head__dropout": 0.5,
        "clf__max_epochs": 20,
        "clf__early_stopping__patience": 20,
        **ADAM,
    },
    "pbc-cnn8-augmented": {
        "clf__backbone": "cnn8",
        "clf__input_size": 224,
        "clf__augment__rotation": 144,
        "clf__augment__shift": 0,
        "clf__augment__brightness": 0,
        "clf__max_epochs": 100,
        "clf__early_stopping__monitor": "valid_acc",
        "clf__early_stopping__patience": 3,
        "clf__early_stopping__min_delta": 0.005,
        "clf__early_stopping__validation_fraction": 0.2,
        **ADAM,
    },
    "pbc-resnet50-finetuned": {
        "clf__backbone": "resnet50",
        "clf__unfrozen_layers": "all",
        **ADAM,
        "clf__lr": 1e-4,
    },
    "four-class-densenet201": {
        "clf__backbone": "densenet201",
        "clf__input_size": 150,
        "clf__unfrozen_layers": 0,
        "clf__max_epochs": 10,
        "clf__lr_schedule": Plateau(factor=0.3, patience=1, min_lr=1e-6),
        "clf__augment": None,
        **ADAM,
    },
    "field-cnn-l2": {
        "clf__backbone": "field_cnn",
        "clf__input_size": 128,
        "clf__max_epochs": 100,
        "clf__lr_schedule": StepDecay(step_size=75, gamma=0.25),
        "clf__loss__l2": {"conv2": 0.01, "conv3": 0.01},
        **ADAM,
    },
    "field-cnn-baseline": {
        "clf__backbone": "field_cnn_baseline",
        "clf__input_size": 256,
        "clf__batch_size": 64,
        "clf__max_epochs": 20,
        "clf__lr_schedule": "constant",
    },
    "leukocyte-xception": {
        "clf__backbone": "xception",
        "clf__input_size": 299,
        "clf__weights": "imagenet",
        "clf__unfrozen_layers": 0,
        "clf__head__dropout": (0.0, 0.5),
        "clf__head__pooling": "flatten",
        "clf__head__hidden": (256,),
        "clf__lr": 1e-5,
        "clf__batch_size": 16,
        "clf__max_epochs": 100,
        "aug__n_copies": 10,
        "aug__fill": "nearest",
        **RMSPROP,
    },
    "leukocyte-xception-scratch": {"clf__weights": None, "clf__unfrozen_layers": "all"},
}


def test_there_is_a_recipe_for_every_published_system():
    systems = Counter(get_recipe(name).system[0] for name in list_recipes())
    assert systems == {"A": 4, "B": 7, "C": 3, "D": 3, "E": 16}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_the_published_ones(name):
    pipe = make_recipe(name)
    params = pipe.get_params()
    params["clf__backbone"] = pipe["clf"].backbone
    params["clf__weights"] = Settings.of(pipe["clf"]).weights
    found = {key: params[key] for key in PUBLISHED[name]}
    assert str(found) == str(PUBLISHED[name])  # two schedules are equal if they look the same


# Defaults of the classifiers may change with what is measured; recipes must not.
PLAIN = {
    "optimizer__weight_decay": 0.0,
    "optimizer__layer_lr_decay": 1.0,
    "optimizer__max_grad_norm": None,
    "lr_schedule": "constant",
    "loss": "cross_entropy",
    "class_weight": None,
    "balanced_batches": False,
    "mixing": None,
    "averaging": False,
    "augment": None,
    "test_time_augmentation": False,
    "precision": "float32",
}
NOT_PLAIN = {
    "pbc-cnn8-augmented": {"augment"},
    "pbc-cnn-3block": {"augment"},
    "pbc-wide-deep": {"augment"},
    "pbc-resnet50-frozen": {"augment"},
    "pbc-resnet50-finetuned": {"augment"},
    "four-class-sepconv": {"lr_schedule"},
    "four-class-densenet201": {"lr_schedule"},
    "four-class-vgg16": {"lr_schedule"},
    "field-cnn": {"lr_schedule"},
    "field-cnn-l2": {"lr_schedule", "loss"},
}


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_has_nothing_that_was_not_published(name):
    clf = make_recipe(name)["clf"]
    params = clf.get_params()
    differ = {key for key, value in PLAIN.items() if params[key] != value}
    assert differ == NOT_PLAIN.get(name, set())
    if name == "field-cnn-l2":
        assert repr(clf.loss) == "CrossEntropy(l2={'conv2': 0.01, 'conv3': 0.01})"
    settings = Settings.of(clf)
    assert settings.epochs_per_layer is None  # no gradual unfreezing
    pretrained = settings.unfrozen_layers != "all" or name == "pbc-resnet50-finetuned"
    assert settings.weights == ("imagenet" if pretrained else None)


def test_nine_classes_become_934_images_and_then_225_of_each_class():
    counts = (21, 6, 3, 20, 152, 20, 24, 7, 168)
    y = np.repeat(list("abcdefghi"), counts)
    images = np.random.RandomState(0).randint(0, 256, (len(y), 8, 8, 3), dtype=np.uint8)
    pipe = make_recipe("nine-class-cnn")
    copied = pipe["aug"].fit_resample(images, y)[1]
    assert len(copied) == 934
    assert Counter(copied)["c"] == 60
    assert set(Counter(pipe[:-1].fit_resample(images, y)[1]).values()) == {225}


def linear_layers(clf):
    """Return the head as [(dropout, BatchNorm?, outputs), ...], one for each linear layer."""
    layers, dropout, batch_norm = [], None, False
    for module in clf.net_.module_.head:
        kind = type(module).__name__
        if kind == "Dropout":
            dropout = module.p
        elif kind == "BatchNorm1d":
            batch_norm = True
        elif kind == "Linear":
            layers.append((dropout, batch_norm, module.out_features))
            dropout, batch_norm = None, False
    return layers


HEADS = {
    "nine-class-vgg16": [(0.0, False, 64), (0.0, False, 2)],
    "nine-class-cnn": [(0.0, False, 64), (0.4, False, 2)],
    "nine-class-resnet50": [(0.5, False, 2)],
    "pbc-cnn-3block": [(0.0, False, 2)],
    "pbc-resnet50-frozen": [(0.0, False, 2)],
    "four-class-sepconv": [
        (0.0, False, 512),
        (0.7, False, 128),
        (0.5, False, 64),
        (0.3, False, 2),
    ],
    "four-class-vgg16": [(0.0, True, 256), (0.7, True, 128), (0.5, False, 64), (0.3, False, 2)],
    "field-cnn-baseline": [(0.0, False, 64), (0.0, False, 2)],
    "field-cnn": [(0.0, False, width) for width in (256, 128, 64, 32, 2)],
    "leukocyte-vgg16": [(0.0, False, 256), (0.5, False, 2)],
}


@pytest.fixture(scope="module")
def cells():
    """Six neutrophils and four eosinophils, of another size than the networks see."""
    counts = {"neutrophil": 6, "eosinophil": 4}
    return make_blood_cells(
        classes=list(counts), imbalance=counts, image_size=(36, 40), random_state=0
    )


# The 16 of system E differ in the network alone. `make test` runs those of one, and of Xception,
# whose head is its own; the others, and the deepest network, are run by `make families`.
RUN_OF_E = {
    *("leukocyte-vgg16", "leukocyte-vgg16-scratch"),
    *("leukocyte-xception", "leukocyte-xception-scratch"),
}
SLOW = {
    *(
        name
        for name in list_recipes()
        if get_recipe(name).system[0] == "E" and name not in RUN_OF_E
    ),
    "nine-class-resnet152",
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.families if name in SLOW else ())
        for name in list_recipes()
    ],
)
def test_recipe_runs(name, cells):
    if "xception" in name:
        pytest.importorskip("timm")
    recipe = get_recipe(name)
    clf = recipe.steps[-1][1]
    overrides = {
        "clf__weights": None,
        "clf__input_size": max(32, get_backbone(clf.backbone).smallest_size),
        "clf__max_epochs": 1,
        "clf__device": "cpu",
    }
    if recipe.system[0] == "E":
        overrides["aug__n_copies"] = 1
    pipe = make_recipe(name, **overrides)
    frozen = clf.unfrozen_layers != "all"
    with pytest.warns(UserWarning, match="frozen at random") if frozen else nullcontext():
        pipe.fit(cells.images, cells.target)
    clf = pipe["clf"]
    probabilities = pipe.predict_proba(cells.images)
    assert probabilities.shape == (10, 2) and np.isfinite(probabilities).all()
    if clf.early_stopping:
        assert len(clf.validation_indices_) >= 2 and clf.validation_indices_.max() < 10
    if name in HEADS:
        assert linear_layers(clf) == HEADS[name]
    if recipe.system[0] == "E":
        np.testing.assert_array_equal(
            pipe["clf"].predict_proba(pipe["background"].transform(cells.images)), probabilities
        )
    if name == "field-cnn-l2":
        assert {term[2] for term in clf.net_.penalty.terms} == {0.01}


def test_overrides_reach_their_steps():
    pipe = make_recipe("nine-class-cnn", clf__lr=0.5, smote__k_neighbors=2)
    assert (pipe["clf"].lr, pipe["smote"].k_neighbors) == (0.5, 2)
    other = make_recipe("field-cnn", clf__early_stopping__patience=2)
    assert other["clf"].early_stopping.patience == 2
    # The table itself is unchanged.
    assert make_recipe("nine-class-cnn")["clf"].lr == 1e-3
    assert make_recipe("field-cnn")["clf"].early_stopping.patience == 100


def test_seeds_are_the_recipes_own_unless_given():
    def seeds(**params):
        pipe = make_recipe("nine-class-cnn", **params)
        return [step.random_state for step in pipe.named_steps.values()]

    assert seeds() == [0, 62, 0]
    assert seeds(random_state=7) == [7, 7, 7]
    assert seeds(random_state=7, clf__random_state=1) == [7, 7, 1]
    generator = check_random_state(0)
    assert seeds(random_state=generator) == [generator] * 3


def test_the_background_is_removed_before_copies_are_made():
    pipe = make_recipe("leukocyte-vgg16", random_state=3)
    assert list(pipe.named_steps) == ["background", "aug", "clf"]
    assert (pipe["aug"].random_state, pipe["clf"].random_state) == (3, 3)
    assert make_recipe("leukocyte-vgg16", background__which="largest")["background"].which == (
        "largest"
    )


def test_an_unknown_parameter_is_an_error_that_names_the_nearest():
    with pytest.raises(ValueError, match=r"no parameter 'max_epochs'. Did you mean 'clf__max_ep"):
        make_recipe("pbc-mlp", max_epochs=1)
    with pytest.raises(ValueError, match="no parameter 'smote__k_neighbors'"):
        make_recipe("pbc-mlp", smote__k_neighbors=1)


def test_a_misspelt_recipe_is_an_error_with_the_nearest_and_all_names():
    with pytest.raises(ValueError, match=r"there are field-cnn, .*Did you mean 'pbc-cnn8'\?"):
        get_recipe("pbc-cnn9")
    with pytest.raises(ValueError, match="Unknown recipe 'vgg'"):
        make_recipe("vgg")
