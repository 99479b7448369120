"""Drawn fields whose every pixel is known, after the law of Beer and Lambert."""

import cv2
import numpy as np

# Optical densities (red, green, blue), as measured in photographs of four laboratories.
NUCLEUS = (0.9, 1.7, 0.5)
CYTOPLASM = (0.2, 0.45, 0.2)
RED_CELL = (0.25, 0.5, 0.4)
LIGHT = (230, 225, 215)
RADIUS = 20  # of a red cell, in pixels


class Field:
    """A picture to put cells on; positions and radii are in pixels, x before y."""

    def __init__(self, height=320, width=400, seed=0):
        self.random = np.random.default_rng(seed)
        self.density = np.zeros((height, width, 3), np.float32)
        self.cells = []  # masks of the white cells
        self.nuclei = []

    def disc(self, x, y, radius):
        mask = np.zeros(self.density.shape[:2], np.uint8)
        # Positions and radii in 1/16 pixel.
        cv2.circle(mask, (round(x * 16), round(y * 16)), round(radius * 16), 1, cv2.FILLED, shift=4)
        return mask > 0

    def red_cell(self, x, y):
        cell = cv2.circle(np.zeros((64, 64), np.uint8), (512, 512), RADIUS * 16, 1, -1, shift=4)
        cell -= cv2.circle(np.zeros_like(cell), (512, 512), round(RADIUS * 16 / 3), 1, -1, shift=4)
        moved = np.float32([[1, 0, x - 32], [0, 1, y - 32]])
        top, left = max(round(y) - 32, 0), max(round(x) - 32, 0)
        around = self.density[top : round(y) + 32, left : round(x) + 32]
        moved[:, 2] -= left, top
        ring = cv2.warpAffine(cell, moved, around.shape[1::-1], flags=cv2.INTER_NEAREST) > 0
        around[ring] = np.maximum(around[ring], RED_CELL)
        return self

    def red_cells(self, spacing=58, keep_off=()):
        """Put red cells on a grid, except where they would touch what is at `keep_off`."""
        height, width = self.density.shape[:2]
        for y in range(spacing // 2, height, spacing):
            for x in range(spacing // 2, width, spacing):
                near = [np.hypot(x - a, y - b) < RADIUS + r + 3 for a, b, r in keep_off]
                if not any(near):
                    self.red_cell(x + self.random.uniform(-4, 4), y + self.random.uniform(-4, 4))
        return self

    def white_cell(self, x, y, radius=38, lobes=((0, 0, 24),), cytoplasm=CYTOPLASM):
        cell = self.disc(x, y, radius)
        nucleus = np.any([self.disc(x + dx, y + dy, r) for dx, dy, r in lobes], axis=0)
        self.density[cell] = cytoplasm
        self.density[nucleus] = NUCLEUS
        self.cells.append(cell)
        self.nuclei.append(nucleus & cell)
        return self

    def platelet(self, x, y):
        self.density[self.disc(x, y, RADIUS / 3)] = NUCLEUS
        return self

    def picture(self, light=LIGHT, noise=2.0, blur=0.8):
        """Return it as the microscope would: lit, a little out of focus, with noise."""
        seen = np.asarray(light) * np.exp(-cv2.GaussianBlur(self.density, (0, 0), blur))
        seen = seen + noise * self.random.standard_normal(seen.shape)
        return np.clip(np.rint(seen), 0, 255).astype(np.uint8)


def whole(cell, shape):
    """Return the mask of a found cell in the whole picture."""
    mask = np.zeros(shape[:2], bool)
    top, left, bottom, right = cell.bbox
    mask[top:bottom, left:right] = cell.cell
    return mask


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())
