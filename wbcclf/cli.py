"""The command line: parse, call, print."""

from __future__ import annotations

import csv
import json
import sys
import warnings
from collections import Counter
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from imblearn.pipeline import Pipeline
from rich.progress import track
from sklearn.utils import Bunch

import wbcclf
from wbcclf._files import replacing
from wbcclf._shell import (
    check_classifier,
    check_output,
    counts_text,
    err,
    hold_out,
    list_labelled,
    named,
    out,
    print_evaluation,
    report_skipped,
    require,
    warn,
)
from wbcclf.exceptions import ImageReadError, TrainingInterruptedWarning
from wbcclf.inspection import evaluate_predictions, predict_files, save_confusion_matrix

app = typer.Typer(
    help="Classify white blood cell images. Start with: wbcclf demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


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
    backbone: Annotated[
        str, typer.Option(help="simple_cnn (from scratch), vgg16, resnet18 or squeezenet1_1.")
    ] = "simple_cnn",
    weights: Annotated[
        str | None, typer.Option(help="'imagenet', or a .pth or .npz file; default: random.")
    ] = None,
    unfrozen_layers: Annotated[
        str, typer.Option(help="Blocks to train, from the top: a number, a block's name, or 'all'.")
    ] = "all",
    image_size: Annotated[
        int, typer.Option(min=8, help="Images are stretched to this height and width in pixels.")
    ] = 96,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the images.")] = 10,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per training step.")] = 32,
    lr: Annotated[float, typer.Option(help="Highest learning rate of the one-cycle schedule.")] = (
        3e-3
    ),
    augment: Annotated[
        bool, typer.Option(help="Change images at random in every epoch (turn, shift, colours).")
    ] = True,
    balance: Annotated[
        Balance,
        typer.Option(
            help="Unequal classes: nothing, weight the rare ones, or bring them up to the largest "
            "by changed copies or by copies and SMOTE."
        ),
    ] = Balance.none,
    early_stopping: Annotated[
        bool,
        typer.Option(help="Watch a tenth of the images and keep the epoch that does best on them."),
    ] = False,
    groups: Annotated[
        str | None,
        typer.Option(
            help="Which images show the same cell or patient, so that they are not split: a CSV "
            "file with columns path and group, or a regular expression on the path. "
            "Used by --early-stopping."
        ),
    ] = None,
    group_column: Annotated[
        str | None, typer.Option(help="Column of that CSV file, if it is not called group.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="float32, or bfloat16: faster on recent CPUs and GPUs.")
    ] = "float32",
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same model.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    on_error: OnErrorOption = OnError.stop,
) -> None:
    """Train a classifier on a folder of class folders and write it to a file.

    Example: wbcclf train cells/train -o model.wbcclf --epochs 10
    """
    # Everything that can be wrong is checked before thousands of images are read.
    check_output(output)
    require(group_column is None or groups is not None, "--group-column needs --groups.")
    groups_of = (groups, "path", group_column) if group_column else groups
    listing = list_labelled(folder, groups_of)
    classifier = wbcclf.CNNClassifier(
        backbone,
        weights=weights,
        unfrozen_layers=int(unfrozen_layers) if unfrozen_layers.isdecimal() else unfrozen_layers,
        max_epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        lr_schedule="onecycle",
        weight_decay=0.05,
        class_weight="balanced" if balance is Balance.weights else None,
        early_stopping=early_stopping,
        augment=wbcclf.Augmenter() if augment else None,
        device=device,
        precision=precision,
        random_state=seed,
        verbose=1,
    )
    check_classifier(classifier)
    by_group = early_stopping and listing.groups is not None
    if by_group:
        held_paths = listing.paths[hold_out(listing, seed)]
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
    pipeline = Pipeline([*_samplers(balance, seed), ("classifier", classifier)])
    if by_group:
        held = np.isin(cells.paths, held_paths)
        pipeline.fit(
            cells.images[~held],
            cells.target[~held],
            classifier__X_val=cells.images[held],
            classifier__y_val=cells.target[held],
        )
    else:
        pipeline.fit(cells.images, cells.target)
    loader = wbcclf.ImageLoader(image_size=image_size)
    model = Pipeline([("loader", loader), ("classifier", pipeline[-1])])
    wbcclf.save_model(model, output)
    history = pipeline[-1].history_
    last = history[-1] if history else {}
    figures = ", ".join(f"{name} {value:.3f}" for name, value in last.items() if "_" in name)
    out.print(f"Trained {len(history)} of {epochs} epochs: {figures}")
    out.print(f"Model: {output}")


def _samplers(balance: Balance, seed: int) -> list[tuple[str, Any]]:
    copies = wbcclf.Augmenter(sampling_strategy="auto", random_state=seed)
    if balance is Balance.copies:
        return [("copies", copies)]
    if balance is Balance.smote:
        # Copies first: SMOTE between the two or three images of a rare class makes near copies.
        return [
            ("copies", wbcclf.Augmenter(n_copies=1, random_state=seed)),
            ("smote", wbcclf.SMOTE(random_state=seed)),
        ]
    return []


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
    found = _predict(model, listing, on_error)
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
    on_error: OnErrorOption = OnError.warn,
) -> None:
    """Predict all images of a folder, those in its subfolders included, into a CSV file.

    One line per file in the order of their names: file, label, and one probability per class.

    Example: wbcclf predict model.wbcclf unlabelled/ -o predictions.csv
    """
    check_output(output)
    model = wbcclf.load_model(model_file)
    listing = wbcclf.list_image_folder(folder, labelled=False)
    found = _predict(model, listing, on_error)
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


def _predict(model: Any, listing: Bunch, on_error: OnError) -> Bunch:
    """Return the predictions of all readable files; name the others as `on_error` says."""
    paths = listing.paths.tolist()
    chunks = list(
        track(
            predict_files(model, paths, chunk_size=256),
            description="Predicting",
            total=-(-len(paths) // 256),
            console=err,
        )
    )
    broken = [item for chunk in chunks for item in chunk.skipped]
    if broken and (on_error is OnError.stop or len(broken) == len(paths)):
        raise ImageReadError(f"{named(broken)}: cannot be read as images.")
    if on_error is not OnError.skip:
        report_skipped(listing.skipped + broken)
    return Bunch(
        paths=[path for chunk in chunks for path in chunk.paths],
        labels=np.concatenate([chunk.labels for chunk in chunks]),
        probabilities=np.concatenate([chunk.probabilities for chunk in chunks]),
    )


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
