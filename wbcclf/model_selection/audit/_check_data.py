"""The audit of a data set, before anybody trains on it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any

import numpy as np
from sklearn.utils import Bunch, check_random_state

from wbcclf._labels import check_labels
from wbcclf.datasets import list_image_folder
from wbcclf.model_selection.audit._copies import Copies, class_table, uneven_classes
from wbcclf.model_selection.audit._findings import (
    LEAK,
    SEVERAL_LABORATORIES,
    SEVERITIES,
    broken_files,
    colour_shortcuts,
    file_shortcuts,
    laboratories,
    left_out,
    one_class,
    other_classes,
    small_classes,
)
from wbcclf.model_selection.audit._laboratories import find_kinds
from wbcclf.model_selection.audit._pictures import Pictures
from wbcclf.model_selection.groups._image_groups import find_image_groups


def check_data(
    train: str | PathLike | Bunch,
    test: str | PathLike | Bunch | None = None,
    *,
    n_jobs: int | None = None,
    random_state: Any = 0,
    verbose: int = 0,
) -> Bunch:
    """Audit a set of labelled pictures, or two sets that should have no cell in common.

    Parameters
    ----------
    train : str, path or Bunch
        A folder of class folders, or what :func:`list_image_folder`, :func:`load_image_folder` or
        :func:`load_image_csv` returned: `paths`, and `target`, which may be None. Files are read
        whole, as they are. If it has `groups`, pictures of one group are taken to show one cell,
        besides those that are found to; names of groups mean the same in both sets.
    test : str, path, Bunch or None, default=None
        The set that is tested on, in the same way.
    n_jobs : int or None, default=None
        Threads; None or -1 means one per available core. The result does not depend on it.
    random_state : int, RandomState or None, default=0
        As in :func:`find_image_groups`, and for the search for several laboratories.
    verbose : int, default=0
        1 shows progress bars on stderr.

    Returns
    -------
    Bunch
        With the attributes

        findings : list of Bunch
            The worst first, each with the attributes

            - kind : str, such as "cells in both sets"
            - severity : {"leak", "warning", "note"}. A leak makes scores too high.
            - what : str, what was found, in numbers
            - advice : str, what to do about it
            - figures : dict, the numbers
            - files : list of list of str, pictures that belong together, the surest first
            - notes : list of str, what is known of each of `files`; may be empty
        has_leak : bool
            Whether any finding is a leak.
        classes : list of Bunch
            For each class of `train`: `label`, `n_pictures`, `n_cells`, and `effective_cells`, the
            number of equally frequent cells that would be as diverse (inverse Simpson index).
        skipped : list of (path, reason)
            The files that could not be read, or were not there.
        groups, test_groups : ndarray of shape (n_images,), int
            The cell of each picture, numbered in both sets together; `test_groups` is None without
            `test`.

    Raises
    ------
    TypeError
        If `train` or `test` is neither a folder nor such a Bunch.
    ValueError
        If one of them has no picture, a folder holds several sets of class folders, or a label or
        group is missing.
    FileNotFoundError, NotADirectoryError
        If a folder does not exist, or is none.
    ImageReadError
        If no file can be read.

    See Also
    --------
    find_image_groups : Which pictures show the same cell.
    find_wrong_labels : Labels that are probably wrong.
    wbcclf.inspection.write_audit_page : The findings as a page with pictures.

    Notes
    -----
    **Cells in both sets, label conflicts, several pictures of a cell** come from
    :func:`find_image_groups`, on both sets together, and from the groups that were given.

    **A file or a colour gives the class away**: for each class one rule tells it from all others by
    the files' format, size, compression, colour mode or metadata, another by a mean colour, always
    for cells that the rule was not learned from. What counts is the balanced accuracy (0.5 is
    chance), by the lower limit of its interval by cell (:func:`group_bootstrap`): a leak from 0.75,
    a warning from 0.6 for files; the size of pictures is a warning at most, since it may be that of
    the cell. For colours it is reported from 0.75: as a warning if the four corners tell the class,
    which do not show the cell, and as a note if the whole picture does.

    **Several laboratories**: clusters of pictures by colour and by the strength of details in each
    channel at three scales, if the density between two of them falls below a twentieth of the
    smaller one's. Kinds of less than 5% of the pictures, or of fewer than 20, are not looked for,
    unless they are as much of one class. Kinds that go with the classes are a note: platelets, say,
    leave most of the picture empty.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from wbcclf import make_blood_cells
    >>> from wbcclf.model_selection import check_data
    >>> cells = make_blood_cells(16, classes=2, image_size=160, random_state=0)
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for k, (image, label) in enumerate(zip(cells.images, cells.target)):
    ...         for part in ["train"] * (k < 12) + ["test"] * (k > 9):  # two are in both
    ...             folder = Path(root, part, label)
    ...             folder.mkdir(parents=True, exist_ok=True)
    ...             Image.fromarray(image).save(folder / f"{k}.png")
    ...     found = check_data(Path(root, "train"), Path(root, "test"))
    >>> found.has_leak, found.findings[0].kind, found.findings[0].figures["n_cells"]
    (True, 'cells in both sets', 2)
    """
    random_state = check_random_state(random_state)
    sets = [_listing(train, "train")]
    if test is not None:
        sets.append(_listing(test, "test"))
    paths = [path for each in sets for path in each.paths]
    is_test = np.repeat([False, True][: len(sets)], [len(each.paths) for each in sets])
    pictures = Pictures(paths, n_jobs, verbose)
    found = find_image_groups(
        paths, on_error="skip", n_jobs=n_jobs, random_state=random_state, verbose=verbose
    )
    labels = [label for each in sets for label in each.labels]
    known = [group for each in sets for group in each.groups]
    copies = Copies(found, known, is_test, labels, paths, pictures.is_read)
    failures = [(path, why) for path, why in zip(paths, pictures.reasons, strict=True) if why]
    failures += [row for each in sets for row in each.missing]
    n_files = len(paths) + sum(len(each.missing) for each in sets)
    findings = [
        *(copies.both_sides() if len(sets) == 2 else []),
        *copies.conflicts(),
        *(each for side in range(len(sets)) for each in copies.duplicates(bool(side))),
        *broken_files(failures, n_files),
        *left_out([row for each in sets for row in each.skipped]),
        *_kinds(pictures, sets, is_test, random_state),
    ]
    table: list[Bunch] = []
    rows = np.flatnonzero(pictures.is_read & ~is_test)
    if sets[0].is_labelled and len(rows):
        y, groups = np.array(labels[: len(sets[0].paths)])[rows], copies.groups[rows]
        table = class_table(y, groups)
        findings += [*one_class(y), *small_classes(y, groups, copies.short), *uneven_classes(table)]
        findings += _shortcuts(pictures, rows, y, groups)
    if len(sets) == 2 and all(each.is_labelled for each in sets):
        findings += other_classes(*(sorted(set(each.labels)) for each in sets))
    findings.sort(key=lambda each: SEVERITIES.index(each.severity))
    return Bunch(
        findings=findings,
        has_leak=any(each.severity == LEAK for each in findings),
        classes=table,
        skipped=failures,
        groups=copies.groups[~is_test],
        test_groups=copies.groups[is_test] if len(sets) == 2 else None,
    )


def _listing(data: Any, name: str) -> Bunch:
    """Return a set as lists: paths, labels and groups (None if unknown), skipped and missing."""
    if isinstance(data, (str, PathLike)):
        data = list_image_folder(data)
        splits = [] if data.split is None else sorted(set(data.split.tolist()))
        if len(splits) > 1:
            raise ValueError(
                f"{name} holds several sets of class folders ({', '.join(splits)}). Give one as "
                "train and another as test, such as "
                f"{os.path.join(os.fspath(name), splits[0])!r}."
            )
    paths = getattr(data, "paths", None)
    if paths is None:
        raise TypeError(
            f"{name} must be a folder, or a Bunch with paths and target such as list_image_folder "
            f"returns, got {type(data).__name__}. Images in memory have no files to audit."
        )
    if not len(paths):
        raise ValueError(f"{name} has no picture.")
    columns: dict[str, list[str | None]] = {}
    for column in ("target", "groups"):
        values = getattr(data, column, None)
        if values is None:
            columns[column] = [None] * len(paths)
            continue
        values = check_labels(values, f"{name}.{column}").tolist()
        if len(values) != len(paths):
            raise ValueError(f"{name} has {len(paths)} paths, but {len(values)} in {column}.")
        columns[column] = [str(value) for value in values]
    return Bunch(
        paths=[os.fspath(path) for path in paths],
        labels=columns["target"],
        groups=columns["groups"],
        is_labelled=getattr(data, "target", None) is not None,
        skipped=list(getattr(data, "skipped", [])),
        missing=list(getattr(data, "missing", [])),
    )


def _shortcuts(
    pictures: Pictures, rows: np.ndarray, y: np.ndarray, groups: np.ndarray
) -> list[Bunch]:
    paths = [pictures.paths[row] for row in rows]
    return [
        *file_shortcuts([pictures.facts[row] for row in rows], y, groups, paths),
        *colour_shortcuts(pictures.corners[rows], y, groups, paths, "corners"),
        *colour_shortcuts(pictures.means[rows], y, groups, paths, "whole picture"),
    ]


def _kinds(
    pictures: Pictures,
    sets: Sequence[Bunch],
    is_test: np.ndarray,
    random_state: np.random.RandomState,
) -> Iterable[Bunch]:
    """Report two kinds of pictures among all, or else within each class of the first set."""
    features = np.concatenate([pictures.styles, pictures.means, pictures.corners], axis=1)
    all_labels = [label for each in sets for label in each.labels]
    y = np.array(all_labels) if None not in all_labels else None

    def of(rows: np.ndarray, labels: np.ndarray | None, name: str) -> list[Bunch]:
        kinds = find_kinds(features[rows], random_state)
        if kinds is None:
            return []
        paths = [pictures.paths[row] for row in rows]
        return [laboratories(kinds, labels, is_test[rows], paths, name)]

    rows = np.flatnonzero(pictures.is_read)
    found = of(rows, None if y is None else y[rows], "")
    if y is None or any(each.kind == SEVERAL_LABORATORIES for each in found):
        return found
    first = rows[~is_test[rows]]
    for label in np.unique(y[first]):
        found += of(first[y[first] == label], None, f"of the class {label} ")
    return found
