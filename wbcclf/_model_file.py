"""The file of a saved model: a zip of one JSON text and plain arrays, no pickle."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from wbcclf._files import replacing
from wbcclf.exceptions import ModelFormatError

# Raised whenever an older version of this package could not read a new file rightly; a reader takes
# its own number and all lower ones. 2: the document names the backbone, and `Preprocessing` is a
# module of its own.
FORMAT = 2
_DOCUMENT = "model.json"


def write_model_file(
    path: str | os.PathLike, document: dict, arrays: dict[str, np.ndarray]
) -> None:
    """Write a document (anything that JSON can hold) and named arrays, whole or not at all."""
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr(_DOCUMENT, json.dumps({"format": FORMAT, **document}, indent=1))
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def is_model_file(path: str | os.PathLike) -> bool:
    """Return whether a file looks like one of :func:`write_model_file`, whatever its name."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return _DOCUMENT in archive.namelist()


@contextmanager
def open_model_file(path: str | os.PathLike) -> Iterator[tuple[dict, Mapping[str, np.ndarray]]]:
    """Give the document and the arrays, which are read when they are asked for.

    Raises
    ------
    ModelFormatError
        If the file was written by a newer format. One that is damaged or made up raises all sorts
        of errors, here and when an array is read.
    """
    with zipfile.ZipFile(path) as archive:
        document = json.loads(archive.read(_DOCUMENT))
        number = document["format"]
        if type(number) is not int or number < 1:
            raise ValueError(f"format {number!r}")
        if number > FORMAT:
            raise ModelFormatError(
                f"{os.fspath(path)} has format {number}, this version of wbcclf reads up to "
                f"{FORMAT}: update wbcclf."
            )
        yield document, _Arrays(archive)


class _Arrays(Mapping):
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        members = archive.namelist()
        self._names = [name.removesuffix(".npy") for name in members if name.endswith(".npy")]

    def __getitem__(self, name: str) -> np.ndarray:
        content = io.BytesIO(self._archive.read(f"{name}.npy"))
        return np.lib.format.read_array(content, allow_pickle=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
