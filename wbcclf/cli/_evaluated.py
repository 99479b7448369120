"""What `wbcclf evaluate` prints of the result."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import Bunch

from wbcclf.cli._console import out, print_table, warn
from wbcclf.inspection import Evaluation
from wbcclf.inspection.evaluation._result import OVERALL, with_interval


def print_evaluation(result: Evaluation) -> None:
    if result.n_groups is not None:
        out.print(f"Independent cells: {result.n_groups}, in {result.n_images} images")
        out.print("Each image counts the same:")
    print_classes(result, result.classes, "images")
    if result.unknown_classes:
        n_unknown = result.support[np.isin(result.classes, result.unknown_classes)].sum()
        warn(
            f"the model does not know {', '.join(result.unknown_classes)}: their {n_unknown} "
            "images count as wrong. If they are classes of the model by other names, say so with "
            "--map NAME=CLASS."
        )
        print_overall("All images: ", result)
        if "known_classes_only" in result:
            print_overall("Images of the classes that the model knows: ", result.known_classes_only)
    else:
        print_overall("", result)
    if "by_group" in result:
        out.print("Each cell counts the same, by the share of its images:")
        print_classes(result.by_group, result.classes, "cells")
        print_overall("By cell: ", result.by_group | {"n_groups": result.n_groups})
    rows = [
        [label, *counts] for label, counts in zip(result.classes, result.confusion, strict=True)
    ]
    print_table(["true \\ predicted", *result.classes], rows)
    print_more(result)
    if result.familiarity is not None:
        out.print(
            f"Mean familiarity: {result.familiarity:.2f} (0.50 for the laboratory of the training)"
        )
    if "rejection" in result:
        print_calls(result.rejection)


def print_classes(result: Bunch, classes: np.ndarray, unit: str) -> None:
    """Print the scores of each class, and their intervals if there are any."""
    rows = [
        [
            label,
            result.support[place],
            *(with_interval(result, name, place) for name in ("precision", "recall", "f1")),
        ]
        for place, label in enumerate(classes)
    ]
    print_table(["class", unit, "precision", "recall", "F1"], rows)


def print_more(result: Evaluation) -> None:
    """Print what is not of the accuracy: agreement beyond chance, and the probabilities."""
    names = ("mcc", "kappa", "top_2_accuracy", "log_loss")
    out.print(", ".join(f"{OVERALL[name]} {with_interval(result, name)}" for name in names))
    found = result.calibration
    low, high = found.error_interval
    out.print(
        f"Calibration error {found.error:.3f} ({low:.2f} to {high:.2f}); calibrated probabilities "
        f"would show {found.error_by_chance:.3f} on average on as many cells."
    )


def print_calls(calls: dict[str, Any]) -> None:
    declined = f"Left uncertain: {calls['declined']:.1%} of the images"
    if not calls["n_called"]:
        out.print(f"{declined}; none was called.")
        return
    if calls["accuracy"] is None:
        out.print(f"{declined}. The {calls['n_called']} others show one cell, which tells nothing.")
        return
    low, high = calls["accuracy_interval"]
    by = "if every image shows a different cell"
    if calls["n_groups"] is not None:
        by = f"by cell; they show {calls['n_groups']}"
    out.print(
        f"{declined}. Of the {calls['n_called']} others, {calls['accuracy']:.1%} are right (95% "
        f"interval {low:.1%} to {high:.1%} {by})."
    )


def print_overall(of: str, figures: dict[str, Any]) -> None:
    if figures["n_groups"] is not None:
        scores = [
            f"{text} {with_interval(figures, name)}"
            for name, text in (
                ("accuracy", "accuracy"),
                ("balanced_accuracy", "balanced accuracy"),
                ("macro_f1", "macro-F1"),
            )
        ]
        out.print(
            f"{of}{', '.join(scores)}; {figures['n_groups']} independent cells, 95% intervals by "
            "cell"
        )
        return
    low, high = figures["accuracy_interval"]
    out.print(
        f"{of}accuracy {figures['accuracy']:.3f} (95% interval {low:.3f} to {high:.3f} if every "
        f"image shows a different cell), balanced accuracy "
        f"{with_interval(figures, 'balanced_accuracy')}, macro-F1 "
        f"{with_interval(figures, 'macro_f1')}, {figures['n_images']} images"
    )
