"""`wbcclf split`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from sklearn.utils import Bunch

from wbcclf.cli import _defaults
from wbcclf.cli._console import out, print_table
from wbcclf.cli._output import (
    JsonOption,
    check_not_read,
    check_outputs,
    require,
    save,
    save_figures,
    warn_of_formulas,
    write_csv,
)
from wbcclf.cli._shared import (
    OnError,
    OnErrorOption,
    by_class,
    by_reason,
    check_broken,
    report_left_out,
)
from wbcclf.cli._source import (
    AUTO,
    GroupColumn,
    LabelColumn,
    LabelledImages,
    Part,
    PathColumn,
    Root,
    Source,
)
from wbcclf.model_selection import train_test_split_cells


def split(
    images: LabelledImages,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="CSV file to write.")
    ] = Path("split.csv"),
    json_: JsonOption = None,
    groups: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|PATTERN|auto",
            show_default="the column group of a CSV file, else auto",
            help="Which images show the same cell or patient: a CSV file with columns path and "
            "group, such as `wbcclf groups` writes, or a regular expression on the path. auto "
            "finds out from the images, in about half a minute for a thousand.",
        ),
    ] = None,
    group_column: GroupColumn = None,
    test_size: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Share of the groups of every class that is for the test: rounded, but at least "
            "one group, and never all.",
        ),
    ] = 0.2,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="Same seed, same split.")
    ] = _defaults.SEED,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    root: Root = None,
    part: Part = None,
    on_error: OnErrorOption = OnError.stop,
) -> None:
    """Split labelled images into training and test by cell, without copying any.

    Writes a CSV file with the columns path (from its own folder on), class,
    group and part: train or test. No cell is in both parts, and every class
    with two cells or more is in both.

    Example: wbcclf split cells -o split.csv

    Example: wbcclf train split.csv --part train -o model.wbcclf

    Example: wbcclf evaluate model.wbcclf split.csv --part test
    """
    check_outputs(output=output, json=json_)
    results = [path for path in (output, json_) if path is not None]
    require(0 < test_size < 1, f"--test-size {test_size:g}: give a share between 0 and 1.")
    source = Source(images, path_column, label_column, root, groups, group_column, part)
    for result in results:  # before groups are looked for
        check_not_read(result, [images, *filter(None, [groups])])
    listing = source.list()
    if groups is None and listing.groups is None:
        source = replace(source, groups=AUTO)
        listing = source.list()
    for result in results:
        check_not_read(result, listing.paths)
    check_names(listing.target_names)
    n_images = len(listing.paths) + len(listing.missing)
    broken = listing.missing + listing.unread
    check_broken(broken, n_images, on_error)
    report_left_out(broken, listing.skipped, n_images, on_error, "")
    is_read = ~np.isin(listing.paths, [path for path, _ in listing.unread])
    for column in ("paths", "target", "groups"):
        listing[column] = listing[column][is_read]
    train, test = train_test_split_cells(
        listing.target, listing.groups, test_size=test_size, random_state=seed
    )
    parts = np.full(len(listing.paths), "train")
    parts[test] = "test"
    names = source.names(listing.paths, output)
    columns = np.column_stack([names, listing.target, listing.groups, parts])
    rows = [["path", "class", "group", "part"], *columns.tolist()]
    save(output, lambda path: write_csv(path, rows))
    warn_of_formulas(output, [*names, *listing.target_names])
    print_split(listing, train, test)
    out.print(f"Split: {output}. Use it with --part train and --part test.")
    save_figures(
        json_,
        lambda: {
            "train": by_class(listing.target[train], listing.groups[train]),
            "test": by_class(listing.target[test], listing.groups[test]),
            "files": each_file(listing, parts),
            "left_out": by_reason(broken + listing.skipped),
        },
    )


def each_file(listing: Bunch, parts: np.ndarray) -> Iterator[dict[str, Any]]:
    """Yield the part of every image, for JSON."""
    columns = (listing.paths, listing.target, listing.groups, parts)
    for path, label, group, part in zip(*columns, strict=True):
        yield {"file": path, "label": label, "group": group, "part": part}


def check_names(names: Sequence[str]) -> None:
    """Fail on classes that a table cannot hold."""
    for name in names:
        require(
            "," not in name,
            f"class {name!r}: in a table, a comma separates two labels. Rename the class.",
        )
        require(
            name.isprintable(),
            f"class {name!r} holds characters that a table cannot. Rename the class.",
        )


def print_split(listing: Bunch, train: np.ndarray, test: np.ndarray) -> None:
    """Print how many images and groups of every class each part has."""
    lines = []
    for name in listing.target_names:
        line = [name]
        for rows in (train, test):
            members = rows[listing.target[rows] == name]
            line += [len(members), len(set(listing.groups[members].tolist()))]
        lines.append(line)
    print_table(["class", "train images", "groups", "test images", "groups"], lines)
