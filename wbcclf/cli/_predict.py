"""`wbcclf predict`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from sklearn.utils import Bunch

from wbcclf._cluster import predict_on_cluster
from wbcclf._parts import file_digest, parts_folder, remove_parts
from wbcclf._predictions import Predictions, predict_here
from wbcclf._progress import progress_bar
from wbcclf.cli import _defaults
from wbcclf.cli._console import out
from wbcclf.cli._listing import name_of, root_of, walk
from wbcclf.cli._output import (
    JsonOption,
    check_not_read,
    check_outputs,
    resumable,
    save,
    save_figures,
    warn_of_formulas,
)
from wbcclf.cli._shared import (
    CHUNK,
    DEFAULT_MODEL,
    OnError,
    OnErrorOption,
    Reject,
    Summary,
    about_model,
    by_reason,
    counts_text,
    is_packaged,
    read_model,
    set_rejection,
    split_model,
    uncut,
)
from wbcclf.cli._tables import Format, Row, format_of, write_table

NO_CELL = "no white cell found; the central square was used"


def predict(
    model_and_images: Annotated[
        list[Path],
        typer.Argument(
            metavar="[MODEL] IMAGES",
            help="Model file written by `wbcclf train`; without one, the model that comes with "
            f"wbcclf ({DEFAULT_MODEL}). Then a folder with images at any depth, or image files.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Table to write: .csv, .parquet or .jsonl."
        ),
    ] = Path("predictions.csv"),
    format_: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="Format of the table. Without it, the suffix of OUTPUT decides; any other suffix "
            "is CSV.",
            show_default=False,
        ),
    ] = None,
    json_: JsonOption = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Predict on the workers of this Dask scheduler (tcp://HOST:8786). They must see "
            "MODEL and IMAGES under the same names.",
        ),
    ] = None,
    reject: Reject = None,
    on_error: OnErrorOption = OnError.warn,
) -> None:
    """Predict the classes of images and write them to a table.

    Columns: file, label, error, familiarity, and one probability per class. A
    file that was left out has no label; the column error says why. It also
    marks pictures in which a model of train --crop found no white cell: their
    label is that of their central square. Many pictures of platelets are marked,
    since a platelet is no white cell.

    The familiarity is the share of images from the model's laboratory that
    look less like its training images. Near 0, expect a wrong label. Models
    of older versions leave the column empty.

    The number of images is not limited by memory. What was predicted is kept in
    OUTPUT.parts until the end: if the command is killed or fails, run it again
    to resume. Images are predicted again if they, the model or an option have
    changed.

    Names are written as they are. A spreadsheet may take one that begins with
    =, +, - or @ for a formula: import the column as text.

    Example: wbcclf predict unlabelled/

    Example: wbcclf predict model.wbcclf unlabelled/ -o predictions.csv

    Example: wbcclf predict model.wbcclf a.jpg b.jpg -o predictions.csv

    Example: wbcclf predict model.wbcclf unlabelled/ --reject 0.05

    Example: wbcclf predict model.wbcclf unlabelled/ -o predictions.parquet
    """
    check_outputs(output=output, json=json_)
    model_file, images = split_model(model_and_images)
    model = read_model(model_file, images)
    rejection = set_rejection(model, reject)
    classes = model.classes_.tolist()
    table_format = format_of(output, format_, classes)
    digest = file_digest(model_file)
    with parts_beside(output, digest) as parts:
        listing = partial(walk, images, parts.parent)
        n_images = sum(reason is None for _, reason in listing())
        for result in filter(None, (output, json_)):
            check_not_read(result, chain([model_file], (path for path, _ in listing())))
        predictions = Predictions(parts, f"{digest} {reject}", CHUNK)
        compute: Callable = partial(predict_here, model)
        if scheduler is not None:
            compute = partial(predict_on_cluster, scheduler, model_file, digest, reject)
        with progress_bar() as bar:
            task = bar.add_task("Predicting", total=-(-n_images // CHUNK))
            predictions.complete(listing(), compute, partial(bar.advance, task))
        summary = Summary()
        for part in predictions.images():
            summary.add(part)
        for item in predictions.left_out():
            summary.others.add([item])
        if not summary.labels:
            remove_parts(parts)  # nothing was found that is worth keeping; `report` fails
        summary.report(on_error, f"The column error of {output} names all.", rejection)
        root = root_of(images)

        def write(path: Path) -> None:
            rows = each_row(predictions, root)
            write_table(path, table_format, rows, classes, parts if path == output else None)

        save(output, write)
        if output.is_file():
            settle(output)
        if table_format is Format.csv:
            names = (row.file for row in each_row(predictions, root))
            warn_of_formulas(output, chain(names, map(str, classes)))
        if is_packaged(model_file):
            out.print(f"Model: {DEFAULT_MODEL}. Classes: {', '.join(classes)}. {_defaults.LIMITS}")
        if summary.familiarity is not None:
            out.print(
                f"Mean familiarity: {summary.familiarity:.2f} (0.50 for the laboratory of the "
                "training)"
            )
        out.print(f"Images predicted: {summary.labels.total()} ({counts_text(summary.labels)})")
        out.print(f"Predictions: {output}")
        save_figures(
            json_,
            lambda: (
                about_model(model_file)
                | {"rejection": rejection}
                | figures_of(summary, predictions, classes)
            ),
        )


@contextmanager
def parts_beside(output: Path, digest: str) -> Iterator[Path]:
    """Give the folder for the parts of a run: kept after an error, unless beside a pipe."""
    if output.exists() and not output.is_file():
        with TemporaryDirectory() as folder:
            yield Path(folder, "parts")
        return
    parts = parts_folder(output.resolve(), digest)  # where a link leads, so that both are renamed
    with resumable(parts):
        yield parts


def settle(path: Path) -> None:
    """Have a file written to its disk, before what it was made from is removed."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def each_row(predictions: Predictions, root: Path | None) -> Iterator[Row]:
    """Yield the rows of the table: images in their order, then what else there was in folders."""
    for part in predictions.images():
        reasons = dict(part.skipped)
        predicted = each_prediction(part)
        for path in part.files:
            name = name_of(path, root)
            if path in reasons:
                yield Row(name, None, reasons[path], None, None)
            else:
                _, is_found, label, look, shares = next(predicted)
                yield Row(name, label, None if is_found else NO_CELL, look, shares)
    for path, reason in predictions.left_out():
        yield Row(name_of(path, root), None, reason, None, None)


