"""The model card: what a model is, on what it was measured, and where it ends, in Markdown."""

from __future__ import annotations

import os
import re
from typing import Any

from wbcclf._files import replacing
from wbcclf.classifiers import CNNClassifier
from wbcclf.inspection._files import last_step
from wbcclf.inspection.evaluation._result import OF_CLASSES, OVERALL, Evaluation, with_interval
from wbcclf.inspection.pages._evaluation import answer, cautions
from wbcclf.inspection.pages._provenance import about, licences, versions


def write_card(result: Evaluation, path: str | os.PathLike) -> None:
    """Write the model card of an evaluation.

    Raises
    ------
    ValueError
        If the result was not made of a model.
    OSError
        If the card cannot be written; an existing one then stays as it is.
    """
    if result.get("estimator") is None:
        raise ValueError(
            "A model card needs the model: make the result with evaluate(model, X, y, groups)."
        )
    text = "\n\n".join(_parts(result)) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def _parts(result: Evaluation) -> list[str]:
    classifier = last_step(getattr(result.estimator, "best_estimator_", result.estimator))
    known = classifier.classes_ if hasattr(classifier, "classes_") else result.classes
    labels = ", ".join(escaped(label) for label in known)
    scores = [name for name in OF_CLASSES if name in result]
    rows = [
        [label, count, *(with_interval(result, name, place) for name in scores)]
        for place, (label, count) in enumerate(zip(result.classes, result.support, strict=True))
    ]
    return [
        "# Model card",
        "## What it is",
        f"A classifier of images of single blood cells. Classes: {labels}.",
        _list(about(result)),
        "## What it is for",
        "Research use only. It is not a medical device, and not validated for clinical use.",
        "## How good it is",
        " ".join(escaped(sentence) for sentence in answer(result)),
        _table(
            ["score", "value (95% interval)"],
            [[OVERALL[name], with_interval(result, name)] for name in OVERALL if name in result],
        ),
        _table(["class", "images", *(OF_CLASSES[name] for name in scores)], rows),
        *_calibration(result),
        "## Limits",
        "\n".join(f"- {escaped(each)}" for each in _limits(result)),
        *_licences(classifier),
        "## Made with",
        ", ".join(f"{name} {value}" for name, value in versions().items()),
    ]


def _calibration(result: Evaluation) -> list[str]:
    if "calibration" not in result:
        return []
    found = result.calibration
    low, high = found.error_interval
    return [
        f"Calibration error (15 bins): {found.error:.3f} ({low:.2f} to {high:.2f}); calibrated "
        f"probabilities would show {found.error_by_chance:.3f} on average on as many cells."
    ]


def _limits(result: Evaluation) -> list[str]:
    unknown = "Nothing is known of how much these images are like those of the training."
    return [
        *cautions(result),
        *([unknown] if result.get("familiarity") is None else []),
        "On slides of another laboratory (stain, microscope, camera, scale) it can be far worse. "
        "Evaluate it there before use.",
        "It always calls one of its classes, unless it has a rejection. Other cells, artefacts and "
        "damaged cells are called one of them.",
    ]


def _licences(classifier: Any) -> list[str]:
    if not isinstance(classifier, CNNClassifier):
        return []
    found = licences(classifier)
    if not found:
        return ["## Licence of the weights", "The network has no weights that it starts from."]
    # "default" is ImageNet's if there is one, else the first.
    tags = [tag for tag, _ in found]
    default = "imagenet" if "imagenet" in tags else tags[0]
    started = default if classifier.weights == "default" else classifier.weights
    known = [(tag, licence) for tag, licence in found if tag == started]
    text = "Its weights, or those that its training started from:"
    if not known:
        text = "The model does not say which weights it started from. Those of its network:"
    return ["## Licence of the weights", text, _list(known or found)]


def escaped(value: Any) -> str:
    """Return text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_\[\]<>|&$])", r"\\\1", " ".join(str(value).split()))


def _list(facts: list[tuple[str, str]]) -> str:
    return "\n".join(f"- {escaped(name)}: {_code(value)}" for name, value in facts)


def _code(value: str) -> str:
    """Return text as code, between more backticks than it has in a row."""
    text = " ".join(value.split())
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"


def _table(header: list[Any], rows: list[list[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    texts = [[cell if cell == "---" else escaped(cell) for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in texts)
