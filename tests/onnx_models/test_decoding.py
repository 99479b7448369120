"""Files decoded by OpenCV alone: the pixels that the loaders give, or an error that says why not."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from wbcclf.datasets._decode import decode_image
from wbcclf.decoding import _opencv
from wbcclf.decoding._opencv import decode_with_opencv
from wbcclf.exceptions import ImageReadError

SMALL = np.random.RandomState(0).randint(0, 255, (12, 16, 3)).astype(np.uint8)
PIXELS = cv2.resize(SMALL, (160, 123), interpolation=cv2.INTER_CUBIC)
PICTURE = Image.fromarray(PIXELS)
DEEP = PIXELS.astype(np.uint16) * 257 + 9
WITH_ALPHA = PICTURE.convert("RGBA")
WITH_ALPHA.putalpha(PICTURE.convert("L"))
MODES = {name: PICTURE.convert(name) for name in ("1", "L", "P", "RGB", "CMYK")} | {
    "RGBA": WITH_ALPHA,
    "LA": WITH_ALPHA.convert("LA"),
    "I;16": Image.fromarray(DEEP[..., 0]),
}


def saved(picture, file_format, **options):
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def turned(file_format, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    how = {"tiffinfo": {274: orientation}} if file_format == "TIFF" else {"exif": exif}
    return saved(PICTURE, file_format, **how)


ALIKE = {
    **{f"JPEG quality {q}": saved(PICTURE, "JPEG", quality=q) for q in (50, 90)},
    **{f"JPEG subsampling {n}": saved(PICTURE, "JPEG", subsampling=n) for n in (0, 1, 2)},
    "JPEG progressive": saved(PICTURE, "JPEG", progressive=True),
    "JPEG L": saved(MODES["L"], "JPEG"),
    **{f"PNG {name}": saved(MODES[name], "PNG") for name in MODES if name != "CMYK"},
    "PNG, transparent colour": saved(MODES["P"], "PNG", transparency=3),
    "PNG RGB of 16 bits": cv2.imencode(".png", DEEP)[1].tobytes(),
    **{f"BMP {name}": saved(MODES[name], "BMP") for name in ("1", "L", "P", "RGB", "RGBA")},
    **{
        f"TIFF {name} {how}": saved(MODES[name], "TIFF", compression=how)
        for name in ("L", "RGB", "I;16")
        for how in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits")
    },
    "TIFF RGB of 16 bits": cv2.imencode(".tiff", DEEP)[1].tobytes(),
    **{
        f"{name} turned {orientation}": turned(name, orientation)
        for name in ("JPEG", "PNG", "TIFF")
        for orientation in range(1, 9)
    },
}


@pytest.mark.parametrize("name", ALIKE)
def test_pixels_are_those_of_the_loaders(name):
    np.testing.assert_array_equal(decode_with_opencv(ALIKE[name]), decode_image(ALIKE[name]))


@pytest.mark.parametrize("size", [(30, 40), (16, 16), (61, 80), (300, 100), (20, 35)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_so_they_are_of_another_size(size, orientation):
    data = turned("JPEG", orientation)  # which the decoder makes smaller on its own
    np.testing.assert_array_equal(decode_with_opencv(data, size), decode_image(data, size))


@pytest.mark.parametrize("name", ["1", "P", "CMYK", "RGBA", "LA"])
def test_a_tiff_of_other_pixels_is_refused(name):
    with pytest.raises(ImageReadError, match="TIFF with other pixels than grey or RGB.*to PNG"):
        decode_with_opencv(saved(MODES[name], "TIFF"))


def test_a_jpeg_in_cmyk_is_refused():
    with pytest.raises(ImageReadError, match=r"JPEG of 4 colour channels.*to PNG"):
        decode_with_opencv(saved(MODES["CMYK"], "JPEG"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"<html>", "not a JPEG, PNG, BMP or TIFF file"),
        (ALIKE["JPEG L"][:-900], "truncated"),
        (ALIKE["PNG RGB"][:200], "truncated"),
        (ALIKE["TIFF RGB None"][:2000], "truncated"),
        (ALIKE["BMP RGB"][:20], "truncated: the BMP ends within its header"),
        (b"\xff\xd8\xff\xda\0\x02\xff\xd9", "truncated: the JPEG ends within its header"),
        (ALIKE["BMP RGB"][:2000], "OpenCV cannot decode"),
    ],
)
def test_damaged_files(data, reason):
    with pytest.raises(ImageReadError, match=reason):
        decode_with_opencv(data)


@pytest.mark.parametrize("name", ["JPEG L", "PNG RGB", "BMP RGB", "TIFF RGB None"])
def test_a_bomb_is_not_decoded(name, monkeypatch):
    monkeypatch.setattr(_opencv, "MAX_PIXELS", 10_000)
    with pytest.raises(ImageReadError, match="160 x 123 pixels are more than 10,000"):
        decode_with_opencv(ALIKE[name])
