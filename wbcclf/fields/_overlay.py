"""Fields with boxes and labels, for eyes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

# Of Okabe and Ito, which colour-blind people can tell apart, too. Again from the start if there
# are more classes.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442")
UNCERTAIN, BORDER = "#FFFFFF", "#999999"


def draw_field(
    picture: np.ndarray, boxes: np.ndarray, texts: Sequence[str], colours: Sequence[str]
) -> Image.Image:
    """Return a picture with a box and a text at every cell.

    Parameters
    ----------
    picture : ndarray of shape (height, width, 3), uint8
    boxes : ndarray of shape (n_cells, 4), int
        (min_row, min_col, max_row, max_col).
    texts, colours : sequences of str
        One for each cell.
    """
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    size = max(12, min(image.size) // 30)
    font = ImageFont.load_default(size)
    pad = size // 5
    for (top, left, bottom, right), text, colour in zip(
        boxes.tolist(), texts, colours, strict=True
    ):
        draw.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=pad)
        width, height = (side + 2 * pad for side in draw.textbbox((0, 0), text, font)[2:])
        # On the box, or inside where there is no room above it.
        x, y = max(0, min(left, image.width - width)), top - height if top >= height else top
        draw.rectangle((x, y, x + width, y + height), fill=colour)
        is_dark = sum(ImageColor.getrgb(colour)) < 384
        draw.text((x + pad, y + pad), text, "white" if is_dark else "black", font)
    return image
