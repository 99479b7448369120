"""The file of a saved model: a zip of one JSON text and plain arrays, no pickle.

Reading trusts nothing: what a file may cost is bounded by its own size, before anything is
allocated. Members are stored as they are, not compressed, and none may overlap another.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import reprlib
import stat
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np

from wbcclf._files import replacing
from wbcclf.exceptions import ModelFormatError

# Raised whenever an older version of this package could not read a new file rightly; a reader takes
# its own number and all lower ones. 2: the document names the backbone, and `Preprocessing` is a
# module of its own. 3: options of the classifiers are objects; `_older_models` translates the
# parameters of lower numbers. 4: there may be transformers before the classifier, and a loader that
# cuts. 5: there may be a description of the training images, and `rejection`. 6: there may be their
# digests. 7: there may be a temperature.
FORMAT = 7
TRAINED_ON = "trained_on"  # the array of digests of the training images
_DOCUMENT = "model.json"
_LONGEST_DOCUMENT = 4 * 2**20  # bytes: the history of 20,000 epochs
_MOST_BRACKETS = 100_000  # more than that history has; Python takes 2 s to make a million lists
_MOST_MEMBERS = 10_000  # no network of timm has half as many tensors
_LONGEST_HEADER = 256  # bytes of an array's; NumPy writes 128, and more only for many axes
_LONGEST_EXTRA = 28  # bytes: a member's size and place in 64 bits

# A zip's end: signature, ..., size of the directory, ..., length of the comment. If a locator is
# before it, its 64-bit form is before that.
_END = struct.Struct("<4s8xL4xH")
_LOCATOR = struct.Struct("<4s4xQ4x")
_END_64 = struct.Struct("<4s36xQ8x")
# A member in the directory: signature, ..., lengths of name, extra fields and comment.
_MEMBER = struct.Struct("<4s24x3H12x")
# An array's header as NumPy writes it: length of what follows, dtype, shape.
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(..)\{'descr': '([<>|][a-zA-Z]\d{1,9})', "
    rb"'fortran_order': (?:True|False), 'shape': \(([\d, ]*)\), \} *\n",
    re.DOTALL,
)


def write_model_file(
    path: str | os.PathLike, document: dict, arrays: dict[str, np.ndarray]
) -> None:
    """Write a document (anything that JSON can hold) and named arrays, whole or not at all.

    Raises
    ------
    ValueError
        If that is more than :func:`open_model_file` reads, or something else.
    """
    for name, array in arrays.items():
        if not _is_plain(array.dtype):
            raise ValueError(
                f"A model file holds no array of {array.dtype}, as {name!r} of this model is, but "
                "numbers, booleans and strings. Fit it on those, or use joblib.dump."
            )
    text = json.dumps({"format": FORMAT, **document}, indent=1)
    if len(text) > _LONGEST_DOCUMENT or len(arrays) >= _MOST_MEMBERS:
        raise ValueError(
            f"A model file holds at most {_LONGEST_DOCUMENT:,} bytes of parameters and history and "
            f"{_MOST_MEMBERS - 1:,} arrays; this model has {len(text):,} and {len(arrays):,}. Use "
            "joblib.dump for it, or shorten its history_."
        )
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr(_DOCUMENT, text)
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def check_digests(digests: np.ndarray) -> np.ndarray:
    """Return the array TRAINED_ON of a file.

    Raises
    ------
    ValueError
        If it is anything that `fit` does not keep.
    """
    is_sorted = digests.ndim == 1 and (digests[1:] > digests[:-1]).all()
    if digests.dtype != np.uint64 or not is_sorted:
        raise ValueError(f"{TRAINED_ON} cannot have been kept")
    return digests


def is_model_file(path: str | os.PathLike) -> bool:
    """Return whether a file begins as one of :func:`write_model_file`, whatever its name."""
    with open(path, "rb") as file:
        start = file.read(30 + len(_DOCUMENT))
    return start.startswith(b"PK\3\4") and start[30:] == _DOCUMENT.encode()


@contextmanager
def open_archive(path: str | os.PathLike, inflation: int = 1) -> Iterator[zipfile.ZipFile]:
    """Open a zip whose members add up to no more than `inflation` times the file.

    Raises
    ------
    zipfile.BadZipFile
        If there is more in it, if two members have one name, one is encrypted, or there are more
        than 10,000. Members may be deflated if `inflation` is above 1, and stored otherwise.
    OSError
        If the file cannot be opened.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a pipe may wait for ever
        raise zipfile.BadZipFile("it is a pipe or a device")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        _check_directory(file, size)
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if len({member.filename for member in members}) < len(members):
                raise zipfile.BadZipFile("two of its members have the same name")
            if sum(member.file_size for member in members) > inflation * size:
                raise zipfile.BadZipFile("it claims to hold more than its size allows")
            methods = {zipfile.ZIP_STORED} | ({zipfile.ZIP_DEFLATED} if inflation > 1 else set())
            if any(m.flag_bits & 1 or m.compress_type not in methods for m in members):
                raise zipfile.BadZipFile("a member is encrypted, or compressed in another way")
            yield archive


