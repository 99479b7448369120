"""The page of an exploration: classes, examples, maps, outliers, and what separates the classes."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from wbcclf.datasets._decode import read_image
from wbcclf.decoding._paths_or_images import check_paths_or_images
from wbcclf.exceptions import ImageReadError
from wbcclf.inspection._drawing import check_axes
from wbcclf.inspection.exploring._separation import p_text
from wbcclf.inspection.exploring._survey import LOOKS
from wbcclf.inspection.pages._html import (
    MOST_BYTES,
    check_made_by,
    drawing,
    picture_source,
    short_name,
    write_page,
)

N_DRAWN = 1_500  # points of a map: each has 100 bytes
N_FEATURES, N_SIZES, N_OUTLIERS = 15, 5, 24
ENLARGED = 5  # times, a contrast on the page
BIN = 4  # levels that are drawn as one
COLOURS = "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#666666", "#ee7733"
CHANNELS = {"red": "#cc3311", "green": "#228833", "blue": "#0077bb"}
MARKERS = "os^Dv<>pP*X"  # with the colours, 88 classes look different
AXES = {
    "brightness": "light of the background (0 to 255)",
    "focus": "focus (logarithm)",
    "stain depth": "nucleus, density of green light",
    "stain hue": "nucleus, density of red over green light",
}


def write_exploration_page(
    found: Bunch,
    images: Sequence[str | PathLike] | Sequence[np.ndarray] | np.ndarray,
    path: str | PathLike,
) -> None:
    """Write what :func:`explore_images` found as a page with pictures.

    One HTML file, below 2 MB, which holds its pictures, asks for nothing from a network, has no
    scripts and prints well. It needs matplotlib.

    Parameters
    ----------
    found : Bunch
        What `explore_images` returned.
    images : array-like of paths, or images
        What `explore_images` was given.
    path : str or path
        File to write.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError
        If `found` is of another function.
    ValueError
        If `images` has another length than `found` is of.
    ImageReadError
        If a file that is shown cannot be read any more.
    OSError
        If the page cannot be written; an existing one then stays as it is.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from wbcclf import make_blood_cells
    >>> from wbcclf.inspection import explore_images, write_exploration_page
    >>> cells = make_blood_cells(12, classes=2, image_size=96, random_state=0)
    >>> found = explore_images(cells.images, cells.target)
    >>> with tempfile.TemporaryDirectory() as root:
    ...     write_exploration_page(found, cells.images, Path(root, "page.html"))
    ...     "<h1>What the pictures show</h1>" in Path(root, "page.html").read_text()
    True
    """
    check_axes(None)
    check_made_by(found, "separation", "explore_images")
    gallery = _Gallery(images, len(found.target), len(found.classes))
    n_read = int(sum(each.n_images for each in found.classes))
    outliers = sorted(found.outliers, key=lambda each: -abs(each.score))
    write_page(
        path,
        "exploration.html",
        summary=_summary(found, n_read),
        skipped=found.skipped,
        classes=[_shown_class(found, k, n_read, gallery) for k in range(len(found.classes))],
        grouped=any(each.n_cells < each.n_images for each in found.classes),
        sizes=_sizes(found.sizes),
        maps=_maps(found),
        n_drawn=min(n_read, N_DRAWN),
        n_read=n_read,
        outliers=gallery.of((each.row, _out_of(each)) for each in outliers[:N_OUTLIERS]),
        n_outliers=len(outliers),
        levels=_levels(found),
        features=[
            Bunch(**each | {"p_shown": p_text(each.p_adjusted)})
            for each in found.separation.features[:N_FEATURES]
        ],
        n_features=len(found.separation.features),
        pairs=found.separation.pairs,
    )


class _Gallery:
    """Pictures of a page, which together stay small: of many classes, each shows fewer."""

    def __init__(self, images: Any, n_images: int, n_classes: int) -> None:
        self.paths, self.arrays = check_paths_or_images(images, "images")
        given = len(self.paths or self.arrays or [])
        if given != n_images:
            raise ValueError(f"images has {given} entries, but found is of {n_images}.")
        # A mean, a contrast, and as many typical pictures as odd ones; each has up to 6 kB.
        per_class = MOST_BYTES / 6_000 - N_OUTLIERS - 2 * n_classes
        self.n_examples = max(0, int(per_class / (2 * n_classes)))

    def of(self, rows_and_notes: Any) -> list[Bunch]:
        return [self._one(row, note) for row, note in rows_and_notes]

    def _one(self, row: int, note: str) -> Bunch:
        if self.paths is not None:
            name = short_name(self.paths[row])
            try:
                image, _ = read_image(self.paths[row])
            except ImageReadError as error:
                raise ImageReadError(f"{self.paths[row]}: {error}") from error
            return Bunch(name=name, note=note, source=picture_source(image))
        assert self.arrays is not None
        image = np.broadcast_to(self.arrays[row], (*self.arrays[row].shape[:2], 3))
        return Bunch(name=f"images[{row}]", note=note, source=picture_source(image))


def _summary(found: Bunch, n_read: int) -> str:
    n_cells = sum(each.n_cells for each in found.classes)
    text = f"{n_cells} cells in {n_read} pictures of {len(found.classes)} classes."
    if found.skipped:
        text += f" {len(found.skipped)} files could not be read."
    return text


def _sizes(sizes: list[tuple[int, int, int]]) -> str:
    named = [f"{height} x {width} ({count})" for height, width, count in sizes[:N_SIZES]]
    rest = len(sizes) - len(named)
    return ", ".join(named) + (f", and {rest} more" if rest else "")


def _shown_class(found: Bunch, k: int, n_read: int, gallery: _Gallery) -> Bunch:
    each = found.classes[k]
    contrast = 127.5 + ENLARGED * found.contrasts[k]
    own = {
        "share": each.n_images / n_read,
        "mean": picture_source(_as_image(found.means[k])),
        "contrast": picture_source(_as_image(contrast)) if len(found.classes) > 1 else "",
        "typical": gallery.of((row, "") for row in each.typical[: gallery.n_examples]),
        "odd": gallery.of((one.row, one.why) for one in each.odd[: gallery.n_examples]),
    }
    return Bunch(**each | own)


def _as_image(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _out_of(outlier: Bunch) -> str:
    """Return what is unusual about a picture, in words."""
    is_high = outlier.score > 0
    words = {
        "brightness": ("dark", "bright"),
        "focus": ("blurred", "sharp or noisy"),
        "stain depth": ("pale nucleus", "dark nucleus"),
        "stain hue": ("reddish nucleus", "bluish nucleus"),
    }
    return f"{words[outlier.look][is_high]} ({outlier.score:+.1f})"


def _maps(found: Bunch) -> Any:
    """Draw the pictures by light and focus, and by stain."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    looks, names = found.looks, list(LOOKS)
    rows = np.flatnonzero(np.isfinite(looks).any(axis=1))
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), N_DRAWN)).astype(int)]
    with mpl.rc_context({"text.parse_math": False}):  # a class may be called $x$
        figure = Figure(figsize=(11, 5.2), layout="constrained")
        for axes, (one, other) in zip(figure.subplots(1, 2), ((0, 1), (2, 3)), strict=True):
            for k, each in enumerate(found.classes):
                mine = rows[found.target[rows].astype(str) == each.label]
                style = {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[k % len(MARKERS)]}
                axes.scatter(looks[mine, one], looks[mine, other], s=9, **style)
            axes.set(xlabel=AXES[names[one]], ylabel=AXES[names[other]])
        names_shown = [_drawn(each.label) for each in found.classes]
        figure.legend(axes.collections, names_shown, loc="outside lower center", ncols=5)
        return drawing(figure, "maps")


