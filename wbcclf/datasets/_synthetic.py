"""Drawn white blood cells: a data set that needs no download."""

import difflib
from collections.abc import Mapping, Sequence
from numbers import Integral, Real

import cv2
import numpy as np
from sklearn.utils import Bunch, check_random_state

from ._draw_cells import (
    KINDS,
    RED_CELL_RADIUS,
    TINTS,
    Pose,
    paint_cell,
    paint_red_cells,
    red_cells,
)

CLASSES = tuple(KINDS)
"""Names of all classes, the five common mature white cells first."""

_DEFAULT_N_SAMPLES = 200
_MIN_SIZE = 16
_MIN_CANVAS = 112  # shorter side of the canvas that a picture is drawn on before it is shrunk

_DESCR = """\
Drawn white blood cells
-----------------------
{n_images} pictures ({height} x {width} pixels, RGB) of {n_cells} cells, drawn by
wbcclf.datasets.make_blood_cells after the morphology of May-Gruenwald-Giemsa stained smears.

Pictures per class: {counts}

Stain, light, red cells and magnification vary from cell to cell, so that the average colour of a
picture says next to nothing about its class: shape and texture do. Pictures of one cell share a
group. The cells are drawings; figures reached on them say nothing about real blood.
"""


def make_blood_cells(
    n_samples=None,
    classes=5,
    *,
    image_size=64,
    random_state=None,
    imbalance=None,
    n_copies=0,
    return_masks=False,
):
    """Draw pictures of stained white blood cells, for demonstrations and tests.

    Each picture shows one cell of a known class among red cells. Its shape and texture follow what
    a haematologist looks for. Stain, light, magnification and the number of red cells vary so
    much that the average colour of a picture hardly helps to tell the classes apart.

    Parameters
    ----------
    n_samples : int or None, default=None
        Number of cells, at least one per class. None means 200 or, where `imbalance` is a
        mapping, the sum of its counts.
    classes : int or sequence of str, default=5
        The classes to draw: names, or how many (2 to 8) of ``"neutrophil"``, ``"lymphocyte"``,
        ``"eosinophil"``, ``"monocyte"``, ``"basophil"``, ``"erythroblast"``, ``"ig"`` (immature
        granulocyte) and ``"platelet"``, counted from the first. At least two different names.
    image_size : int or tuple of two int, default=64
        Side of the square pictures, or ``(height, width)``, in pixels. At least 16.
    random_state : int, RandomState instance or None, default=None
        Seed. The same int gives the same bytes, whatever the number of threads.
    imbalance : None, float or mapping of str to int, default=None
        How the cells are shared out among the classes. None: as equally as possible. A number
        >= 1: the ratio of the largest class to the smallest, with geometric steps between, in
        the order of `classes`, rounded to whole cells. A mapping: the number of cells of each
        class, naming every class once. Every class has at least one cell.
    n_copies : int, default=0
        Number of further pictures of each cell: turned and shifted a little, with slightly
        different light, blur and noise.
    return_masks : bool, default=False
        Whether to return, too, which pixels show the cell and which its nucleus. The pictures are
        the same either way.

    Returns
    -------
    cells : Bunch
        The ``n_images = n_samples * (1 + n_copies)`` pictures in random order:

        - ``images``: ndarray ``(n_images, height, width, 3)``, uint8, 0-255, RGB;
        - ``target``: ndarray ``(n_images,)`` of str, the class names;
        - ``target_names``: list of str, the class names sorted;
        - ``groups``: ndarray ``(n_images,)``, int64, the number of the cell, from 0;
        - ``paths``: None, since there are no files;
        - ``skipped``: empty list, since nothing can be unreadable;
        - ``DESCR``: str, a description;
        - ``cell_masks``: only if `return_masks`, ndarray ``(n_images, height, width)``, bool: the
          pixels of which the cell covers at least half, its nucleus included. Red cells and
          platelets are background: in pictures of class ``"platelet"``, no pixel is True;
        - ``nucleus_masks``: only if `return_masks`, of the same shape and dtype: the pixels of
          which the nucleus covers at least half, also where granules hide it.

    Raises
    ------
    ValueError
        If a parameter is outside what is described above.

    Notes
    -----
    The morphology follows [1]_ and [2]_ and was compared by eye with the pictures of [3]_, of
    which none is used. Dyes are added as optical density (Beer-Lambert law) on a larger canvas,
    which is then shrunk. Platelets are drawn about twice as large as they are.

    References
    ----------
    .. [1] L. Palmer et al., "ICSH recommendations for the standardization of nomenclature and
       grading of peripheral blood cell morphological features", International Journal of
       Laboratory Hematology 37, 2015. https://doi.org/10.1111/ijlh.12327
    .. [2] World Health Organization, "Manual of basic techniques for a health laboratory",
       2nd edition, 2003, chapter 9 (haematology).
    .. [3] A. Acevedo et al., "A dataset of microscopic peripheral blood cell images for
       development of automatic recognition systems", Data in Brief 30, 105474, 2020.
       https://doi.org/10.1016/j.dib.2020.105474

    Examples
    --------
    >>> from wbcclf.datasets import make_blood_cells
    >>> cells = make_blood_cells(12, classes=3, image_size=32, random_state=0, n_copies=1)
    >>> cells.images.shape, cells.images.dtype
    ((24, 32, 32, 3), dtype('uint8'))
    >>> cells.target_names
    ['eosinophil', 'lymphocyte', 'neutrophil']
    >>> len(set(cells.groups))
    12

    The share of each cell that its nucleus takes up:

    >>> cells = make_blood_cells(60, classes=3, random_state=0, return_masks=True)
    >>> cells.cell_masks.shape, cells.cell_masks.dtype
    ((60, 64, 64), dtype('bool'))
    >>> share = cells.nucleus_masks.sum(axis=(1, 2)) / cells.cell_masks.sum(axis=(1, 2))
    >>> for name in cells.target_names:
    ...     print(name, f"{share[cells.target == name].mean():.1f}")
    eosinophil 0.3
    lymphocyte 0.7
    neutrophil 0.4
    """
    names = _check_classes(classes)
    size = _check_image_size(image_size)
    counts = _share_out(n_samples, names, imbalance)
    _check_whole("n_copies", n_copies, 0)
    if not isinstance(return_masks, bool | np.bool_):
        raise ValueError(f"return_masks must be True or False, got {return_masks!r}.")
    rng = check_random_state(random_state)

    seed = rng.randint(np.iinfo(np.int32).max)
    cell_names = rng.permutation(np.repeat(np.array(names), counts))
    n_views = 1 + n_copies
    order = rng.permutation(len(cell_names) * n_views)
    groups, views = order // n_views, order % n_views
    images = np.empty((len(order), *size, 3), np.uint8)
    masks = np.empty((2, len(order), *size), bool) if return_masks else None
    for place, (cell, view) in enumerate(zip(groups.tolist(), views.tolist(), strict=True)):
        # Each cell and each view has its own generator: what one draws never shifts the next.
        images[place], covered = _take_picture(
            str(cell_names[cell]),
            size,
            np.random.RandomState([seed, cell]),
            np.random.RandomState([seed, cell, view]),
        )
        if masks is not None:  # what has no nucleus is no white cell
            masks[:, place] = KINDS[cell_names[cell]].has_nucleus & _half_covered(covered, size)
    shares = ", ".join(f"{n} {k * n_views}" for n, k in zip(names, counts, strict=True))
    cells = Bunch(
        images=images,
        target=cell_names[groups],
        target_names=sorted(names),
        paths=None,
        groups=groups.astype(np.int64),
        skipped=[],
        DESCR=_DESCR.format(
            n_images=len(images),
            height=size[0],
            width=size[1],
            n_cells=len(cell_names),
            counts=shares,
        ),
    )
    if masks is not None:
        cells.cell_masks, cells.nucleus_masks = masks
    return cells


