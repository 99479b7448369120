"""Format, size and orientation of an image file from its first bytes, and whether it is complete.

The decoders are not asked, because they disagree: OpenCV returns a half-grey image for a truncated
JPEG, Pillow a complete one for a PNG without its end, and both print or warn on the way.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from wbcclf.exceptions import ImageReadError

__all__ = ["ImageHeader", "read_header"]

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# JPEG markers (ITU-T T.81, table B.1)
JPEG_STANDALONE = frozenset([0x01, *range(0xD0, 0xD9)])
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_SCAN, JPEG_APP1, JPEG_END = 0xDA, 0xE1, b"\xff\xd9"
# Application data and comments, but for what says how the colours are stored (JFIF and Adobe)
JPEG_METADATA = {*range(0xE0, 0xF0), 0xFE} - {0xE0, 0xEE}
PNG_DECODED = (b"IHDR", b"PLTE", b"IDAT", b"IEND")

# TIFF tags (TIFF 6.0, section 8) and the field types that hold whole numbers
WIDTH, HEIGHT, BITS, PHOTOMETRIC, ORIENTATION = 256, 257, 258, 262, 274
SAMPLES, STRIP_OFFSETS, STRIP_SIZES = 277, 273, 279
PLANAR, TILE_OFFSETS, TILE_SIZES, SAMPLE_FORMAT = 284, 324, 325, 339
TIFF_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}
TIFF_SAMPLE_FORMATS = {2: "signed integers", 3: "floating-point numbers", 5: "complex numbers"}


@dataclass(frozen=True)
class ImageHeader:
    """What a decoder has to know before it starts.

    Attributes
    ----------
    format : {"JPEG", "PNG", "BMP", "TIFF"}
    channels : int
        Channels as stored; 0 where no decoder asks (PNG, BMP).
    bits : int
        Bits of one channel of one pixel.
    orientation : int
        EXIF orientation, 1 to 8.
    photometric : int or None
        TIFF only: 0 white is zero, 1 black is zero, 2 RGB, 3 palette, 5 CMYK, 6 YCbCr, 8 Lab.
    planar : bool
        TIFF only: whether each channel is stored for itself.
    decoded : bytes
        JPEG and PNG only: the file without metadata. Nothing in them changes the pixels, and
        decoders warn about them, or fail.
    """

    format: str
    width: int
    height: int
    channels: int = 0
    bits: int = 8
    orientation: int = 1
    photometric: int | None = None
    planar: bool = False
    decoded: bytes = b""


def read_header(data: bytes, max_pixels: int) -> ImageHeader:
    """Return the header of the image file `data`.

    Raises
    ------
    ImageReadError
        With the reason only: not an image of a known format, larger than `max_pixels`, truncated.
    """
    if not data:
        raise ImageReadError("the file is empty")
    try:
        if data[:2] == b"\xff\xd8":
            return _jpeg_header(data, max_pixels)
        if data[:8] == PNG_MAGIC:
            return _png_header(data, max_pixels)
        if data[:2] == b"BM":
            return _bmp_header(data, max_pixels)
        if data[:4] in TIFF_MAGICS:
            return _tiff_header(data, max_pixels)
    except (struct.error, IndexError, OverflowError):  # the last: an offset of more than 63 bits
        raise ImageReadError("truncated: the file ends within its header") from None
    raise ImageReadError("not a JPEG, PNG, BMP or TIFF file")


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageReadError(f"the header gives a size of {width} x {height} pixels")
    if width * height > max_pixels:
        raise ImageReadError(
            f"{width} x {height} pixels are more than max_pixels={max_pixels} (a decompression "
            "bomb?); raise max_pixels if the file is to be trusted"
        )


def _jpeg_header(data: bytes, max_pixels: int) -> ImageHeader:
    frame, orientation, position, parts = None, 1, 2, [data[:2]]
    while True:
        # Fill bytes (0xFF) may precede a marker; anything else between segments is skipped, as
        # libjpeg does.
        position = data.find(0xFF, position)
        if position < 0:
            raise ImageReadError("truncated: the file ends within its header")
        while data[position] == 0xFF:
            position += 1
        marker = data[position]
        position += 1
        if marker in JPEG_STANDALONE or marker == 0:
            continue
        if marker == JPEG_SCAN:
            break
        (length,) = struct.unpack_from(">H", data, position)
        if marker in JPEG_FRAMES:
            bits, height, width, channels = struct.unpack_from(">BHHB", data, position + 2)
            _check_pixels(width, height, max_pixels)
            frame = (width, height, channels, bits)
        elif marker == JPEG_APP1 and data[position + 2 : position + 8] == b"Exif\0\0":
            orientation = _exif_orientation(data[position + 8 : position + length])
        if marker not in JPEG_METADATA:
            parts += b"\xff", data[position - 1 : position + length]
        position += length
    if frame is None:
        raise ImageReadError("broken JPEG: no size before the image data")
    # Searched from the scan on, since the thumbnail in the header has an end marker of its own.
    if data.rfind(JPEG_END, position) < 0:
        raise ImageReadError("truncated: JPEG without an end marker")
    parts += b"\xff", data[position - 1 :]
    return ImageHeader("JPEG", *frame, orientation, decoded=b"".join(parts))


def _png_header(data: bytes, max_pixels: int) -> ImageHeader:
    width, height, bits = struct.unpack_from(">IIB", data, 16)
    _check_pixels(width, height, max_pixels)
    orientation, position, kind, parts = 1, 8, b"", [PNG_MAGIC]
    view = memoryview(data)
    while kind != b"IEND":
        if position + 12 > len(data):
            raise ImageReadError("truncated: PNG without its end (IEND)")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            raise ImageReadError("truncated: PNG without its end (IEND)")
        if zlib.crc32(view[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise ImageReadError(f"broken PNG: wrong checksum in chunk {kind.decode('latin-1')!r}")
        if kind == b"eXIf":
            orientation = _exif_orientation(data[position + 8 : end])
        if kind in PNG_DECODED:
            parts.append(view[position : end + 4])
        position = end + 4
    decoded = b"".join(parts)
    return ImageHeader("PNG", width, height, 0, bits, orientation, decoded=decoded)


def _bmp_header(data: bytes, max_pixels: int) -> ImageHeader:
    (header_size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header_size == 12 else "<ii", data, 18)
    # A negative height says that the rows run from the top down.
    _check_pixels(width, abs(height), max_pixels)
    return ImageHeader("BMP", width, abs(height))


def _tiff_header(data: bytes, max_pixels: int) -> ImageHeader:
    tags = _tiff_tags(data)
    if WIDTH not in tags or HEIGHT not in tags:
        raise ImageReadError("broken TIFF: no image size")
    width, height = tags[WIDTH][0], tags[HEIGHT][0]
    _check_pixels(width, height, max_pixels)
    kind = TIFF_SAMPLE_FORMATS.get(max(tags.get(SAMPLE_FORMAT, (1,))))
    bits = max(tags.get(BITS, (1,)))
    if kind or bits > 16:
        raise ImageReadError(
            f"the TIFF holds {bits}-bit {kind or 'integers'}, whose range of brightness is not "
            "known; convert it to 8 or 16 bits (unsigned) first"
        )
    for starts, sizes in ((STRIP_OFFSETS, STRIP_SIZES), (TILE_OFFSETS, TILE_SIZES)):
        parts = zip(tags.get(starts, ()), tags.get(sizes, ()), strict=False)
        if any(start + size > len(data) for start, size in parts):
            raise ImageReadError("truncated: the TIFF ends before its last pixels")
    return ImageHeader(
        "TIFF",
        width,
        height,
        channels=tags.get(SAMPLES, (1,))[0],
        bits=bits,
        orientation=_valid_orientation(tags),
        photometric=tags.get(PHOTOMETRIC, (None,))[0],
        planar=tags.get(PLANAR, (1,))[0] == 2,
    )


def _tiff_tags(data: bytes) -> dict[int, tuple[int, ...]]:
    """Return the whole-number fields of the first directory of a TIFF or BigTIFF."""
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
        if kind in TIFF_INTEGERS and count:
            # Bounded before the format is built: a count is whatever the file says.
            size = count * struct.calcsize(TIFF_INTEGERS[kind])
            values = position
            if size > inline:
                (values,) = struct.unpack_from(order + offset_code, data, position)
            if values + size > len(data):
                raise ImageReadError("truncated: the TIFF ends within its header")
            tags[tag] = struct.unpack_from(f"{order}{count}{TIFF_INTEGERS[kind]}", data, values)
        position += inline
    return tags


def _valid_orientation(tags: dict[int, tuple[int, ...]]) -> int:
    orientation = tags.get(ORIENTATION, (1,))[0]
    return orientation if 1 <= orientation <= 8 else 1


def _exif_orientation(exif: bytes) -> int:
    """Return the orientation in an EXIF block, 1 if there is none; broken EXIF is no broken image.

    Pillow's own reader warns about every oddity in the block.
    """
    try:
        return _valid_orientation(_tiff_tags(exif))
    except (struct.error, OverflowError, ImageReadError):
        return 1
