"""Entries in a folder that many processes use at once: whole or not there, the oldest go first."""

from __future__ import annotations

import os
import tempfile
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from numbers import Real
from pathlib import Path
from typing import Any

import joblib
from sklearn.base import BaseEstimator

from wbcclf._files import replacing
from wbcclf._images import Interval
from wbcclf._warnings import warn

# Files without it are not the store's, and stay.
SUFFIX = ".entry"


class Cache(BaseEstimator):
    """A folder that keeps results for later runs, with an upper limit of its size.

    Loaders keep decoded images in it; classifiers keep the activations of frozen blocks, and whole
    trainings. Any number of processes may share the folder. Every entry has a checksum, which is
    checked when it is read. Entries cannot run code.

    Parameters
    ----------
    folder : str or path
        Created if it does not exist.
    max_gb : float, default=20.0
        Largest total size of the entries in gigabytes (10**9 bytes), > 0. Those used longest ago
        are removed first.

    Raises
    ------
    ValueError
        At its first use, if a parameter is of a wrong type or out of its range.
    OSError
        At its first use, if the folder cannot be written to.

    Examples
    --------
    >>> import tempfile
    >>> from wbcclf import Cache, ImageLoader
    >>> loader = ImageLoader(image_size=128, memory=Cache(tempfile.gettempdir(), max_gb=5))
    >>> loader.set_params(memory__max_gb=50).memory.max_gb
    50
    """

    _parameter_constraints = {
        "folder": [str, os.PathLike],
        "max_gb": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(self, folder: str | os.PathLike, max_gb: float = 20.0) -> None:
        self.folder = folder
        self.max_gb = max_gb


# What a `memory` parameter may be, in scikit-learn's own terms.
MEMORY_CONSTRAINT = [str, os.PathLike, joblib.Memory, Cache, None]


def make_store(memory: Any, warn: Callable[[str], object] = warn) -> Store | None:
    """Return the store that a `memory` parameter asks for, or None for none.

    Parameters
    ----------
    memory : None, str, path, joblib.Memory or Cache
        Of a joblib.Memory only the location is used.
    warn : callable
        As in :class:`Store`.

    Raises
    ------
    ValueError
        If it is none of these, or a parameter of the Cache is out of range.
    OSError
        If the folder cannot be written to.
    """
    if isinstance(memory, joblib.Memory):
        memory = memory.location
    if memory is None:
        return None
    cache = memory if isinstance(memory, Cache) else Cache(memory)
    if not isinstance(cache.folder, (str, os.PathLike)) or not os.fspath(cache.folder):
        raise ValueError(f"memory must be None, a folder, joblib.Memory or Cache, got {memory!r}.")
    cache._validate_params()
    return Store(Path(cache.folder).expanduser() / "wbcclf", cache.max_gb * 1e9, warn)


class Store:
    """Byte strings by key, each in a file of its own.

    No index and no lock: a file appears by renaming, so readers and writers of any number of
    processes and machines see whole entries or none. Two that compute the same entry write the same
    bytes. Each file begins with a checksum of the rest: what a crash of the machine, a bad disk or
    somebody's hand left damaged is removed with a warning, and counts as not there.

    Parameters
    ----------
    folder : path
        Made if it is not there.
    limit : float
        Bytes that the files may take; :meth:`prune` removes those that were not used for longest.
    warn : callable
        Gets the text of a warning. A thread collects it for the one that can name a line of code.

    Raises
    ------
    OSError
        If the folder cannot be written to.
    """

    def __init__(
        self, folder: str | os.PathLike, limit: float, warn: Callable[[str], object] = warn
    ) -> None:
        self.folder = Path(folder)
        self.limit = limit
        self.warn = warn
        self._written = 0  # bytes since the last look at the folder
        self._is_damaged = False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise OSError(
                error.errno,
                f"memory: the folder {str(self.folder)!r} cannot be written to "
                f"({error.strerror}). Name another folder",
            ) from error

    def _path(self, key: str) -> Path:
        group, _, name = key.rpartition("/")
        # A level of folders between, since some file systems are slow with many files in one.
        return self.folder / group / name[:2] / (name + SUFFIX)

    def __contains__(self, key: str) -> bool:
        return os.path.exists(self._path(key))  # False in a folder of another user's, too

    def read(self, key: str) -> memoryview | None:
        """Return an entry, or None if there is none; it then counts as just used."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:  # not there, or just pruned by another process
            return None
        with suppress(OSError):  # another user's, whose time is not ours to set
            os.utime(path)
        entry = memoryview(content)[4:]
        if entry and zlib.crc32(entry).to_bytes(4, "little") == content[:4]:
            return entry
        if not self._is_damaged:
            self._is_damaged = True
            self.warn(
                f"Damaged files in {self.folder} (the first is {path.name}) are removed; what they "
                "held is computed again."
            )
        with suppress(OSError):
            path.unlink()
        return None

    def write(self, key: str, entry: Any) -> None:
        """Write an entry (anything with bytes, one at least).

        Raises
        ------
        OSError
            If the disk is full; the entry is then not there.
        """
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, open(temporary, "wb") as file:
            file.write(zlib.crc32(entry).to_bytes(4, "little"))
            file.write(entry)
        self._written += memoryview(entry).nbytes
        if self._written > self.limit / 10:
            self.prune()

    def prune(self) -> None:
        """Remove the entries used longest ago until a tenth of the limit is free again.

        Also removes what killed writers left. Looks at the folder only if this store has written
        something.
        """
        if not self._written:
            return
        self._written = 0
        entries = []
        for folder, _, names in os.walk(self.folder):  # which passes over folders that vanish
            for name in names:
                path = Path(folder, name)
                if path.suffix != SUFFIX or path.parent.name != name.partition(".")[0][:2]:
                    continue
                with suppress(OSError):  # pruned by another process, renamed, or another user's
                    stat = path.stat()
                    if ".part" not in path.suffixes:
                        entries.append((stat.st_mtime_ns, stat.st_size, path))
                    elif time.time() - stat.st_mtime > 3600:  # writing an entry takes seconds
                        path.unlink()
        total = sum(size for _, size, _ in entries)
        if total <= self.limit:
            return
        for _, size, path in sorted(entries):
            with suppress(OSError):
                path.unlink()
                total -= size
            if total <= 0.9 * self.limit:
                return