def each_prediction(part: Bunch) -> Iterator[tuple]:
    """Yield path, whether a cell was found, label, familiarity and probabilities of each image."""
    n_images = len(part.paths)
    return zip(
        part.paths,
        [True] * n_images if part.found is None else part.found,
        part.labels.tolist(),
        [None] * n_images if part.familiarity is None else part.familiarity.tolist(),
        part.probabilities.tolist(),
        strict=True,
    )


def figures_of(summary: Summary, predictions: Predictions, classes: list) -> dict[str, Any]:
    """Return what the JSON file holds; what is listed is read part by part."""
    return {
        "n_images": summary.labels.total(),
        "classes": [
            {"label": label, "n_images": count} for label, count in sorted(summary.labels.items())
        ],
        "familiarity": summary.familiarity,
        "unfamiliar": summary.is_unfamiliar,
        "files": each_file(predictions, classes),
        "no_cell_found": each_uncut(predictions) if summary.has_cropper else None,
        "left_out": each_left_out(predictions),
    }


def each_file(predictions: Predictions, classes: list) -> Iterator[dict[str, Any]]:
    """Yield what is predicted of every image, for JSON."""
    for part in predictions.images():
        for path, _, label, look, shares in each_prediction(part):
            yield {
                "file": path,
                "label": label,
                "familiarity": look,
                "probabilities": dict(zip(classes, shares, strict=True)),
            }


def each_uncut(predictions: Predictions) -> Iterator[str]:
    """Yield the images in which no white cell was found, for JSON."""
    for part in predictions.images():
        yield from uncut(part)


def each_left_out(predictions: Predictions) -> Iterator[dict[str, str]]:
    """Yield files that were left out, for JSON."""
    for part in predictions.images():
        yield from by_reason(part.skipped)
    for item in predictions.left_out():
        yield from by_reason([item])
