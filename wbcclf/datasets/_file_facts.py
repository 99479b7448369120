"""What an image file tells of how it was made: format, size, compression, metadata."""

from __future__ import annotations

import io

import numpy as np
from PIL import JpegImagePlugin
from PIL.ImageFile import ImageFile

from wbcclf.datasets._decode import PILLOW, find_format
from wbcclf.datasets._quiet import quiet
from wbcclf.exceptions import ImageReadError

__all__ = ["FACTS", "file_facts"]

FACTS = ("file format", "picture size", "compression", "colour mode", "metadata")
# Quality 50 of the Independent JPEG Group's library stands for the table of ITU-T T.81, annex K,
# whose numbers have this mean; other qualities scale it.
MEAN_AT_50 = 57.625
SAMPLING = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}
# EXIF tags of what made the file (EXIF 2.32, table 4).
MAKERS = (271, 272, 305)
# What Pillow's `info` holds of a file that is no one's choice.
NO_METADATA = {"jfif_version", "jfif_unit", "jfif_density", "compression", "progressive"} | {
    "progression",
    "adobe_transform",
}


def file_facts(data: bytes) -> dict[str, str]:
    """Return what the header of an image file tells, without decoding it.

    Returns
    -------
    dict of str to str
        For each of `FACTS`.

    Raises
    ------
    ImageReadError
        With the reason only, if there is no header that can be read.
    """
    file_format = find_format(data)
    try:
        with quiet(), PILLOW[file_format](io.BytesIO(data)) as image:
            return {
                "file format": file_format,
                "picture size": f"{image.width} x {image.height}",
                "compression": _compression(image),
                "colour mode": image.mode,
                "metadata": _metadata(image),
            }
    # Pillow has no common class for what a broken file raises; see `decode_image`.
    except Exception as error:
        raise ImageReadError(f"{file_format} whose header Pillow cannot read ({error})") from error


def _compression(image: ImageFile) -> str:
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return str(image.info.get("compression", "of the format"))
    scale = float(np.mean(image.quantization[min(image.quantization)])) / MEAN_AT_50
    quality = 100 - 50 * scale if scale <= 1 else 50 / scale
    parts = [f"quality {round(quality)}"]
    if image.layers == 3:
        sampling = JpegImagePlugin.get_sampling(image)
        parts.append(SAMPLING.get(sampling, "another sampling of colours"))
    if "progressive" in image.info:
        parts.append("progressive")
    return ", ".join(parts)


def _metadata(image: ImageFile) -> str:
    """Return the names of the metadata, the resolution, and what made the file."""
    found = sorted(key for key in map(str, image.info) if key not in NO_METADATA)
    shown = [f"dpi {image.info[key]}" if key == "dpi" else key for key in found]
    if "exif" in image.info:
        exif = image.getexif()
        shown += [str(exif[tag]).strip("\0 ") for tag in MAKERS if tag in exif]
    return ", ".join(shown) or "none"
