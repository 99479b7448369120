"""CSV files: reading one, finding its columns, and groups of images."""

from __future__ import annotations

import csv
import io
import os
import posixpath
import re
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from wbcclf._files import read_regular

__all__ = [
    "GROUP_COLUMNS",
    "LABEL_COLUMNS",
    "PART_COLUMNS",
    "PATH_COLUMNS",
    "Table",
    "assign_groups",
]

PATH_COLUMNS = ("path", "file", "filename", "image", "image_path")
LABEL_COLUMNS = ("label", "class", "category", "target", "cell_type", "type")
GROUP_COLUMNS = ("group", "cell_id", "patient", "slide", "original_id")
PART_COLUMNS = ("part", "split")


class Table:
    """A CSV file in memory.

    Parameters
    ----------
    csv_file : path
        UTF-8, with a header line; fields separated by comma, semicolon or tab.

    Attributes
    ----------
    columns : list of str
    rows : list of (line, row)
        Line number in the file, and a dict from column to the cell's text without the spaces
        around it.
    """

    def __init__(self, csv_file: str | PathLike) -> None:
        self.path = Path(csv_file)
        try:
            file = io.StringIO(read_regular(csv_file).decode("utf-8-sig"), newline="")
            # csv.Sniffer guesses from the cells and is fooled by commas in them.
            delimiter = max(",;\t", key=file.readline().count)
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter)
            self.columns = [name.strip() for name in next(reader, [])]
            self.rows = [(reader.line_num, self._row(cells)) for cells in reader if any(cells)]
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(
                f"{self.path} cannot be read as a CSV file ({error}). Save it as CSV UTF-8."
            ) from error
        if not any(self.columns):
            raise ValueError(f"{self.path} has no header line with column names.")

    def _row(self, cells: list[str]) -> dict[str, str]:
        missing = [""] * (len(self.columns) - len(cells))
        return dict(zip(self.columns, [c.strip() for c in cells] + missing, strict=False))

    def column(self, asked: str | None, usual: Sequence[str], what: str) -> str:
        """Return the name of a column: the one asked for, or the first usual one there is."""
        found = self.find_column(asked, usual, what)
        if found is None:
            raise ValueError(
                f"{self.path} has no {what} column by a usual name ({', '.join(usual)}). Its "
                f"columns are {self._names()}; name the right one."
            )
        return found

    def find_column(self, asked: str | None, usual: Sequence[str], what: str) -> str | None:
        """Return the name of a column, or None if none was asked for and there is no usual one."""
        if asked is not None:
            if asked not in self.columns:
                raise ValueError(
                    f"{self.path} has no {what} column {asked!r}. Its columns are {self._names()}."
                )
            return asked
        names = {name.lower(): name for name in reversed(self.columns)}
        return next((names[name] for name in usual if name in names), None)

    def _names(self) -> str:
        return ", ".join(repr(name) for name in self.columns)


def assign_groups(
    groups: Any, root: str | PathLike, files: Sequence[tuple[str, ...]]
) -> np.ndarray | None:
    """Return the group of each file, or None for ``groups=None``; see `list_image_folder`."""
    if groups is None:
        return None
    if isinstance(groups, tuple):
        if len(groups) != 3:
            raise ValueError(
                f"groups={groups!r} must be (csv_file, path_column, group_column) as a tuple."
            )
        return _groups_of_table(*groups, root=root, files=files)
    if isinstance(groups, Path) or (isinstance(groups, str) and groups.lower().endswith(".csv")):
        return _groups_of_table(groups, None, None, root=root, files=files)
    if isinstance(groups, (str, re.Pattern)):
        try:
            pattern = re.compile(groups)
        except re.error as error:
            raise ValueError(f"groups={groups!r} is not a regular expression: {error}.") from error
        return _groups_of_pattern(pattern, root, files)
    if callable(groups):
        return _groups_of_function(groups, root, files)
    raise TypeError(
        "groups must be None, a function of the path, a regular expression, a CSV file or "
        f"(csv_file, path_column, group_column), got {type(groups).__name__}."
    )


def _groups_of_function(
    function: Callable, root: str | PathLike, files: Sequence[tuple[str, ...]]
) -> np.ndarray:
    found = []
    for parts in files:
        path = os.path.join(root, *parts)
        group = function(path)
        if group is None:
            raise ValueError(f"groups returned None for {path}. Every image needs a group.")
        found.append(group)
    return np.array(found)


def _groups_of_pattern(
    pattern: re.Pattern, root: str | PathLike, files: Sequence[tuple[str, ...]]
) -> np.ndarray:
    found = []
    for parts in files:
        match = pattern.search("/".join(parts))
        group = match and (match.group(1) if pattern.groups else match.group())
        if group is None:
            raise ValueError(
                f"groups={pattern.pattern!r} does not match {'/'.join(parts)} (in "
                f"{os.fspath(root)}). It is searched in the path relative to root and must give "
                "every image a group."
            )
        found.append(group)
    return np.array(found)


def _portable(path: str) -> str:
    return posixpath.normpath(path.replace("\\", "/"))


def _groups_of_table(
    csv_file: str | PathLike,
    path_column: str | None,
    group_column: str | None,
    *,
    root: str | PathLike,
    files: Sequence[tuple[str, ...]],
) -> np.ndarray:
    table = Table(csv_file)
    path_column = table.column(path_column, PATH_COLUMNS, "path")
    group_column = table.column(group_column, GROUP_COLUMNS, "group")
    group_of: dict[str, str] = {}
    for line, row in table.rows:
        key = _portable(row[path_column])
        if group_of.setdefault(key, row[group_column]) != row[group_column]:
            raise ValueError(f"{table.path}, line {line}: {row[path_column]} has two groups.")
    # Both are resolved, since the table may be named by way of a link and the root not.
    root = os.path.realpath(root)
    below_table = os.path.relpath(root, os.path.dirname(os.path.realpath(csv_file)))
    found = []
    for parts in files:
        keys = (os.path.join(start, *parts) for start in (below_table, "", root))
        group = next((group_of[k] for k in map(_portable, keys) if k in group_of), None)
        if not group:
            raise ValueError(
                f"{table.path} has no {'row' if group is None else group_column} for "
                f"{'/'.join(parts)} (in {root}). Paths in the {path_column!r} column are relative "
                "to the table's folder or to root."
            )
        found.append(group)
    return np.array(found)
