"""What `wbcclf train` trains without a recipe."""

from __future__ import annotations

from enum import StrEnum

from imblearn.pipeline import Pipeline

import wbcclf
from wbcclf.classifiers.options._settings import Settings
from wbcclf.cli import _defaults


class Augment(StrEnum):
    """How every training batch is changed."""

    none = "none"
    turns = "turns"
    full = "full"
    laboratory = "laboratory"


# Flips and right angles move pixels and change none.
AUGMENTERS = {
    Augment.none: None,
    Augment.turns: wbcclf.Augmenter(
        rotation="quarter", shift=0, zoom=0, brightness=0, contrast=0, saturation=0, hue=0
    ),
    Augment.full: wbcclf.Augmenter(),
    Augment.laboratory: wbcclf.Augmenter(laboratory=1),
}


class Crop(StrEnum):
    """What of every picture is used."""

    none = "none"
    nucleus = "nucleus"
    cell = "cell"
    red_cell = "red-cell"


class Balance(StrEnum):
    """What to do about classes of different size."""

    none = "none"
    weights = "weights"
    copies = "copies"
    smote = "smote"


def default_crop(classifier: wbcclf.CNNClassifier) -> Crop:
    """Return what a training cuts: what its weights were trained on."""
    if Settings.of(classifier).weights == _defaults.PACKAGED_WEIGHTS:
        return Crop(_defaults.CROP_WITH_PACKAGED_WEIGHTS)
    return Crop(_defaults.CROP)


def make_pipeline(
    backbone: str | None,
    augment: Augment | None,
    balance: Balance | None,
    seed: int | None,
    given: dict,
) -> Pipeline:
    """Return what is trained without a recipe: samplers as `balance` says, and the classifier."""
    seed = _defaults.SEED if seed is None else seed
    classifier = wbcclf.CNNClassifier(
        backbone or _defaults.BACKBONE,
        class_weight="balanced" if balance is Balance.weights else None,
        augment=AUGMENTERS[augment or Augment(_defaults.AUGMENT)],
        random_state=seed,
        verbose=1,
        optimizer=wbcclf.Optimizer(weight_decay=_defaults.WEIGHT_DECAY),
        **({"batch_size": _defaults.BATCH_SIZE} | given),
    )
    if "lr" not in given:
        is_random = Settings.of(classifier).weights is None
        classifier.set_params(lr=_defaults.LR if is_random else _defaults.LR_WITH_WEIGHTS)
    samplers = []
    if balance is Balance.copies:
        samplers = [("aug", wbcclf.Augmenter(sampling_strategy="auto", random_state=seed))]
    elif balance is Balance.smote:
        # Copies first: SMOTE between the two or three images of a rare class makes near copies.
        samplers = [
            ("aug", wbcclf.Augmenter(n_copies=1, random_state=seed)),
            ("smote", wbcclf.SMOTE(random_state=seed)),
        ]
    return Pipeline([*samplers, ("clf", classifier)])
