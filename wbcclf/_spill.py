"""Arrays that live in a file instead of in memory, and take the file with them when they go."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

if sys.platform != "win32":  # which removes no file that is in use, so that nothing can tell there
    import fcntl

_PREFIX, _SUFFIX = "wbcclf-", ".spill"


def empty(shape: tuple[int, ...], dtype: DTypeLike, spill_dir: str | os.PathLike | None):
    """Return an uninitialised array, in memory or, given a folder, in a file there.

    The file's blocks are reserved beforehand: writing to a mapped file on a full disk would kill
    the process (SIGBUS). It is removed when the last array that uses it is, at the latest when this
    process ends; one that a killed process left behind, or a forked one that ended by ``os._exit``
    as those of multiprocessing do, when the folder is next used.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype
    spill_dir : path or None
        An existing folder on a local disk; None allocates memory.

    Returns
    -------
    ndarray or numpy.memmap of `shape`
        joblib hands the latter to its workers by the file's name, without a copy. A worker cannot
        return one so: the file goes with the worker's array.

    Raises
    ------
    ValueError
        If the folder does not exist.
    OSError
        If the disk is too full, or the folder cannot be written to.
    """
    if spill_dir is None:
        return np.empty(shape, dtype)
    if not isinstance(spill_dir, str | os.PathLike):
        raise ValueError(f"spill_dir must be None or the path of a folder, got {spill_dir!r}.")
    name = os.fspath(spill_dir)
    if not name or not os.path.isdir(name):  # the path of an empty name is the working directory
        raise ValueError(f"spill_dir={name!r} is not a folder. Make it first.")
    n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if n_bytes == 0:  # an empty file cannot be mapped
        return np.empty(shape, dtype)
    folder = Path(name).resolve()
    _remove_abandoned(folder)
    try:
        return _mapped(shape, dtype, n_bytes, folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            message = (
                f"spill_dir={name!r} has no room for an array of {shape} "
                f"({n_bytes / 1e6:,.1f} MB). Free some, name a folder on another disk, or use "
                "fewer or smaller images"
            )
        else:
            message = f"spill_dir={name!r} cannot be written to ({error.strerror}). Name another"
        raise OSError(error.errno, message) from error


def _mapped(shape: tuple[int, ...], dtype: DTypeLike, n_bytes: int, folder: Path) -> np.memmap:
    descriptor, path = tempfile.mkstemp(_SUFFIX, _PREFIX, folder)
    os.close(descriptor)
    try:
        with open(path, "r+b") as file:
            # The mapping keeps a duplicate of the descriptor, and with it the lock. It comes before
            # the blocks: an empty file is known to be one that is just being made.
            if sys.platform != "win32":
                with suppress(OSError):  # a file system without locks, where nothing is abandoned
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _reserve(file.fileno(), n_bytes)
            array = np.memmap(file, dtype, mode="r+", shape=shape)
    except OSError:
        os.unlink(path)
        raise
    # The mapping, not the array: views and subclasses of the array hold the former alone.
    weakref.finalize(array.base, _remove, path, os.getpid())
    return array


def _reserve(descriptor: int, n_bytes: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, n_bytes)
        return
    zeros = bytes(2**20)  # elsewhere only writing finds out
    while n_bytes:
        n_bytes -= os.write(descriptor, zeros[:n_bytes])


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner:  # a forked worker's copy goes first
        Path(path).unlink(missing_ok=True)


def _remove_abandoned(folder: Path) -> None:
    """Remove the files that no process has locked.

    A lock tells this for all containers of a machine, which may share host names and process
    numbers, and ends with the last process that has the file mapped, however that one ends.
    """
    if sys.platform == "win32":
        return
    for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        with suppress(OSError):  # in use, somebody else's, or gone by now
            if path.stat().st_size == 0:  # just being made, and not locked yet
                continue
            with open(path, "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
