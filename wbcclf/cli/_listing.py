"""The images that a command is given: folders and single files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sklearn.utils import Bunch

import wbcclf
from wbcclf.cli._output import require
from wbcclf.datasets._files import walk_images


def walk(given: list[Path], own: Path | None = None) -> Iterator[tuple[str, str | None]]:
    """Yield the files of folders and single files, each with why it is left out, or None.

    Nothing is said of the folder `own`. Fails if there is no image in a folder, or a file is not
    there.
    """
    for path in given:
        if not path.is_dir():
            require(path.exists(), f"{path} does not exist.")
            yield str(path), None
            continue
        is_empty = True
        for parts, reason in walk_images(path, own):
            is_empty = is_empty and reason is not None
            yield os.path.join(path, *parts), reason
        if is_empty:
            wbcclf.list_image_folder(path, labelled=False)  # raises, and says what there is


def root_of(given: list[Path]) -> Path | None:
    """Return the folder, if one and nothing else was given."""
    return given[0] if len(given) == 1 and given[0].is_dir() else None


def list_images(given: list[Path]) -> Bunch:
    """Return the files of folders and single files.

    Returns
    -------
    Bunch
        With the attributes

        paths : list of str
        skipped, missing : list of (path, reason)
            What of the folders is no image; missing is empty.
        root : Path or None
            As `root_of` gives it.
    """
    paths, skipped = [], []
    for path, reason in walk(given):
        if reason is None:
            paths.append(path)
        else:
            skipped.append((path, reason))
    return Bunch(paths=paths, skipped=skipped, missing=[], root=root_of(given))


def name_of(path: str, root: Path | None) -> str:
    """Return how a file is called in a table: from the folder on that was given, if one was."""
    return (Path(path).relative_to(root) if root else Path(path)).as_posix()
