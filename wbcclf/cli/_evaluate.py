"""`wbcclf evaluate`."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from scipy.stats import binomtest
from sklearn.utils import Bunch

from wbcclf._files import replacing
from wbcclf._parts import file_digest
from wbcclf.cli._classes import match_classes, parse_map
from wbcclf.cli._console import out, print_table, warn
from wbcclf.cli._output import check_not_read, check_output, require, save
from wbcclf.cli._shared import (
    CHUNK,
    ModelFile,
    OnError,
    OnErrorOption,
    Reject,
    collect,
    read_model,
    set_rejection,
)
from wbcclf.cli._source import LabelColumn, LabelledImages, PathColumn, Root, Source
from wbcclf.inspection import EvaluationDisplay, evaluate_predictions, predict_files

DIGEST = "model_sha256"  # in the file of figures, of the model's file
# The figures that are not of one class.
OVERALL = ("n_samples", "accuracy", "accuracy_interval", "balanced_accuracy", "macro_f1")


def evaluate(
    model_file: ModelFile,
    images: LabelledImages,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write the scores, and which files were left out, to this JSON file.",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Draw the confusion matrix to this PNG, SVG or PDF file."
        ),
    ] = None,
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="NAME=CLASS",
            help="Count images of the class NAME as the model's class CLASS. Repeat it for every "
            "name; several names may mean one class. Names that differ only in case or "
            "surrounding spaces need no --map. Images of classes that the model does not know "
            "count as wrong; the accuracy without them is printed, too.",
        ),
    ] = None,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    root: Root = None,
    reject: Reject = None,
    on_error: OnErrorOption = OnError.stop,
) -> None:
    """Compare a model's predictions with the labels of images.

    With --reject, or a model with a rejection, the scores are still of all
    images; the last lines then say how many were left uncertain, and how many
    of the others are right: what the bound is worth on these images.

    Example: wbcclf evaluate model.wbcclf cells/test --plot confusion.png

    Example: wbcclf evaluate model.wbcclf other/cells --map SNE=neutrophil --map BNE=neutrophil
    """
    for path in filter(None, (output, plot)):
        check_output(path)
    require(
        plot is None or find_spec("matplotlib") is not None,
        "--plot needs matplotlib: pip install 'wbcclf[plot]'.",
    )
    require(
        plot is None or plot.suffix.lower() in (".png", ".svg", ".pdf"),
        f"--plot {plot}: the suffix must be .png, .svg or .pdf.",
    )
    renamed = parse_map(map_ or [])
    model = read_model(model_file, [images])
    rejection = set_rejection(model, reject)
    listing = Source(images, path_column, label_column, root).list()
    for path in filter(None, (output, plot)):
        check_not_read(path, [model_file, images, *listing.paths])
    known = [str(label) for label in model.classes_]  # names of folders are text
    class_of = match_classes(listing.target_names, known, renamed)
    chunks = predict_files(model, listing.paths.tolist(), chunk_size=CHUNK)
    all_in = f"{output} names all." if output is not None else "--output FILE names all."
    found, broken = collect(chunks, listing, on_error, all_in, rejection)
    label_of = dict(zip(listing.paths.tolist(), listing.target.tolist(), strict=True))
    y_true = np.array([class_of[label_of[path]] for path in found.paths])
    # The most probable ones, of uncertain images, too.
    y_pred = model.classes_[found.probabilities.argmax(axis=1)].astype(str)
    is_known = np.isin(y_true, known)
    result = evaluate_predictions(y_true, y_pred)
    result.unknown_classes = sorted(set(y_true[~is_known].tolist()))
    if result.unknown_classes and is_known.any():  # their images may all be broken
        known_only = evaluate_predictions(y_true[is_known], y_pred[is_known])
        result.known_classes_only = {name: known_only[name] for name in OVERALL}
    result.familiarity = None if found.familiarity is None else float(found.familiarity.mean())
    result.unfamiliar = found.is_unfamiliar
    if rejection is not None:
        result.rejection = score_calls(y_true == y_pred, found.labels.astype(str) == y_pred)
    print_evaluation(result)
    if output is not None:
        left_out = [{"file": path, "reason": reason} for path, reason in broken + listing.skipped]
        figures = result | {DIGEST: file_digest(model_file), "left_out": left_out}
        if found.uncut is not None:
            figures["no_cell_found"] = found.uncut
        save(output, lambda path: write_json(path, figures))
        out.print(f"Figures: {output}")
    if plot is not None:
        save(plot, lambda path: draw(path, result))
        out.print(f"Confusion matrix: {plot}")


def score_calls(is_right: np.ndarray, is_called: np.ndarray) -> dict[str, Any]:
    """Return how many images were called and how many of these are right, with an interval."""
    n_called, n_right = int(is_called.sum()), int((is_right & is_called).sum())
    figures: dict[str, Any] = {
        "declined": 1 - n_called / len(is_called),
        "n_called": n_called,
        "accuracy": None,
        "accuracy_interval": None,
    }
    if n_called:
        low, high = binomtest(n_right, n_called).proportion_ci(method="wilson")
        figures |= {"accuracy": n_right / n_called, "accuracy_interval": (low, high)}
    return figures


def read_figures(path: Path, model: str, digest: str) -> dict[str, Any]:
    """Return the figures of a model that `wbcclf evaluate --output` has written.

    Raises
    ------
    ValueError
        If there are none in the file, or if they are of another model.
    """
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"--evaluation {path} is not a JSON file ({error}). Write one with `wbcclf evaluate "
            "MODEL IMAGES -o FILE`."
        ) from error
    require(
        isinstance(figures, dict) and "confusion" in figures,
        f"--evaluation {path} holds no confusion matrix. Write one with `wbcclf evaluate MODEL "
        "IMAGES -o FILE`.",
    )
    if DIGEST not in figures:
        warn(
            f"--evaluation {path} does not say which model it is of, since an older version wrote "
            f"it. If it is not of {model}, the corrected per cent are wrong."
        )
    require(
        figures.get(DIGEST, digest) == digest,
        f"--evaluation {path} is of another model than {model}, or that was saved anew. "
        f"Evaluate this one: `wbcclf evaluate {model} IMAGES -o FILE`.",
    )
    return figures


def write_json(path: Path, figures: dict[str, Any]) -> None:
    text = json.dumps(figures, indent=1, default=np.ndarray.tolist)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def draw(path: Path, result: Bunch) -> None:
    from matplotlib.figure import Figure

    display = EvaluationDisplay(result)
    # Not a pyplot figure: nothing can open a window.
    display.plot(ax=Figure(figsize=display.figsize, layout="constrained").add_subplot())
    with replacing(path) as temporary:
        display.figure_.savefig(temporary)


def print_evaluation(result: Bunch) -> None:
    columns = (result.classes, result.support, result.precision, result.recall, result.f1)
    rows = [
        [label, support, *(f"{figure:.3f}" if support else "-" for figure in figures)]
        for label, support, *figures in zip(*columns, strict=True)
    ]
    print_table(["class", "images", "precision", "recall", "F1"], rows)
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
    rows = [
        [label, *counts] for label, counts in zip(result.classes, result.confusion, strict=True)
    ]
    print_table(["true \\ predicted", *result.classes], rows)
    if result.familiarity is not None:
        out.print(f"Mean familiarity: {result.familiarity:.2f} (0.50 at home)")
    if "rejection" in result:
        print_calls(result.rejection)


def print_calls(calls: dict[str, Any]) -> None:
    declined = f"Left uncertain: {calls['declined']:.1%} of the images"
    if not calls["n_called"]:
        out.print(f"{declined}; none was called.")
        return
    low, high = calls["accuracy_interval"]
    out.print(
        f"{declined}. Of the {calls['n_called']} others, {calls['accuracy']:.1%} are right (95% "
        f"interval {low:.1%} to {high:.1%} if every image shows a different cell)."
    )


def print_overall(of: str, figures: dict[str, Any]) -> None:
    low, high = figures["accuracy_interval"]
    out.print(
        f"{of}accuracy {figures['accuracy']:.3f} (95% interval {low:.3f} to {high:.3f} if every "
        f"image shows a different cell), balanced accuracy {figures['balanced_accuracy']:.3f}, "
        f"macro-F1 {figures['macro_f1']:.3f}, {figures['n_samples']} images"
    )
