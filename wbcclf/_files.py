"""Files that are whole or not there, and folders that keep what was computed."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import joblib
from sklearn.utils.validation import check_memory


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` if the block ends well.

    Whatever happens, no half-written file is left, and an existing one stays until then.
    """
    path = Path(path).resolve()  # a link stays a link
    if path.exists() and not path.is_file():  # a pipe or device is written to, not replaced
        yield path
        return
    # Unlike a process's number, unique among all machines that share the folder. The suffix is
    # kept: some writers choose the format by it.
    temporary = path.with_name(f"{path.stem}.{uuid.uuid4().hex}.part{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def as_memory(memory: Any, mmap_mode: str | None = None) -> Any:
    """Return a joblib.Memory for a `memory` parameter: None, a folder, or one already.

    Raises
    ------
    OSError
        If the folder cannot be written to.
    ValueError
        If it is none of these, or an empty name.
    """
    if isinstance(memory, (str, os.PathLike)):
        folder = os.fspath(memory)
        if not folder:
            raise ValueError("memory='' is no folder. Name one, or give None.")
        try:
            return joblib.Memory(folder, mmap_mode=mmap_mode, verbose=0)
        except OSError as error:
            raise OSError(
                error.errno,
                f"memory={folder!r} cannot be written to ({error.strerror}). Name another folder",
            ) from error
    try:
        return check_memory(memory)
    except ValueError:
        raise ValueError(
            f"memory must be None, a folder or a joblib.Memory, got {memory!r}."
        ) from None
