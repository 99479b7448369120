"""The files that commands write: checked before the work, and not lost after it."""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from wbcclf._files import replacing
from wbcclf.cli._console import warn


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def check_output(path: Path) -> None:
    """Fail before the work starts, not after it, if the result cannot be written."""
    folder = path.parent
    require(folder.is_dir(), f"{path}: the folder {folder} does not exist.")
    require(not path.is_dir(), f"{path} is a folder; give a file name.")
    if path.exists() and not path.is_file():  # a pipe or device
        require(os.access(path, os.W_OK), f"{path} is read-only.")
    else:
        require(os.access(folder, os.W_OK), f"{path}: the folder {folder} is read-only.")


def check_not_read(path: Path, inputs: Iterable[str | Path]) -> None:
    """Fail if a result would be written over something that is read."""
    require(
        path.resolve() not in {Path(each).resolve() for each in inputs},
        f"{path} would be overwritten, but it is also an input. Name another file for the result.",
    )


def check_space(path: Path, n_bytes: int) -> None:
    """Fail if there is no room for a file, which lies beside the one that it replaces at first."""
    free = shutil.disk_usage(path.parent).free
    require(
        free >= n_bytes,
        f"{path} needs {n_bytes / 1e6:.1f} MB, but only {free / 1e6:.1f} MB are free in "
        f"{path.parent.resolve()}. Free some space, or name another file with --output.",
    )


def save(path: Path, write: Callable[[Path], None]) -> None:
    """Write a result to a file, or to another place rather than lose it.

    Parameters
    ----------
    path : Path
    write : callable
        Writes the result to the path that it is given.

    Raises
    ------
    OSError
        If it could not be written to `path`; the message names the file that holds the result, in
        the current folder or the system's folder for temporary files, or says that there is none.
    """
    try:
        write(path)
    except OSError as error:
        failed = f"{path} could not be written ({error.strerror or error})"
        name = f"{path.stem}-{uuid4().hex[:8]}{path.suffix}"  # whose place nothing else has
        for folder in (Path.cwd, tempfile.gettempdir):
            try:
                kept = Path(folder(), name)
                write(kept)
            except OSError:
                continue
            raise OSError(f"{failed}. The result is in {kept} instead: move it.") from error
        raise OSError(
            f"{failed}, and neither could a file in the current folder or in the system's folder "
            "for temporary files. Free some space, or name a file on another disk with --output, "
            "and run the same command again."
        ) from error


def write_csv(path: Path, lines: Iterable[list]) -> None:
    """Write a CSV file by RFC 4180.

    Its line ends, carriage return and newline, have the csv module put quotes around cells with
    either, so that file names that hold one survive.
    """
    # surrogateescape: file names are bytes, and not all are UTF-8.
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        csv.writer(file).writerows(lines)


def write_json(path: Path, figures: dict[str, Any]) -> None:
    write_text(path, json.dumps(figures, indent=1, default=as_list))


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def as_list(array: np.ndarray) -> list:
    """Return an array as lists, with None for NaN, which JSON lacks."""
    values = array.astype(object)
    values[array != array] = None
    return values.tolist()


def warn_of_formulas(path: Path, names: Iterable[str]) -> None:
    """Warn of text that a spreadsheet would take for a formula.

    It is not escaped: a sign before a file name would be part of the name for every other reader.
    """
    found = [name for name in names if name.startswith(("=", "+", "-", "@", "\t", "\r"))]
    if found:
        warn(
            f"{path}: a spreadsheet may take {found[0]} for a formula ({len(found)} such names, "
            "which begin with =, +, -, @ or a control code). Import the column as text."
        )
