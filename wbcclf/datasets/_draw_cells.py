"""How a stained blood cell looks, and how a field of view of a smear is painted.

A cell is described first, as layers of outlines and dots in units of its own radius, and painted
afterwards, as optical density: dyes absorb light (Beer-Lambert), so what overlaps gets darker.
Nothing here knows about data sets, class counts or seeds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

# What a Romanowsky (May-Gruenwald-Giemsa) stain gives, as RGB under white light.
TINTS = {
    "red cell": (214, 164, 156),
    "nucleus": (84, 48, 138),
    "dense nucleus": (58, 30, 104),
    "lacy nucleus": (112, 68, 150),
    "crease": (80, 42, 126),
    "pink plasm": (228, 192, 206),
    "blue plasm": (134, 152, 214),
    "greyblue plasm": (174, 174, 208),
    "grey plasm": (184, 168, 190),
    "lilac plasm": (206, 178, 210),
    "fine granule": (190, 132, 172),
    "azurophil granule": (132, 64, 140),
    "orange granule": (212, 108, 98),
    "dark granule": (76, 34, 104),
    "vacuole": (240, 234, 242),
}
_CHROMATIN = {"nucleus", "dense nucleus", "lacy nucleus", "crease"}  # what a nucleus is made of
_SUBPIXEL_BITS = 4
_GRAIN_CELLS = {"coarse": 22, "fine": 40}
_GRAIN_REACH = 1.7  # the mottling covers a square of this half side, in cell radii
_DISC, _PALLOR = 110, 190  # gray levels: one red cell; what its centre lacks, of 255
_NO_DOTS = np.empty((0, 3))


@dataclass(frozen=True, eq=False)
class Layer:
    """One dye deposit: outlines ``(n, 2)`` and dots ``(n, 3)`` (x, y, radius), in cell radii."""

    tint: str
    outlines: tuple[np.ndarray, ...] = ()
    dots: np.ndarray | None = None
    opacity: float = 1.0
    mottle: float = 0.0
    grain: str = "coarse"


@dataclass(frozen=True)
class Kind:
    """A kind of cell: its typical radius, in parts of the shorter image side, and its layers."""

    radius: float
    layers: Callable[[np.random.RandomState], list[Layer]]
    has_nucleus: bool = True


@dataclass(frozen=True)
class Pose:
    """Where the cell lies: plane (unit: shorter image side, cell at 0, 0) to canvas pixels."""

    centre: tuple[float, float]
    scale: float
    angle: float

    def matrix(self):
        """Affine map ``(2, 3)`` from the plane to canvas pixels."""
        cos, sin = self.scale * np.cos(self.angle), self.scale * np.sin(self.angle)
        return np.array([[cos, -sin, self.centre[0]], [sin, cos, self.centre[1]]])

    def apply(self, points):
        """Points ``(n, 2)`` of the plane as canvas pixels."""
        matrix = self.matrix()
        return points @ matrix[:, :2].T + matrix[:, 2]


# ---------------------------------------------------------------- outlines and dots


def blob(rng, *, centre=(0.0, 0.0), radius=1.0, stretch=1.0, wobble=0.03, dent=0.0, n_points=44):
    """Draw a closed wavy outline ``(n_points, 2)``; ``dent`` presses a bay into a random side."""
    theta = np.linspace(0, 2 * np.pi, n_points, endpoint=False)
    phases = rng.uniform(0, 2 * np.pi, 6)
    r = np.ones(n_points)
    for k, phase in enumerate(phases[:4], start=2):
        r += wobble * 2.0 / k * np.cos(k * theta + phase)
    if dent:
        away = np.angle(np.exp(1j * (theta - phases[4])))
        r -= dent * np.exp(-((away / 0.62) ** 2))
    x, y = radius * stretch * r * np.cos(theta), radius / stretch * r * np.sin(theta)
    cos, sin = np.cos(phases[5]), np.sin(phases[5])
    return np.column_stack([cos * x - sin * y, sin * x + cos * y]) + centre


def strand(start, end, width):
    """Thin bridge of chromatin between two lobes, as a rectangle ``(4, 2)``."""
    along = np.subtract(end, start)
    side = np.array([-along[1], along[0]]) * (width / 2 / max(np.hypot(*along), 1e-6))
    return np.array([start + side, end + side, end - side, start - side])


def lobed(rng, centres, radii, *, bridge, stretch=1.15):
    """Nucleus of several lobes, neighbours joined by strands."""
    outlines = [
        blob(rng, centre=c, radius=r, stretch=stretch, wobble=0.06, n_points=24)
        for c, r in zip(centres, radii, strict=True)
    ]
    outlines += [strand(a, b, bridge) for a, b in pairwise(centres)]
    return tuple(outlines)


def scatter(rng, n, radii, *, reach=0.9, inner=0.0, centre=(0.0, 0.0)):
    """Dots ``(n, 3)`` spread evenly over a ring, with radii between the two given."""
    distance = np.sqrt(rng.uniform(inner**2, reach**2, n))
    theta = rng.uniform(0, 2 * np.pi, n)
    x, y = distance * np.cos(theta) + centre[0], distance * np.sin(theta) + centre[1]
    return np.column_stack([x, y, rng.uniform(*radii, n)])


def _offset(rng, distance):
    theta = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(theta), np.sin(theta)]) * distance


# ---------------------------------------------------------------- the kinds of cell


def neutrophil(rng):
    """Three to five lobes on a thin arc of chromatin; pale pink plasm dusted with fine granules."""
    n_lobes = rng.randint(3, 6)
    sweep = rng.uniform(3.4, 4.8)
    theta = rng.uniform(0, 2 * np.pi) + np.linspace(0, sweep, n_lobes)
    distance = 0.5 + rng.uniform(-0.08, 0.08, n_lobes)
    centres = np.column_stack([np.cos(theta), np.sin(theta)]) * distance[:, None]
    radii = rng.uniform(0.85, 1.15, n_lobes) * (0.62 / np.sqrt(n_lobes))
    return [
        Layer("pink plasm", (blob(rng),), mottle=0.15, grain="fine"),
        Layer("fine granule", dots=scatter(rng, 60, (0.02, 0.035)), opacity=0.6),
        Layer("nucleus", lobed(rng, centres, radii, bridge=0.15), mottle=0.22),
    ]


def lymphocyte(rng):
    """Small; a dense round nucleus nearly fills it, around it a thin blue rim of plasm."""
    off = rng.uniform(0.04, 0.13)
    nucleus = blob(
        rng, centre=_offset(rng, off), radius=rng.uniform(0.78, 0.86), stretch=1.03, wobble=0.02
    )
    return [
        Layer("blue plasm", (blob(rng, wobble=0.04),), mottle=0.12),
        Layer("nucleus", (nucleus,), mottle=0.26),
    ]


def eosinophil(rng):
    """Two plump lobes, often like spectacles; the plasm is packed with coarse orange granules."""
    theta = rng.uniform(0, 2 * np.pi)
    half = rng.uniform(0.85, 1.25)
    shift = rng.uniform(0.42, 0.52)
    angles = np.array([theta - half, theta + half])
    centres = np.column_stack([np.cos(angles), np.sin(angles)]) * shift
    radii = rng.uniform(0.33, 0.41, 2)
    return [
        Layer("pink plasm", (blob(rng),)),
        Layer("orange granule", dots=scatter(rng, 95, (0.07, 0.11), reach=0.9), opacity=0.8),
        Layer("nucleus", lobed(rng, centres, radii, bridge=0.14, stretch=1.1), mottle=0.22),
    ]


def monocyte(rng):
    """Large, uneven outline; kidney-shaped, folded, lacy nucleus; grey-blue plasm with vacuoles."""
    centre = _offset(rng, 0.16)
    nucleus = blob(
        rng,
        centre=centre,
        radius=rng.uniform(0.64, 0.72),
        stretch=rng.uniform(1.05, 1.25),
        wobble=0.05,
        dent=rng.uniform(0.6, 0.85),
    )
    fold = _offset(rng, 0.3)
    crease = strand(centre - fold, centre + fold, 0.07)
    return [
        Layer("greyblue plasm", (blob(rng, stretch=1.08, wobble=0.07),), mottle=0.2, grain="fine"),
        Layer("vacuole", dots=scatter(rng, rng.randint(4, 14), (0.05, 0.1), inner=0.55)),
        Layer("lacy nucleus", (nucleus,), mottle=0.3, grain="fine"),
        Layer("crease", (crease,), opacity=0.5),
    ]


def basophil(rng):
    """Coarse dark-violet granules strewn over the whole cell hide a pale, vaguely lobed nucleus."""
    centres = np.array([_offset(rng, 0.28), _offset(rng, 0.28)])
    nucleus = lobed(rng, centres, (0.42, 0.42), bridge=0.3)
    return [
        Layer("lilac plasm", (blob(rng, radius=0.96, wobble=0.035),), mottle=0.1),
        Layer("lacy nucleus", nucleus, opacity=0.75, mottle=0.1),
        Layer("dark granule", dots=scatter(rng, rng.randint(70, 110), (0.05, 0.1), reach=0.98)),
    ]


def erythroblast(rng):
    """Small; a very dense, perfectly round nucleus in smooth pinkish-grey plasm."""
    nucleus = blob(
        rng, centre=_offset(rng, rng.uniform(0, 0.22)), radius=rng.uniform(0.5, 0.62), wobble=0.006
    )
    return [
        Layer("grey plasm", (blob(rng, stretch=1.06, wobble=0.04),), mottle=0.06),
        Layer("dense nucleus", (nucleus,), mottle=0.1),
    ]


def immature_granulocyte(rng):
    """Large; a big off-centre nucleus, round to shallowly indented; violet azurophil granules."""
    nucleus = blob(
        rng,
        centre=_offset(rng, 0.24),
        radius=rng.uniform(0.6, 0.68),
        stretch=rng.uniform(1.0, 1.15),
        wobble=0.03,
        dent=rng.uniform(0.0, 0.25),
    )
    return [
        Layer("lilac plasm", (blob(rng, stretch=1.04),), mottle=0.12, grain="fine"),
        Layer("lacy nucleus", (nucleus,), mottle=0.2, grain="fine"),
        Layer("azurophil granule", dots=scatter(rng, 48, (0.025, 0.05)), opacity=0.85),
    ]


def platelet(rng):
    """No nucleus: a tiny ragged violet fragment, or a few side by side, granules in the middle."""
    layers = []
    for k in range(rng.choice([1, 1, 1, 2, 3])):
        centre = _offset(rng, 1.7) if k else np.zeros(2)
        size = rng.uniform(0.55, 0.85) if k else 1.0
        body = blob(rng, centre=centre, radius=size, stretch=1.12, wobble=0.09)
        grains = scatter(rng, 22, (0.08, 0.15), reach=0.65 * size, centre=centre)
        layers += [
            Layer("lilac plasm", (body,), mottle=0.15),
            Layer("azurophil granule", dots=grains, opacity=0.8),
        ]
    return layers


# Radii keep the order of the diameters seen on a smear; platelets are twice their size.
KINDS = {
    "neutrophil": Kind(0.27, neutrophil),
    "lymphocyte": Kind(0.215, lymphocyte),
    "eosinophil": Kind(0.27, eosinophil),
    "monocyte": Kind(0.315, monocyte),
    "basophil": Kind(0.235, basophil),
    "erythroblast": Kind(0.185, erythroblast),
    "ig": Kind(0.315, immature_granulocyte),
    "platelet": Kind(0.10, platelet, has_nucleus=False),
}
RED_CELL_RADIUS = 0.155


def red_cells(rng, *, radius, clear, reach):
    """Red cells as rows ``(x, y, long half axis, short half axis, angle, pallor)``.

    They lie on a shaken grid, some missing, and leave the disc of radius ``clear`` nearly free:
    they may overlap its margin, as cells pushed together on a slide do.
    """
    ticks = np.arange(-reach, reach + radius, 2.0 * radius)
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    grid = grid + rng.uniform(-0.75, 0.75, grid.shape) * radius
    kept = rng.uniform(size=len(grid)) < rng.uniform(0.0, 1.0)
    sizes = radius * rng.uniform(0.85, 1.1, (len(grid), 2))
    angles = rng.uniform(0, 2 * np.pi, len(grid))
    pallors = rng.uniform(0.35, 0.62, len(grid))
    kept &= np.hypot(*grid.T) > clear + 0.7 * radius
    return np.column_stack([grid, sizes, angles, pallors])[kept]


# ---------------------------------------------------------------- paint


def _fixed(values):
    return np.round(np.asarray(values) * (1 << _SUBPIXEL_BITS)).astype(np.int32)


def paint_red_cells(size, cells, pose, colour):
    """Optical density ``(*size, 3)`` of pale pink discs, each with its central pallor."""
    h, w = size
    discs, pallor = np.zeros((2, h, w), np.uint8)
    centres = pose.apply(cells[:, :2])
    halves = cells[:, 2:4] * pose.scale
    margin = halves.max(initial=0.0)
    seen = ((centres > -margin) & (centres < np.array([w, h]) + margin)).all(axis=1)
    for centre, half, (angle, hole) in zip(
        centres[seen], halves[seen], cells[seen, 4:], strict=True
    ):
        left, top = (max(int(c - margin) - 1, 0) for c in centre)
        around = np.s_[top : int(centre[1] + margin) + 2, left : int(centre[0] + margin) + 2]
        disc = np.zeros_like(discs[around])
        at, turn = _fixed(centre - (left, top)).tolist(), float(np.degrees(angle + pose.angle))
        for image, share, level in ((disc, 1.0, _DISC), (pallor[around], hole, _PALLOR)):
            axes = _fixed(half * share).tolist()
            cv2.ellipse(image, at, axes, turn, 0, 360, level, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
        discs[around] = cv2.add(discs[around], disc)  # two discs on top of each other are darker
    side = 2 * int(0.16 * margin) + 1
    pallor = cv2.blur(cv2.blur(pallor, (side, side)), (side, side))  # the rim slopes inwards
    amount = discs * np.float32(1 / _DISC) * (1 - pallor * np.float32(1 / 255))
    return cv2.merge([amount * c for c in colour])


def _mottling(rng, grain):
    """Random blotches, mean 0 and standard deviation about 1, on a coarse grid."""
    cells = _GRAIN_CELLS[grain]
    return rng.standard_normal((cells, cells)).astype(np.float32)


def _warp(grid, pose, size):
    """Lay a mottling grid over the cell, turned and scaled with it."""
    step = 2 * _GRAIN_REACH / (len(grid) - 1)
    to_radii = np.array([[step, 0, -_GRAIN_REACH], [0, step, -_GRAIN_REACH], [0, 0, 1]])
    return cv2.warpAffine(
        grid, pose.matrix() @ to_radii, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )


def paint_cell(rng, density, layers, radius, pose, colours):
    """Paint ``layers``, the lowest first, over ``density`` ``(h, w, 3)``, in place.

    Returns how much of each pixel the cell and its nucleus cover: ``(2, h, w)``, uint8, 255 for
    all of it. What is hidden under granules still counts.
    """
    blotches = {grain: _mottling(rng, grain) for grain in sorted(_GRAIN_CELLS)}
    h, w = density.shape[:2]
    points = [p for la in layers for p in la.outlines]
    reach = max((np.hypot(*p.T).max() for p in points), default=1.0) * radius * pose.scale + 2
    left, top = (max(int(c - reach), 0) for c in pose.centre)
    right, bottom = (min(int(c + reach) + 1, n) for c, n in zip(pose.centre, (w, h), strict=True))
    area = density[top:bottom, left:right]
    covered = np.zeros((2, h, w), np.uint8)
    cell, nucleus = covered[:, top:bottom, left:right]
    local = Pose((pose.centre[0] - left, pose.centre[1] - top), pose.scale * radius, pose.angle)
    warped = {}
    for layer in layers:
        mask = np.zeros(area.shape[:2], np.uint8)
        for outline in layer.outlines:
            cv2.fillPoly(mask, [_fixed(local.apply(outline))], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
        dots = _NO_DOTS if layer.dots is None else layer.dots
        spots = _fixed(np.column_stack([local.apply(dots[:, :2]), dots[:, 2] * local.scale]))
        for x, y, r in spots.tolist():
            cv2.circle(mask, (x, y), max(r, 6), 255, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
        if layer.tint != "vacuole":  # empty: where one juts out over the rim, there is no cell
            np.maximum(cell, mask, out=cell)
        if layer.tint in _CHROMATIN:
            np.maximum(nucleus, mask, out=nucleus)
        alpha = (mask * np.float32(layer.opacity / 255))[..., None]
        colour = colours[layer.tint]
        if layer.mottle:
            if layer.grain not in warped:
                warped[layer.grain] = _warp(blotches[layer.grain], local, area.shape[1::-1])
            colour = colour * (1 + np.float32(layer.mottle) * warped[layer.grain][..., None])
        area += alpha * (colour - area)
    return covered
