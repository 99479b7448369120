"""The rows of a CSV file become image files with labels and groups."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from wbcclf._files import some
from wbcclf.datasets._files import SUFFIXES, check_folder, find_images
from wbcclf.datasets._tables import LABEL_COLUMNS, PART_COLUMNS, PATH_COLUMNS, Table
from wbcclf.exceptions import ImageReadError

__all__ = ["Rows", "list_rows", "match_rows"]


@dataclass
class Rows:
    """The usable rows of a table, and the others.

    Attributes
    ----------
    paths : list of str
        One a usable row.
    labels, groups : list of str, or None
        One a usable row; None if there is no such column.
    parts : list of str
        What is in the column part, each once, sorted; empty if there is no such column.
    skipped : list of (path, reason)
        Rows left out for what the table says.
    missing : list of (path, reason)
        Rows for which there is no file, or not just one.
    """

    paths: list[str] = field(default_factory=list)
    labels: list[str] | None = None
    groups: list[str] | None = None
    parts: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)


def list_rows(
    csv_file: str | PathLike,
    path_column: str | None,
    label_column: str | None,
    group_column: str | None,
    root: str | PathLike | None,
    parts: Sequence[str] | None = None,
) -> Rows:
    """Return what a table lists, without opening an image; see `load_image_csv`.

    Raises
    ------
    ValueError
        If there is no such column, or no row can be used for what the table says.
    ImageReadError
        If there is no file for any row.
    """
    table = Table(csv_file)
    path_column = table.column(path_column, PATH_COLUMNS, "path")
    label_column = table.find_column(label_column, LABEL_COLUMNS, "label")
    group_column = table.find_column(group_column, (), "group")
    part_column = table.find_column(None, PART_COLUMNS, "part")
    if parts is not None:
        _keep_parts(table, part_column, parts, path_column)
    folder = table.path.parent if root is None else check_folder(root)
    rows = match_rows(table, folder, path_column, label_column, group_column)
    if part_column is not None:
        rows.parts = sorted({row[part_column] for _, row in table.rows})
    if not rows.paths and not rows.missing:
        reasons = some([f"{path} ({reason})" for path, reason in rows.skipped], 3)
        if not reasons:
            raise ValueError(f"{table.path} has no rows below its header.")
        raise ValueError(f"{table.path} has no row to load. Left out: {reasons}.")
    if not rows.paths:
        reasons = some([f"{path} ({reason})" for path, reason in rows.missing], 3)
        raise ImageReadError(
            f"None of the images that {table.path} names was found: {reasons}. Give root (in the "
            "shell --root), the folder that the paths start from."
        )
    return rows


def _keep_parts(table: Table, column: str | None, parts: Sequence[str], path_column: str) -> None:
    """Leave only the rows of some parts in a table."""
    if column is None:
        raise ValueError(
            f"{table.path} has no column {' or '.join(PART_COLUMNS)}, but its part "
            f"{', '.join(parts)} was asked for. `wbcclf split` writes such tables."
        )
    there = sorted({row[column] for _, row in table.rows})
    for part in parts:
        if part not in there:
            raise ValueError(
                f"{table.path} has no part {part!r} in its column {column!r}: there is "
                f"{some(there, 5)}."
            )
    first: dict[str, tuple[int, str]] = {}
    for line, row in table.rows:
        known, other = first.setdefault(os.path.normpath(row[path_column]), (line, row[column]))
        if other != row[column]:
            raise ValueError(
                f"{table.path}: lines {known} and {line} are the same file, {row[path_column]}, in "
                f"the parts {other!r} and {row[column]!r}. Keep one."
            )
    table.rows = [(line, row) for line, row in table.rows if row[column] in parts]


def match_rows(
    table: Table,
    root: str | PathLike,
    path_column: str,
    label_column: str | None,
    group_column: str | None,
) -> Rows:
    """Find the file of each row.

    Raises
    ------
    ValueError
        If two rows give one file different labels or groups, or a row has no group.
    """
    finder = _FileFinder(root)
    rows = Rows(labels=[] if label_column else None, groups=[] if group_column else None)
    seen: dict[str, tuple[int, str, str]] = {}
    for line, row in table.rows:
        cell = row[path_column]
        label = row[label_column] if label_column else ""
        group = row[group_column] if group_column else ""
        reason = _unusable(label) if label_column else None
        try:
            path, problem = finder.find(cell), None
        except ImageReadError as error:
            path, problem = os.path.join(root, cell), str(error)
        if reason is not None:
            rows.skipped.append((path, reason))
            continue
        if problem is not None:
            rows.missing.append((path, problem))
            continue
        if group_column and not group:
            raise ValueError(f"{table.path}, line {line}: {cell} has no {group_column}.")
        first, *known = seen.setdefault(os.path.normpath(path), (line, label, group))
        if known != [label, group]:
            raise ValueError(
                f"{table.path}: lines {first} and {line} are the same file, {path}, with different "
                f"labels or groups: {' '.join(known).strip()!r} and "
                f"{f'{label} {group}'.strip()!r}. Keep one."
            )
        if first != line:
            rows.skipped.append((path, f"the same file as in line {first}"))
            continue
        rows.paths.append(path)
        if rows.labels is not None:
            rows.labels.append(label)
        if rows.groups is not None:
            rows.groups.append(group)
    return rows


def _unusable(label: str) -> str | None:
    """Return why a label is not one class, or None if it is."""
    labels = [part for part in label.split(",") if part.strip()]
    if not labels:
        return "no label"
    return f"{len(labels)} labels" if len(labels) > 1 else None


class _FileFinder:
    """Files by path relative to a folder, by stem, or by the number at the end of the stem."""

    def __init__(self, root: str | PathLike) -> None:
        self.root = root
        self._by_stem: dict[str, list[str]] | None = None
        self._by_number: dict[str, list[str]] = defaultdict(list)

    def find(self, cell: str) -> str:
        """Return the path of the file that `cell` means; ImageReadError with the reason if none."""
        if not cell:
            raise ImageReadError("the row has no path")
        for path in (cell, cell.replace("\\", "/")):
            path = os.path.join(self.root, path)
            if os.path.isfile(path):
                return path
        if "/" in cell or "\\" in cell or cell.lower().endswith(SUFFIXES):
            there = os.path.lexists(os.path.join(self.root, cell))
            raise ImageReadError("not a regular file" if there else "no such file")
        return self._find_stem(cell)

    def _find_stem(self, stem: str) -> str:
        if self._by_stem is None:
            self._by_stem = self._index()
        found = self._by_stem.get(stem, [])
        if not found and re.fullmatch("[0-9]+", stem):
            found = self._by_number.get(stem.lstrip("0"), [])
        if not found:
            raise ImageReadError(f"no image with that name or number in {os.fspath(self.root)}")
        if len(found) > 1:
            raise ImageReadError(f"{len(found)} images match: {some(found, 3)}")
        return os.path.join(self.root, found[0])

    def _index(self) -> dict[str, list[str]]:
        """Return the files by stem, and note those that end with a number."""
        by_stem = defaultdict(list)
        for parts in find_images(self.root)[0]:
            stem = Path(parts[-1]).stem
            by_stem[stem].append(os.path.join(*parts))
            number = re.search("[0-9]+$", stem)
            if number:
                self._by_number[number.group().lstrip("0")].append(os.path.join(*parts))
        return by_stem
