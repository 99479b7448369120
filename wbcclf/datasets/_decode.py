"""An image file becomes one RGB ``uint8`` array.

OpenCV decodes what it decodes right (JPEG, PNG, 16-bit colour TIFF) and Pillow the rest: CMYK,
whose inks OpenCV mixes differently, BMP, and TIFF, where OpenCV multiplies transparent pixels by
their alpha and prints a line for every tag that it does not know.
"""

from __future__ import annotations

import io
import os
import stat
import threading
import warnings
from contextlib import contextmanager

import cv2
import numpy as np
from PIL import BmpImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from wbcclf.datasets._headers import ImageHeader, read_header
from wbcclf.exceptions import ImageReadError

__all__ = ["DECODER", "MAX_PIXELS", "decode_image", "read_image"]

DECODER = 1  # raised with every change of the values that files give: cached ones are then stale

MAX_PIXELS = 89_478_485  # Pillow's: a quarter of a GiB as 24-bit RGB

WHITE_IS_ZERO = 0  # ImageHeader.photometric

# The classes, not Image.open: that one warns or raises at a limit of Pillow's own.
PILLOW = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
}
# Each becomes RGB by way of these modes; all other modes have no agreed brightness.
TO_RGB = dict.fromkeys(("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "RGBA", "LA"), ("RGB",))
TO_RGB |= {"PA": ("RGBA", "RGB"), "La": ("LA", "RGB"), "RGBa": ("RGBA", "RGB")}


def read_image(
    path: str, image_size: tuple[int, int] | None = None, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Return the image file `path` as an RGB array; see `decode_image`.

    Raises
    ------
    ImageReadError
        With the reason only, for the caller to put the file name in front.
    """
    try:
        # Asked first, because opening a named pipe would wait for ever.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ImageReadError("not a file" if not os.path.isdir(path) else "a folder")
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise ImageReadError("no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        if isinstance(error, ImageReadError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageReadError(f"cannot be opened ({reason})") from error
    return decode_image(data, image_size, max_pixels)


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
    header = read_header(data, max_pixels)
    if header.planar and header.channels > 1 and header.bits == 16:  # both decoders mix them up
        raise ImageReadError("16-bit TIFF with a separate plane for each colour: not supported")
    image = None
    if _opencv_is_right(header):
        image = _decode_opencv(data, header, image_size)
    if image is None:
        image = _decode_pillow(data, header)
    if header.format != "TIFF":  # both decoders turn a TIFF themselves
        image = _orient(image, header.orientation)
    return _resize(np.ascontiguousarray(image), image_size)


def _opencv_is_right(header: ImageHeader) -> bool:
    if header.format == "JPEG":
        return header.channels in (1, 3)
    if header.format == "TIFF":
        # Pillow keeps only the upper 8 of 16 bits in colour. OpenCV takes CMYK for RGBA, and mixes
        # grey with alpha.
        return header.bits == 16 and header.photometric in (0, 1, 2) and header.channels != 2
    return header.format == "PNG"


REDUCED = {4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}


def _decode_opencv(
    data: bytes, header: ImageHeader, image_size: tuple[int, int] | None
) -> np.ndarray | None:
    """Return the image, or None where OpenCV gives up, so that Pillow can say why."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    if header.format == "JPEG":
        flags = REDUCED.get(_reduction(header, image_size), cv2.IMREAD_COLOR)
    flags |= cv2.IMREAD_IGNORE_ORIENTATION
    buffer = np.frombuffer(data, np.uint8)
    try:
        if header.format == "TIFF":
            with _quiet():
                image = cv2.imdecode(buffer, flags)
        else:
            image = cv2.imdecode(buffer, flags)
    except cv2.error:
        return None
    if image is None:
        return None
    # Swapped here: IMREAD_COLOR_RGB is ignored for TIFF (measured with OpenCV 5.0.0).
    return cv2.cvtColor(_to_uint8(image, header), cv2.COLOR_BGR2RGB)


def _reduction(header: ImageHeader, image_size: tuple[int, int] | None) -> int:
    """Return 4, 2 or 1: how many times smaller the JPEG decoder makes the image on its own.

    It leaves out the upper frequencies before the inverse cosine transform, which is faster than
    all of it and averaging afterwards. At least twice the size asked for is left to be averaged:
    on 150 PBC images (360 x 363 to 16, 32, 45, 64 and 90 pixels) the result then differs from the
    exact area average of all pixels by 0.5 to 0.8 grey levels on average, and by up to 36 at sharp
    edges. Less left gave 1.0 to 2.9 and up to 92; a factor of 8, 2.2.
    """
    if image_size is None:
        return 1
    # Orientations 5 to 8 swap the sides.
    height, width = image_size[::-1] if header.orientation >= 5 else image_size
    fits = min(header.height / height, header.width / width) / 2
    return next((k for k in REDUCED if k <= fits), 1)


def _decode_pillow(data: bytes, header: ImageHeader) -> np.ndarray:
    with _quiet():
        try:
            with PILLOW[header.format](io.BytesIO(data)) as image:
                image.load()
                if image.mode.startswith("I;16"):
                    grey = _to_uint8(np.asarray(image), header)
                    return np.repeat(grey[..., None], 3, axis=2)
                if image.mode not in TO_RGB:
                    raise ImageReadError(f"images of mode {image.mode} are not supported")
                for mode in TO_RGB[image.mode]:
                    image = image.convert(mode)
                return np.asarray(image)
        except (ImageReadError, MemoryError):
            raise
        # Pillow has no common class for what a broken file raises (OSError, SyntaxError,
        # ValueError, struct.error, zlib.error, EOFError, TypeError).
        except Exception as error:
            raise ImageReadError(f"{header.format} that Pillow cannot decode ({error})") from error


def _to_uint8(values: np.ndarray, header: ImageHeader) -> np.ndarray:
    if values.dtype == np.uint8:
        return values
    top = 2**header.bits - 1
    # For 16 bits this is round(v / 257); there are no ties, as `top` is odd.
    scaled = (np.minimum(values, top).astype(np.uint32) * 255 + top // 2) // top
    if header.photometric == WHITE_IS_ZERO:  # turned round by the decoders only up to 8 bits
        scaled = 255 - scaled
    return scaled.astype(np.uint8)


def _orient(image: np.ndarray, orientation: int) -> np.ndarray:
    """Return a view turned upright; EXIF 2.32, section 4.6.4, tag 0x0112."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return image


def _resize(image: np.ndarray, image_size: tuple[int, int] | None) -> np.ndarray:
    """Stretch an image: average where it shrinks, interpolate where it grows.

    A bilinear image of about the original's resolution, k_y by k_x pixels for each one of the
    result, is averaged in blocks. Where a whole number of pixels becomes one, that is the exact
    area average. Elsewhere it differs from it by 0.2 to 0.3 grey levels on blood cells (Pillow's
    bilinear filter by 0.2 to 1.2), and takes a third to an eighth of the time of INTER_AREA with
    fractional pixels.
    """
    if image_size is None or image_size == image.shape[:2]:
        return image
    height, width = image_size
    k_y = max(1, round(image.shape[0] / height))
    k_x = max(1, round(image.shape[1] / width))
    fine = cv2.resize(image, (width * k_x, height * k_y), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)


LOG_SILENT = 0
_set_log_level = cv2.utils.logging.setLogLevel  # returns the level before
_quiet_lock = threading.Lock()
_quiet_users = 0
_quiet_undo: list = []


@contextmanager
def _quiet():
    """Silence Pillow's warnings and OpenCV's log about odd metadata in readable files.

    Both switches belong to the whole process, so the first thread in turns them off and the last
    one out restores them.
    """
    global _quiet_users
    with _quiet_lock:
        _quiet_users += 1
        if _quiet_users == 1:
            caught = warnings.catch_warnings()
            caught.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
            level = _set_log_level(LOG_SILENT)
            _quiet_undo[:] = [caught, level]
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_users -= 1
            if _quiet_users == 0:
                caught, level = _quiet_undo
                _set_log_level(level)
                caught.__exit__(None, None, None)
