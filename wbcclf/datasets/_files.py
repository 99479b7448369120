"""Which image files a folder holds, in an order that does not depend on the file system."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

__all__ = ["SUFFIXES", "check_folder", "find_images", "natural_key", "walk_images"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")


def natural_key(text: str) -> str:
    """Return a sort key under which ``cell2`` comes before ``cell10``.

    It is one string, since a folder may hold a million names.
    """
    # A number is less than any other text, and one with fewer digits less than one with more. The
    # text itself breaks the tie between "01" and "1".
    return re.sub(r"\d+", _numeral, text) + "\0\0" + text


def _numeral(match: re.Match) -> str:
    digits = str(int(match[0]))
    return f"\0{chr(len(digits))}{digits}"


def check_folder(root: str | PathLike) -> Path:
    """Return `root` as a Path; FileNotFoundError or NotADirectoryError if it is no folder."""
    root = Path(root)
    if not root.exists():
        existing = next((p for p in root.parents if p.exists()), None)
        hint = f" {existing} exists." if existing is not None and existing.name else ""
        raise FileNotFoundError(f"root={os.fspath(root)!r} does not exist.{hint}")
    if not root.is_dir():
        raise NotADirectoryError(
            f"root={os.fspath(root)!r} is not a folder. Give the folder that holds the class "
            "folders, or use load_image_csv for a table."
        )
    return root


def find_images(
    root: str | PathLike,
) -> tuple[list[tuple[str, ...]], list[tuple[str, str]]]:
    """Return the image files below `root`, as path parts relative to it, and what is left out.

    Parameters
    ----------
    root : path
        Folder to walk, links to folders included; each folder is entered once.

    Returns
    -------
    files : list of tuple of str
        In natural order. Only the names decide; no file is opened.
    skipped : list of (path, reason)

    Raises
    ------
    FileNotFoundError
        If `root` does not exist.
    NotADirectoryError
        If `root` is not a folder.
    OSError
        If `root` cannot be read.
    """
    files: list[tuple[str, ...]] = []
    skipped: list[tuple[str, str]] = []
    for parts, reason in walk_images(root):
        if reason is None:
            files.append(parts)
        else:
            skipped.append((os.path.join(root, *parts), reason))
    return files, skipped


def walk_images(
    root: str | PathLike, own: str | PathLike | None = None
) -> Iterator[tuple[tuple[str, ...], str | None]]:
    """Yield what `find_images` returns, and why it is left out, or None; in natural order.

    In memory are the names in the folders from `root` to the one that is being read. Nothing is
    said of the folder `own`, which is not entered.
    """
    root = check_folder(root)
    passed = None if own is None or not os.path.isdir(own) else _identity(os.stat(own))
    seen: set[tuple[int, int]] = set()
    # The folders from the root on, with the names that are still to come, backwards. No recursion,
    # since folders may be nested deeper than Python's calls.
    levels: list[tuple[tuple[str, ...], list[str], dict[str, str | None]]] = []
    waiting: tuple[str, ...] | None = ()
    while waiting is not None or levels:
        if waiting is not None:
            parts, waiting = waiting, None
            folder = os.path.join(root, *parts)
            try:
                identity = _identity(os.stat(folder))
                names, others = _entries(folder)
            except OSError as error:
                if not parts:
                    raise
                yield parts, f"a folder that cannot be read ({error.strerror})"
                continue
            if identity == passed:
                continue
            if identity in seen:
                yield parts, "a link to a folder that is read already"
                continue
            seen.add(identity)
            if not names and parts:
                yield parts, "an empty folder"
            levels.append((parts, names, others))
        parts, names, others = levels[-1]
        if not names:
            levels.pop()
            continue
        name = names.pop()
        if name not in others:
            yield (*parts, name), None
        elif (reason := others[name]) is not None:
            yield (*parts, name), reason
        else:
            waiting = (*parts, name)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _entries(folder: str) -> tuple[list[str], dict[str, str | None]]:
    """Return the names in a folder, backwards, and which are no images: None for a folder, or why.

    The order is that of the names, so that it does not depend on the file system which of two links
    is entered.
    """
    names, others = [], {}
    with os.scandir(folder) as scan:
        for entry in scan:
            is_folder, reason = _look_at(entry)
            names.append(entry.name)
            if is_folder or reason:
                others[entry.name] = reason
    names.sort(key=natural_key, reverse=True)
    return names, others


def _look_at(entry: os.DirEntry) -> tuple[bool, str | None]:
    """Return whether an entry is a folder, and why it is left out, or None."""
    if entry.name.startswith("."):
        return False, "hidden (the name starts with a dot)"
    try:
        if entry.is_dir():
            return True, None
        is_file = entry.is_file()
    except OSError as error:  # a link to itself, or into a folder without permission
        return False, f"cannot be opened ({error.strerror})"
    if not is_file:
        return False, "not a regular file" if os.path.exists(entry) else "a link to nothing"
    if not entry.name.lower().endswith(SUFFIXES):
        return False, f"the suffix is none of {', '.join(SUFFIXES)}"
    return False, None
