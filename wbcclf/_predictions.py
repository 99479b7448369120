"""Predictions of image files, stored in parts, so that a killed run can resume."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from wbcclf._parts import part_key
from wbcclf._store import Store
from wbcclf.inspection._files import predict_chunks

# Raised whenever the content of a part changes its meaning.
FORMAT = 4

Chunk = tuple[str, list[str]]  # the name of a part, and its files


class Predictions:
    """The predictions of image files, in parts; one of them is in memory at a time.

    A part appears in the folder whole or not at all. Its name is a digest of all that it depends
    on: the model, the options, and the names, sizes and times of its files. So a part of another
    run is taken if it says the same, and never if it does not.

    Parameters
    ----------
    folder : Path
        For the parts; made if it is not there. The caller removes it.
    what : str
        All that a part depends on, apart from its files.
    chunk_size : int
        Files in a part.
    """

    def __init__(self, folder: Path, what: str, chunk_size: int) -> None:
        self._store = Store(folder, float("inf"))
        self._what = f"prediction {FORMAT} {what}"
        self._chunk_size = chunk_size
        self._images: list[str] = []
        self._left_out: list[str] = []

    def complete(
        self,
        listing: Iterable[tuple[str, str | None]],
        compute: Callable[[Iterator[Chunk]], Iterator[tuple[str, bytes]]],
        advance: Callable[[], object] = lambda: None,
    ) -> None:
        """Compute the parts that are not there yet.

        Parameters
        ----------
        listing : iterable of (path, reason)
            Files in their order, with the reason why one is left out, or None.
        compute : callable
            Yields the names and the contents of parts, in any order.
        advance : callable
            Called for every part that is there.
        """
        for key, part in compute(self._missing(listing, advance)):
            self._store.write(key, part)
            advance()

    def _missing(
        self, listing: Iterable[tuple[str, str | None]], advance: Callable[[], object]
    ) -> Iterator[Chunk]:
        files: list[str] = []
        left_out: list[tuple[str, str]] = []
        for path, reason in listing:
            if reason is not None:
                left_out.append((path, reason))
                if len(left_out) == self._chunk_size:
                    self._keep_left_out(left_out)
                    left_out = []
                continue
            files.append(path)
            if len(files) == self._chunk_size:
                yield from self._unless_there(files, advance)
                files = []
        if files:
            yield from self._unless_there(files, advance)
        if left_out:
            self._keep_left_out(left_out)

    def _unless_there(self, files: list[str], advance: Callable[[], object]) -> Iterator[Chunk]:
        # The names as they are given, too: they are those of the table.
        key = part_key(f"{self._what} {files}", files)
        self._images.append(key)
        if self._store.read(key) is None:  # a damaged part counts as missing
            yield key, files
        else:
            advance()

    def _keep_left_out(self, items: list[tuple[str, str]]) -> None:
        key = part_key(f"{self._what} {items}", [])
        self._left_out.append(key)
        paths, reasons = zip(*items, strict=True)
        self._store.write(key, _packed(files=_encoded(paths), reasons=np.array(reasons)))

    def images(self) -> Iterator[Bunch]:
        """Yield the parts as `predict_files` yields chunks; `files` has all of them in order."""
        for key in self._images:
            arrays = self._read(key)
            files = _decoded(arrays["files"])
            is_read = arrays["is_read"]
            yield Bunch(
                files=files,
                paths=[path for path, read in zip(files, is_read, strict=True) if read],
                labels=arrays["labels"],
                probabilities=arrays["probabilities"],
                familiarity=arrays.get("familiarity"),
                found=arrays.get("found"),
                skipped=list(
                    zip(
                        (path for path, read in zip(files, is_read, strict=True) if not read),
                        arrays["reasons"].tolist(),
                        strict=True,
                    )
                ),
            )

    def left_out(self) -> Iterator[tuple[str, str]]:
        """Yield what of folders is no image, with the reasons."""
        for key in self._left_out:
            arrays = self._read(key)
            yield from zip(_decoded(arrays["files"]), arrays["reasons"].tolist(), strict=True)

    def _read(self, key: str) -> dict[str, np.ndarray]:
        part = self._store.read(key)
        if part is None:
            raise RuntimeError(  # no OSError: the output is not what cannot be written
                f"Parts are gone from {self._store.folder}. Does another command write the same "
                "output? Run this one again: it computes what is missing."
            )
        with np.load(io.BytesIO(part)) as arrays:
            return dict(arrays)


def predict_here(model: Any, todo: Iterator[Chunk]) -> Iterator[tuple[str, bytes]]:
    """Yield the parts that `todo` names, in its order."""
    waiting: deque[Chunk] = deque()

    def chunks() -> Iterator[list[str]]:
        for item in todo:
            waiting.append(item)
            yield item[1]

    for found in predict_chunks(model, chunks()):
        key, files = waiting.popleft()
        yield key, pack(files, files, found)


def pack(files: list[str], read_from: list[str], found: Bunch) -> bytes:
    """Return the content of a part.

    Parameters
    ----------
    files : list of str
        As the table names them.
    read_from : list of str
        As they were given to `predict_files`.
    found : Bunch
        What that found.
    """
    skipped = {path for path, _ in found.skipped}
    optional = {name: found[name] for name in ("familiarity", "found") if found[name] is not None}
    return _packed(
        files=_encoded(files),
        is_read=np.array([path not in skipped for path in read_from]),
        labels=found.labels,
        probabilities=found.probabilities,
        reasons=np.array([reason for _, reason in found.skipped], dtype=str),
        **optional,
    )


def _packed(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def _encoded(names: Iterable[str]) -> np.ndarray:
    # Not an array of text: it takes four bytes a character, and as many as the longest has.
    return np.frombuffer(os.fsencode("\0".join(names)), np.uint8)


def _decoded(names: np.ndarray) -> list[str]:
    return os.fsdecode(names.tobytes()).split("\0")
