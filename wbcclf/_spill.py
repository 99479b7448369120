"""Arrays that live in a file instead of in memory, and take the file with them when they go."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
import weakref
from pathlib import Path

import numpy as np

_SUFFIX = ".spill"  # of names like wbcclf-<host>-<process>-<random>.spill


def empty(shape: tuple[int, ...], dtype: np.dtype, spill_dir: str | os.PathLike | None):
    """Return an uninitialised array, in memory or, given a folder, in a file there.

    The file's blocks are reserved beforehand: writing to a mapped file on a full disk would kill
    the process (SIGBUS). It is removed when the last array that uses it is, at the latest when this
    process ends; one that a killed process left behind, when the folder is next used.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype
    spill_dir : path or None
        An existing folder on a local disk; None allocates memory.

    Returns
    -------
    ndarray or numpy.memmap of `shape`
        joblib hands the latter to its workers by the file's name, without a copy.

    Raises
    ------
    ValueError
        If the folder does not exist.
    OSError
        If the disk is too full, or the folder cannot be written to.
    """
    if spill_dir is None:
        return np.empty(shape, dtype)
    folder = Path(spill_dir)
    if not folder.is_dir():
        raise ValueError(f"spill_dir={os.fspath(spill_dir)!r} is not a folder. Make it first.")
    n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if n_bytes == 0:  # an empty file cannot be mapped
        return np.empty(shape, dtype)
    _remove_abandoned(folder)
    prefix = f"wbcclf-{socket.gethostname()}-{os.getpid()}-"
    descriptor, path = tempfile.mkstemp(_SUFFIX, prefix, folder.resolve())
    try:
        _reserve(descriptor, n_bytes)
        array = np.memmap(path, dtype, mode="r+", shape=shape)
    except OSError as error:
        os.unlink(path)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(
            error.errno,
            f"spill_dir={os.fspath(spill_dir)!r} has no room for an array of {shape} "
            f"({n_bytes / 1e6:,.1f} MB). Free some, name a folder on another disk, or use fewer or "
            "smaller images",
        ) from error
    finally:
        os.close(descriptor)
    # The mapping, not the array: views and subclasses of the array hold the former alone.
    weakref.finalize(array._mmap, _remove, path, os.getpid())
    return array


def _reserve(descriptor: int, n_bytes: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, n_bytes)
        return
    zeros = bytes(2**20)  # elsewhere only writing finds out
    for start in range(0, n_bytes, len(zeros)):
        os.write(descriptor, zeros[: n_bytes - start])


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner:  # a forked worker's copy goes first
        Path(path).unlink(missing_ok=True)


def _remove_abandoned(folder: Path) -> None:
    """Remove the files of processes of this machine that are no more."""
    if os.name != "posix":  # elsewhere, asking whether a process lives may end it
        return
    prefix = f"wbcclf-{socket.gethostname()}-"
    for path in folder.glob(f"wbcclf-*{_SUFFIX}"):
        pid, *rest = path.name.removeprefix(prefix).split("-")
        # Of another machine, a name with the prefix or more of it is left.
        if pid.isdecimal() and len(rest) == 1 and not _is_alive(int(pid)):
            path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        pass
    return True