def _check_directory(file: BinaryIO, size: int) -> None:
    """Walk through a zip's directory before zipfile reads it.

    zipfile takes time that grows with the square of a member's extra fields, and reads any number
    of members: minutes for ten megabytes.
    """
    end = size - _END.size
    signature, length, comment = _unpack(_END, file, end)
    if signature != b"PK\5\6" or comment:
        raise zipfile.BadZipFile("it does not end as a zip does; perhaps it was cut off")
    if end >= _LOCATOR.size:
        locator, place = _unpack(_LOCATOR, file, end - _LOCATOR.size)
        if locator == b"PK\6\7":
            end -= _LOCATOR.size + _END_64.size
            signature, length = _unpack(_END_64, file, end)
            if signature != b"PK\6\6" or place != end:
                raise zipfile.BadZipFile("its end is damaged")
    if length > end:
        raise zipfile.BadZipFile("its directory is larger than the file")
    position, n_members = end - length, 0
    while position < end:
        signature, n_name, n_extra, n_comment = _unpack(_MEMBER, file, position)
        n_members += 1
        if signature != b"PK\1\2" or n_extra > _LONGEST_EXTRA or n_comment:
            raise zipfile.BadZipFile("its directory is damaged")
        if n_members > _MOST_MEMBERS:
            raise zipfile.BadZipFile(f"it has more than {_MOST_MEMBERS:,} members")
        position += _MEMBER.size + n_name + n_extra


def _unpack(fields: struct.Struct, file: BinaryIO, position: int) -> tuple[Any, ...]:
    file.seek(max(position, 0))
    content = file.read(fields.size)
    if len(content) < fields.size:
        raise zipfile.BadZipFile("it is too short")
    return fields.unpack(content)


@contextmanager
def open_model_file(path: str | os.PathLike) -> Iterator[tuple[dict, Arrays]]:
    """Give the document and the arrays, which are read when they are asked for.

    Raises
    ------
    ModelFormatError
        If the file was written by a newer format. One that is damaged or made up raises all sorts
        of errors, here and when an array is read.
    """
    with open_archive(path) as archive:
        if archive.getinfo(_DOCUMENT).file_size > _LONGEST_DOCUMENT:
            raise ValueError(f"{_DOCUMENT} is larger than {_LONGEST_DOCUMENT:,} bytes")
        text = archive.read(_DOCUMENT)
        if text.count(b"[") + text.count(b"{") > _MOST_BRACKETS:
            raise ValueError(f"{_DOCUMENT} has more than {_MOST_BRACKETS:,} lists and objects")
        document = json.loads(text)
        number = document["format"]
        if type(number) is not int or number < 1:
            raise ValueError(f"format {reprlib.repr(number)}")
        if number > FORMAT:
            version = reprlib.repr(document.get("version", "?")).strip("'")
            raise ModelFormatError(
                f"{os.fspath(path)} was written by wbcclf {version} in format {number:.9g}; "
                f"this version of wbcclf reads formats up to {FORMAT}: update wbcclf."
            )
        yield document, Arrays(archive)


class Arrays(Mapping):
    """The arrays of an open model file by name; shapes and dtypes are known before they are read.

    Raises
    ------
    ValueError
        If a member is no array of plain values, or its size is not the one that its shape needs.
    """

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.headers: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name != member.filename:
                self.headers[name] = _header(archive, member)
            elif name != _DOCUMENT:
                raise ValueError(f"{name!r:.80} is neither {_DOCUMENT} nor an array")

    def __getitem__(self, name: str) -> np.ndarray:
        content = io.BytesIO(self._archive.read(f"{name}.npy"))
        return np.lib.format.read_array(content, allow_pickle=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self.headers)

    def __len__(self) -> int:
        return len(self.headers)


def _is_plain(dtype: np.dtype) -> bool:
    return dtype.kind in "biufU" and dtype.itemsize > 0


def _header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype]:
    with archive.open(member) as file:
        header = _HEADER.match(file.read(_LONGEST_HEADER))
    # NumPy's own reader takes longer for what it did not write, and any number of axes.
    if not header or header.end() != 10 + int.from_bytes(header[1], "little"):
        raise ValueError(f"{member.filename!r:.80} is not an array of format 1.0")
    dtype = np.dtype(header[2].decode())
    shape = tuple(map(int, header[3].replace(b",", b" ").split()))
    left = member.file_size - header.end()
    if not _is_plain(dtype) or math.prod(shape) * dtype.itemsize != left:
        raise ValueError(f"{member.filename!r:.80} is not the array that its header describes")
    return shape, dtype
