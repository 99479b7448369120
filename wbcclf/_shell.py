"""What the commands of the shell share: checks before the work, and what they print."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from imblearn.pipeline import Pipeline
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.utils import Bunch

import wbcclf
from wbcclf.backbones import get_backbone
from wbcclf.exceptions import ImageReadError

# Without markup: a class may be called "[red]".
out = Console(highlight=False, soft_wrap=True, markup=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


CHUNK = 256  # files that are in memory at a time, or are a worker's part of a prediction


class OnError(StrEnum):
    """What to do about a file that cannot be read."""

    stop = "raise"
    warn = "warn"
    skip = "skip"


class Balance(StrEnum):
    """What to do about classes of different size."""

    none = "none"
    weights = "weights"
    copies = "copies"
    smote = "smote"


def make_pipeline(
    backbone: str, augment: bool | None, balance: Balance | None, seed: int, given: dict
) -> Pipeline:
    """Return what is trained without a recipe: samplers as `balance` says, and the classifier."""
    lr = 3e-3 if given.get("weights") is None else 3e-4  # pretrained features are easily unlearnt
    defaults = {"max_epochs": 10, "lr": lr, "weight_decay": 0.05}
    classifier = wbcclf.CNNClassifier(
        backbone,
        class_weight="balanced" if balance is Balance.weights else None,
        augment=None if augment is False else wbcclf.Augmenter(),
        random_state=seed,
        verbose=1,
        **(defaults | given),
    )
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


def check_classifier(classifier: wbcclf.CNNClassifier) -> None:
    """Fail on parameters that `fit` would refuse only after the images are read."""
    from wbcclf.backbones._weights import find_weights
    from wbcclf.classifiers._net import resolve_device

    classifier._validate_params()
    spec = get_backbone(classifier.backbone)
    if classifier.weights is not None:
        find_weights(spec, classifier.weights)
    resolve_device(classifier.device, fitted=False)


def list_labelled(folder: Path, groups: Any = None) -> Bunch:
    """Return the files of a folder of class folders; several sets (TRAIN, TEST) are an error."""
    listing = wbcclf.list_image_folder(folder, groups=groups)
    require(listing.target is not None, f"{folder} has no class folders: there are no labels.")
    sets = [] if listing.split is None else sorted(set(listing.split.tolist()))
    require(
        len(sets) < 2,
        f"{folder} holds several sets of class folders ({', '.join(sets)}), which would be mixed: "
        f"give one of them, like {folder / sets[-1] if sets else folder}.",
    )
    return listing


def hold_out(listing: Bunch, fraction: float, seed: int) -> np.ndarray:
    """Return the rows of about that share of the groups, with every class left to train on."""
    n_groups = {
        label: len(set(listing.groups[listing.target == label].tolist()))
        for label in listing.target_names
    }
    rarest = min(n_groups, key=n_groups.get)
    n_folds = min(max(2, round(1 / fraction)), n_groups[rarest])
    require(
        n_folds >= 2,
        f"--early-stopping with --groups needs at least two groups of every class; {rarest} has "
        f"{n_groups[rarest]}. Leave out --early-stopping.",
    )
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    folds = splitter.split(listing.target, listing.target, listing.groups)
    for train_rows, held in folds:
        if set(listing.target[train_rows]) == set(listing.target_names):
            return held
    raise ValueError(
        "--early-stopping with --groups: every split by group takes all images of some class out "
        "of training. Leave out --early-stopping."
    )


def collect(chunks: Iterator[Bunch], listing: Bunch, on_error: OnError) -> Bunch:
    """Return the predictions of all readable files; name the others as `on_error` says."""
    n_files = len(listing.paths)
    shown = track(chunks, description="Predicting", total=-(-n_files // CHUNK), console=err)
    done = list(shown)
    broken = [item for chunk in done for item in chunk.skipped]
    if broken and (on_error is OnError.stop or len(broken) == n_files):
        raise ImageReadError(f"{named(broken)}: cannot be read as images.")
    if on_error is not OnError.skip:
        report_skipped(listing.skipped + broken)
    return Bunch(
        paths=[path for chunk in done for path in chunk.paths],
        labels=np.concatenate([chunk.labels for chunk in done]),
        probabilities=np.concatenate([chunk.probabilities for chunk in done]),
    )


def check_output(path: Path) -> None:
    """Fail before the work starts, not after it, if the result cannot be written."""
    require(path.parent.is_dir(), f"{path}: the folder {path.parent} does not exist.")
    require(not path.is_dir(), f"{path} is a folder; give a file name.")
    require(os.access(path.parent, os.W_OK), f"{path}: the folder {path.parent} is read-only.")


def counts_text(counts: Counter) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def print_evaluation(result: Bunch) -> None:
    low, high = result.accuracy_interval
    table = Table("class", "images", "precision", "recall", "F1")
    for row in zip(
        result.classes, result.support, result.precision, result.recall, result.f1, strict=True
    ):
        table.add_row(str(row[0]), str(row[1]), *(f"{figure:.3f}" for figure in row[2:]))
    out.print(table)
    out.print(
        f"accuracy {result.accuracy:.3f} (95% interval {low:.3f} to {high:.3f} if every image is "
        f"another cell), balanced accuracy {result.balanced_accuracy:.3f}, macro-F1 "
        f"{result.macro_f1:.3f}, {result.n_samples} images"
    )
    matrix = Table("true \\ predicted", *(str(label) for label in result.classes))
    for label, counts in zip(result.classes, result.confusion, strict=True):
        matrix.add_row(str(label), *(str(count) for count in counts))
    out.print(matrix)


def report_skipped(skipped: list[tuple[str, str]]) -> None:
    if skipped:
        warn(f"left out: {named(skipped)}")


def named(files: list[tuple[str, str]]) -> str:
    """Return how many files there are, and the first with their reasons."""
    named = "; ".join(f"{path} ({reason})" for path, reason in files[:5])
    return f"{len(files)} files: {named}" + (" and more" if len(files) > 5 else "")


def warn(message: Any, *_: Any, **__: Any) -> None:
    err.print(f"wbcclf: warning: {' '.join(str(message).split())}")


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
