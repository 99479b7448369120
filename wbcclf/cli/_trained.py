"""What `wbcclf train` tells of a training."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

from imblearn.pipeline import Pipeline

import wbcclf
from wbcclf.classifiers.options._settings import Settings

PACKAGES = ("imbalanced-learn", "numpy", "scikit-learn", "skorch", "torch", "torchvision")


def start_text(classifier: wbcclf.CNNClassifier) -> str:
    """Return what a training starts from, as a line."""
    settings = Settings.of(classifier)
    if settings.weights is None:
        return f"Network: {settings.backbone.name}, from random weights"
    return (
        f"Network: {settings.backbone.name}, from the weights {str(settings.weights)!r} "
        "(--weights random: without them)"
    )


def trained_text(classifier: wbcclf.CNNClassifier, steps: int | None) -> str:
    """Return how long a training was and how it ended, as a line."""
    history = classifier.history_
    last = history[-1] if history else {}
    figures = ", ".join(f"{name} {value:.3f}" for name, value in last.items() if "_" in name)
    trained = f"{len(history)} of {classifier.max_epochs} epochs"
    if steps is not None:
        trained = f"{classifier.n_steps_} of {steps} steps"
    return f"Trained {trained}: {figures}"


def figures_of(classifier: wbcclf.CNNClassifier) -> dict[str, Any]:
    """Return what was trained, for JSON."""
    settings = Settings.of(classifier)
    return {
        "backbone": settings.backbone.name,
        "weights": None if settings.weights is None else str(settings.weights),
        "n_epochs": len(classifier.history_),
        "n_steps": classifier.n_steps_,
        "history": classifier.history_,
    }


def parameters_of(pipeline: Pipeline) -> dict[str, Any]:
    """Return the parameters of all steps by the names that `set_params` takes, for JSON.

    What is no number and no text is written as Python shows it.
    """
    parameters = {}
    for name, value in pipeline.get_params().items():
        if "__" in name:
            is_plain = value is None or isinstance(value, (bool, int, float, str))
            parameters[name] = value if is_plain else repr(value)
    return parameters


def versions() -> dict[str, str]:
    """Return the versions of what a result depends on."""
    installed = {name: version(name) for name in PACKAGES}
    return {"wbcclf": wbcclf.__version__, "python": platform.python_version(), **installed}