# ---------------------------------------------------------------- one picture


def _take_picture(name, size, rng, view):
    """One picture ``(h, w, 3)``, and what cell and nucleus cover of its canvas ``(2, H, W)``.

    ``rng`` decides on cell and slide, ``view`` on the photograph. All views of a cell make the
    same draws from ``rng``, so none may depend on ``view``.
    """
    unit = min(size) * max(2, -(-_MIN_CANVAS // min(size)))  # canvas pixels per shorter side
    h, w = (n * unit // min(size) for n in size)
    zoom = rng.uniform(0.75, 1.25)
    radius = KINDS[name].radius * zoom * rng.uniform(0.92, 1.08)
    colours, lamp = _stain(rng), _lamp(rng)
    angle = rng.uniform(0, 2 * np.pi) + view.uniform(-0.35, 0.35)
    shift = rng.uniform(-0.09, 0.09, 2) + view.uniform(-0.04, 0.04, 2)
    pose = Pose((w / 2 + shift[0] * unit, h / 2 + shift[1] * unit), unit, angle)
    layers = KINDS[name].layers(rng)
    reach = np.hypot(h, w) / (2 * unit) + 0.2
    reds = red_cells(rng, radius=RED_CELL_RADIUS * zoom, clear=radius, reach=reach)

    density = paint_red_cells((h, w), reds, pose, colours["red cell"])
    covered = paint_cell(rng, density, layers, radius, pose, colours)
    return _expose(view, density, size, lamp), covered


def _half_covered(covered, size):
    """Shrink the canvases ``covered`` to masks ``(len(covered), *size)``, bool."""
    shares = [cv2.resize(c, size[::-1], interpolation=cv2.INTER_AREA) for c in covered]
    return np.array(shares) > 127  # of 255


def _stain(rng):
    """Optical density ``(3,)`` of every tint on one slide: strength, balance and hue vary."""
    strength = rng.uniform(0.55, 1.2) * np.exp(rng.normal(0, 0.22, 3))
    mixing = np.eye(3) + rng.uniform(-0.15, 0.15, (3, 3))
    mixing /= mixing.sum(axis=0)
    shades = np.exp(rng.normal(0, 0.12, (len(TINTS), 1)))
    shades[list(TINTS).index("red cell")] *= rng.uniform(0.6, 1.5)  # thick or thin smear
    densities = -np.log(np.array(list(TINTS.values())) / 255) * shades
    densities = strength * np.maximum(densities @ mixing, 0)
    return dict(zip(TINTS, densities.astype(np.float32), strict=True))


def _lamp(rng):
    """Light ``(3,)`` where nothing absorbs, in 0-255: dim to bright, bluish to yellowish."""
    warm, green = rng.normal(0, 0.065), rng.normal(0, 0.02)
    return 255 * rng.uniform(0.68, 1.0) * np.exp([warm, green, -warm])


def _expose(rng, density, size, lamp):
    """Photograph optical density: a uint8 picture ``(*size, 3)``, RGB."""
    picture = cv2.resize(cv2.exp(-density), size[::-1], interpolation=cv2.INTER_AREA)
    sigma = rng.uniform(0.003, 0.011) * min(size)
    if sigma > 0.15:  # less than that leaves the pixels as they are
        picture = cv2.GaussianBlur(picture, (0, 0), sigma)
    lamp = lamp * np.exp(rng.normal(0, 0.025) + rng.normal(0, 0.01, 3))
    picture *= _falloff(rng, size) * lamp.astype(np.float32)
    noise = rng.standard_normal(picture.shape).astype(np.float32)
    picture += np.float32(rng.uniform(1.5, 5.0)) * noise
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _falloff(rng, size):
    """Uneven light ``(h, w, 1)``: one side of the field lies a little darker."""
    amount, theta = rng.uniform(0, 0.3), rng.uniform(0, 2 * np.pi)
    y, x = (np.linspace(-0.5, 0.5, n, dtype=np.float32) for n in size)
    slope = amount * np.add.outer(np.sin(theta) * y, np.cos(theta) * x)
    return (1 + slope).astype(np.float32)[..., None]


# ---------------------------------------------------------------- parameters


def _is_whole(value):
    return isinstance(value, Integral) and not isinstance(value, bool | np.bool_)


def _check_whole(what, value, low):
    if not _is_whole(value) or value < low:
        raise ValueError(f"{what} must be an int >= {low}, got {value!r}.")


def _check_classes(classes):
    """Names of the classes to draw, in the order given."""
    if _is_whole(classes):
        if not 2 <= classes <= len(CLASSES):
            raise ValueError(
                f"classes must be between 2 and {len(CLASSES)} when it is an int, got {classes!r}."
            )
        return CLASSES[: int(classes)]
    if isinstance(classes, str) or not isinstance(classes, Sequence | np.ndarray):
        raise ValueError(
            f"classes must be an int from 2 to {len(CLASSES)} or a sequence of names, "
            f"got {classes!r}."
        )
    names = [str(name) for name in classes]
    for name in names:
        if name not in KINDS:
            raise ValueError(f"classes: {_unknown(name, CLASSES)}")
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"classes must hold at least two different names, got {names}.")
    return tuple(names)


def _unknown(name, allowed):
    nearest = difflib.get_close_matches(str(name).lower(), allowed, n=1, cutoff=0.5)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return f"unknown class {name!r}.{hint} Allowed are {', '.join(allowed)}."


def _check_image_size(image_size):
    """Height and width, in pixels."""
    pair = (image_size, image_size) if _is_whole(image_size) else image_size
    if (
        isinstance(pair, str)
        or not isinstance(pair, Sequence | np.ndarray)
        or len(pair) != 2
        or not all(_is_whole(n) and n >= _MIN_SIZE for n in pair)
    ):
        raise ValueError(
            f"image_size must be an int >= {_MIN_SIZE} or a pair (height, width) of them, "
            f"got {image_size!r}."
        )
    return int(pair[0]), int(pair[1])


def _share_out(n_samples, names, imbalance):
    """Count the cells of each class, in the order of ``names``."""
    if n_samples is not None:
        _check_whole("n_samples", n_samples, 1)
    if isinstance(imbalance, Mapping):
        return _given_counts(n_samples, names, imbalance)
    ratio = 1.0 if imbalance is None else imbalance
    is_number = isinstance(ratio, Real) and not isinstance(ratio, bool)
    if not is_number or not 1 <= ratio < np.inf:
        raise ValueError(
            "imbalance must be None, a finite number >= 1 or a mapping of class name to count, "
            f"got {imbalance!r}."
        )
    n_samples = _DEFAULT_N_SAMPLES if n_samples is None else int(n_samples)
    if n_samples < len(names):
        raise ValueError(
            f"n_samples must be at least the number of classes, {len(names)}, so that each has "
            f"a cell; got {n_samples}."
        )
    shares = float(ratio) ** -np.linspace(0, 1, len(names))
    ideal = n_samples * shares / shares.sum()
    counts = np.maximum(ideal.astype(int), 1)
    while counts.sum() < n_samples:
        counts[np.argmax(ideal - counts)] += 1
    while counts.sum() > n_samples:  # the classes raised to one cell took too many
        counts[np.argmax(counts)] -= 1
    return counts.tolist()


def _given_counts(n_samples, names, imbalance):
    for name, count in imbalance.items():
        if name not in names:
            raise ValueError(f"imbalance: {_unknown(name, names)} (These are the `classes`.)")
        _check_whole(f"imbalance[{name!r}]", count, 1)
    missing = [name for name in names if name not in imbalance]
    if missing:
        raise ValueError(
            f"imbalance must give a count for every class, {', '.join(missing)} is missing; "
            "add it, or leave it out of classes."
        )
    total = sum(imbalance.values())
    if n_samples is not None and n_samples != total:
        raise ValueError(
            f"n_samples must be None or {total}, the sum of the counts in imbalance, "
            f"got {n_samples}."
        )
    return [int(imbalance[name]) for name in names]
