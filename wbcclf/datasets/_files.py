"""Which image files a folder holds, in an order that does not depend on the file system."""

from __future__ import annotations

import os
import re
from os import PathLike
from pathlib import Path

__all__ = ["SUFFIXES", "check_folder", "find_images", "natural_key"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")


def natural_key(text: str) -> tuple[list, str]:
    """Return a sort key under which ``cell2`` comes before ``cell10``."""
    parts = re.split(r"(\d+)", text)
    # The text itself breaks the tie between "01" and "1".
    return [int(part) if k % 2 else part for k, part in enumerate(parts)], text


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
    root = check_folder(root)
    files: list[tuple[str, ...]] = []
    skipped: list[tuple[str, str]] = []
    seen: set[tuple[int, int]] = set()
    waiting: list[tuple[str, ...]] = [()]
    while waiting:  # no recursion, since folders may be nested deeper than Python's calls
        parts = waiting.pop()
        folder = os.path.join(root, *parts)
        try:
            status = os.stat(folder)
            entries = _entries(folder)
        except OSError as error:
            if not parts:
                raise
            skipped.append((folder, f"a folder that cannot be read ({error.strerror})"))
            continue
        if (status.st_dev, status.st_ino) in seen:
            skipped.append((folder, "a link to a folder that is read already"))
            continue
        seen.add((status.st_dev, status.st_ino))
        if not entries and parts:
            skipped.append((folder, "an empty folder"))
        for entry in entries:
            is_folder, reason = _look_at(entry)
            if reason:
                skipped.append((os.path.join(folder, entry.name), reason))
            else:
                (waiting if is_folder else files).append((*parts, entry.name))
    files.sort(key=lambda parts: [natural_key(part) for part in parts])
    skipped.sort(key=lambda item: [natural_key(part) for part in Path(item[0]).parts])
    return files, skipped


def _entries(folder: str) -> list[os.DirEntry]:
    """Return what is in a folder, sorted backwards, so that the last is the first to be entered.

    In this order it does not depend on the file system which of two links is entered.
    """
    with os.scandir(folder) as scan:
        return sorted(scan, key=lambda entry: entry.name, reverse=True)


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
