"""`wbcclf train`."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from imblearn.pipeline import Pipeline
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.utils import Bunch

import wbcclf
from wbcclf.backbones import get_backbone
from wbcclf.cli._shared import (
    OnError,
    OnErrorOption,
    check_output,
    counts_text,
    list_labelled,
    out,
    report_skipped,
    require,
    warn,
)
from wbcclf.recipes import get_recipe, make_recipe


class Balance(StrEnum):
    """What to do about classes of different size."""

    none = "none"
    weights = "weights"
    copies = "copies"
    smote = "smote"


def _option(default: str, text: str, **limits: int) -> Any:
    """Return an option that is None unless it is given, because a recipe has its own default."""
    return typer.Option(show_default=default, help=text, **limits)


def train(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Folder with one folder of images per class (DIR/neutrophil/1.jpg)."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Model file to write.")] = Path(
        "model.wbcclf"
    ),
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Repeat a published system; `wbcclf recipes` lists them. It has defaults of its "
            "own in place of those shown here."
        ),
    ] = None,
    backbone: Annotated[
        str | None, _option("simple_cnn", "A network; `wbcclf backbones` lists them.")
    ] = None,
    weights: Annotated[
        str | None,
        _option("random", "'imagenet', 'random', or a .pth, .safetensors, .npz or .wbcclf file."),
    ] = None,
    unfrozen_layers: Annotated[
        str | None,
        _option("all", "Blocks to train, from the top: a number, a block's name, or 'all'."),
    ] = None,
    image_size: Annotated[
        int | None,
        _option("96", "Images are stretched to this height and width in pixels.", min=8),
    ] = None,
    epochs: Annotated[int | None, _option("10", "Passes over the images.", min=1)] = None,
    batch_size: Annotated[int | None, _option("32", "Images per training step.", min=1)] = None,
    lr: Annotated[
        float | None,
        _option("0.003, with weights 0.0003", "The highest learning rate, in one cycle."),
    ] = None,
    augment: Annotated[
        bool | None,
        _option("augment", "Change images at random in every epoch (turn, shift, colours)."),
    ] = None,
    balance: Annotated[
        Balance | None,
        _option(
            "none",
            "Unequal classes: nothing, weight the rare ones, or bring them up to the largest by "
            "changed copies or by copies and SMOTE.",
        ),
    ] = None,
    early_stopping: Annotated[
        bool | None,
        _option(
            "no-early-stopping",
            "Watch a tenth of the images and keep the epoch that does best on them.",
        ),
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(
            help="Which images show the same cell or patient, so that they are not split: a CSV "
            "file with columns path and group, or a regular expression on the path. "
            "Used by --early-stopping, a recipe's too."
        ),
    ] = None,
    group_column: Annotated[
        str | None, typer.Option(help="Column of that CSV file, if it is not called group.")
    ] = None,
    precision: Annotated[
        str | None,
        _option("float32", "float32; bfloat16, faster on recent CPUs and GPUs; auto: the faster."),
    ] = None,
    seed: Annotated[int | None, _option("0", "Same seed, same model.", min=0)] = None,
    device: Annotated[str | None, _option("auto", "auto, cpu, cuda, cuda:1, mps.")] = None,
    on_error: OnErrorOption = OnError.stop,
) -> None:
    """Train a classifier on a folder of class folders and write it to a file.

    Example: wbcclf train cells/train -o model.wbcclf --epochs 10

    Example: wbcclf train cells/train --recipe pbc-cnn-3block
    """
    # What can be known to be wrong without building the network is checked before thousands of
    # images are read.
    check_output(output)
    require(group_column is None or groups is not None, "--group-column needs --groups.")
    groups_of = (groups, "path", group_column) if group_column else groups
    if unfrozen_layers is not None and unfrozen_layers.isdecimal():
        unfrozen_layers = int(unfrozen_layers)
    given = {
        "weights": weights,
        "unfrozen_layers": unfrozen_layers,
        "max_epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "early_stopping": early_stopping,
        "device": device,
        "precision": precision,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if weights == "random":
        given["weights"] = None
    if recipe is None:
        pipeline = make_pipeline(backbone or "simple_cnn", augment, balance, seed or 0, given)
        image_size = image_size or 96
    else:
        fixed = {"--backbone": backbone, "--(no-)augment": augment, "--balance": balance}
        clash = [option for option, value in fixed.items() if value is not None]
        require(
            not clash,
            f"{', '.join(clash)} cannot be given with --recipe: the recipe {recipe} says what "
            "network and what changes of the images there are.",
        )
        image_size = image_size or get_recipe(recipe).image_size
        overrides = {f"clf__{name}": value for name, value in given.items()}
        pipeline = make_recipe(
            recipe, random_state=seed, clf__input_size=image_size, clf__verbose=1, **overrides
        )
    classifier = pipeline[-1]
    check_classifier(classifier)
    listing = list_labelled(folder, groups_of)
    by_group = classifier.early_stopping and listing.groups is not None
    if groups is not None and not by_group:
        warn("--groups has no effect without --early-stopping.")
    if by_group:
        held_paths = listing.paths[hold_out(listing, classifier.validation_fraction, seed or 0)]
    cells = wbcclf.load_image_folder(
        folder,
        image_size=image_size,
        on_error="raise" if on_error is OnError.stop else "skip",
        verbose=1,
    )
    if on_error is not OnError.skip:
        report_skipped(cells.skipped)
    counts = Counter(cells.target.tolist())
    out.print(f"{len(cells.target)} images of {len(counts)} classes: {counts_text(counts)}")
    if by_group:
        held = np.isin(cells.paths, held_paths)
        pipeline.fit(
            cells.images[~held],
            cells.target[~held],
            clf__X_val=cells.images[held],
            clf__y_val=cells.target[held],
        )
    else:
        pipeline.fit(cells.images, cells.target)
    loader = wbcclf.ImageLoader(image_size=image_size)
    wbcclf.save_model(Pipeline([("loader", loader), ("classifier", classifier)]), output)
    history = classifier.history_
    last = history[-1] if history else {}
    figures = ", ".join(f"{name} {value:.3f}" for name, value in last.items() if "_" in name)
    out.print(f"Trained {len(history)} of {classifier.max_epochs} epochs: {figures}")
    out.print(f"Model: {output}")


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
