"""Files that are whole or not there, and files that never make the reader wait."""

from __future__ import annotations

import errno
import math
import os
import stat
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

MAX_BYTES = 2**30


def shown(text: str) -> str:
    """Return a path for a message: as it is, or quoted where it holds what cannot be printed."""
    return text if text.isprintable() else repr(text)


def some(
    items: Sequence[str], limit: int, separator: str = ", ", n_items: int | None = None
) -> str:
    """Return the first `limit` items for a message, and how many more there are.

    Of `n_items`, if `items` are only the first of them.
    """
    rest = (len(items) if n_items is None else n_items) - limit
    return separator.join([*map(shown, items[:limit]), *[f"and {rest} more"] * (rest > 0)])


def plain(value: Any) -> Any:
    """Return a value as JSON has it: no arrays, and None for NaN and infinity, which JSON lacks."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def replacing(path: str | os.PathLike, folder: Path | None = None) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` if the block ends well.

    Whatever happens, no half-written file is left, and an existing one stays until then. An OSError
    names the file. A `folder` on the same file system may hold the temporary file instead.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # a pipe or device is written to, not replaced
        yield path
        return
    path = path.resolve()  # a link stays a link (the one of /dev/stdout leads to no name)
    # Unlike a process's number, unique among all machines that share the folder. The suffix is
    # kept: some writers choose the format by it.
    name = f"{path.stem}.{uuid.uuid4().hex}.part{path.suffix}"
    temporary = (folder or path.parent) / name
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename in (None, os.fspath(temporary)):  # a full disk names none
            error.filename = os.fspath(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def read_regular(path: str | os.PathLike) -> bytes:
    """Return the content of a regular file of at most 1 GiB.

    Anything else is refused: to open a pipe or to read a terminal may take for ever, and to open a
    device may change it. Some files of the kernel call themselves regular; these are empty by their
    size, whatever they would give (/proc/kmsg, for ever), or larger than the limit (/proc/kcore).

    Raises
    ------
    OSError
        If the file is not there, not regular, too large or cannot be read.
    ValueError
        If there is a NUL character in the path.
    """
    _check_regular(os.stat(path), path)
    with open(path, "rb", opener=_open_at_once) as file:
        status = os.fstat(file.fileno())
        _check_regular(status, path)  # it may have been replaced since
        # No more than the size, since a file may grow faster than it is read.
        return file.read(status.st_size) or b""  # None where reading would have to wait


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # which Windows lacks


def _check_regular(status: os.stat_result, path: str | os.PathLike) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "a folder", os.fspath(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    if status.st_size > MAX_BYTES:
        raise OSError(errno.EFBIG, "larger than 1 GiB", os.fspath(path))
