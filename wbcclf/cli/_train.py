"""`wbcclf train`."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from imblearn.pipeline import Pipeline
from sklearn.utils import Bunch

import wbcclf
from wbcclf.classifiers.options._settings import Settings
from wbcclf.cli import _defaults
from wbcclf.cli._console import out, warn
from wbcclf.cli._held_out import held_out_text, hold_out, score_held_out
from wbcclf.cli._output import (
    JsonOption,
    check_not_read,
    check_outputs,
    check_space,
    require,
    save,
    save_figures,
    write_csv,
)
from wbcclf.cli._pipeline import Augment, Balance, Crop, default_crop, make_pipeline
from wbcclf.cli._quick_audit import warn_of_training_data
from wbcclf.cli._shared import (
    N_NAMED,
    OnError,
    OnErrorOption,
    about_model,
    by_class,
    by_reason,
    check_broken,
    counts_text,
    report_left_out,
)
from wbcclf.cli._source import (
    GroupColumn,
    LabelColumn,
    LabelledImages,
    Part,
    PathColumn,
    Root,
    Source,
)
from wbcclf.cli._trained import figures_of, parameters_of, start_text, trained_text, versions
from wbcclf.persistence import check_file_name
from wbcclf.recipes import get_recipe, make_recipe


def _option(default: Any, text: str, **options: Any) -> Any:
    """Return an option that is None unless it is given, because a recipe has its own default."""
    return typer.Option(show_default=str(default), help=text, **options)


def train(
    images: LabelledImages,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Model file to write.")
    ] = Path("model.wbcclf"),
    json_: JsonOption = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Repeat a published system; `wbcclf recipes` lists them. Its own defaults "
            "replace those shown here.",
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        _option(_defaults.BACKBONE, "The network; `wbcclf backbones` lists all.", metavar="NAME"),
    ] = None,
    weights: Annotated[
        str | None,
        _option(
            "the network's own",
            "'blood-cells' (it has seen PBC, BCCD and BCISC: do not score on these), 'imagenet', "
            "'random', or a .pth, .safetensors, .npz or .wbcclf file.",
            metavar="WEIGHTS",
        ),
    ] = None,
    unfrozen_layers: Annotated[
        str | None,
        _option(
            "all",
            "Blocks to train, from the top: a number, a block's name, or 'all'.",
            metavar="BLOCKS",
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        _option(
            _defaults.IMAGE_SIZE,
            "Images are stretched to this height and width in pixels.",
            metavar="PIXELS",
            min=8,
        ),
    ] = None,
    crop: Annotated[
        Crop | None,
        _option(
            f"{_defaults.CROP_WITH_PACKAGED_WEIGHTS} with the weights that come with the package, "
            f"else {_defaults.CROP}",
            "Cut a square around the white cell of every picture, and give all pictures the same "
            "light. cell: the square is one and a half diameters of the white cell wide, so all "
            "cells look equally large. nucleus: three diameters of its nucleus, so all nuclei do. "
            "red-cell: three diameters of the red cells around it, so large white cells stay "
            "larger than small ones. none: whole pictures as they are. The model also cuts the "
            "pictures that it is given later.",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        _option(
            f"{_defaults.EPOCHS_WITH_WEIGHTS}, or {_defaults.STEPS_WITH_WEIGHTS} steps if that is "
            f"more; from random weights {_defaults.EPOCHS}, or {_defaults.STEPS} steps",
            "Passes over all images, including the copies that --balance adds.",
            metavar="N",
            min=1,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Train for this many steps instead of --epochs. Training then takes equally long "
            "with and without --balance.",
            metavar="N",
            min=1,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        _option(_defaults.BATCH_SIZE, "Images per training step.", metavar="N", min=1),
    ] = None,
    lr: Annotated[
        float | None,
        _option(
            f"{_defaults.LR:g}, with weights {_defaults.LR_WITH_WEIGHTS:g}",
            "Learning rate: how far each step changes the network. It rises to this value and "
            "falls again. If the loss grows, give a lower rate.",
            metavar="RATE",
        ),
    ] = None,
    augment: Annotated[
        Augment | None,
        _option(
            _defaults.AUGMENT,
            "Change images at random in every epoch. turns: flips and quarter turns. full: also "
            "any angle, shift, zoom, brightness and colours. laboratory: full, and also another "
            "laboratory's stain, light and focus, for a model that is used elsewhere.",
        ),
    ] = None,
    balance: Annotated[
        Balance | None,
        _option(
            "none",
            "For classes of unequal size. weights: rare classes count more in the loss. copies: "
            "augmented copies bring every class up to the largest. smote: one copy of each image, "
            "then SMOTE, which blends similar images.",
        ),
    ] = None,
    early_stopping: Annotated[
        bool | None,
        _option(
            "no-early-stopping",
            "Hold out a tenth of the images. Stop when the loss on them no longer falls, and keep "
            "the best epoch.",
        ),
    ] = None,
    calibrate: Annotated[
        bool | None,
        _option(
            "no-calibrate",
            "Temperature scaling: rescale the probabilities to fit the images that "
            "--early-stopping holds out, a tenth of all. It needs 50 of them, so 500 images; "
            "better 1,000. Labels stay the same.",
        ),
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|PATTERN|auto",
            help="Which images show the same cell or patient: a CSV file with columns path and "
            "group, or a regular expression on the path. auto finds out from the images which "
            "show the same cell, in about half a minute for a thousand. Early stopping, also in a "
            "recipe, then never watches a cell that is trained on.",
        ),
    ] = None,
    group_column: GroupColumn = None,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    root: Root = None,
    part: Part = None,
    precision: Annotated[
        str | None,
        _option(
            "float32",
            "float32; bfloat16, often faster on recent CPUs and GPUs; auto: the faster of the two.",
            metavar="PRECISION",
        ),
    ] = None,
    seed: Annotated[
        int | None, _option(_defaults.SEED, "Same seed, same model.", metavar="N", min=0)
    ] = None,
    device: Annotated[
        str | None, _option("auto", "auto, cpu, cuda, cuda:1, mps.", metavar="DEVICE")
    ] = None,
    on_error: OnErrorOption = OnError.stop,
) -> None:
    """Train a classifier on labelled images and write it to a file.

    Example: wbcclf train cells/train -o model.wbcclf --epochs 10

    Example: wbcclf train labels.csv --early-stopping --group-column patient

    Example: wbcclf train cells/train --recipe pbc-cnn-3block

    If the model file cannot be written at the end, the model goes to the
    current folder, or to the system's folder for temporary files.
    """
    from wbcclf.classifiers.training._fit import check_fit  # brings torch

    # What can be known to be wrong is found before thousands of images are read.
    check_outputs(output=output, json=json_)
    check_file_name(output)
    require(epochs is None or steps is None, "--epochs and --steps cannot be given together.")
    source = Source(images, path_column, label_column, root, groups, group_column, part)
    layers: str | int | None = unfrozen_layers
    if unfrozen_layers is not None and unfrozen_layers.isdecimal():
        layers = int(unfrozen_layers)
    given = {
        "weights": weights,
        "unfrozen_layers": layers,
        "max_epochs": epochs,
        "max_steps": steps,
        "batch_size": batch_size,
        "lr": lr,
        "early_stopping": early_stopping,
        "calibrate": calibrate,
        "device": device,
        "precision": precision,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if weights == "random":
        given["weights"] = None
    if recipe is None:
        pipeline = make_pipeline(backbone, augment, balance, seed, given)
        image_size = image_size or _defaults.IMAGE_SIZE
        crop = crop or default_crop(pipeline[-1])
    else:
        fixed = {"--backbone": backbone, "--augment": augment, "--balance": balance}
        clash = [option for option, value in fixed.items() if value is not None]
        require(
            not clash,
            f"{', '.join(clash)} cannot be given with --recipe: the recipe {recipe} fixes the "
            "network and the changes of the images.",
        )
        image_size = image_size or get_recipe(recipe).image_size
        overrides = {f"clf__{name}": value for name, value in given.items()}
        pipeline = make_recipe(
            recipe, random_state=seed, clf__input_size=image_size, clf__verbose=1, **overrides
        )
    cropper = None
    if crop not in (None, Crop.none):
        scale = crop.value.replace("-", " ")
        cropper = wbcclf.CellCropper(scale, background="normalise")
    loader = wbcclf.ImageLoader(image_size, crop=cropper)
    classifier = pipeline[-1]
    require(
        not calibrate or Settings.of(classifier).early_stopping is not None,
        "--calibrate needs images to measure on: give --early-stopping, too.",
    )
    out.print(start_text(classifier))
    listing = source.list()
    for result in filter(None, (output, json_)):
        check_not_read(result, [images, *filter(None, [groups]), *listing.paths])
    names = listing.target_names
    require(len(names) > 1, f"{images} holds only one class, {names[0]}; give at least two.")
    warn_of_training_data(images, listing)
    stopping = Settings.of(classifier).early_stopping
    held_paths = held_out = None
    if stopping is not None and listing.groups is not None:
        held_paths = listing.paths[hold_out(listing, stopping.validation_fraction, seed or 0)]
    elif groups is not None or group_column is not None:
        warn("groups have no effect without --early-stopping.")
    network = check_fit(classifier, (image_size, image_size, 3), names)
    check_space(output, sum(tensor.nbytes for tensor in network.state_dict().values()))
    del network
    cells = source.load(loader)
    known = set(listing.skipped)
    broken = [item for item in cells.skipped if item not in known]
    report_broken(broken, listing, on_error, output)
    counts = Counter(cells.target.tolist())
    out.print(f"{len(cells.target)} images of {len(counts)} classes: {counts_text(counts)}")
    if recipe is None and epochs is None and steps is None:
        is_random = Settings.of(classifier).weights is None
        steps = _defaults.default_steps(len(cells.target), classifier.batch_size, is_random)
        classifier.set_params(max_steps=steps)
    cell_of = None
    if listing.groups is not None:
        group_of = dict(zip(listing.paths.tolist(), listing.groups.tolist(), strict=True))
        cell_of = np.array([group_of[path] for path in cells.paths.tolist()])
    whole = Pipeline([("loader", loader), *pipeline.steps])
    # Before the rest, so that they act on the images that validate, too.
    transformers = [item for item in pipeline.steps if hasattr(item[1], "transform")]
    pipeline = Pipeline([item for item in pipeline.steps if item not in transformers])
    X, y = cells.pop("images"), cells.target
    for _, step in transformers:
        X = step.fit_transform(X)
    started = time.perf_counter()
    if held_paths is not None and cell_of is not None:
        held = np.isin(cells.paths, held_paths)
        pipeline.fit(X[~held], y[~held], clf__X_val=X[held], clf__y_val=y[held])
        seconds = time.perf_counter() - started
        held_out = score_held_out(y[held], pipeline.predict(X[held]), cell_of[held].tolist())
    else:
        pipeline.fit(X, y)
        seconds = time.perf_counter() - started
    classifier.set_params(verbose=0)  # the bars were this command's
    model = Pipeline([("loader", loader), *transformers, ("classifier", classifier)])
    save(output, lambda path: wbcclf.save_model(model, path))
    out.print(trained_text(classifier, steps))
    if held_out is not None:
        out.print(held_out_text(held_out))
    out.print(f"Model: {output}")
    save_figures(
        json_,
        lambda: (
            about_model(output)
            | figures_of(classifier)
            | {
                "recipe": recipe,
                "n_images": len(y),
                "classes": by_class(y, cell_of),
                "parameters": parameters_of(whole),
                "held_out": held_out,
                "seconds": seconds,
                "versions": versions(),
                "left_out": by_reason(broken + listing.skipped),
            }
        ),
    )


def report_broken(broken: list, listing: Bunch, on_error: OnError, output: Path) -> None:
    """Say what was left out; if it is too much for a message, put all of it beside the model."""
    n_images = len(listing.paths) + len(listing.missing)
    check_broken(broken, n_images, on_error)
    table = output.with_name(f"{output.name}.left-out.csv")
    report_left_out(broken, listing.skipped, n_images, on_error, f"{table} names all.")
    if on_error is not OnError.skip and max(len(broken), len(listing.skipped)) > N_NAMED:
        save(table, lambda path: write_csv(path, [["file", "error"], *broken, *listing.skipped]))
