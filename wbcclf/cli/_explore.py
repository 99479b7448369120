"""`wbcclf explore`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from sklearn.utils import Bunch

from wbcclf.cli._console import out, print_table
from wbcclf.cli._output import (
    JsonOption,
    check_not_read,
    check_outputs,
    require,
    save,
    save_figures,
)
from wbcclf.cli._shared import (
    OnError,
    OnErrorOption,
    Skipped,
    by_reason,
    check_broken,
    report_left_out,
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
from wbcclf.inspection import explore_images, write_exploration_page
from wbcclf.inspection.exploring._separation import p_text

N_FEATURES = 10  # that are printed


def explore(
    images: LabelledImages,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="PAGE.html", help="Write a page with pictures and maps."
        ),
    ] = None,
    json_: JsonOption = None,
    groups: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|PATTERN|auto",
            help="Which images show the same cell: a CSV file with columns path and group (or "
            "cell_id), or a regular expression on the path. auto finds out from the images. Each "
            "cell then counts once. Without it, each image counts as a cell.",
        ),
    ] = None,
    group_column: GroupColumn = None,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    root: Root = None,
    part: Part = None,
    on_error: OnErrorOption = OnError.stop,
) -> None:
    """Look at a set of images before anybody trains on it.

    Prints classes and cells, images that look other than the rest (light,
    focus, stain), and which features of the cells separate the classes. The
    page also has typical and odd images of each class, mean images, and maps
    of light and stain.

    Example: wbcclf explore cells/train -o page.html
    """
    check_outputs(output=output, json=json_)
    require(
        output is None or find_spec("matplotlib") is not None,
        "--output needs matplotlib: pip install 'wbcclf[plot]'.",
    )
    source = Source(
        images, path_column, label_column, root, groups, group_column, part, needs_labels=False
    )
    listing = source.list()
    for path in filter(None, (output, json_)):
        check_not_read(path, [images, *filter(None, [groups]), *listing.paths])
    found = explore_images(
        listing.paths, listing.target, groups=listing.groups, on_error="skip", verbose=1
    )
    n_images = len(listing.paths) + len(listing.missing)
    broken = listing.missing + found.skipped
    check_broken(broken, n_images, on_error)
    all_in = f"{json_} names all." if json_ is not None else "--json FILE names all."
    report_left_out(broken, listing.skipped, n_images, on_error, all_in)
    print_exploration(found, listing.paths)
    save_figures(json_, lambda: figures_of(found, listing.paths, broken + listing.skipped))
    if output is not None:
        save(output, lambda path: write_exploration_page(found, listing.paths, path))
        out.print(f"Page: {output}")


def print_exploration(found: Bunch, paths: np.ndarray) -> None:
    rows = [
        [
            each.label,
            each.n_images,
            each.n_cells,
            f"{each.effective_cells:.1f}",
            each.n_without_cell,
        ]
        for each in found.classes
    ]
    print_table(["class", "images", "cells", "effective cells", "no white cell found"], rows)
    sizes = ", ".join(f"{height}x{width} ({count})" for height, width, count in found.sizes[:3])
    more = f" and {len(found.sizes) - 3} more" if len(found.sizes) > 3 else ""
    out.print(f"Sizes (height x width): {sizes}{more}")
    for look in dict.fromkeys(each.look for each in found.outliers):
        mine = [each for each in found.outliers if each.look == look]
        out.print(f"Unusual {look}: {len(mine)} images, such as {paths[mine[0].row]}")
    if not found.separation.features:
        return
    print_table(
        ["feature", "share of variance", "p, corrected"],
        [
            [each.name, f"{each.omega2:.2f}", p_text(each.p_adjusted)]
            for each in found.separation.features[:N_FEATURES]
        ],
    )


def figures_of(found: Bunch, paths: np.ndarray, left_out: Skipped) -> dict[str, Any]:
    """Return what the JSON file holds: no array of all images, and files by name."""

    def named(row: int) -> str:
        return str(paths[row])

    classes = [
        each
        | {
            "typical": [named(row) for row in each.typical],
            "odd": [{"file": named(one.row), "why": one.why} for one in each.odd],
            "levels": counts.tolist(),
        }
        for each, counts in zip(found.classes, found.counts, strict=True)
    ]
    outliers = [
        {"file": named(each.row)} | {name: each[name] for name in ("look", "value", "score")}
        for each in found.outliers
    ]
    return {
        "classes": classes,
        "sizes": [
            {"height": height, "width": width, "images": count}
            for height, width, count in found.sizes
        ],
        "outliers": outliers,
        "separation": found.separation,
        "left_out": by_reason(left_out),
    }
