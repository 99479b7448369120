"""`wbcclf count`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from sklearn.utils import Bunch

import wbcclf
from wbcclf._parts import file_digest, parts_folder, remove_parts
from wbcclf.cli._console import out, print_table
from wbcclf.cli._output import check_not_read, check_output, save, warn_of_formulas, write_csv
from wbcclf.cli._predict import list_images, name_of
from wbcclf.cli._shared import (
    ModelFile,
    OnError,
    OnErrorOption,
    Skipped,
    check_broken,
    report_left_out,
)
from wbcclf.fields._count import count_fields


def count(
    model_file: ModelFile,
    fields: Annotated[
        list[Path],
        typer.Argument(
            metavar="FIELDS",
            help="A folder with pictures of fields at any depth, or the files themselves: all of "
            "one smear. Fields must not overlap.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="CSV file for the table.")
    ] = Path("count.csv"),
    cells: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write a CSV file with every cell: field, box, status, label, probabilities.",
        ),
    ] = None,
    overlay: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Also write JPEG copies of the fields, with a box, label and probability at every "
            "cell.",
        ),
    ] = None,
    min_probability: Annotated[
        float,
        typer.Option(
            metavar="P",
            min=0,
            max=1,
            help="A cell whose most probable class is less probable than this is uncertain.",
        ),
    ] = 0.5,
    evaluation: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="JSON file of `wbcclf evaluate MODEL IMAGES -o FILE`, on cells that the model was "
            "not trained on. The table then also has per cent corrected for the errors seen there.",
        ),
    ] = None,
    on_error: OnErrorOption = OnError.warn,
) -> None:
    """Count the white blood cells of whole fields: a differential.

    Finds every white cell, classifies it, and writes one row per class: cells,
    per cent, its 95% interval, and a wider one that holds for all classes at
    once. Cells too uncertain to be given a class have a row of their own and
    are not part of the per cent. Cells that the lower or right border cuts are
    not counted.

    After a crash, the same command goes on where it stopped: what was found is
    kept in OUTPUT.parts until the end.

    Example: wbcclf count model.wbcclf fields/ -o count.csv --overlay seen/

    Example: wbcclf count model.wbcclf fields/ --evaluation figures.json
    """
    for path in (output, cells):
        if path is not None:
            check_output(path)
    model = wbcclf.load_model(model_file)
    listing = list_images(fields)
    inputs = [model_file, *listing.paths, *([evaluation] if evaluation else [])]
    check_not_read(output, inputs)
    if cells is not None:
        check_not_read(cells, [*inputs, output])
    digest = file_digest(model_file)
    parts = parts_folder(output, digest)
    is_file = output.is_file() or not output.exists()  # no parts beside a pipe or device
    found = count_fields(
        model,
        listing.root or listing.paths,
        evaluation=None if evaluation is None else read_evaluation(evaluation),
        min_probability=min_probability,
        overlay_dir=overlay,
        on_error="skip",
        n_jobs=None,
        random_state=0,
        verbose=1,
        parts=parts if is_file else None,
        identity=digest,
    )
    others = listing.skipped
    known = set(others)
    broken = [item for item in found.skipped if item not in known]
    check_broken(broken, len(listing.paths), on_error)
    all_in = f"The column error of {cells} names all." if cells else "--cells FILE names all."
    report_left_out(broken, others, len(listing.paths), on_error, all_in)
    save(output, lambda path: write_csv(path, table_lines(found.table)))
    if cells is not None:
        root, classes, left_out = listing.root, model.classes_.tolist(), broken + others
        save(cells, lambda path: write_csv(path, cell_lines(found, left_out, classes, root)))
        files = [*found.fields, *(path for path, _ in left_out)]
        warn_of_formulas(cells, [*(name_of(file, root) for file in files), *map(str, classes)])
    remove_parts(parts)
    print_count(found)
    for what, path in (("Table", output), ("Cells", cells), ("Overlays", overlay)):
        if path is not None:
            out.print(f"{what}: {path}")


def read_evaluation(path: Path) -> Any:
    """Return what `wbcclf evaluate --output` wrote."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"--evaluation {path} is not a JSON file ({error}). Write one with `wbcclf evaluate "
            "MODEL IMAGES -o FILE`."
        ) from error


def table_lines(table: dict[str, np.ndarray]) -> list[list]:
    """Return the lines of the table's CSV file; what is not defined is empty."""
    rows = zip(*(column.tolist() for column in table.values()), strict=True)
    return [list(table), *([shown(value) for value in row] for row in rows)]


def shown(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return "" if np.isnan(value) else f"{value:.2f}"


def cell_lines(found: Bunch, left_out: Skipped, classes: list, root: Path | None) -> Iterator[list]:
    """Yield the lines of the CSV file of cells; files that were left out come last."""
    header, columns = list(found.cells), list(found.cells.values())
    yield [header[0], "error", *header[1:], *classes]
    for *cell, shares in zip(*columns, found.probabilities, strict=True):
        field, *box, status, label, probability = cell
        shown = (f"{share:.6f}" for share in (probability, *shares))
        yield [name_of(field, root), "", *box, status, label, *shown]
    for path, reason in left_out:
        yield [name_of(path, root), reason, *[""] * (len(header) - 1 + len(classes))]


def print_count(found: Bunch) -> None:
    """Print the table, and what is not in it."""
    table = found.table
    header = ["class", "cells", "per cent", "95% interval", "for all classes at once"]
    intervals = [("low", "high"), ("low_all", "high_all")]
    if "corrected" in table:
        header += ["corrected", "95% interval"]
        intervals += [("corrected_low", "corrected_high")]
    rows = []
    for number, label in enumerate(table["class"]):
        row = {name: column[number] for name, column in table.items()}
        figures = [
            f"{row['percent']:.1f}",
            *(f"{row[a]:.1f} to {row[b]:.1f}" for a, b in intervals),
        ]
        if "corrected" in row:
            figures.insert(3, f"{row['corrected']:.1f}")
        rows.append([label, row["cells"], *("" if "nan" in text else text for text in figures)])
    print_table(header, rows)
    status = Counter(found.cells["status"].tolist())
    n_empty = len(found.fields) - len(set(found.cells["field"].tolist()))
    out.print(
        f"Fields: {len(found.fields)} ({n_empty} without a white cell). Cells: {status['called']} "
        f"called, {status['uncertain']} uncertain, {status['border']} not counted (cut by the "
        "lower or right border)."
    )
