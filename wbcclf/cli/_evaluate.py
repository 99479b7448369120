"""`wbcclf evaluate`."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from sklearn.utils import Bunch

from wbcclf._files import replacing
from wbcclf.cli._classes import match_classes, parse_map
from wbcclf.cli._console import out, warn
from wbcclf.cli._evaluated import print_evaluation
from wbcclf.cli._output import (
    JsonOption,
    check_not_read,
    check_outputs,
    require,
    save,
    save_figures,
)
from wbcclf.cli._quick_audit import warn_of_conflicts, warn_of_test_data, warn_of_trained_on
from wbcclf.cli._shared import (
    CHUNK,
    ModelFile,
    OnError,
    OnErrorOption,
    Reject,
    about_model,
    by_reason,
    collect,
    read_model,
    set_rejection,
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
from wbcclf.inspection import Evaluation, evaluate_predictions, predict_files
from wbcclf.inspection._files import facts_of_files
from wbcclf.inspection.evaluation._evaluation import with_prediction
from wbcclf.inspection.evaluation._plots import confusion_size

DIGEST = "model_sha256"  # in the file of figures
# The figures of the images of known classes that are printed and written beside those of all.
OVERALL = (
    "n_images",
    "n_groups",
    *(
        f"{name}{end}"
        for name in ("accuracy", "balanced_accuracy", "macro_f1")
        for end in ("", "_interval")
    ),
)


def evaluate(
    model_file: ModelFile,
    images: LabelledImages,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="PAGE.html",
            help="Write a page to read and print: the scores, curves, every class, the most "
            "confident errors and the most uncertain images in pictures, and what was used.",
        ),
    ] = None,
    audit: Annotated[
        Path | None,
        typer.Option(
            metavar="AUDIT.json",
            help="Show in the page what `wbcclf audit TRAIN TEST --json AUDIT.json` found. Without "
            "it the page has what the quick checks find.",
        ),
    ] = None,
    card: Annotated[
        Path | None,
        typer.Option(
            metavar="CARD.md",
            help="Write a model card in Markdown: what the model is, what it was trained on, how "
            "good it is on these images, and its limits.",
        ),
    ] = None,
    json_: JsonOption = None,
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
    groups: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|PATTERN|auto",
            help="Which images show the same cell: a CSV file with columns path and group (or "
            "cell_id), or a regular expression on the path. auto finds out from the images, in "
            "about half a minute for a thousand. All intervals are then by cell, and "
            "the scores are also printed with every cell counting the same. Without it, intervals "
            "are too narrow if several images show one cell.",
        ),
    ] = None,
    group_column: GroupColumn = None,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    root: Root = None,
    part: Part = None,
    reject: Reject = None,
    on_error: OnErrorOption = OnError.stop,
) -> None:
    """Compare a model's predictions with the labels of images.

    With --reject, or a model with a rejection, the scores are still of all
    images; the last lines then say how many were left uncertain, and how many
    of the others are right: what the bound is worth on these images.

    Example: wbcclf evaluate model.wbcclf cells/test --report report.html

    Example: wbcclf evaluate model.wbcclf cells/test --groups cells/cells.csv

    Example: wbcclf evaluate model.wbcclf split.csv --part test

    Example: wbcclf evaluate model.wbcclf other/cells --map SNE=neutrophil --map BNE=neutrophil
    """
    outputs = [path for path in (report, card, json_, plot) if path is not None]
    check_outputs(report=report, card=card, plot=plot, json=json_)
    require(
        (plot or report) is None or find_spec("matplotlib") is not None,
        "--plot and --report need matplotlib: pip install 'wbcclf[plot]'.",
    )
    require(
        plot is None or plot.suffix.lower() in (".png", ".svg", ".pdf"),
        f"--plot {plot}: the suffix must be .png, .svg or .pdf.",
    )
    require(
        audit is None or report is not None, "--audit is shown in the page: give --report, too."
    )
    audited = None if audit is None else read_audit(audit)
    renamed = parse_map(map_ or [])
    model = read_model(model_file, [images])
    rejection = set_rejection(model, reject)
    source = Source(images, path_column, label_column, root, groups, group_column, part)
    listing = source.list()
    for path in outputs:
        check_not_read(
            path,
            [model_file, images, *(str(each) for each in (groups, audit) if each), *listing.paths],
        )
    warn_of_test_data(images, listing)
    known = [str(label) for label in model.classes_]  # names of folders are text
    class_of = match_classes(listing.target_names, known, renamed)
    digests: list[bytes] = []  # of the files that are read, noted as their chunks pass
    chunks = noting(predict_files(model, listing.paths.tolist(), chunk_size=CHUNK), digests)
    all_in = f"{json_} names all." if json_ is not None else "--json FILE names all."
    found, broken = collect(chunks, listing, on_error, all_in, rejection)
    label_of = dict(zip(listing.paths.tolist(), listing.target.tolist(), strict=True))
    y_true = np.array([class_of[label_of[path]] for path in found.paths])
    warn_of_conflicts(found.paths, y_true, digests)
    if found.trained_on is not None:
        warn_of_trained_on(found.paths, found.trained_on)
    # The most probable ones, of uncertain images, too.
    y_pred = model.classes_[found.probabilities.argmax(axis=1)].astype(str)
    cells = None
    if listing.groups is not None:
        group_of = dict(zip(listing.paths.tolist(), listing.groups.tolist(), strict=True))
        cells = np.array([group_of[path] for path in found.paths])
    is_known = np.isin(y_true, known)
    result = evaluate_predictions(
        y_true, y_pred, cells, probabilities=found.probabilities, classes=np.array(known)
    )
    with_prediction(result, found)
    result.unknown_classes = sorted(set(y_true[~is_known].tolist()))
    if result.unknown_classes:
        known_only = evaluate_some(y_true, y_pred, cells, is_known)
        if known_only is not None:
            result.known_classes_only = {name: known_only[name] for name in OVERALL}
    result.unfamiliar = found.is_unfamiliar
    if rejection is not None:
        result.rejection = score_calls(y_true, y_pred, cells, found.labels.astype(str) == y_pred)
    result.update(about_model(model_file))
    result.update(facts_of_files(digests))
    result.left_out = by_reason(broken + listing.skipped)
    if found.uncut is not None:
        result.no_cell_found = found.uncut
    print_evaluation(result)
    save_figures(json_, result.figures)
    if plot is not None:
        save(plot, lambda path: draw(path, result))
        out.print(f"Confusion matrix: {plot}")
    result.estimator, result.images = model, found.paths
    result.source = {
        "Model file": str(model_file),
        "Images": str(images),
        "Groups": str(groups or group_column or "none"),
        "Command": shlex.join(["wbcclf", *sys.argv[1:]]),
    }
    if report is not None:
        save(report, lambda path: result.to_html(path, audit=audited))
        out.print(f"Page: {report}")
    if card is not None:
        save(card, result.to_card)
        out.print(f"Model card: {card}")


def noting(chunks: Iterator[Bunch], digests: list[bytes]) -> Iterator[Bunch]:
    for chunk in chunks:
        digests += chunk.digests
        yield chunk


def evaluate_some(
    y_true: np.ndarray, y_pred: np.ndarray, cells: np.ndarray | None, rows: np.ndarray
) -> Bunch | None:
    """Return the figures of some images, or None if they are too few for any: none, or one cell."""
    if not rows.any():
        return None
    if cells is None:
        return evaluate_predictions(y_true[rows], y_pred[rows])
    if len(set(cells[rows].tolist())) == 1:
        return None
    return evaluate_predictions(y_true[rows], y_pred[rows], cells[rows])


def score_calls(
    y_true: np.ndarray, y_pred: np.ndarray, cells: np.ndarray | None, is_called: np.ndarray
) -> dict[str, Any]:
    """Return how many images were called and how many of these are right, with an interval."""
    figures: dict[str, Any] = {
        "declined": 1 - int(is_called.sum()) / len(is_called),
        "n_called": int(is_called.sum()),
        "accuracy": None,
        "accuracy_interval": None,
        "n_groups": None,
    }
    called = evaluate_some(y_true, y_pred, cells, is_called)
    if called is not None:
        figures |= {name: called[name] for name in ("accuracy", "accuracy_interval", "n_groups")}
    return figures


def read_audit(path: Path) -> Bunch:
    """Return what `wbcclf audit --json` has written."""
    written = f"Write it with `wbcclf audit TRAIN TEST --json {path}`."
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"--audit {path} cannot be read as JSON ({error}). {written}") from error
    names = {"severity", "kind", "what", "advice"}
    is_audit = isinstance(found, dict) and isinstance(found.get("findings"), list)
    require(
        is_audit and all(isinstance(each, dict) and names <= {*each} for each in found["findings"]),
        f"--audit {path} holds no findings of an audit. {written}",
    )
    return Bunch(**found)


def read_figures(path: Path, model: str, digest: str) -> dict[str, Any]:
    """Return the figures of a model that `wbcclf evaluate --json` has written.

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
            "MODEL IMAGES --json FILE`."
        ) from error
    require(
        isinstance(figures, dict) and "confusion" in figures,
        f"--evaluation {path} holds no confusion matrix. Write one with `wbcclf evaluate MODEL "
        "IMAGES --json FILE`.",
    )
    if DIGEST not in figures:
        warn(
            f"--evaluation {path} does not say which model it is of, since an older version wrote "
            f"it. If it is not of {model}, the corrected per cent are wrong."
        )
    require(
        figures.get(DIGEST, digest) == digest,
        f"--evaluation {path} is of another model than {model}, or that was saved anew. "
        f"Evaluate this one: `wbcclf evaluate {model} IMAGES --json FILE`.",
    )
    return figures


def draw(path: Path, result: Evaluation) -> None:
    from matplotlib.figure import Figure

    # Not a pyplot figure: nothing can open a window.
    figure = Figure(figsize=confusion_size(result), layout="constrained")
    result.plot_confusion(ax=figure.add_subplot())
    with replacing(path) as temporary:
        figure.savefig(temporary)
