"""One file, one RGB array: formats, modes, orientations, broken files."""

import io
import logging
import struct
import threading
import warnings
import zlib

import cv2
import numpy as np
import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from wbcclf.datasets._decode import MAX_PIXELS, decode_image, read_image
from wbcclf.exceptions import ImageReadError

HEIGHT, WIDTH = 24, 37  # odd, so that rows end within a byte or a padded word


def smooth_rgb(height=HEIGHT, width=WIDTH, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


RGB = smooth_rgb()
RGBA = np.dstack([RGB, np.linspace(0, 255, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint8)])
MODES = {
    "1": Image.fromarray(RGB).convert("1"),
    "L": Image.fromarray(RGB[..., 0]),
    "LA": Image.fromarray(RGBA[..., 2:]),
    "P": Image.fromarray(RGB).quantize(16),
    "RGB": Image.fromarray(RGB),
    "RGBA": Image.fromarray(RGBA),
    "CMYK": Image.fromarray(RGB).convert("CMYK"),
    "YCbCr": Image.fromarray(RGB).convert("YCbCr"),
}
FORMATS = {
    "JPEG": ["L", "RGB", "CMYK", "YCbCr"],
    "PNG": ["1", "L", "LA", "P", "RGB", "RGBA"],
    "BMP": ["1", "L", "P", "RGB", "RGBA"],
    "TIFF": ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"],
}
PILLOW_MAJOR = int(PIL.__version__.split(".")[0])
CASES = [(name, mode) for name, modes in FORMATS.items() for mode in modes]


def encoded(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def hand_made_tiff(
    values, *, orientation=1, order="<", planar=1, photometric=None, sample_format=1
):
    """Return an uncompressed TIFF: Pillow and OpenCV write only some kinds."""
    height, width = values.shape[:2]
    channels = values.shape[2] if values.ndim == 3 else 1
    stored = values.astype(values.dtype.newbyteorder(order))
    split = planar == 2 and channels > 1
    parts = [stored[..., k].tobytes() for k in range(channels)] if split else [stored.tobytes()]
    starts = [8 + sum(map(len, parts[:k])) for k in range(len(parts))]
    if photometric is None:
        photometric = 2 if channels > 2 else 1
    fields = [
        (256, "I", [width]),
        (257, "I", [height]),
        (258, "H", [values.dtype.itemsize * 8] * channels),
        (259, "H", [1]),
        (262, "H", [photometric]),
        (273, "I", starts),
        (274, "H", [orientation]),
        (277, "H", [channels]),
        (278, "I", [height]),
        (279, "I", [len(part) for part in parts]),
        (284, "H", [planar]),
        (339, "H", [sample_format] * channels),
    ]
    directory = 8 + sum(map(len, parts))
    tail = directory + 2 + 12 * len(fields) + 4
    entries = far = b""
    for tag, code, content in fields:
        data = struct.pack(f"{order}{len(content)}{code}", *content)
        head = struct.pack(f"{order}HHI", tag, {"H": 3, "I": 4}[code], len(content))
        if len(data) > 4:
            entries += head + struct.pack(f"{order}I", tail + len(far))
            far += data
        else:
            entries += head + data.ljust(4, b"\0")
    magic = b"II*\0" if order == "<" else b"MM\0*"
    count = struct.pack(f"{order}H", len(fields))
    start = struct.pack(f"{order}I", directory)
    return magic + start + b"".join(parts) + count + entries + b"\0\0\0\0" + far


def png_chunk(kind, content):
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


# --- formats and modes --------------------------------------------------------------------------


@pytest.mark.parametrize(("file_format", "mode"), CASES)
def test_pixels_are_those_that_pillow_reads(file_format, mode, capfd):
    if (file_format, mode) == ("TIFF", "YCbCr") and PILLOW_MAJOR < 13:
        pytest.skip("Pillow 12.1 cannot read back the YCbCr TIFF that it writes")
    data = encoded(MODES[mode], file_format)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB"), dtype=int)
    got = decode_image(data)
    assert got.dtype == np.uint8
    assert got.flags.c_contiguous
    # Zero, were it not for two builds of libjpeg-turbo (OpenCV's and Pillow's) whose inverse DCT
    # may round differently by one.
    assert np.abs(got - expected).max() <= (1 if file_format == "JPEG" else 0)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_tiff_compressions(compression, mode):
    data = encoded(MODES[mode], "TIFF", compression=compression)
    expected = np.asarray(MODES[mode].convert("RGB"), dtype=int)
    # JPEG at Pillow's quality of 75 may be off by a few levels; the others are lossless.
    assert np.abs(decode_image(data) - expected).max() <= (12 if compression == "jpeg" else 0)


@pytest.mark.parametrize("options", [{"progressive": True}, {"quality": 30}, {"optimize": True}])
def test_kinds_of_jpeg(options):
    data = encoded(MODES["RGB"], "JPEG", **options)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image, dtype=int)
    assert np.abs(decode_image(data) - expected).max() <= 1


def test_transparent_pixels_show_their_colour():
    hidden = RGBA.copy()
    hidden[..., 3] = 0
    for file_format in ("PNG", "TIFF"):
        np.testing.assert_array_equal(
            decode_image(encoded(Image.fromarray(hidden), file_format)), RGB
        )


def test_palette_with_a_transparent_colour():
    data = encoded(MODES["P"], "PNG", transparency=bytes(range(16)))
    np.testing.assert_array_equal(decode_image(data), np.asarray(MODES["P"].convert("RGB")))


# --- 16 bits ------------------------------------------------------------------------------------


def sixteen_bits(channels):
    values = np.random.default_rng(1).integers(0, 65536, (HEIGHT, WIDTH, channels))
    values[0, 0], values[0, 1] = 0, 65535
    return values.astype(np.uint16)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_are_divided_by_257_and_rounded(suffix, channels, capfd):
    values = sixteen_bits(channels)
    data = cv2.imencode(suffix, values)[1].tobytes()
    colours = values[..., [2, 1, 0]] if channels >= 3 else np.repeat(values, 3, axis=2)
    np.testing.assert_array_equal(decode_image(data), np.round(colours / 257))
    assert capfd.readouterr().err == ""


def test_sixteen_bit_lzw_tiff_of_pillow():
    values = sixteen_bits(1)[..., 0]
    data = encoded(Image.fromarray(values), "TIFF", compression="tiff_lzw")
    np.testing.assert_array_equal(decode_image(data)[..., 1], np.round(values / 257))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_byte_orders(order, channels, dtype):
    values = sixteen_bits(channels).astype(dtype)
    expected = values if dtype == np.uint8 else np.round(values / 257)
    got = decode_image(hand_made_tiff(values if channels == 3 else values[..., 0], order=order))
    np.testing.assert_array_equal(got, np.broadcast_to(expected, got.shape))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_zero(order, dtype):
    values = sixteen_bits(1)[..., 0].astype(dtype)
    expected = 255 - (values if dtype == np.uint8 else np.round(values / 257).astype(np.uint8))
    got = decode_image(hand_made_tiff(values, order=order, photometric=0))
    np.testing.assert_array_equal(got[..., 0], expected)


def test_planes_of_eight_bits():
    np.testing.assert_array_equal(decode_image(hand_made_tiff(RGB, planar=2)), RGB)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (hand_made_tiff(RGB.astype(np.float32), sample_format=3), "32-bit floating-point"),
        (hand_made_tiff(RGB[..., 0].astype(np.float32), sample_format=3), "floating-point"),
        (hand_made_tiff(RGB[..., 0].astype(np.int16), sample_format=2), "16-bit signed integers"),
        (hand_made_tiff(RGB[..., 0].astype(np.uint32)), "32-bit integers"),
        (hand_made_tiff(RGB.astype(np.uint16), planar=2), "separate plane"),
        (encoded(Image.frombytes("LAB", (WIDTH, HEIGHT), RGB.tobytes()), "TIFF"), "mode LAB"),
    ],
)
def test_images_without_a_known_brightness_are_errors(data, reason):
    with pytest.raises(ImageReadError, match=reason):
        decode_image(data)


