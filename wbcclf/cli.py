"""The command line: parse, call, print."""

from __future__ import annotations

import csv
import json
import shutil
import sys
import warnings
from collections import Counter
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from imblearn.pipeline import Pipeline
from rich.table import Table

import wbcclf
from wbcclf._cluster import parts_folder, predict_on_cluster
from wbcclf._files import replacing
from wbcclf._shell import (
    CHUNK,
    Balance,
    OnError,
    check_classifier,
    check_output,
    collect,
    counts_text,
    err,
    hold_out,
    list_labelled,
    make_pipeline,
    out,
    print_evaluation,
    report_skipped,
    require,
    warn,
)
from wbcclf.backbones import describe, list_backbones
from wbcclf.exceptions import TrainingInterruptedWarning
from wbcclf.inspection import evaluate_predictions, predict_files, save_confusion_matrix
from wbcclf.recipes import get_recipe, list_recipes, make_recipe

app = typer.Typer(
    help="Classify white blood cell images. Start with: wbcclf demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


ModelFile = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Model file written by `wbcclf train`.")
]
ImageFolder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder with images.")]
OnErrorOption = Annotated[
    OnError,
    typer.Option(
        help="Files that cannot be read: stop, or leave them out, with a warning or silently."
    ),
]


def _option(default: str, text: str, **limits: int) -> Any:
    """Return an option that is None unless it is given, because a recipe has its own default."""
    return typer.Option(show_default=default, help=text, **limits)


@app.command()
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


@app.command()
def recipes() -> None:
    """List the published systems that `wbcclf train --recipe NAME` repeats.

    Example: wbcclf recipes
    """
    table = Table("recipe", "system", "published accuracy", box=None)
    table.columns[0].no_wrap = True
    for name in list_recipes():
        recipe = get_recipe(name)
        table.add_row(name, recipe.system, recipe.published)
    out.print(table)
    out.print("(leaky), (artefact): not what the system achieves on cells it has not seen.")


@app.command()
def backbones(
    name: Annotated[
        str | None, typer.Argument(help="A network, to see its blocks and what can be trained.")
    ] = None,
) -> None:
    """List the networks that `wbcclf train --backbone NAME` takes, or describe one.

    Example: wbcclf backbones vgg16
    """
    out.print("\n".join(list_backbones()) if name is None else str(describe(name)))


@app.command()
def evaluate(
    model_file: ModelFile,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder with one folder of images per class.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the figures to this JSON file.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the confusion matrix to this PNG, SVG or PDF file.")
    ] = None,
    on_error: OnErrorOption = OnError.stop,
) -> None:
    """Compare a model's predictions with the labels of a folder of class folders.

    Example: wbcclf evaluate model.wbcclf cells/test --plot confusion.png
    """
    for path in (output, plot):
        if path is not None:
            check_output(path)
    require(
        plot is None or find_spec("matplotlib") is not None,
        "--plot needs matplotlib: pip install 'wbcclf[plot]'.",
    )
    require(
        plot is None or plot.suffix.lower() in (".png", ".svg", ".pdf"),
        f"--plot {plot}: the suffix must be .png, .svg or .pdf.",
    )
    model = wbcclf.load_model(model_file)
    listing = list_labelled(folder)
    known = [str(label) for label in model.classes_]  # folder names are text
    unseen = sorted(set(listing.target_names) - set(known))
    require(
        not unseen,
        f"{folder} holds classes that the model was not trained on: {', '.join(unseen)}. It knows "
        f"{', '.join(known)}.",
    )
    chunks = predict_files(model, listing.paths.tolist(), chunk_size=CHUNK)
    found = collect(chunks, listing, on_error)
    label_of = dict(zip(listing.paths.tolist(), listing.target.tolist(), strict=True))
    result = evaluate_predictions(
        [label_of[path] for path in found.paths], found.labels.astype(str)
    )
    print_evaluation(result)
    if output is not None:
        figures = {
            key: value.tolist() if isinstance(value, np.ndarray) else value
            for key, value in result.items()
        }
        with replacing(output) as temporary:
            temporary.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        out.print(f"Figures: {output}")
    if plot is not None:
        save_confusion_matrix(result, plot)
        out.print(f"Confusion matrix: {plot}")


