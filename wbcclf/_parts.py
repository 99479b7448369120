"""Parts of a long run, kept beside its output until it ends, so that a killed run resumes."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from wbcclf._version import __version__


def parts_folder(output: Path, model: str) -> Path:
    """Return the folder, below OUTPUT.parts, for the parts of a run with the model of a digest."""
    return output.with_name(f"{output.name}.parts") / model[:16]


def remove_parts(folder: Path) -> None:
    """Remove the folder for parts, and OUTPUT.parts unless other runs have theirs in it."""
    shutil.rmtree(folder, ignore_errors=True)  # the same command may run twice
    with suppress(OSError):
        folder.parent.rmdir()


def file_digest(file: Path) -> str:
    """Return a digest of the content of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def part_key(what: str, paths: Sequence[str]) -> str:
    """Return the name of the part that some files give: by absolute names, sizes and times.

    Parameters
    ----------
    what : str
        All else that the part depends on, apart from the version of this package.
    paths : sequence of str
    """
    digest = hashlib.sha256(f"{what} {__version__}".encode())
    for path in paths:
        try:
            status = os.stat(path)
            # The time of the last change catches what leaves the other two: a swap, or a new mode.
            stamp = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
        except OSError:  # gone since it was listed; the part says why it is left out
            stamp = ""
        digest.update(os.fsencode(os.path.abspath(path)) + f"\0{stamp}\0".encode())
    return digest.hexdigest()[:40]
