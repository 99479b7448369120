"""What Pillow does not find or tell: some kinds of damage, and how a TIFF stores its pixels."""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from wbcclf.exceptions import ImageReadError

__all__ = ["WHITE_IS_ZERO", "TiffHeader", "find_orientation", "read_tiff_header", "split_metadata"]

PNG_PIXELS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
# JPEG markers (ITU-T T.81, table B.1)
JPEG_SCAN, JPEG_APP1, JPEG_END = 0xDA, 0xE1, b"\xff\xd9"
JPEG_WITHOUT_LENGTH = {0, 1, *range(0xD0, 0xD9), 0xFF}
# Application data and comments, but for what says how the colours are stored (JFIF and Adobe)
JPEG_METADATA = {*range(0xE0, 0xF0), 0xFE} - {0xE0, 0xEE}

# TIFF tags (TIFF 6.0, section 8)
WIDTH, HEIGHT, BITS, PHOTOMETRIC, ORIENTATION, SAMPLES = 256, 257, 258, 262, 274, 277
PLANAR, SAMPLE_FORMAT = 284, 339
PARTS = ((273, 279), (324, 325))  # where strips and tiles start, and how long they are
INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}  # types of fields
SAMPLE_FORMATS = {2: "signed integers", 3: "floating-point numbers", 5: "complex numbers"}
WHITE_IS_ZERO = 0  # TiffHeader.photometric


def split_metadata(data: bytes, file_format: str) -> tuple[bytes, bytes]:
    """Return an image file without its metadata, and the EXIF block in them.

    Nothing in metadata changes the pixels, but Pillow warns about them, or fails.

    Raises
    ------
    ImageReadError
        With the reason only. A JPEG without its end: Pillow accepts zeros there. A PNG with a wrong
        checksum or without its end: Pillow's ``verify`` passes over the last 4 bytes, and opens no
        file with a text that is too long for it.
    """
    if file_format == "JPEG":
        return _split_jpeg(data)
    if file_format == "PNG":
        return _split_png(data)
    return data, b""


def _split_jpeg(data: bytes) -> tuple[bytes, bytes]:
    kept, exif, position = [data[:2]], b"", 2
    # What lies between segments is skipped, as libjpeg does.
    while (start := data.find(b"\xff", position, -3)) >= 0:
        marker, length = struct.unpack_from(">xBH", data, start)
        if marker == JPEG_SCAN:
            # Not in the whole file, since a thumbnail in the header has an end marker of its own.
            if data.rfind(JPEG_END, start) < 0:
                raise ImageReadError("truncated: JPEG without an end marker")
            return b"".join([*kept, data[start:]]), exif
        if marker in JPEG_WITHOUT_LENGTH:
            position = start + 1
            continue
        position = start + 2 + length
        if marker == JPEG_APP1 and data.startswith(b"Exif\0\0", start + 4):
            exif = data[start + 10 : position]
        if marker not in JPEG_METADATA:
            kept.append(data[start:position])
    raise ImageReadError("truncated: the JPEG ends within its header")


def _split_png(data: bytes) -> tuple[bytes, bytes]:
    kept: list[bytes | memoryview] = [data[:8]]
    exif, position, kind = b"", 8, b""
    view = memoryview(data)
    while kind != b"IEND":
        length, kind = struct.unpack(">I4s", data[position : position + 8].ljust(8, b"\0"))
        end = position + 8 + length
        if end + 4 > len(data):
            raise ImageReadError("truncated: PNG without its end (IEND)")
        if zlib.crc32(view[position + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise ImageReadError(f"broken PNG: wrong checksum in chunk {kind.decode('latin-1')!r}")
        if kind == b"eXIf":
            exif = data[position + 8 : end]
        if kind in PNG_PIXELS:
            kept.append(view[position : end + 4])
        position = end + 4
    return b"".join(kept), exif


def find_orientation(exif: bytes) -> int:
    """Return the orientation in an EXIF block, 1 to 8; broken EXIF is no broken image."""
    try:
        orientation = _tiff_tags(exif).get(ORIENTATION, (1,))[0]
    except (struct.error, OverflowError, ImageReadError):
        return 1
    return orientation if 1 <= orientation <= 8 else 1


class TiffHeader(NamedTuple):
    """How a TIFF stores its pixels.

    Attributes
    ----------
    width, height : int
    channels : int
    bits : int
        Bits of one channel of one pixel.
    photometric : int or None
        0 white is zero, 1 black is zero, 2 RGB, 3 palette, 5 CMYK, 6 YCbCr, 8 Lab.
    is_planar : bool
        Whether each channel is stored for itself.
    """

    width: int
    height: int
    channels: int
    bits: int
    photometric: int | None
    is_planar: bool


def read_tiff_header(data: bytes) -> TiffHeader:
    """Return the header of a TIFF file.

    Raises
    ------
    ImageReadError
        With the reason only: truncated, or values of unknown brightness.
    """
    try:
        tags = _tiff_tags(data)
    except (struct.error, OverflowError):  # the latter: an offset of more than 63 bits
        raise ImageReadError("truncated: the TIFF ends within its header") from None
    if WIDTH not in tags or HEIGHT not in tags:
        raise ImageReadError("broken TIFF: no image size")
    kind = SAMPLE_FORMATS.get(max(tags.get(SAMPLE_FORMAT, (1,))))
    bits = max(tags.get(BITS, (1,)))
    if kind or bits > 16:
        raise ImageReadError(
            f"the TIFF holds {bits}-bit {kind or 'integers'}, whose range of brightness is not "
            "known; convert it to 8 or 16 bits (unsigned) first"
        )
    for starts, sizes in PARTS:
        parts = zip(tags.get(starts, ()), tags.get(sizes, ()), strict=False)
        if any(start + size > len(data) for start, size in parts):
            raise ImageReadError("truncated: the TIFF ends before its last pixels")
    return TiffHeader(
        tags[WIDTH][0],
        tags[HEIGHT][0],
        channels=tags.get(SAMPLES, (1,))[0],
        bits=bits,
        photometric=tags.get(PHOTOMETRIC, (None,))[0],
        is_planar=tags.get(PLANAR, (1,))[0] == 2,
    )


def _tiff_tags(data: bytes) -> dict[int, tuple[int, ...]]:
    """Return the whole-number fields of the first directory of a TIFF or BigTIFF.

    Pillow's own reader only warns where a field lies beyond the end of the file, and whether
    warnings are errors cannot be set for one thread.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    offset_code, count_code, start = ("Q", "Q", 8) if big else ("I", "H", 4)
    inline = struct.calcsize(offset_code)
    (position,) = struct.unpack_from(order + offset_code, data, start)
    (n_fields,) = struct.unpack_from(order + count_code, data, position)
    position += struct.calcsize(count_code)
    tags = {}
    for _ in range(n_fields):
        tag, kind, count = struct.unpack_from(order + "HH" + offset_code, data, position)
        position += 4 + inline
        if kind in INTEGERS and count:
            # Bounded before the format is built: a count is whatever the file says.
            size = count * struct.calcsize(INTEGERS[kind])
            values = position
            if size > inline:
                (values,) = struct.unpack_from(order + offset_code, data, position)
            if values + size > len(data):
                raise ImageReadError("truncated: the TIFF ends within its header")
            tags[tag] = struct.unpack_from(f"{order}{count}{INTEGERS[kind]}", data, values)
        position += inline
    return tags