# --- orientation --------------------------------------------------------------------------------


def upright(values, orientation):
    """Turn by Pillow's table, independent of ours."""
    image = Image.fromarray(values)
    exif = Image.Exif()
    exif[274] = orientation
    image.info["exif"] = exif.tobytes()
    return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "CMYK", "TIFF16"])
def test_orientation_is_applied_once(file_format, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    if file_format == "TIFF":
        data = hand_made_tiff(RGB, orientation=orientation)
    elif file_format == "TIFF16":
        data = hand_made_tiff(RGB.astype(np.uint16) * 257, orientation=orientation)
    elif file_format == "CMYK":
        data = encoded(MODES["CMYK"], "JPEG", exif=exif, quality=95)
    else:
        lossless_or_good = {"quality": 95, "subsampling": 0} if file_format == "JPEG" else {}
        data = encoded(MODES["RGB"], file_format, exif=exif, **lossless_or_good)
    expected = upright(RGB, orientation)
    got = decode_image(data)
    assert got.shape == expected.shape
    # JPEG at this quality is off by a few levels, a wrong turn by a hundred.
    loss = np.abs(got.astype(int) - expected)
    assert loss.mean() <= (0 if "TIFF" in file_format or file_format == "PNG" else 4)


def test_size_holds_after_turning():
    exif = Image.Exif()
    exif[274] = 6
    assert decode_image(encoded(MODES["RGB"], "JPEG", exif=exif), (10, 20)).shape == (10, 20, 3)


def test_broken_exif_is_no_broken_image():
    exif = b"Exif\0\0II*\0\xff\xff\xff\xff"
    got = decode_image(encoded(MODES["RGB"], "JPEG", exif=exif))
    np.testing.assert_array_equal(got, decode_image(encoded(MODES["RGB"], "JPEG")))


# --- broken files -------------------------------------------------------------------------------

WHOLE = {
    "jpeg": encoded(MODES["RGB"], "JPEG"),
    "progressive": encoded(MODES["RGB"], "JPEG", progressive=True),
    "cmyk": encoded(MODES["CMYK"], "JPEG"),
    "png": encoded(MODES["RGB"], "PNG"),
    "bmp": encoded(MODES["RGB"].crop((0, 0, 36, HEIGHT)), "BMP"),  # 36: no padding to cut off
    "tiff": hand_made_tiff(RGB),
    "tiff16": hand_made_tiff(RGB.astype(np.uint16) * 257),
    "raw": encoded(MODES["RGB"], "TIFF"),
    "lzw": encoded(MODES["RGB"], "TIFF", compression="tiff_lzw"),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_truncated_files_are_errors(kind, capfd):
    whole = WHOLE[kind]
    decode_image(whole)
    for length in sorted({*range(0, len(whole), max(1, len(whole) // 60)), len(whole) - 1}):
        with pytest.raises(ImageReadError):
            decode_image(whole[:length])
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff", "lzw"])
def test_files_truncated_and_filled_with_zeros_are_errors(kind):
    whole = WHOLE[kind]
    with pytest.raises(ImageReadError):
        decode_image(whole[: len(whole) // 2].ljust(len(whole), b"\0"))


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_zeros_in_place_of_the_end_are_errors(kind):
    for n_bytes in range(1, 12):
        with pytest.raises(ImageReadError):
            decode_image(WHOLE[kind][:-n_bytes] + bytes(n_bytes))


def test_bytes_after_the_end_do_no_harm():
    for kind in ("jpeg", "png", "bmp"):
        decode_image(WHOLE[kind] + b"\0\n rubbish")


def test_thumbnail_does_not_stand_in_for_the_end():
    exif = b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + WHOLE["jpeg"][:600] + b"\xff\xd9"
    whole = encoded(MODES["RGB"], "JPEG", exif=exif)
    decode_image(whole)
    with pytest.raises(ImageReadError, match="without an end marker"):
        decode_image(whole[:-2])


def test_flipped_bits_in_a_png_are_noticed():
    broken = bytearray(WHOLE["png"])
    broken[len(broken) // 2] ^= 1
    with pytest.raises(ImageReadError, match="checksum"):
        decode_image(bytes(broken))


@pytest.mark.parametrize(
    "data", [b"GIF89a" + b"\0" * 50, b"a text file\n", b"\0" * 100, b"\x89PNG", b"BM", b"\xff\xd8"]
)
def test_other_files_are_errors(data):
    with pytest.raises(ImageReadError):
        decode_image(data)


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(sorted(WHOLE)),
    place=st.floats(0, 0.999),
    content=st.binary(min_size=1, max_size=20),
)
def test_damage_gives_an_image_or_one_kind_of_error(kind, place, content):
    damaged = bytearray(WHOLE[kind])
    start = int(place * len(damaged))
    damaged[start : start + len(content)] = content
    try:
        image = decode_image(bytes(damaged), max_pixels=10_000)
    except ImageReadError:
        return
    assert image.ndim == 3 and image.shape[2] == 3


def checked_again(png):
    """Return a PNG with right checksums, so that its decoder gets to see the damage."""
    position, png = 8, bytearray(png)
    while position + 12 <= len(png):
        (length,) = struct.unpack_from(">I", png, position)
        end = position + 8 + length
        if end + 4 > len(png):
            break
        struct.pack_into(">I", png, end, zlib.crc32(png[position + 4 : end]))
        position = end + 4
    return bytes(png)


ODD = WHOLE | {
    "png with a broken profile": encoded(MODES["RGB"], "PNG", icc_profile=b"none"),
    "16-bit png": cv2.imencode(".png", sixteen_bits(3))[1].tobytes(),
    "16-bit lzw": cv2.imencode(".tiff", sixteen_bits(3))[1].tobytes(),
    "group 4": encoded(MODES["1"], "TIFF", compression="group4"),
    "deflate": encoded(MODES["RGB"], "TIFF", compression="tiff_deflate"),
    "jpeg in tiff": encoded(MODES["RGB"], "TIFF", compression="jpeg"),
}


@pytest.mark.parametrize("kind", ODD)
def test_decoders_print_nothing_about_damage(kind, capfd, caplog):
    rng = np.random.default_rng(0)
    whole = np.frombuffer(ODD[kind], np.uint8)
    decoded = 0
    for _ in range(150):
        damaged = whole.copy()
        damaged[rng.integers(len(whole), size=rng.integers(1, 6))] ^= np.uint8(1 << rng.integers(8))
        data = damaged.tobytes()
        if "png" in kind:
            data = checked_again(data)
        try:
            decoded += decode_image(data, (8, 8), max_pixels=10**6).any()
        except ImageReadError:
            pass
    assert decoded < 150
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_metadata_do_not_decide_whether_an_image_can_be_read(recwarn):
    rubbish = b"\xff\xed\x00\x1aPhotoshop 3.0\x008BIM" + bytes(6)  # ends within its first entry
    rubbish += b"\xff\xe1\x00\x1eExif\0\0II*\0\x08\0\0\0\x05\0" + b"\xff" * 10
    jpeg = WHOLE["jpeg"][:2] + rubbish + WHOLE["jpeg"][2:]
    np.testing.assert_array_equal(decode_image(jpeg), decode_image(WHOLE["jpeg"]))
    text = zlib.compress(bytes(10**8))  # more than Pillow takes
    png = WHOLE["png"][:33] + png_chunk(b"zTXt", b"Comment\0\0" + text) + WHOLE["png"][33:]
    np.testing.assert_array_equal(decode_image(png), RGB)
    assert not recwarn.list


def test_an_offset_of_64_bits_is_an_error():
    tiff = bytearray(encoded(MODES["RGB"], "TIFF", big_tiff=True))
    tiff[8:16] = b"\xff" * 8
    with pytest.raises(ImageReadError, match="ends within its header"):
        decode_image(bytes(tiff))


# --- too large ----------------------------------------------------------------------------------


def bombs():
    size = struct.pack(">II", 60_000, 60_000)
    png = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", size + b"\x08\x02\0\0\0")
    png += png_chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + png_chunk(b"IEND", b"")
    bmp = bytearray(WHOLE["bmp"])
    bmp[18:26] = struct.pack("<ii", 60_000, -60_000)
    jpeg = bytearray(WHOLE["jpeg"])
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    tiff = bytearray(WHOLE["tiff"])
    (directory,) = struct.unpack_from("<I", tiff, 4)
    for field in (0, 1):
        struct.pack_into("<I", tiff, directory + 2 + 12 * field + 8, 60_000)
    return {"png": png, "bmp": bytes(bmp), "jpeg": bytes(jpeg), "tiff": bytes(tiff)}


@pytest.mark.parametrize("kind", ["png", "bmp", "jpeg", "tiff"])
def test_decompression_bombs_are_stopped_by_their_header(kind):
    with pytest.raises(ImageReadError, match=f"60000 x 60000 .* max_pixels={MAX_PIXELS}"):
        decode_image(bombs()[kind])


@pytest.mark.parametrize("kind", WHOLE)
def test_limit_is_inclusive(kind):
    height, width, _ = decode_image(WHOLE[kind]).shape
    decode_image(WHOLE[kind], max_pixels=height * width)
    with pytest.raises(ImageReadError, match="max_pixels"):
        decode_image(WHOLE[kind], max_pixels=height * width - 1)


def test_limit_is_ours_and_not_that_of_pillow(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for kind in WHOLE.keys() - {"tiff", "raw", "lzw"}:
        decode_image(WHOLE[kind])
    # Pillow's TIFF reader asks for its own limit (twice 89478485) too; it is at least named.
    with pytest.raises(ImageReadError, match="exceeds limit"):
        decode_image(WHOLE["raw"])


# --- sizes --------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(st.tuples(*[st.integers(1, 90)] * 4))
def test_any_size_becomes_any_size(sizes):
    height, width, new_height, new_width = sizes
    values = np.full((height, width, 3), (200, 100, 50), np.uint8)
    got = decode_image(encoded(Image.fromarray(values), "PNG"), (new_height, new_width))
    assert got.shape == (new_height, new_width, 3)
    assert (got == (200, 100, 50)).all()


@pytest.mark.parametrize("factors", [(2, 2), (3, 2), (4, 5), (1, 6)])
def test_whole_blocks_are_averaged(factors):
    down, right = factors
    values = np.random.default_rng(2).integers(0, 256, (8 * down, 6 * right, 3), dtype=np.uint8)
    exact = values.reshape(8, down, 6, right, 3).mean(axis=(1, 3))
    got = decode_image(encoded(Image.fromarray(values), "PNG"), (8, 6))
    assert np.abs(got - exact).max() <= 0.5  # rounded


@pytest.mark.parametrize("size", [(128, 128), (100, 60), (224, 224), (17, 300)])
def test_shrinking_is_close_to_the_exact_average(size):
    values = smooth_rgb(240, 320)
    got = decode_image(encoded(Image.fromarray(values), "PNG"), size)
    exact = cv2.resize(values, size[::-1], interpolation=cv2.INTER_AREA)
    # Smooth content leaves the filters hardly anything to differ in; a shift by half a pixel, or
    # exchanged axes, would be off by more.
    assert np.abs(got.astype(int) - exact).mean() < 0.5


@pytest.mark.parametrize(
    ("sides", "size"), [((1, 2_000_000), (8, 20_000)), ((2_000_000, 1), (20_000, 8))]
)
def test_a_long_strip_needs_no_more_memory_than_it_has_pixels(sides, size):
    strip = encoded(Image.new("L", sides, 200), "PNG")
    got = decode_image(strip, size)  # 2,000,000 by 20,000 pixels in between would be 120 GB
    assert got.shape == (*size, 3)
    assert (got == 200).all()


def test_own_size_changes_nothing():
    np.testing.assert_array_equal(decode_image(WHOLE["png"], (HEIGHT, WIDTH)), RGB)


# --- files --------------------------------------------------------------------------------------


def test_reasons_for_unreadable_paths(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    for name, reason in {
        "empty.jpg": "the file is empty",
        "folder.jpg": "a folder",
        "none.jpg": "no such file",
        "nul\0.jpg": "cannot be opened",
    }.items():
        with pytest.raises(ImageReadError, match=reason):
            read_image(str(tmp_path / name))


def get_log_level():
    return (cv2 if hasattr(cv2, "getLogLevel") else cv2.utils.logging).getLogLevel()


def test_process_wide_switches_are_restored(capfd):
    level, filters = get_log_level(), list(warnings.filters)
    broken = bytearray(encoded(MODES["RGB"], "TIFF", compression="tiff_deflate"))
    broken[40:60] = b"\0" * 20

    def work():
        for _ in range(20):
            decode_image(WHOLE["tiff16"])
            decode_image(WHOLE["lzw"])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert get_log_level() == level
    assert list(warnings.filters) == filters
    assert not logging.getLogger("PIL.TiffImagePlugin").disabled
    with pytest.raises(ImageReadError):
        decode_image(bytes(broken))
    assert capfd.readouterr().err == ""
    with pytest.raises(OSError), Image.open(io.BytesIO(broken)) as image:
        image.load()
    assert "ZIPDecode" in capfd.readouterr().err  # libtiff speaks to others as before


def test_a_jpeg_of_endless_scans_is_refused_before_it_is_decoded():
    data = encoded(Image.fromarray(RGB), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    for n_scans in (50, 60, 5000):
        copies = data[:-2] + data[last:-2] * n_scans + data[-2:]
        if n_scans == 50:
            assert decode_image(copies).shape == RGB.shape
        else:
            with pytest.raises(ImageReadError, match="more than 64 scans"):
                decode_image(copies)


def test_what_follows_a_jpeg_is_not_taken_for_scans():
    data = encoded(Image.fromarray(RGB), "JPEG")
    np.testing.assert_array_equal(
        decode_image(data + b"\xff\xda\0\2" * 100 + b"\xff\xd9"), decode_image(data)
    )