@app.command()
def predict(
    model_file: ModelFile,
    folder: ImageFolder,
    output: Annotated[Path, typer.Option("-o", "--output", help="CSV file to write.")] = Path(
        "predictions.csv"
    ),
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Predict on the workers of this Dask scheduler (tcp://HOST:8786), which must see "
            "MODEL and DIR under the same names. Parts that are done lie in OUTPUT.parts until the "
            "end: the same command goes on from there.",
        ),
    ] = None,
    on_error: OnErrorOption = OnError.warn,
) -> None:
    """Predict all images of a folder, those in its subfolders included, into a CSV file.

    One line per file in the order of their names: file, label, and one probability per class.

    Example: wbcclf predict model.wbcclf unlabelled/ -o predictions.csv
    """
    check_output(output)
    model = wbcclf.load_model(model_file)
    listing = wbcclf.list_image_folder(folder, labelled=False)
    paths = listing.paths.tolist()
    parts = parts_folder(output, model_file)
    if scheduler is None:
        chunks = predict_files(model, paths, chunk_size=CHUNK)
    else:
        chunks = predict_on_cluster(scheduler, model_file, paths, parts, chunk_size=CHUNK)
    found = collect(chunks, listing, on_error)
    lines = [["file", "label", *model.classes_.tolist()]]
    lines += [
        [Path(path).relative_to(folder).as_posix(), label, *(f"{share:.6f}" for share in shares)]
        for path, label, shares in zip(found.paths, found.labels, found.probabilities, strict=True)
    ]
    # surrogateescape: file names are bytes, and not all are UTF-8.
    with (
        replacing(output) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows(lines)
    if scheduler is not None:
        shutil.rmtree(parts, ignore_errors=True)  # the same command may run twice
        with suppress(OSError):  # other things are in it
            parts.parent.rmdir()
    counts = Counter(found.labels.tolist())
    out.print(f"{len(found.paths)} images: {counts_text(counts)}")
    out.print(f"Predictions: {output}")


@app.command()
def demo(
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder to write everything into.")
    ] = Path("demo"),
) -> None:
    """Draw synthetic cells, train on them, evaluate, predict, and show where everything is.

    Needs no network and no data, and takes a minute or two.
    """
    import cv2

    for name, n_samples, seed in (("train", 600, 0), ("test", 200, 1), ("unlabelled", 20, 2)):
        cells = wbcclf.make_blood_cells(n_samples, image_size=64, random_state=seed)
        for number, (image, label) in enumerate(zip(cells.images, cells.target, strict=True)):
            path = output / name / ("" if name == "unlabelled" else label) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            require(
                cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)),
                f"{path} could not be written.",
            )
    out.print(f"Synthetic cells: {output / 'train'}, {output / 'test'}, {output / 'unlabelled'}")
    model = output / "model.wbcclf"
    train(output / "train", output=model, image_size=64, epochs=6)
    plot = output / "confusion_matrix.png"
    if find_spec("matplotlib") is None:
        warn("no confusion matrix is drawn without matplotlib: pip install 'wbcclf[plot]'.")
        plot = None
    evaluate(model, output / "test", output=output / "evaluation.json", plot=plot)
    predict(model, output / "unlabelled", output=output / "predictions.csv")


def main() -> None:
    """Run the command line; errors are one line on stderr, without a traceback.

    Exit codes: 0 success, 1 error, 2 wrong usage, 130 interrupted.
    """
    # An interrupted training keeps its model, but the shell must not go on as if nothing was.
    interrupted = []

    def show(message, category, *rest, **named):
        if issubclass(category, TrainingInterruptedWarning):
            interrupted.append(message)
        warn(message)

    warnings.showwarning = show
    try:
        # typer returns the code of what exits early (--help 0, Ctrl-C 130) and else None.
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        # typer's own errors (wrong usage) know their text and exit code; the rest are ours and
        # say what to do; both are for a person at a shell, who has no use for a stack of calls.
        text = error.format_message() if hasattr(error, "format_message") else str(error)
        usage = " See wbcclf --help." if hasattr(error, "format_message") else ""
        text = " ".join(text.split()) or type(error).__name__
        err.print(f"wbcclf: error: {text}{usage}")
        code = getattr(error, "exit_code", 1)
    if interrupted or code:
        sys.exit(130 if interrupted else code)
