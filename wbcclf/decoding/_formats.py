"""The bytes of image files, and which of four formats they have."""

from __future__ import annotations

from wbcclf._files import read_regular
from wbcclf.exceptions import ImageReadError

FIRST_BYTES = {
    b"\xff\xd8": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"BM": "BMP",
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "TIFF"),
}


def read_file(path: str) -> bytes:
    """Return the bytes of a file.

    Raises
    ------
    ImageReadError
        With the reason only, for the caller to put the file name in front.
    """
    try:
        return read_regular(path)
    except FileNotFoundError:
        raise ImageReadError("no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageReadError(f"cannot be opened ({reason})") from error


def find_format(data: bytes) -> str:
    """Return JPEG, PNG, BMP or TIFF, whatever the file is called.

    Raises
    ------
    ImageReadError
        With the reason only, if it is none of them.
    """
    if not data:
        raise ImageReadError("the file is empty")
    formats = (name for first, name in FIRST_BYTES.items() if data.startswith(first))
    file_format = next(formats, None)
    if file_format is None:
        raise ImageReadError("not a JPEG, PNG, BMP or TIFF file")
    return file_format
