"""Image files decoded by OpenCV alone, where that gives the pixels that the package's loaders give.

`datasets/_decode.py` has more: Pillow reads what is refused here. What OpenCV's decoders find wrong
with a file they may write to the error output of the process.
"""

from __future__ import annotations

import struct

import cv2
import numpy as np

from wbcclf.decoding._formats import find_format
from wbcclf.decoding._headers import TiffHeader, find_orientation, read_tiff_header, split_metadata
from wbcclf.decoding._pixels import orient, reduction, resize, to_uint8
from wbcclf.exceptions import ImageReadError

MAX_PIXELS = 89_478_485  # a quarter of a GiB as 24-bit RGB
JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers, ITU-T T.81, table B.1
REDUCED = {1: 0, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}


def decode_with_opencv(data: bytes, image_size: tuple[int, int] | None = None) -> np.ndarray:
    """Return the image file in `data` as an RGB array, uint8, upright.

    Parameters
    ----------
    data : bytes
        A whole JPEG, PNG, BMP or TIFF file; its content decides, not its name.
    image_size : tuple of (height, width), or None
        Size to stretch the image to, in pixels; None keeps its own.

    Raises
    ------
    ImageReadError
        With the reason only, for the caller to put the file name in front.
    """
    file_format = find_format(data)
    if file_format == "TIFF":
        tiff = read_tiff_header(data)
        _check_size(tiff.width, tiff.height)
        grey_or_rgb = tiff.photometric in (0, 1, 2) and tiff.channels in (1, 3)
        if tiff.bits not in (8, 16) or not grey_or_rgb or (tiff.is_planar and tiff.channels > 1):
            raise _unsupported("TIFF with other pixels than grey or RGB of 8 or 16 bits")
        return resize(read_pixels(data, tiff=tiff), image_size)
    data, exif = split_metadata(data, file_format)
    orientation = find_orientation(exif)
    flags = 0
    try:
        if file_format == "JPEG":
            height, width, channels = _jpeg_frame(data)
            if channels not in (1, 3):
                raise _unsupported(f"JPEG of {channels} colour channels")
            # Orientations 5 to 8 swap the sides.
            stored = image_size[::-1] if image_size and orientation >= 5 else image_size
            flags = REDUCED[reduction((height, width), stored)]
        elif file_format == "PNG":
            width, height = struct.unpack_from(">II", data, 16)
        else:
            width, height = struct.unpack_from("<ii", data, 18)
    except struct.error:
        raise ImageReadError(f"truncated: the {file_format} ends within its header") from None
    _check_size(width, height)
    return resize(np.ascontiguousarray(orient(read_pixels(data, flags), orientation)), image_size)


def read_pixels(data: bytes, flags: int = 0, tiff: TiffHeader | None = None) -> np.ndarray:
    """Return an image file's pixels as they are stored, RGB, in 8 bits.

    Raises
    ------
    ImageReadError
        With the reason only.
    """
    flags |= cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise ImageReadError("an image that OpenCV cannot decode")
    # Swapped here: IMREAD_COLOR_RGB is ignored for TIFF (measured with OpenCV 5.0.0).
    return cv2.cvtColor(to_uint8(image, tiff), cv2.COLOR_BGR2RGB)


def _jpeg_frame(data: bytes) -> tuple[int, int, int]:
    """Return height, width and channels that a JPEG without metadata says it has."""
    position = 2
    while True:
        marker, length = struct.unpack_from(">xBH", data, position)
        if marker in JPEG_FRAMES:
            height, width, channels = struct.unpack_from(">HHB", data, position + 5)
            return height, width, channels
        position += 2 + length


def _check_size(width: int, height: int) -> None:
    if width * abs(height) > MAX_PIXELS:  # a BMP may be stored upside down
        raise ImageReadError(
            f"{width} x {abs(height)} pixels are more than {MAX_PIXELS:,} (a decompression bomb?)"
        )


def _unsupported(what: str) -> ImageReadError:
    return ImageReadError(
        f"{what}, which OpenCV does not read as wbcclf's loaders do; convert it to PNG"
    )
