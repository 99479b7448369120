"""`wbcclf explain`."""

from __future__ import annotations

import warnings
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from sklearn.utils import Bunch

from wbcclf.cli._console import out, print_table
from wbcclf.cli._listing import list_images
from wbcclf.cli._output import (
    JsonOption,
    check_not_read,
    check_outputs,
    require,
    save,
    save_figures,
)
from wbcclf.cli._shared import (
    CHUNK,
    ModelFile,
    OnError,
    OnErrorOption,
    about_model,
    by_reason,
    collect,
    read_model,
)
from wbcclf.cli._source import Part, PathColumn, Root, Source
from wbcclf.inspection import Explanation, predict_files, write_explanation_page
from wbcclf.inspection import explain as explain_pictures
from wbcclf.inspection.explaining._explanation import SCORES


class Method(StrEnum):
    """How maps are made."""

    gradcam = "gradcam"
    gradcam_plus_plus = "gradcam++"
    occlusion = "occlusion"


def explain(
    model_file: ModelFile,
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGES",
            help="Folder with images at any depth, a CSV file with a column of paths, or image "
            "files.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="PAGE.html", help="Write a page with pictures and maps."
        ),
    ] = None,
    json_: JsonOption = None,
    method: Annotated[
        Method,
        typer.Option(
            help="gradcam, gradcam++: by the gradients of the network. occlusion: by covering the "
            "image patch by patch, which is slower and measures the output itself."
        ),
    ] = Method.gradcam,
    most: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="Explain at most so many images, spread evenly over the predicted classes.",
        ),
    ] = 48,
    path_column: PathColumn = None,
    root: Root = None,
    part: Part = None,
    on_error: OnErrorOption = OnError.warn,
) -> None:
    """Show which parts of images a model goes by.

    Prints, for each predicted class, how much of the maps is on the white
    cell, how much of the image the cell covers, and two checks of the maps:
    how alike those of networks with random weights are, and how well they
    agree with what covering parts of the image does to the prediction. In
    brackets is what chance gives. A warning says if what covering shows is
    not clearly more on the cell than beside it.

    Example: wbcclf explain model.wbcclf cells/test -o page.html

    Example: wbcclf explain wbcclf:blood-cells cells --method occlusion
    """
    check_outputs(output=output, json=json_)
    model = read_model(model_file, images)
    listing = list_sources(images, path_column, root, part)
    for path in filter(None, (output, json_)):
        check_not_read(path, [model_file, *images, *listing.paths])
    chunks = predict_files(model, list(listing.paths), chunk_size=CHUNK)
    all_in = f"{json_} names all." if json_ is not None else "--json FILE names all."
    predicted, broken = collect(chunks, listing, on_error, all_in, None)
    rows = spread(predicted.probabilities.argmax(axis=1), most)
    if len(rows) < len(predicted.paths):
        out.print(
            f"Explained: {len(rows)} of {len(predicted.paths)} images, drawn evenly from the "
            "predicted classes (--most)."
        )
    paths = [predicted.paths[row] for row in rows]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No white cell was found")  # of which `collect` warned
        found = explain_pictures(model, paths, method=method.value, verbose=1)
    print_explanation(found)
    left_out = broken + listing.skipped
    save_figures(json_, lambda: about_model(model_file) | figures_of(found, left_out))
    if output is not None:
        save(output, lambda path: write_explanation_page(found, path))
        out.print(f"Page: {output}")


def list_sources(
    images: list[Path], path_column: str | None, root: Path | None, part: list[str] | None
) -> Bunch:
    """Return the files of a CSV file, or of folders and single files."""
    is_table = any(path.suffix.lower() == ".csv" for path in images)
    if not is_table and (path_column, root, part) == (None, None, None):
        return list_images(images)
    require(len(images) == 1, "Give one CSV file, or folders and image files.")
    return Source(images[0], path_column, root=root, part=part, needs_labels=False).list()


def spread(kinds: np.ndarray, most: int) -> np.ndarray:
    """Return at most so many rows, drawn with a fixed seed: one of each kind in turn."""
    random_state = np.random.RandomState(0)
    turns = np.empty(len(kinds), int)
    for kind in np.unique(kinds):
        rows = np.flatnonzero(kinds == kind)
        turns[rows] = random_state.permutation(len(rows))
    return np.sort(turns.argsort(kind="stable")[:most])


def print_explanation(found: Explanation) -> None:
    def per_cent(value: float) -> str:
        return "-" if np.isnan(value) else f"{value:.0%}"

    def with_chance(each: Bunch, name: str) -> str:
        value, chance = each[name], each[f"{name}_by_chance"]
        return "-" if np.isnan(value) else f"{value:.2f} ({chance:.2f})"

    print_table(
        [
            *("predicted", "images", "map on the cell", "occlusion on the cell"),
            *("cell covers", "random network", "agreement"),
        ],
        [
            [
                "all" if each.label is None else each.label,
                each.n_images,
                *(per_cent(each[name]) for name in ("inside", "occlusion_inside", "cell_share")),
                with_chance(each, "randomisation"),
                with_chance(each, "agreement"),
            ]
            for each in found.by_class()
        ],
    )
    if not found.warning:  # which is printed already
        out.print(found.answer())


def figures_of(found: Explanation, left_out: list[tuple[str, str]]) -> dict[str, Any]:
    """Return what the JSON file holds: scores, and no map."""
    columns = {
        name: getattr(found, name).tolist()
        for name in ("target", "predicted", "probability", *SCORES)
    }
    values = zip(found.names(), *columns.values(), strict=True)
    return {
        "method": found.method,
        "block": found.block,
        "warning": found.warning,
        "classes": found.by_class(),
        "files": [dict(zip(("file", *columns), row, strict=True)) for row in values],
        "left_out": by_reason(left_out),
    }
