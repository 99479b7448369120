"""`wbcclf audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from sklearn.utils import Bunch

from wbcclf.cli import _defaults
from wbcclf.cli._console import out, print_table, warn
from wbcclf.cli._output import (
    JsonOption,
    check_not_read,
    check_outputs,
    require,
    save,
    save_figures,
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
from wbcclf.cli._wrong_labels import load_network, wrong_labels
from wbcclf.inspection import write_audit_page
from wbcclf.model_selection import check_data
from wbcclf.model_selection.audit._findings import SEVERITIES

N_FILES = 5  # pictures or pairs of a finding that are printed


def audit(
    images: LabelledImages,
    test: Annotated[
        Path | None,
        typer.Argument(
            metavar="[TEST]",
            help="The images that a model of IMAGES is to be tested on, in the same way.",
        ),
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|PATTERN",
            help="Which images are known to show the same cell (or patient, or slide): a CSV file "
            "with columns path and group (or cell_id), or a regular expression on the path. "
            "Without it, the column group of IMAGES and TEST, if they are CSV files. Images that "
            "show the same cell are looked for, too.",
        ),
    ] = None,
    group_column: GroupColumn = None,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    root: Root = None,
    part: Part = None,
    test_part: Annotated[
        list[str] | None,
        typer.Option(metavar="PART", help="As --part, of TEST, which must be a CSV file."),
    ] = None,
    json_: JsonOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PAGE.html",
            help="Write a page with the pictures of each finding side by side.",
        ),
    ] = None,
    labels: Annotated[
        bool,
        typer.Option(
            "--labels",
            help="Also look for wrong labels in IMAGES: those that a model trained on the other "
            "images contradicts. Some minutes for ten thousand images.",
        ),
    ] = False,
    weights: Annotated[
        str,
        typer.Option(
            metavar="WEIGHTS",
            help="What --labels sees the images with: 'blood-cells', or a weights file for the "
            "same network. 'blood-cells' has learned the labels of PBC, BCCD and BCISC, the wrong "
            "ones, too: for these sets give other weights.",
        ),
    ] = _defaults.PACKAGED_WEIGHTS,
) -> None:
    """Look for what makes a score too good, before anybody trains.

    Finds cells that are in both sets, copies, one cell under two labels,
    files or colours that give the class away, several laboratories, classes
    unlike the others, broken files and classes that are too small; with --labels, labels that are
    probably wrong. Takes about half a minute for a thousand images.

    The exit code is 1 if there is a leak, or an error, and else 0.

    Example: wbcclf audit cells/train cells/test -o audit.html

    Example: wbcclf audit split.csv split.csv --part train --test-part test

    Example: wbcclf audit cells/train --labels -o audit.html
    """
    require(labels or weights == _defaults.PACKAGED_WEIGHTS, "--weights is for --labels.")
    require(test is not None or test_part is None, "--test-part is for TEST, which is not given.")
    check_outputs(output=output, json=json_)
    require(
        groups != AUTO,
        "--groups auto: an audit always looks for images of the same cell. Leave --groups out.",
    )
    columns = (path_column, label_column, root, groups, group_column)
    sets = [Source(images, *columns, part, needs_labels=labels).list()]
    inputs: list[Path | str] = [images, *([] if groups is None else [groups])]
    if test is not None:
        sets.append(Source(test, *columns, test_part, needs_labels=False).list())
        inputs.append(test)
        if groups is None and test != images:
            keep_numbers_apart(*sets, images, test)
    for path in filter(None, (output, json_)):
        check_not_read(path, [*inputs, *(str(name) for each in sets for name in each.paths)])
    network = load_network(weights) if labels else None
    found = check_data(*sets, verbose=1)
    if network is not None:
        found.findings.append(wrong_labels(sets[0], found, network))
        found.findings.sort(key=lambda each: SEVERITIES.index(each.severity))
    are_given = any(each.groups is not None for each in sets)
    print_findings(found, "groups" if are_given else "cells")
    save_figures(json_, lambda: found)
    if output is not None:
        save(output, lambda path: write_audit_page(found, path))
        out.print(f"Page: {output}")
    if found.has_leak:
        raise typer.Exit(1)


def keep_numbers_apart(train: Bunch, test: Bunch, *tables: Path) -> None:
    """Rename groups that are numbers in both tables, and say so.

    `wbcclf groups` counts from 0 in each table: 3 in one and in another is chance. Names of
    patients, say, mean the same in both.
    """
    both = [each.groups for each in (train, test)]
    if any(groups is None or not all(map(str.isdigit, groups.astype(str))) for groups in both):
        return
    if np.isin(*both).any():
        warn(
            f"the groups of {tables[0]} and {tables[1]} are numbers. The same number in both was "
            "not taken for the same cell or patient. If it is the same, give one table of all with "
            "--groups, or names such as P1."
        )
    train.groups, test.groups = (
        np.char.add(f"{number}: ", groups.astype(str))
        for number, groups in enumerate(both, start=1)
    )


def print_findings(found: Bunch, unit: str) -> None:
    if found.classes:
        rows = [
            [row.label, row.n_pictures, row.n_cells, f"{row.effective_cells:.1f}"]
            for row in found.classes
        ]
        print_table(["class", "images", unit, f"effective {unit}"], rows)
    if not found.findings:
        out.print("Nothing found.")
        return
    print_table(
        ["severity", "finding", "examples"],
        [[each.severity, each.kind, len(each.files) or "-"] for each in found.findings],
    )
    for each in found.findings:
        out.print()
        out.print(f"{each.severity.upper()}: {each.kind}")
        out.print(each.what)
        out.print(each.advice)
        notes = each.notes or [""] * len(each.files)
        for together, note in list(zip(each.files, notes, strict=True))[:N_FILES]:
            out.print(f"  {'  '.join(together)}{note and f' ({note})'}")
        if len(each.files) > N_FILES:
            out.print(f"  and {len(each.files) - N_FILES} more")
