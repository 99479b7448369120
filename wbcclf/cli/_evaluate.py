"""`wbcclf evaluate`."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table
from sklearn.utils import Bunch

import wbcclf
from wbcclf._files import replacing
from wbcclf.cli._shared import (
    CHUNK,
    ModelFile,
    OnError,
    OnErrorOption,
    check_output,
    collect,
    list_labelled,
    out,
    require,
)
from wbcclf.inspection import EvaluationDisplay, evaluate_predictions, predict_files


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
        from matplotlib.figure import Figure

        display = EvaluationDisplay(result)
        # Not a pyplot figure: nothing can open a window.
        display.plot(ax=Figure(figsize=display.figsize, layout="constrained").add_subplot())
        with replacing(plot) as temporary:
            display.figure_.savefig(temporary)
        out.print(f"Confusion matrix: {plot}")


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
