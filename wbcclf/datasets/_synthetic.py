"""Drawn white blood cells: a data set that needs no download."""

import difflib
from collections.abc import Mapping
from numbers import Integral, Real

import cv2
import numpy as np
from sklearn.utils import Bunch, check_random_state

from ._draw_cells import _RED_CELL_RADIUS, KINDS, TINTS, Pose, paint_cell, paint_red_cells, red_cells

CLASSES = tuple(KINDS)
"""All class names, the commonest first."""
_DEFAULT_N_SAMPLES = 200
_MIN_SIZE = 16
_MIN_CANVAS = 112  # shorter side of the canvas a picture is drawn on before it is shrunk
_MAX_SEED = np.iinfo(np.int32).max


def make_blood_cells(
    n_samples=None,
    classes=5,
    *,
    image_size=64,
    random_state=None,
    imbalance=None,
    n_copies=0,
):
    x = 1


def _stain(rng):
    """Optical density ``(3,)`` of every tint on one slide: strength, balance and hue vary."""
    strength = rng.uniform(0.55, 1.2) * np.exp(rng.normal(0, 0.22, 3))
    mixing = np.eye(3) + rng.uniform(-0.15, 0.15, (3, 3))
    mixing /= mixing.sum(axis=0)
    shades = np.exp(rng.normal(0, 0.12, (len(TINTS), 1)))
    shades[0] *= rng.uniform(0.6, 1.5)
    densities = -np.log(np.array(list(TINTS.values())) / 255) * shades
    densities = strength * np.maximum(densities @ mixing, 0)
    return dict(zip(TINTS, densities.astype(np.float32), strict=True))


def _lamp(rng):
    """Light ``(3,)`` that reaches the sensor where nothing absorbs, in 0-255."""
    warm, green = rng.normal(0, 0.065), rng.normal(0, 0.02)
    return 255 * rng.uniform(0.68, 1.0) * np.exp([warm, green, -warm])


def _draw(name, size, cell_seed, view_seed):
    """One picture ``(h, w, 3)``: ``cell_seed`` fixes cell and slide, ``view_seed`` the photo."""
    rng, view = np.random.RandomState(cell_seed), np.random.RandomState(view_seed)
    short = min(size)
    factor = max(2, -(-_MIN_CANVAS // short))
    h, w = (n * factor for n in size)
    zoom = rng.uniform(0.75, 1.25)
    radius = KINDS[name].radius * zoom * rng.uniform(0.92, 1.08)
    colours = _stain(rng)
    lamp = _lamp(rng) * np.exp(view.normal(0, 0.025)) * np.exp(view.normal(0, 0.01, 3))
    angle = rng.uniform(0, 2 * np.pi) + view.uniform(-0.35, 0.35)
    shift = rng.uniform(-0.09, 0.09, 2) + view.uniform(-0.04, 0.04, 2)
    pose = Pose((w / 2 + shift[0] * short * factor, h / 2 + shift[1] * short * factor), short * factor, angle)
    layers = KINDS[name].layers(rng)

    density = np.zeros((h, w, 3), np.float32)
    reach = np.hypot(h, w) / 2 / (short * factor) + 0.2
    reds = red_cells(rng, radius=_RED_CELL_RADIUS * zoom, clear=radius, reach=reach)
    paint_red_cells(density, reds, pose, colours["red cell"])
    paint_cell(rng, density, layers, radius, pose, colours)
    return _photograph(view, density, size, lamp)


def _photograph(rng, density, size, lamp):
    picture = cv2.exp(-density)
    picture = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA)
    sigma = rng.uniform(0.003, 0.011) * min(size)
    if sigma > 0.15:
        picture = cv2.GaussianBlur(picture, (0, 0), sigma)
    picture *= lamp.astype(np.float32) * _falloff(rng, size)
    picture += rng.standard_normal(picture.shape).astype(np.float32) * np.float32(rng.uniform(1.5, 5))
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _falloff(rng, size):
    """Uneven light ``(h, w, 1)``: one side of the field lies a little darker."""
    amount, theta = rng.uniform(0, 0.3), rng.uniform(0, 2 * np.pi)
    y, x = (np.linspace(-0.5, 0.5, n, dtype=np.float32) for n in size)
    slope = np.float32(amount) * (np.sin(theta) * y[:, None] + np.cos(theta) * x)
    return (1 + slope.astype(np.float32))[..., None]
