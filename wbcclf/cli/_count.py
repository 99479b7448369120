"""`wbcclf count`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from sklearn.utils import Bunch

from wbcclf._parts import parts_folder
from wbcclf.cli import _defaults
from wbcclf.cli._console import out, print_table
from wbcclf.cli._evaluate import read_figures
from wbcclf.cli._listing import list_images, name_of
from wbcclf.cli._output import (
    JsonOption,
    check_not_read,
    check_outputs,
    resumable,
    save,
    save_figures,
    warn_of_formulas,
    write_csv,
)
from wbcclf.cli._shared import (
    DEFAULT_MODEL,
    OnError,
    OnErrorOption,
    Skipped,
    about_model,
    by_reason,
    check_broken,
    is_packaged,
    read_model,
    report_left_out,
    split_model,
)
from wbcclf.datasets._decode import MAX_PIXELS
from wbcclf.fields._count import count_fields

NotWhite = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CLASS",
        show_default=f"none; of {DEFAULT_MODEL}, {' and '.join(_defaults.NOT_WHITE)}",
        help="A class of the model that is not of white cells, such as erythroblast. It is no "
        "part of the 100 per cent, but given per 100 white cells. Repeat the option for every "
        "such class. With the model that comes with wbcclf, it replaces erythroblast and "
        "platelet.",
    ),
]


def count(
    model_and_fields: Annotated[
        list[Path],
        typer.Argument(
            metavar="[MODEL] FIELDS",
            help="Model file written by `wbcclf train`; without one, the model that comes with "
            f"wbcclf ({DEFAULT_MODEL}). Then a folder with pictures of fields at any depth, or the "
            "files themselves: all of one smear. Fields must not overlap.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="CSV file for the table.")
    ] = Path("count.csv"),
    json_: JsonOption = None,
    cells: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write a CSV file with every cell: field, box, status, label, familiarity, "
            "probabilities.",
        ),
    ] = None,
    overlay: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            file_okay=False,
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
            help="JSON file of `wbcclf evaluate MODEL IMAGES --json FILE`, on cells that the model "
            "was not trained on. The table then also has per cent corrected for the errors seen "
            "there.",
        ),
    ] = None,
    not_white: NotWhite = None,
    max_pixels: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="A field of more pixels is not read: a small file can become a picture of any "
            "size. Raise it for large scans that you trust.",
        ),
    ] = MAX_PIXELS,
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

    Example: wbcclf count fields/

    Example: wbcclf count model.wbcclf fields/ -o count.csv --overlay seen/

    Example: wbcclf count model.wbcclf fields/ --evaluation figures.json

    Example: wbcclf count model.wbcclf fields/ --not-white erythroblast
    """
    check_outputs(output=output, json=json_, cells=cells)
    model_file, fields = split_model(model_and_fields)
    model = read_model(model_file, fields)
    apart = not_white or (_defaults.NOT_WHITE if is_packaged(model_file) else [])
    listing = list_images(fields)
    inputs = [model_file, *listing.paths, *([evaluation] if evaluation else [])]
    for result in filter(None, (output, json_, cells)):
        check_not_read(result, inputs)
    about = about_model(model_file)
    digest = about["model_sha256"]
    figures = None if evaluation is None else read_figures(evaluation, about["model"], digest)
    parts = parts_folder(output, digest)
    is_file = output.is_file() or not output.exists()  # no parts beside a pipe or device
    with resumable(parts):
        found = count_fields(
            model,
            listing.root or listing.paths,
            evaluation=figures,
            not_white=apart,
            min_probability=min_probability,
            overlay_dir=overlay,
            max_pixels=max_pixels,
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
        classes, left_out = model.classes_.tolist(), broken + others
        save(output, lambda path: write_csv(path, table_lines(found.table)))
        if cells is not None:
            root = listing.root
            save(cells, lambda path: write_csv(path, cell_lines(found, left_out, classes, root)))
            files = [*found.fields, *(path for path, _ in left_out)]
            warn_of_formulas(cells, [*(name_of(file, root) for file in files), *map(str, classes)])
        print_count(found, apart)
        if is_packaged(model_file):
            no_white = f"Not of white cells: {' and '.join(apart)} (--not-white)."
            out.print(f"Model: {DEFAULT_MODEL}. {no_white} {_defaults.LIMITS}")
        for what, path in (("Table", output), ("Cells", cells), ("Overlays", overlay)):
            if path is not None:
                out.print(f"{what}: {path}")
        save_figures(json_, lambda: about | figures_of(found, apart, classes, left_out))


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
        field, *box, status, label, probability, familiarity = cell
        look = "" if np.isnan(familiarity) else f"{familiarity:.3f}"
        of_classes = (f"{share:.6f}" for share in shares)
        yield [
            name_of(field, root),
            "",
            *box,
            status,
            label,
            f"{probability:.6f}",
            look,
            *of_classes,
        ]
    for path, reason in left_out:
        yield [name_of(path, root), reason, *[""] * (len(header) - 1 + len(classes))]


def figures_of(
    found: Bunch, not_white: list[str], classes: list, left_out: Skipped
) -> dict[str, Any]:
    """Return what the JSON file holds."""
    names = {"class": "label", "cells": "n_cells"}
    columns = [names.get(name, name) for name in found.table]
    rows = zip(*(column.tolist() for column in found.table.values()), strict=True)
    return {
        "classes": [dict(zip(columns, row, strict=True)) for row in rows],
        "not_white": not_white,
        **summary(found),
        "cells": each_cell(found, classes),
        "fields": found.fields,
        "left_out": by_reason(left_out),
    }


def each_cell(found: Bunch, classes: list) -> Iterator[dict[str, Any]]:
    """Yield what is known of every cell, for JSON."""
    for *cell, shares in zip(*found.cells.values(), found.probabilities, strict=True):
        yield dict(zip(found.cells, cell, strict=True)) | {
            "probabilities": dict(zip(classes, shares, strict=True))
        }


def summary(found: Bunch) -> dict[str, int]:
    status = Counter(found.cells["status"].tolist())
    return {
        "n_fields": len(found.fields),
        "n_empty_fields": len(found.fields) - len(set(found.cells["field"].tolist())),
        **{f"n_{name}": status[name] for name in ("called", "uncertain", "border")},
    }


def print_count(found: Bunch, not_white: list[str]) -> None:
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
        name = f"{label}, per 100 white cells" if label in not_white else label
        rows.append([name, row["cells"], *("" if "nan" in text else text for text in figures)])
    print_table(header, rows)
    counts = summary(found)
    out.print(
        f"Fields: {counts['n_fields']} ({counts['n_empty_fields']} without a white cell). Cells: "
        f"{counts['n_called']} called, {counts['n_uncertain']} uncertain, {counts['n_border']} not "
        "counted (cut by the lower or right border)."
    )
