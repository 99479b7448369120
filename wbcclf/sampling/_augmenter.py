"""Augmenter: copies of images, rotated, shifted, mirrored and differently stained."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from numbers import Integral, Real

import cv2
import joblib
import numpy as np
from imblearn.base import BaseSampler
from sklearn.utils import check_random_state

from wbcclf._images import Interval, StrOptions, check_images, rows_to_images, value_range
from wbcclf.sampling._base import ImageSamplerMixin
from wbcclf.sampling._stains import stain_matrices

_FILLS = {
    "reflect": cv2.BORDER_REFLECT_101,
    "nearest": cv2.BORDER_REPLICATE,
    "constant": cv2.BORDER_CONSTANT,
}
# Luma of ITU-R BT.601, and the YIQ space built on it, in which hue is an angle.
_LUMA = np.array([0.299, 0.587, 0.114])
_YIQ = np.array([_LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_RGB = np.linalg.inv(_YIQ)
_LONGEST_SIDE = 2**15 - 2  # of an image that OpenCV's warpAffine takes
_FRACTION = Interval(Real, 0, 1, closed="both")


class Augmenter(ImageSamplerMixin, BaseSampler):
    """Append randomly changed copies of images; or change every training batch on the fly.

    As a sampler in an imbalanced-learn Pipeline it appends copies, while fitting only. Given to a
    classifier (``CNNClassifier(augment=Augmenter())``) it changes each training batch anew. Every
    copy draws its own parameters, uniformly and independently, from the ranges below.

    All geometric operations are one affine map and one bilinear resampling; brightness, contrast,
    saturation and hue are one affine map of the colours.

    Parameters
    ----------
    rotation : float, default=180
        Largest angle in degrees, either way. Cells have no upright position.
    shear : float, default=0
        Largest shear angle in degrees, either way; under 90.
    shift : float, default=0.05
        Largest shift, as a fraction of width and height.
    zoom : float, default=0.1
        Largest change of scale, as a fraction: 0.1 scales by 0.9 to 1.1.
    horizontal_flip, vertical_flip : bool, default=True
        Mirror with probability one half.
    brightness : float, default=0.1
        Largest change, as a fraction: 0.1 multiplies by 0.9 to 1.1.
    contrast : float, default=0.1
        The same for the distance from the image's mean grey.
    saturation : float, default=0.1
        The same for the distance from the pixel's own grey. RGB images only.
    hue : float, default=0.01
        Largest turn of the hue, as a fraction of the colour circle. RGB images only. A rotation in
        YIQ space, which is linear and leaves brightness alone.
    stain : float, default=0
        Largest relative change of each dye's concentration, and largest shift of it in units of
        optical density: ``c -> c * U(1 - stain, 1 + stain) + U(-stain, stain)`` (Tellez et al.
        2018, https://doi.org/10.1109/TMI.2018.2820199), for methylene blue, eosin and the residual
        (vectors: Landini et al. 2021, https://doi.org/10.1093/bioinformatics/btaa847). RGB images
        only. 0.05 is light.
    fill : {"reflect", "nearest", "constant"}, default="reflect"
        What comes in from outside: the image mirrored at its edge, its edge pixels, or black.
    n_copies : int or None, default=None
        Copies of every image. None means 1, unless `sampling_strategy` is given.
    sampling_strategy : float, str, dict, callable or None, default=None
        Instead of `n_copies`: imbalanced-learn's targets, e.g. ``"auto"`` (every class up to the
        largest) or a dict of label to number of images. Copies are spread evenly over the images
        of a class.
    image_shape : (height, width, channels) or None, default=None
        The shape that rows stand for; None infers it. Ignored for image batches.
    random_state : int, RandomState instance or None, default=None

    Attributes
    ----------
    sampling_strategy_ : dict
        Copies per class.
    sample_indices_ : ndarray of shape (n_out,), int
        Input row of every output row.
    image_shape_ : tuple (height, width, channels)
    n_features_in_ : int
        Length of a row.

    Raises
    ------
    ValueError
        If both `n_copies` and `sampling_strategy` are given, or `y` holds one class only.

    Examples
    --------
    >>> from wbcclf import Augmenter, make_blood_cells
    >>> cells = make_blood_cells(20, classes=2, image_size=32, random_state=0)
    >>> images, target = Augmenter(n_copies=2, random_state=0).fit_resample(
    ...     cells.images, cells.target
    ... )
    >>> images.shape, (images[:20] == cells.images).all()
    ((60, 32, 32, 3), np.True_)
    """

    _sampling_type = "over-sampling"
    _parameter_constraints: dict = {
        "rotation": [Interval(Real, 0, 360, closed="both")],
        "shear": [Interval(Real, 0, 90, closed="left")],
        "shift": [_FRACTION],
        "zoom": [Interval(Real, 0, 1, closed="left")],
        "horizontal_flip": ["boolean"],
        "vertical_flip": ["boolean"],
        "brightness": [_FRACTION],
        "contrast": [_FRACTION],
        "saturation": [_FRACTION],
        "hue": [Interval(Real, 0, 0.5, closed="both")],
        "stain": [_FRACTION],
        "fill": [StrOptions(set(_FILLS))],
        "n_copies": [Interval(Integral, 0, None, closed="left"), None],
        "sampling_strategy": [
            Interval(Real, 0, 1, closed="right"),
            StrOptions({"auto", "minority", "not minority", "not majority", "all"}),
            Mapping,
            callable,
            None,
        ],
        "image_shape": [tuple, list, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        rotation=180,
        shear=0,
        shift=0.05,
        zoom=0.1,
        horizontal_flip=True,
        vertical_flip=True,
        brightness=0.1,
        contrast=0.1,
        saturation=0.1,
        hue=0.01,
        stain=0,
        fill="reflect",
        n_copies=None,
        sampling_strategy=None,
        image_shape=None,
        random_state=None,
    ):
        self.rotation = rotation
        self.shear = shear
        self.shift = shift
        self.zoom = zoom
        self.horizontal_flip = horizontal_flip
        self.vertical_flip = vertical_flip
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.hue = hue
        self.stain = stain
        self.fill = fill
        self.n_copies = n_copies
        self.sampling_strategy = sampling_strategy
        self.image_shape = image_shape
        self.random_state = random_state

    def augment(self, images, random_state=None):
        """Return one changed version of every image.

        Parameters
        ----------
        images : array-like of shape (n_samples, height, width, channels)
            Image batch.
        random_state : int, RandomState instance or None
            Where the changes are drawn from.

        Returns
        -------
        ndarray of the shape and dtype of `images`
        """
        self._validate_params()
        images = check_images(images, "images")
        out = np.empty_like(images, subok=False)
        self._apply(images, np.arange(len(images)), check_random_state(random_state), out)
        return out

    def _strategy(self, y):
        labels, counts = np.unique(y, return_counts=True)
        if self.sampling_strategy is not None:
            if self.n_copies is not None:
                raise ValueError(
                    f"n_copies={self.n_copies!r} and sampling_strategy="
                    f"{self.sampling_strategy!r} both say how many copies to make: give one."
                )
            with warnings.catch_warnings():
                # More images than the largest class has is what copies are for.
                warnings.filterwarnings("ignore", message="After over-sampling")
                return super()._strategy(y)
        if len(labels) < 2:
            raise ValueError(f"y holds one class only, {labels.tolist()}; give at least two.")
        n_copies = 1 if self.n_copies is None else self.n_copies
        return {label: n_copies * count for label, count in zip(labels, counts, strict=True)}

    def _fit_resample(self, X, y):
        random_state = check_random_state(self.random_state)
        copied = [
            _spread(np.flatnonzero(y == label), n_copies, random_state)
            for label, n_copies in self.sampling_strategy_.items()
        ]
        new = np.concatenate(copied) if copied else np.array([], dtype=np.intp)
        X_out = np.empty((len(X) + len(new), X.shape[1]), dtype=X.dtype)
        X_out[: len(X)] = X
        images = rows_to_images(X, self.image_shape_)
        copies = rows_to_images(X_out[len(X) :], self.image_shape_)
        self._apply(images, new, random_state, copies)
        self.sample_indices_ = np.concatenate([np.arange(len(X)), new])
        return X_out, np.concatenate([y, y[new]])

    def _apply(self, images, sources, random_state, out) -> None:
        """Write one changed version of ``images[sources[i]]`` to ``out[i]``, for every i.

        All random numbers are drawn here, before the threads start: the result does not depend on
        how many there are.
        """
        n = len(sources)
        if max(images.shape[1:3]) > _LONGEST_SIDE:
            raise ValueError(
                f"X holds images of {images.shape[1]}x{images.shape[2]} pixels, but no side may be "
                f"longer than {_LONGEST_SIDE}. If X holds rows of images that are not square, "
                "give image_shape=(height, width, channels)."
            )
        warps = self._draw_warps(n, images.shape[1:3], random_state)
        colours = self._draw_colours(n, random_state)
        if images.shape[3] == 1 or self.stain == 0:
            stains = None
        else:
            jitter = random_state.uniform(-self.stain, self.stain, size=(2, n, 3))
            stains = stain_matrices(1 + jitter[0], jitter[1])
        limits = value_range(images) if n else (0.0, 1.0)
        change = _Change(_FILLS[self.fill], limits, images.dtype)

        def run(chunk):
            for i in chunk:
                image = change.to_float(images[sources[i]])
                if stains is not None:
                    image = change.stain(image, stains[i])
                if colours is not None:
                    image = change.colour(image, *(part[i] for part in colours))
                if warps is not None:
                    image = change.warp(image, warps[i])
                out[i] = change.from_float(image).reshape(out.shape[1:])

        # OpenCV releases the interpreter lock, so threads use all cores without copying images.
        n_threads = max(1, min(joblib.cpu_count(), n // 8))
        chunks = np.array_split(np.arange(n), n_threads)
        with ThreadPoolExecutor(n_threads) as pool:
            list(pool.map(run, chunks))

    def _draw_warps(self, n, size, random_state):
        """Return inverse affine maps (n, 2, 3), from output to input pixels; None if all identity.

        About the image's centre: mirror, then scale, shear, rotate and shift.
        """
        uniform = random_state.uniform
        angle = np.deg2rad(uniform(-self.rotation, self.rotation, n))
        shear = np.tan(np.deg2rad(uniform(-self.shear, self.shear, n)))
        scale = uniform(1 - self.zoom, 1 + self.zoom, n)
        shift = uniform(-self.shift, self.shift, (n, 2)) * (size[1], size[0])
        mirrored = uniform(size=(n, 2)) < 0.5
        if not any(
            (
                self.rotation,
                self.shear,
                self.zoom,
                self.shift,
                self.horizontal_flip,
                self.vertical_flip,
            )
        ):
            return None
        flip = np.where(mirrored & (self.horizontal_flip, self.vertical_flip), -1.0, 1.0)
        forward = np.empty((n, 2, 2))
        forward[:, 0, 0] = np.cos(angle)
        forward[:, 0, 1] = np.cos(angle) * shear - np.sin(angle)
        forward[:, 1, 0] = np.sin(angle)
        forward[:, 1, 1] = np.sin(angle) * shear + np.cos(angle)
        forward *= (scale[:, None] * flip)[:, None, :]
        inverse = np.linalg.inv(forward)
        centre = (np.array([size[1], size[0]]) - 1) / 2
        offset = centre - np.einsum("nij,nj->ni", inverse, centre + shift)
        return np.concatenate([inverse, offset[:, :, None]], axis=2)

    def _draw_colours(self, n, random_state):
        """Return the parts (linear maps (n, 3, 3), weights of the mean grey (n,)); None if nothing.

        With brightness b and contrast c, a pixel x of an image of mean grey m becomes
        ``c * b * x + (1 - c) * b * m``; saturation and hue are linear and leave greys as they are.
        """
        uniform = random_state.uniform
        brightness = uniform(1 - self.brightness, 1 + self.brightness, n)
        contrast = uniform(1 - self.contrast, 1 + self.contrast, n)
        saturation = uniform(1 - self.saturation, 1 + self.saturation, n)
        turn = 2 * np.pi * uniform(-self.hue, self.hue, n)
        if not any((self.brightness, self.contrast, self.saturation, self.hue)):
            return None
        chroma = np.zeros((n, 3, 3))
        chroma[:, 0, 0] = 1
        chroma[:, 1, 1] = chroma[:, 2, 2] = saturation * np.cos(turn)
        chroma[:, 2, 1] = saturation * np.sin(turn)
        chroma[:, 1, 2] = -chroma[:, 2, 1]
        linear = (_RGB @ chroma @ _YIQ) * (contrast * brightness)[:, None, None]
        return linear, (1 - contrast) * brightness


def _spread(members: np.ndarray, n_copies: int, random_state: np.random.RandomState) -> np.ndarray:
    """Return `n_copies` of `members`, each as often as any other, give or take one."""
    rounds, rest = divmod(int(n_copies), len(members))
    return np.concatenate([np.tile(members, rounds), random_state.permutation(members)[:rest]])


class _Change:
    """The operations on one image, for a batch's fill, value limits and dtype.

    Bytes stay bytes between operations, where OpenCV is fastest; it rounds and saturates them.
    """

    def __init__(self, border: int, limits: tuple[float, float], dtype: np.dtype) -> None:
        self.border = border
        self.limits = limits
        self.dtype = dtype
        self.native = dtype in (np.uint8, np.float32, np.float64)

    def to_float(self, image: np.ndarray) -> np.ndarray:
        """Leave bytes and floats alone; other types are worked on as float64."""
        return image if self.native else image.astype(np.float64)

    def from_float(self, image: np.ndarray) -> np.ndarray:
        if self.dtype.kind in "ui" and not self.native:
            return np.rint(image)
        return image

    def warp(self, image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        return cv2.warpAffine(
            image,
            matrix,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=self.border,
        )

    def colour(self, image: np.ndarray, linear: np.ndarray, grey_weight: float) -> np.ndarray:
        if image.ndim == 2 or image.shape[2] == 1:
            linear, luma = linear.sum(axis=1)[:1, None], np.ones(1)
        else:
            luma = _LUMA
        mean_grey = float(luma @ cv2.mean(image)[: len(luma)])
        affine = np.column_stack([linear, np.full(len(luma), grey_weight * mean_grey)])
        return self._clip(cv2.transform(image, affine))

    def stain(self, image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        low, high = self.limits
        # Black has no finite optical density: one grey level of light is let through.
        floor = (high - low) / 255 or 1.0
        light = (image.astype(np.float32) - np.float32(low - floor)) / np.float32(
            high - low + floor
        )
        density = cv2.transform(-cv2.log(np.maximum(light, np.float32(1e-6))), matrix)
        light = cv2.exp(-density) * np.float32(high - low + floor) + np.float32(low - floor)
        if image.dtype == np.uint8:
            return np.rint(light.clip(0, 255)).astype(np.uint8)
        return self._clip(light.astype(image.dtype))

    def _clip(self, image: np.ndarray) -> np.ndarray:
        return image if image.dtype == np.uint8 else image.clip(*self.limits)
