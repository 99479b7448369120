"""`wbcclf export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from sklearn.utils import Bunch

import wbcclf
from wbcclf.cli import _defaults
from wbcclf.cli._classes import MapOption, match_classes, parse_map
from wbcclf.cli._console import out, print_table, warn
from wbcclf.cli._output import (
    JsonOption,
    check_not_read,
    check_outputs,
    require,
    save_figures,
)
from wbcclf.cli._shared import (
    DEFAULT_MODEL,
    OnError,
    OnErrorOption,
    about_model,
    by_reason,
    check_broken,
    is_packaged,
    report_left_out,
)
from wbcclf.cli._source import GroupColumn, LabelColumn, Part, PathColumn, Root, Source
from wbcclf.exporting._export import export_squares, parts
from wbcclf.exporting._page import check_runtime
from wbcclf.persistence import find_model


def export(
    model_file: Annotated[
        Path,
        typer.Argument(
            metavar="[MODEL]",
            help="Model file written by `wbcclf train`; without one, the model that comes with "
            f"wbcclf ({DEFAULT_MODEL}).",
            show_default=False,
        ),
    ] = Path(DEFAULT_MODEL),
    images: Annotated[
        Path | None,
        typer.Argument(
            metavar="[IMAGES]",
            help="Pictures to compare the file with the model on: a folder, or a CSV file. --int8 "
            "needs them, with one folder per class or a column of labels.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="ONNX file to write.")
    ] = Path("model.onnx"),
    json_: JsonOption = None,
    page: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Also write a page that runs the model in a browser, without a network, to this "
            "folder: DIR/index.html opens by a double click.",
        ),
    ] = None,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Write the network in 8 bits: about a quarter of the size. Half of IMAGES "
            "calibrate it; on the other half the recall of every class is compared.",
        ),
    ] = False,
    allow_loss: Annotated[
        float,
        typer.Option(
            metavar="POINTS",
            help="Points of recall that no class may lose more than by --int8.",
        ),
    ] = 2.0,
    groups: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|PATTERN|auto",
            help="Which images show the same cell: a CSV file with columns path and group (or "
            "cell_id), a regular expression on the path, or auto. All images of a cell then "
            "calibrate, or are compared on; intervals are by cell.",
        ),
    ] = None,
    group_column: GroupColumn = None,
    map_: MapOption = None,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    root: Root = None,
    part: Part = None,
    on_error: OnErrorOption = OnError.warn,
) -> None:
    """Write a model to an ONNX file, which predicts without PyTorch.

    The file is compared with the model on random pictures, on drawn cells and on
    IMAGES. If a label differs, or a probability by more than 0.0001, nothing is
    written. Needs wbcclf[onnx].

    Example: wbcclf export -o blood-cells.onnx

    Example: wbcclf export model.wbcclf cells/ -o model.onnx

    Example: wbcclf export model.wbcclf cells/ -o model.onnx --int8 --groups cells.csv

    Example: wbcclf export model.wbcclf -o model.onnx --page page/
    """
    check_outputs(output=output, json=json_)
    if page is not None:
        check_runtime()
    renamed = parse_map(map_ or [])
    if images is None and str(model_file) != DEFAULT_MODEL and model_file.is_dir():
        model_file, images = Path(DEFAULT_MODEL), model_file
    require(images is not None or not int8, "--int8 needs IMAGES: labelled pictures.")
    model_file = Path(find_model(model_file))
    model = wbcclf.load_model(model_file)
    loader, classifier = parts(model)
    given = Bunch(images=None, target=None, groups=None, paths=[], left_out=[])
    if images is not None:
        source = Source(
            *(images, path_column, label_column, root, groups, group_column, part),
            needs_labels=int8,
        )
        given = _load(source, loader, on_error)
    for path in filter(None, (output, json_)):
        check_not_read(path, [model_file, *filter(None, [images]), *given.paths])
    y = None
    if int8:
        known = [str(label) for label in classifier.classes_]  # names of folders are text
        class_of = match_classes(sorted({*given.target}), known, renamed)
        unknown = sorted({*class_of.values()} - {*known})
        require(
            not unknown,
            f"{images} holds classes that the model does not know: {', '.join(unknown)}. It knows "
            f"{', '.join(known)}. Map them with --map NAME=CLASS, or leave them out.",
        )
        y = classifier.classes_[[known.index(class_of[name]) for name in given.target]]
    limits = _defaults.LIMITS if is_packaged(model_file) else ""
    result = export_squares(model, output, given.images, y, given.groups, int8, allow_loss, limits)
    out.print(
        f"Compared on {result.n_images} pictures: no label differs, and no probability by more "
        f"than {max(result.largest_difference, 1e-7):.1g}"
    )
    if result.int8 is not None:
        _print_int8(result)
    out.print(f"Model: {output} ({result.n_bytes / 1e6:.1f} MB)")
    more: dict[str, Any] = {"left_out": given.left_out, "page": None}
    if page is not None:
        wbcclf.export_page(output, page)
        more["page"] = str(page / "index.html")
        out.print(f"Page: {more['page']}")
    save_figures(json_, lambda: about_model(model_file) | result | more)


def _load(source: Source, loader: Any, on_error: OnError) -> Bunch:
    """Return images that can be read, cut and stretched, with labels and groups."""
    listing = source.list()
    cells = source.load(loader)
    others = set(listing.skipped)
    broken = [item for item in cells.skipped if item not in others]
    check_broken(broken, len(listing.paths) + len(listing.missing), on_error)
    report_left_out(broken, listing.skipped, len(listing.paths), on_error, "")
    groups = None
    if listing.groups is not None:
        group_of = dict(zip(listing.paths.tolist(), listing.groups.tolist(), strict=True))
        groups = [group_of[path] for path in cells.paths.tolist()]
    return Bunch(
        images=cells.images,
        target=cells.target,
        groups=groups,
        paths=listing.paths,
        left_out=by_reason(broken + listing.skipped),
    )


def _print_int8(result: Bunch) -> None:
    found = result.int8
    out.print(
        f"int8: {found.n_bytes_float32 / result.n_bytes:.2f} times smaller; calibrated on "
        f"{found.n_calibrated} images, recall on the others:"
    )
    rows = []
    for row in found.classes:
        low, high = (100 * each for each in row.difference_interval)
        rows.append(
            [
                *(row.label, row.n_images, row.n_groups),
                *(f"{row.float32:.3f}", f"{row.int8:.3f}"),
                f"{100 * row.difference:+.1f} ({low:+.1f} to {high:+.1f})",
            ]
        )
    print_table(["class", "images", "cells", "float32", "int8", "points (95%)"], rows)
    if found.n_trained_on:
        warn(
            f"the model was trained on {found.n_trained_on} of the images that are compared on: "
            "the loss may be larger on others."
        )