def _drawn(name: str) -> str:
    """Return a name as matplotlib draws it: it hides what begins with _, and takes no bytes."""
    text = name.encode("utf-8", "backslashreplace").decode()
    return f" {text}" if text.startswith("_") else text


def _levels(found: Bunch) -> Any:
    """Draw the distribution of red, green and blue levels of each class."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    n_columns = min(4, len(found.classes))
    n_rows = -(-len(found.classes) // n_columns)
    levels = np.arange(0, 256, BIN) + (BIN - 1) / 2
    with mpl.rc_context({"text.parse_math": False}):  # a class may be called $x$
        figure = Figure(figsize=(11, 0.6 + 1.9 * n_rows), layout="constrained")
        grid = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True).ravel()
        for axes, each, counts in zip(grid, found.classes, found.counts, strict=False):
            binned = counts.reshape(3, -1, BIN).sum(axis=2)
            shares = 100 * binned / np.maximum(binned.sum(axis=1, keepdims=True), 1)
            for share, (channel, color) in zip(shares, CHANNELS.items(), strict=True):
                axes.plot(levels, share, color=color, label=channel)
            axes.set_title(_drawn(each.label), fontsize=9)
        for axes in grid[len(found.classes) :]:
            axes.set_axis_off()
        figure.supxlabel("level (0 to 255)", fontsize=9)
        figure.supylabel(f"% of the pixels, for {BIN} levels", fontsize=9)
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
        return drawing(figure, "levels")
