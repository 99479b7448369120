"""Entries in a folder that many processes use at once: whole or not there, the oldest go first."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
import zlib
from pathlib import Path
from typing import Any

from wbcclf._files import replacing


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

    Raises
    ------
    OSError
        If the folder cannot be written to.
    """

    def __init__(self, folder: str | os.PathLike, limit: float) -> None:
        self.folder = Path(folder)
        self.limit = limit
        self._written = 0  # bytes since the last look at the folder
        self._is_damaged = False
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.folder):
            pass

    def _path(self, key: str) -> Path:
        group, _, name = key.rpartition("/")
        # A level of folders between, since some file systems are slow with many files in one.
        return self.folder / group / name[:2] / name

    def __contains__(self, key: str) -> bool:
        return self._path(key).exists()

    def read(self, key: str) -> memoryview | None:
        """Return an entry, or None if there is none; it then counts as just used."""
        path = self._path(key)
        try:
            content = path.read_bytes()
            os.utime(path)
        except OSError:  # not there, or just pruned by another process
            return None
        entry = memoryview(content)[4:]
        if zlib.crc32(entry).to_bytes(4, "little") == content[:4]:
            return entry
        if not self._is_damaged:
            self._is_damaged = True
            warnings.warn(
                f"Damaged files in {self.folder} (the first is {path.name}) are removed; what they "
                "held is computed anew.",
                UserWarning,
                stacklevel=2,
            )
        path.unlink(missing_ok=True)
        return None

    def write(self, key: str, entry: Any) -> None:
        """Write an entry (anything with bytes).

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

        Also removes what killed writers left.
        """
        if not self._written:
            return
        self._written = 0
        entries = []
        for path in self.folder.rglob("*"):
            try:
                stat = path.stat()
            except FileNotFoundError:  # pruned by another process, or renamed
                continue
            if path.suffix == ".part":
                if time.time() - stat.st_mtime > 3600:  # writing an entry takes seconds
                    path.unlink(missing_ok=True)
            elif not path.suffix and path.is_file():  # no spilled array, and nobody else's file
                entries.append((stat.st_mtime_ns, stat.st_size, path))
        total = sum(size for _, size, _ in entries)
        if total <= self.limit:
            return
        for _, size, path in sorted(entries):
            path.unlink(missing_ok=True)
            total -= size
            if total <= 0.9 * self.limit:
                return
