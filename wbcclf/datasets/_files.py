"""Which image files a folder holds, in an order that does not depend on the file system."""

from __future__ import annotations

import os
import re
from os import PathLike
from pathlib import Path

__all__ = ["SUFFIXES", "check_folder", "find_images", "natural_key", "some"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")


def natural_key(text: str) -> tuple[list, str]:
    """Return a sort key under which ``cell2`` comes before ``cell10``."""
    parts = re.split(r"(\d+)", text)
    # The text itself breaks the tie between "01" and "1".
    return [int(part) if k % 2 else part for k, part in enumerate(parts)], text


def some(items: list[str], limit: int) -> str:
    """Return the first `limit` items, comma-joined, and how many there are beyond."""
    rest = len(items) - limit
    return ", ".join(items[:limit]) + (f" and {rest} more" if rest > 0 else "")


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
    """
    root = check_folder(root)
    files: list[tuple[str, ...]] = []
    skipped: list[tuple[str, str]] = []
    _walk(root, (), {_identity(root)}, files, skipped)
    files.sort(key=lambda parts: [natural_key(part) for part in parts])
    skipped.sort(key=lambda item: [natural_key(part) for part in Path(item[0]).parts])
    return files, skipped


def _identity(folder: str | PathLike) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _walk(
    folder: Path,
    parts: tuple[str, ...],
    seen: set[tuple[int, int]],
    files: list[tuple[str, ...]],
    skipped: list[tuple[str, str]],
) -> None:
    with os.scandir(folder) as scan:
        # Sorted, so that it does not depend on the file system which of two links is entered.
        entries = sorted(scan, key=lambda entry: entry.name)
    if not entries and parts:
        skipped.append((os.fspath(folder), "an empty folder"))
    for entry in entries:
        inside = (*parts, entry.name)
        reason = None
        if entry.name.startswith("."):
            reason = "hidden (the name starts with a dot)"
        elif entry.is_dir():
            identity = _identity(entry)
            if identity in seen:
                reason = "a link to a folder that is read already"
            else:
                seen.add(identity)
                _walk(folder / entry.name, inside, seen, files, skipped)
        elif not entry.is_file():
            reason = "a link to nothing" if entry.is_symlink() else "not a regular file"
        elif not entry.name.lower().endswith(SUFFIXES):
            reason = f"the suffix is none of {', '.join(SUFFIXES)}"
        else:
            files.append(inside)
        if reason:
            skipped.append((os.fspath(folder / entry.name), reason))
