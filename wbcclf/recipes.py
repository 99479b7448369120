"""Five published systems as named pipelines, built from this package's own parts."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
from imblearn.pipeline import Pipeline
from sklearn.base import BaseEstimator, clone

from wbcclf.classifiers import (
    CNN3BlockClassifier,
    CNN8Classifier,
    CNNClassifier,
    CrossEntropy,
    DenseNet121Classifier,
    DenseNet169Classifier,
    DenseNet201Classifier,
    EarlyStopping,
    FieldCNNBaselineClassifier,
    FieldCNNClassifier,
    Head,
    ImageMLPClassifier,
    InceptionV3Classifier,
    NineClassCNNClassifier,
    Optimizer,
    Plateau,
    ResNet50Classifier,
    ResNet152Classifier,
    SepConvClassifier,
    StepDecay,
    VGG16Classifier,
    VGG19Classifier,
    WideDeepClassifier,
    XceptionClassifier,
)
from wbcclf.preprocessing import BackgroundRemover
from wbcclf.sampling import SMOTE, Augmenter

__all__ = ["Recipe", "get_recipe", "list_recipes", "make_recipe"]


@dataclass(frozen=True)
class Recipe:
    """A named, complete, unfitted pipeline that repeats a published system.

    Attributes
    ----------
    name : str
        What :func:`make_recipe` takes.
    system : str
        Letter and description of the published system.
    published : str
        Its test accuracy as it was published; "(leaky)" and "(artefact)" mark figures that say
        nothing about cells it has not seen.
    steps : tuple of (str, estimator)
        ``"background"``, ``"aug"`` and ``"smote"`` (if the system has them) and ``"clf"``,
        unfitted.
    """

    name: str
    system: str
    published: str
    steps: tuple[tuple[str, BaseEstimator], ...]

    @property
    def image_size(self) -> int:
        """Height and width in pixels that the published network saw."""
        return self.steps[-1][1].input_size


def list_recipes() -> list[str]:
    """Return the names of all recipes, sorted.

    Examples
    --------
    >>> from wbcclf.recipes import list_recipes
    >>> [name for name in list_recipes() if name.startswith("nine-class")]
    ['nine-class-cnn', 'nine-class-resnet152', 'nine-class-resnet50', 'nine-class-vgg16']
    """
    return sorted(_RECIPES)


def get_recipe(name: str) -> Recipe:
    """Return a recipe by its name.

    Raises
    ------
    ValueError
        If there is no recipe of that name; the message lists the names and suggests the nearest.

    Examples
    --------
    >>> from wbcclf.recipes import get_recipe
    >>> recipe = get_recipe("four-class-sepconv")
    >>> recipe.published, recipe.image_size
    ('0.9405 (leaky)', 150)
    """
    if name not in _RECIPES:
        raise ValueError(
            f"Unknown recipe {name!r}; there are {', '.join(list_recipes())}."
            f"{_suggestion(name, _RECIPES)}"
        )
    return _RECIPES[name]


def make_recipe(name: str, *, random_state: Any = None, **overrides: Any) -> Pipeline:
    """Return the unfitted pipeline of a recipe.

    Parameters
    ----------
    name : str
        One of :func:`list_recipes`.
    random_state : int, RandomState instance or None, default=None
        Given to every step that has one. None keeps the recipe's own seeds: the published one if
        there is one, else 0.
    **overrides
        Parameters of steps to change, as for ``set_params``: ``clf__max_epochs=1``.

    Returns
    -------
    imblearn.pipeline.Pipeline

    Raises
    ------
    ValueError
        If there is no recipe, or no parameter, of that name.

    Examples
    --------
    >>> from wbcclf import make_blood_cells
    >>> from wbcclf.recipes import make_recipe
    >>> pipe = make_recipe("field-cnn", clf__input_size=32, clf__max_epochs=1, clf__device="cpu")
    >>> cells = make_blood_cells(40, classes=4, image_size=32, random_state=0)
    >>> pipe.fit(cells.images, cells.target).predict(cells.images).shape
    (40,)
    """
    pipeline = Pipeline([(step_name, clone(step)) for step_name, step in get_recipe(name).steps])
    known = pipeline.get_params()
    for key in overrides:
        if key not in known:
            raise ValueError(
                f"The recipe {name!r} has no parameter {key!r}."
                f"{_suggestion(key, known)} Its steps are {', '.join(pipeline.named_steps)}; a "
                "parameter is named step__parameter, like clf__max_epochs."
            )
    for _, step in pipeline.steps:
        if not hasattr(step, "random_state"):
            continue
        if random_state is not None:
            step.set_params(random_state=random_state)
        elif step.random_state is None:
            step.set_params(random_state=0)
    return pipeline.set_params(**overrides)


def _suggestion(name: str, known: Any) -> str:
    near = get_close_matches(str(name), known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _add_57(y: np.ndarray) -> dict:
    """Return the number of images that system A brings every class to: 57 more than it has."""
    labels, counts = np.unique(y, return_counts=True)
    return dict(zip(labels.tolist(), (counts + 57).tolist(), strict=True))


# Keras' defaults, where they are not CNNClassifier's.
_KERAS = {"lr": 1e-3, "lr_schedule": "constant"}
_ADAM = _KERAS | {"optimizer": Optimizer("adam", params={"eps": 1e-7})}
_RMSPROP = _KERAS | {"optimizer": Optimizer("rmsprop", params={"alpha": 0.9, "eps": 1e-7})}
_SHAPE_ONLY = {"zoom": 0, "brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}


def _keep_best(max_epochs: int, validation_fraction: float) -> dict[str, Any]:
    """Train for all epochs and keep the one that does best on a validation part."""
    return {
        "max_epochs": max_epochs,
        "early_stopping": EarlyStopping(
            patience=max_epochs, validation_fraction=validation_fraction
        ),
    }


_A = "A: nine classes"
_NINE_CLASS_SAMPLERS = (
    (
        "aug",
        Augmenter(
            rotation=20,
            shift=0.1,
            shear=5,
            fill="constant",
            sampling_strategy=_add_57,
            **_SHAPE_ONLY,
        ),
    ),
    ("smote", SMOTE(k_neighbors=5, random_state=62)),
)
_NINE_CLASS_RESNET = {
    "input_size": 256,
    "unfrozen_layers": 0,
    "head": Head(dropout=0.5),
    "batch_size": 32,
    **_ADAM,
    **_keep_best(20, validation_fraction=0.2),
}

_B = "B: eight classes (PBC)"
_PBC = {
    "input_size": 224,
    "batch_size": 32,
    **_ADAM,
    "max_epochs": 100,
    "early_stopping": EarlyStopping(
        patience=3,
        monitor="valid_acc",
        min_delta=0.005,
        validation_fraction=0.2,  # of the four fifths that are not test images
    ),
}
_LINEAR = Head(dropout=0.0)
_PBC_AUGMENTED = _PBC | {"augment": Augmenter(rotation=144, shift=0, **_SHAPE_ONLY)}

_C = "C: pooled, reshuffled"
_FOUR_CLASS = {
    "input_size": 150,
    "batch_size": 32,
    **_ADAM,
    # Keras' patience of 2 lowers the rate in the second epoch without improvement; torch's waits
    # for more bad epochs than it says.
    "lr_schedule": Plateau(factor=0.3, patience=1, min_lr=1e-6),
    **_keep_best(10, validation_fraction=1 / 9),  # of the nine tenths that are not test images
}
_FOUR_CLASS_FROZEN = _FOUR_CLASS | {
    "unfrozen_layers": 0,
    "head": Head(
        "flatten",
        hidden=(256, 128, 64),
        dropout=(0.0, 0.7, 0.5, 0.3),
        batch_norm=(True, True, False, False),
    ),
}

_D = "D: official test set"
_FIELD = {
    "input_size": 128,
    "batch_size": 32,
    **_ADAM,
    "lr_schedule": StepDecay(step_size=75, gamma=0.25),
    **_keep_best(100, validation_fraction=0.2),
}

_E = "E: no backgrounds"
_LEUKOCYTE_IMAGES = (
    ("background", BackgroundRemover()),  # by hand, as it was published
    ("aug", Augmenter(n_copies=10, rotation=20, shift=0.1, fill="nearest", **_SHAPE_ONLY)),
)
_LEUKOCYTE = {
    "head": Head("flatten", hidden=(256,), dropout=(0.0, 0.5)),
    "batch_size": 16,
    **_RMSPROP,
    "lr": 1e-5,
    **_keep_best(100, validation_fraction=1 / 11),  # 10 of the 110 that are not test images
}
_LEUKOCYTE_NETWORKS = {
    # name: (classifier, input size, published test accuracy with ImageNet weights, 100 epochs)
    "densenet121": (DenseNet121Classifier, 224, "0.9795"),
    "densenet169": (DenseNet169Classifier, 224, "0.9818"),
    "densenet201": (DenseNet201Classifier, 224, "0.9818"),
    "inceptionv3": (InceptionV3Classifier, 299, "0.9500"),
    "resnet50": (ResNet50Classifier, 224, "0.464"),
    "vgg16": (VGG16Classifier, 224, "0.852"),
    "vgg19": (VGG19Classifier, 224, "0.850"),
    "xception": (XceptionClassifier, 299, "0.966"),
}


def _clf(classifier: type[CNNClassifier], shared: dict, **params: Any) -> tuple:
    """Return the last step of a recipe."""
    return ("clf", classifier(**(shared | params)))


_TABLE = [
    Recipe(
        "nine-class-vgg16",
        _A,
        "0.715 (macro-F1 0.425)",
        (
            *_NINE_CLASS_SAMPLERS,
            _clf(
                VGG16Classifier,
                _RMSPROP,
                input_size=256,
                unfrozen_layers="block5_conv3",
                head=Head("flatten", hidden=(64,), dropout=0.0),
                max_epochs=10,
                batch_size=32,
            ),
        ),
    ),
    Recipe(
        "nine-class-cnn",
        _A,
        "0.355",
        (
            *_NINE_CLASS_SAMPLERS,
            _clf(
                NineClassCNNClassifier,
                _ADAM,
                input_size=256,
                max_epochs=150,
                batch_size=32,
                early_stopping=EarlyStopping(patience=10, validation_fraction=0.1),
            ),
        ),
    ),
    Recipe(
        "nine-class-resnet50",
        _A,
        "0.430",
        (*_NINE_CLASS_SAMPLERS, _clf(ResNet50Classifier, _NINE_CLASS_RESNET)),
    ),
    Recipe(
        "nine-class-resnet152",
        _A,
        "0.393",
        (*_NINE_CLASS_SAMPLERS, _clf(ResNet152Classifier, _NINE_CLASS_RESNET)),
    ),
    Recipe("pbc-mlp", _B, "0.62", (_clf(ImageMLPClassifier, _PBC),)),
    Recipe("pbc-cnn8", _B, "0.835", (_clf(CNN8Classifier, _PBC),)),
    Recipe("pbc-cnn8-augmented", _B, "0.87", (_clf(CNN8Classifier, _PBC_AUGMENTED),)),
    Recipe("pbc-cnn-3block", _B, "0.947", (_clf(CNN3BlockClassifier, _PBC_AUGMENTED),)),
    Recipe("pbc-wide-deep", _B, "0.936 (validation)", (_clf(WideDeepClassifier, _PBC_AUGMENTED),)),
    Recipe(
        "pbc-resnet50-frozen",
        _B,
        "0.92",
        (_clf(ResNet50Classifier, _PBC_AUGMENTED, unfrozen_layers=0, head=_LINEAR),),
    ),
    Recipe(
        "pbc-resnet50-finetuned",
        _B,
        "0.976",
        (_clf(ResNet50Classifier, _PBC_AUGMENTED, unfrozen_layers="all", head=_LINEAR, lr=1e-4),),
    ),
    Recipe("four-class-sepconv", _C, "0.9405 (leaky)", (_clf(SepConvClassifier, _FOUR_CLASS),)),
    Recipe(
        "four-class-densenet201",
        _C,
        "0.8907 (leaky)",
        (_clf(DenseNet201Classifier, _FOUR_CLASS_FROZEN),),
    ),
    Recipe("four-class-vgg16", _C, "0.8256 (leaky)", (_clf(VGG16Classifier, _FOUR_CLASS_FROZEN),)),
    Recipe(
        "field-cnn-baseline",
        _D,
        "0.45",
        (
            _clf(
                FieldCNNBaselineClassifier,
                _ADAM | _keep_best(20, validation_fraction=0.2),
                input_size=256,
                batch_size=64,
            ),
        ),
    ),
    Recipe("field-cnn", _D, "0.81 (loss 0.545)", (_clf(FieldCNNClassifier, _FIELD),)),
    Recipe(
        "field-cnn-l2",
        _D,
        "no better than field-cnn",
        (
            _clf(
                FieldCNNClassifier,
                _FIELD,
                loss=CrossEntropy(l2={"conv2": 0.01, "conv3": 0.01}),
            ),
        ),
    ),
]
for _network, (_classifier, _size, _published) in _LEUKOCYTE_NETWORKS.items():
    _frozen = _clf(_classifier, _LEUKOCYTE, input_size=_size, unfrozen_layers=0)
    _scratch = _clf(_classifier, _LEUKOCYTE, input_size=_size, weights=None, unfrozen_layers="all")
    _TABLE += [
        Recipe(f"leukocyte-{_network}", _E, _published, (*_LEUKOCYTE_IMAGES, _frozen)),
        Recipe(
            f"leukocyte-{_network}-scratch", _E, "0.263 (artefact)", (*_LEUKOCYTE_IMAGES, _scratch)
        ),
    ]
_RECIPES = {recipe.name: recipe for recipe in _TABLE}
