"""The files that commands write: checked before the work, and not lost after it."""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TextIO
from uuid import uuid4

import typer

from wbcclf._files import plain, replacing
from wbcclf._parts import remove_parts
from wbcclf._store import SUFFIX
from wbcclf.cli._console import out, warn

JsonOption = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="FILE", help="Also write all that is printed, in full, to this JSON file."
    ),
]


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


def check_outputs(**results: Path | None) -> None:
    """Fail before the work starts if a result cannot be written, or two share a file.

    Parameters
    ----------
    **results : Path or None
        By the names of their options; None is not asked for.
    """
    options: dict[Path, str] = {}
    for name, path in results.items():
        if path is None:
            continue
        check_output(path)
        first = options.setdefault(path.resolve(), name)
        require(first == name, f"--{name} {path}: it is also --{first}. Name another file.")


def check_not_read(path: Path, inputs: Iterable[str | Path]) -> None:
    """Fail if a result would be written over something that is read."""
    try:
        there = path.stat()
    except OSError:  # not there, so it is no input
        return
    for each in inputs:
        try:
            is_input = os.path.samestat(os.stat(each), there)
        except OSError:
            continue
        require(
            not is_input,
            f"{path} would be overwritten, but it is also an input. Name another file for the "
            "result.",
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


@contextmanager
def resumable(parts: Path) -> Iterator[None]:
    """Keep what a run has found if it fails, and say so; leave nothing if it ends well."""
    folder = parts.parent
    require(
        folder.is_dir() or not folder.exists(),
        f"{folder} is a file. What is found is kept in a folder of this name until the end. Move "
        "the file away, or give another name with --output.",
    )
    ended_well = False
    try:
        yield
        ended_well = True
    finally:
        if ended_well or not any(parts.rglob(f"*{SUFFIX}")):
            remove_parts(parts)
        else:
            warn(
                f"what was found is kept in {folder}. Run the same command again to resume, "
                "or remove this folder to start anew."
            )


def write_csv(path: Path, lines: Iterable[list], folder: Path | None = None) -> None:
    """Write a CSV file by RFC 4180.

    Its line ends, carriage return and newline, have the csv module put quotes around cells with
    either, so that file names that hold one survive. `folder` is as in `replacing`.
    """
    # surrogateescape: file names are bytes, and not all are UTF-8.
    with (
        replacing(path, folder) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        csv.writer(file).writerows(lines)


def save_figures(path: Path | None, figures: Callable[[], dict[str, Any]]) -> None:
    """Write what a command has printed to a JSON file, if one is asked for.

    Parameters
    ----------
    path : Path or None
    figures : callable
        Returns what :func:`write_json` takes, every time that it is called.
    """
    if path is not None:
        save(path, lambda path: write_json(path, figures()))
        out.print(f"Figures: {path}")


def write_json(path: Path, figures: dict[str, Any]) -> None:
    """Write figures as a JSON object.

    Parameters
    ----------
    path : Path
    figures : dict
        NaN and infinity, which JSON lacks, become null, and an array a list. An iterator becomes a
        list, too: of one item a line, with one at a time in memory.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("{")
        separator = "\n"
        for name, value in figures.items():
            file.write(f"{separator}{json.dumps(name)}: ")
            separator = ",\n"
            if isinstance(value, Iterator):
                _write_list(file, value)
            else:
                json.dump(plain(value), file, indent=1)
        file.write("\n}\n")


def _write_list(file: TextIO, items: Iterator[Any]) -> None:
    file.write("[")
    separator = "\n"
    for item in items:
        file.write(f"{separator}{json.dumps(plain(item))}")
        separator = ",\n"
    file.write("\n]")


def warn_of_formulas(path: Path, names: Iterable[str]) -> None:
    """Warn of text that a spreadsheet would take for a formula.

    It is not escaped: a sign before a file name would be part of the name for every other reader.
    """
    n_found, first = 0, ""
    for name in names:
        if name.startswith(("=", "+", "-", "@", "\t", "\r")):
            n_found, first = n_found + 1, first or name
    if n_found:
        warn(
            f"{path}: a spreadsheet may take {first} for a formula ({n_found} such names, "
            "which begin with =, +, -, @ or a control code). Import the column as text."
        )
