"""What somebody needs to know to repeat an evaluation."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

from imblearn.pipeline import Pipeline as WithSamplers
from sklearn.pipeline import Pipeline

from wbcclf._version import __version__
from wbcclf.backbones import get_backbone
from wbcclf.classifiers import CNNClassifier
from wbcclf.inspection._files import last_step
from wbcclf.inspection.evaluation._result import Evaluation

PACKAGES = (
    *("scikit-learn", "imbalanced-learn", "skorch", "torch", "torchvision"),
    *("numpy", "opencv-python-headless", "pillow"),
)


def versions() -> dict[str, str]:
    """Return the versions of what an evaluation rests on, by name."""
    own = {"wbcclf": __version__, "Python": platform.python_version()}
    return own | {name: version(name) for name in PACKAGES}


def about(result: Evaluation) -> list[tuple[str, str]]:
    """Return what was evaluated, as (name, value)."""
    source = result.get("source", {})
    facts = list(source.items())
    if "model_sha256" in result:
        facts.append(("SHA-256 of the model file", result.model_sha256))
    if result.get("images_sha256"):
        facts.append(("SHA-256 of the image files", result.images_sha256))
    if result.get("estimator") is not None:
        facts += about_model(result.estimator)
    return facts


def about_model(model: Any) -> list[tuple[str, str]]:
    """Return what is known of a model, as (name, value)."""
    model = getattr(model, "best_estimator_", model)
    classifier = last_step(model)
    facts = [("Model", recipe(model))]
    if not isinstance(classifier, CNNClassifier):
        return facts
    facts.append(("Random seed of the training", str(classifier.random_state)))
    if hasattr(classifier, "net_"):
        height, width, _ = classifier.image_shape_
        facts.append(("Size of its images", f"{height} x {width} pixels"))
        facts.append(("Steps of training", f"{sum(each['steps'] for each in classifier.history_)}"))
        if classifier._trained_on is not None:
            n_images = len(classifier._trained_on)
            facts.append(("Training images", f"{n_images:,} (number of cells not recorded)"))
    return facts


def recipe(model: Any) -> str:
    """Return a model with the parameters that are not at their defaults."""
    if isinstance(model, (Pipeline, WithSamplers)):
        return "; ".join(f"{name}: {_one_line(step)}" for name, step in model.steps)
    return _one_line(model)


def licences(classifier: CNNClassifier) -> list[tuple[str, str]]:
    """Return the licences of weights that a network can have started from, as (tag, licence)."""
    backbone = classifier.backbone
    spec = get_backbone(backbone) if isinstance(backbone, str) else backbone.spec()
    return [(tag, source.licence) for tag, source in spec.weights.items()]


def _one_line(step: Any) -> str:
    return " ".join(repr(step).split())
