"""`wbcclf predict`."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

import wbcclf
from wbcclf._cluster import parts_folder, predict_on_cluster
from wbcclf._files import replacing
from wbcclf.cli._shared import (
    CHUNK,
    ModelFile,
    OnError,
    OnErrorOption,
    check_output,
    collect,
    counts_text,
    out,
)
from wbcclf.inspection import predict_files


def predict(
    model_file: ModelFile,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with images.")],
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
