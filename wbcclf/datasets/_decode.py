"""An image file becomes one RGB ``uint8`` array.

Pillow decodes, and prints nothing about damaged files. JPEG files without a flaw are decoded by
simplejpeg, which gives the same pixels in less time. Of 16 bits in colour it keeps only the upper
8, so OpenCV decodes these. OpenCV would be a little faster elsewhere, too, but its JPEG and PNG
decoders write to the error output of the process what they find.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable

import numpy as np
import simplejpeg
from PIL import BmpImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin
from PIL.Image import Image
from PIL.ImageFile import ImageFile

from wbcclf.datasets._quiet import quiet
from wbcclf.decoding._formats import find_format, read_file
from wbcclf.decoding._headers import TiffHeader, find_orientation, read_tiff_header, split_metadata
from wbcclf.decoding._opencv import read_pixels
from wbcclf.decoding._pixels import orient, reduction, resize, to_uint8
from wbcclf.exceptions import ImageReadError

__all__ = [
    "DECODER",
    "DIGEST_BYTES",
    "MAX_PIXELS",
    "PILLOW",
    "decode_image",
    "find_format",
    "read_file",
    "read_image",
    "resize",
]

DECODER = 2  # raised with every change of the values that files give: cached ones are then stale
DIGEST_BYTES = 16

MAX_PIXELS = 89_478_485  # Pillow's: a quarter of a GiB as 24-bit RGB

# The classes, not Image.open: that one warns or raises at a limit of Pillow's own.
PILLOW: dict[str, Callable[[io.BytesIO], ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
}
# Each becomes RGB by way of these modes; all other modes have no agreed brightness.
TO_RGB: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("1", "L", "P", "RGBX", "CMYK", "YCbCr", "RGBA", "LA"), ("RGB",)),
    **{"RGB": (), "PA": ("RGBA", "RGB"), "La": ("LA", "RGB"), "RGBa": ("RGBA", "RGB")},
}


def read_image(
    path: str, image_size: tuple[int, int] | None = None, max_pixels: int = MAX_PIXELS
) -> tuple[np.ndarray, bytes]:
    """Return the image file `path` as an RGB array, and a digest of its bytes; see `decode_image`.

    Raises
    ------
    ImageReadError
        With the reason only, for the caller to put the file name in front.
    """
    data = read_file(path)
    digest = hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()
    return decode_image(data, image_size, max_pixels), digest


def decode_image(
    data: bytes, image_size: tuple[int, int] | None = None, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Return the image file in `data` as an RGB array.

    The EXIF orientation is applied. An alpha channel is dropped: colours hidden behind
    transparent pixels appear. 16-bit values are divided by 257 and rounded, 12-bit ones scaled
    accordingly. A file of several pages gives its first.

    Parameters
    ----------
    data : bytes
        A whole JPEG, PNG, BMP or TIFF file; its content decides, not its name.
    image_size : tuple of (height, width), or None
        Size to stretch the image to, in pixels; None keeps its own.
    max_pixels : int
        Largest number of pixels, checked before anything is decoded.

    Returns
    -------
    ndarray of shape (height, width, 3), uint8

    Raises
    ------
    ImageReadError
        With the reason only, for the caller to put the file name in front.
    """
    file_format = find_format(data)
    if file_format == "TIFF":
        with quiet():
            image = _decode_tiff(data, max_pixels)
    else:
        data, exif = split_metadata(data, file_format)
        orientation = find_orientation(exif)
        # Orientations 5 to 8 swap the sides.
        stored_size = image_size[::-1] if image_size and orientation >= 5 else image_size
        flawless = _decode_jpeg(data, max_pixels, stored_size) if file_format == "JPEG" else None
        if flawless is None:
            image = _decode_pillow(data, file_format, max_pixels, stored_size)
        else:
            image = flawless
        if file_format == "PNG" and data[24] == 16:  # the bits of one channel
            # libpng prints what is wrong with a file; but now Pillow has read all of it.
            image = _decode_opencv(data)
        image = orient(image, orientation)
    return resize(np.ascontiguousarray(image), image_size)


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageReadError(
            f"{width} x {height} pixels are more than max_pixels={max_pixels} (a decompression "
            "bomb?); raise max_pixels (wbcclf count --max-pixels) if the file is to be trusted"
        )


def _decode_tiff(data: bytes, max_pixels: int) -> np.ndarray:
    """Return the image, turned upright, as both decoders do with a TIFF."""
    header = read_tiff_header(data)
    _check_pixels(header.width, header.height, max_pixels)
    if header.is_planar and header.channels > 1 and header.bits == 16:  # both decoders mix them up
        raise ImageReadError("16-bit TIFF with a separate plane for each colour: not supported")
    # OpenCV takes CMYK for RGBA, and mixes grey with alpha.
    if header.bits == 16 and header.photometric in (0, 1, 2) and header.channels != 2:
        try:
            return _decode_opencv(data, header)
        except ImageReadError:  # Pillow knows more compressions
            pass
    return _decode_pillow(data, "TIFF", max_pixels, tiff=header)


def _decode_opencv(data: bytes, tiff: TiffHeader | None = None) -> np.ndarray:
    with quiet():
        return read_pixels(data, tiff=tiff)


def _decode_jpeg(
    data: bytes, max_pixels: int, image_size: tuple[int, int] | None
) -> np.ndarray | None:
    """Return the image, or None where Pillow is to decide: at any flaw, and for what it scales."""
    try:
        *size, colours, _ = simplejpeg.decode_jpeg_header(data, strict=True)
        if (
            colours not in ("Gray", "RGB", "YCbCr")
            or size[0] * size[1] > max_pixels
            or reduction(tuple(size), image_size) > 1
        ):
            return None
        return simplejpeg.decode_jpeg(data, strict=True)  # raises what libjpeg would only print
    except ValueError:
        return None


def _decode_pillow(
    data: bytes,
    file_format: str,
    max_pixels: int,
    image_size: tuple[int, int] | None = None,
    tiff: TiffHeader | None = None,
) -> np.ndarray:
    try:
        with PILLOW[file_format](io.BytesIO(data)) as image:
            _check_pixels(*image.size, max_pixels)
            if file_format == "JPEG":
                factor = reduction(image.size[::-1], image_size)
                image.draft(None, (image.width // factor, image.height // factor))
            image.load()
            if image.mode.startswith("I;16"):
                grey = to_uint8(np.asarray(image), tiff)
                return np.repeat(grey[..., None], 3, axis=2)
            if image.mode not in TO_RGB:
                raise ImageReadError(f"images of mode {image.mode} are not supported")
            rgb: Image = image
            for mode in TO_RGB[image.mode]:
                rgb = rgb if rgb.mode == mode else rgb.convert(mode)
            return np.asarray(rgb)
    except (ImageReadError, MemoryError):
        raise
    # Pillow has no common class for what a broken file raises (OSError, SyntaxError, ValueError,
    # struct.error, zlib.error, EOFError, TypeError).
    except Exception as error:
        raise ImageReadError(f"{file_format} that Pillow cannot decode ({error})") from error
