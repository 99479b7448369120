"""Augmenter: copies of images, rotated, shifted, mirrored, and as other laboratories show them."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping
from numbers import Integral, Real

import numpy as np
from imblearn.base import BaseSampler
from sklearn.utils import check_random_state

from wbcclf import _spill
from wbcclf._images import Interval, StrOptions, check_images, rows_to_images, value_range
from wbcclf._parameters import Each, Machine, Training
from wbcclf.sampling import _changes, _laboratory
from wbcclf.sampling._base import ImageSamplerMixin
from wbcclf.sampling._stains import stain_matrices

# The YIQ space, in which hue is an angle.
_YIQ = np.array([_changes.LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_RGB = np.linalg.inv(_YIQ)
_LONGEST_SIDE = 2**15 - 2  # of an image that OpenCV's warpAffine takes
_FRACTION = Interval(Real, 0, 1, closed="both")


class Augmenter(ImageSamplerMixin, BaseSampler):
    """Append randomly changed copies of images; or change every training batch on the fly.

    As a sampler in an imbalanced-learn Pipeline it appends copies, while fitting only. Given to a
    classifier (``CNNClassifier(augment=Augmenter())``) it changes every training batch. Every
    copy draws its own parameters, uniformly and independently, from the ranges below. Appended
    copies make the classifier's epochs longer; its `max_steps` gives equal budgets.

    All geometric operations are combined into one affine map and one bilinear resampling.
    Brightness, contrast, saturation and hue are combined into one affine map of the colours.

    Parameters
    ----------
    rotation : float or "quarter", default=180
        Largest angle in degrees, either way. Cells have no upright position. "quarter" draws a
        multiple of 90 degrees. Without shear, shift and zoom, quarter turns and flips move pixels
        but change no values. (Images that are not square turn about their centre, too, and `fill`
        fills the rest. If height and width differ by an odd number, pixels are interpolated.)
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
    laboratory : float, default=0
        Strength, 0 to 1, at which every image is shown as another laboratory would show that cell.
        It changes much: train longer, or start from weights. At strength 1:

        - stain: the optical density of all dyes is multiplied by 1/1.8 to 1.8, that of each channel
          by 1/1.4 to 1.4, and each channel takes -0.3 to 0.3 of its density from each other channel
          (optical density: Ruifrok and Johnston 2001, Anal. Quant. Cytol. Histol. 23:291);
        - grey, in a fifth of the images: all channels become the same random mixture of the three;
        - exposure and white balance: the background gets a grey level of 150 to 245, multiplied by
          1/1.15 to 1.15 in each channel. The background is the 95% quantile of each channel;
        - focus, in a third of the images: a blur whose standard deviation is at most 0.75% of the
          shorter side;
        - resolution, in a third: pixels at most 2% of the shorter side wide;
        - JPEG, in a third: quality 30 to 95, with colour at half the resolution.

        Less strength makes all ranges smaller, and the last four rarer. It comes before all other
        changes, and takes the place of brightness, contrast, saturation and hue. Grey images have
        no dyes and no white balance. The work is done in 256 grey levels; tensors become exactly
        what arrays become.
    fill : {"reflect", "nearest", "constant"}, default="reflect"
        What fills the space outside the image: its mirror image, its edge pixels, or black.
    n_copies : int or None, default=None
        Copies of every image. None means 1, unless `sampling_strategy` is given.
    sampling_strategy : float, str, dict, callable or None, default=None
        Instead of `n_copies`: imbalanced-learn's targets, e.g. ``"auto"`` (every class up to the
        largest) or a dict of label to number of images. Copies are spread evenly over the images
        of a class.
    image_shape : (height, width, channels) or None, default=None
        The shape that rows stand for; None infers it. Ignored for image batches.
    spill_dir : path or None, default=None
        An existing folder: the output of `fit_resample` is a memory-mapped file in it instead of
        an array in memory. The file is removed with the last array that uses it.
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
        If both `n_copies` and `sampling_strategy` are given, `y` holds one class only, or
        `spill_dir` is no folder.
    OSError
        If the disk of `spill_dir` is too full.

    Examples
    --------
    >>> from wbcclf import Augmenter, make_blood_cells
    >>> cells = make_blood_cells(20, classes=2, image_size=32, random_state=0)
    >>> images, target = Augmenter(n_copies=2, random_state=0).fit_resample(
    ...     cells.images, cells.target
    ... )
    >>> images.shape, (images[:20] == cells.images).all()
    ((60, 32, 32, 3), np.True_)

    As other laboratories would show the first cell:

    >>> elsewhere = Augmenter(laboratory=1, brightness=0, contrast=0, saturation=0, hue=0)
    >>> elsewhere.augment(cells.images[[0] * 8], random_state=0).shape
    (8, 32, 32, 3)
    """

    _sampling_type = "over-sampling"
    _parameter_constraints: dict = {
        "rotation": [Interval(Real, 0, 360, closed="both"), StrOptions({"quarter"})],
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
        "laboratory": [_FRACTION],
        "fill": [StrOptions(set(_changes.BORDERS))],
        "n_copies": [Interval(Integral, 0, None, closed="left"), None],
        "sampling_strategy": Training(
            [
                Interval(Real, 0, 1, closed="right"),
                StrOptions({"auto", "minority", "not minority", "not majority", "all"}),
                Mapping,
                callable,
                None,
            ]
        ),
        "image_shape": Training([Each(Interval(Integral, 1, None, closed="left")), None]),
        "spill_dir": Machine([str, os.PathLike, None]),
        "random_state": Training(["random_state"]),
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
        laboratory=0,
        fill="reflect",
        n_copies=None,
        sampling_strategy=None,
        image_shape=None,
        spill_dir=None,
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
        self.laboratory = laboratory
        self.fill = fill
        self.n_copies = n_copies
        self.sampling_strategy = sampling_strategy
        self.image_shape = image_shape
        self.spill_dir = spill_dir
        self.random_state = random_state

    def augment(self, images, random_state=None):
        """Return one changed version of every image.

        Parameters
        ----------
        images : array-like or torch.Tensor of shape (n_samples, height, width, channels)
            Image batch. A tensor (uint8, float32 or float64) is changed on its own device, all
            images at once: by the same changes for the same `random_state`, and bytes to the same
            values within 1 grey level.
        random_state : int, RandomState instance or None
            Source of the random changes.

        Returns
        -------
        ndarray or torch.Tensor of the shape and dtype of images, on the same device
        """
        self._validate_params()
        random_state = check_random_state(random_state)
        # A caller with a tensor has imported torch; no other caller needs it here.
        if "torch" in sys.modules and isinstance(images, sys.modules["torch"].Tensor):
            return self._augment_tensor(images, random_state)
        images = check_images(images, "images")
        out = np.empty(images.shape, images.dtype)  # in C order, which OpenCV writes
        self._apply(images, np.arange(len(images)), random_state, out)
        return out

    def _augment_tensor(self, images, random_state):
        from wbcclf.sampling import _changes_torch

        _changes_torch.check_tensor(images)
        changes = self._draw(len(images), tuple(images.shape[1:]), random_state)
        if not len(images):
            return images.clone()
        if images.is_floating_point():
            limits = value_range(np.array(_changes_torch.extremes(images)))
        else:
            limits = (0.0, 255.0)
        return _changes_torch.apply(changes, images, limits)

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
        X_out = _spill.empty((len(X) + len(new), X.shape[1]), X.dtype, self.spill_dir)
        X_out[: len(X)] = X
        images = rows_to_images(X, self.image_shape_)
        copies = rows_to_images(X_out[len(X) :], self.image_shape_)
        self._apply(images, new, random_state, copies)
        self.sample_indices_ = np.concatenate([np.arange(len(X)), new])
        return X_out, np.concatenate([y, y[new]])

    def _apply(self, images, sources, random_state, out) -> None:
        """Write one changed version of ``images[sources[i]]`` to ``out[i]``, for every i."""
        changes = self._draw(len(sources), images.shape[1:], random_state)
        if len(sources):
            _changes.apply(changes, images, sources, value_range(images), out)

    def _draw(self, n, image_shape, random_state):
        """Return n changes; as many random numbers are drawn whichever the device."""
        *size, n_channels = image_shape
        if max(size) > _LONGEST_SIDE:
            raise ValueError(
                f"X holds images of {size[0]}x{size[1]} pixels, but no side may be longer than "
                f"{_LONGEST_SIDE}. If X holds rows of images that are not square, give "
                "image_shape=(height, width, channels)."
            )
        warps = self._draw_warps(n, size, random_state)
        colours = self._draw_colours(n, n_channels, random_state)
        stains = None
        if n_channels == 3 and self.stain:
            jitter = random_state.uniform(-self.stain, self.stain, size=(2, n, 3))
            stains = stain_matrices(1 + jitter[0], jitter[1])
        laboratories = None
        if self.laboratory:
            laboratories = _laboratory.draw(self.laboratory, n, image_shape, random_state)
        return _changes.Changes(stains, colours, warps, self.fill, laboratories)

    def _draw_warps(self, n, size, random_state):
        """Return inverse affine maps (n, 2, 3), from output to input pixels; None if all identity.

        About the image's centre: mirror, then scale, shear, rotate and shift.
        """
        uniform = random_state.uniform
        if self.rotation == "quarter":
            quarters = uniform(0, 4, n).astype(int) % 4
            cos, sin = np.array([1.0, 0, -1, 0])[quarters], np.array([0.0, 1, 0, -1])[quarters]
        else:
            angle = np.deg2rad(uniform(-self.rotation, self.rotation, n))
            cos, sin = np.cos(angle), np.sin(angle)
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
        forward[:, 0, 0] = cos
        forward[:, 0, 1] = cos * shear - sin
        forward[:, 1, 0] = sin
        forward[:, 1, 1] = sin * shear + cos
        forward *= (scale[:, None] * flip)[:, None, :]
        inverse = np.linalg.inv(forward)
        centre = (np.array([size[1], size[0]]) - 1) / 2
        offset = centre - np.einsum("nij,nj->ni", inverse, centre + shift)
        return np.concatenate([inverse, offset[:, :, None]], axis=2)

    def _draw_colours(self, n, n_channels, random_state):
        """Return the parts (linear maps (n, c, c), weights of the mean grey (n,)); None if nothing.

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
        if n_channels == 1:  # a grey pixel is one with three equal channels
            linear = linear.sum(axis=2)[:, :1, None]
        return linear, (1 - contrast) * brightness


def _spread(members: np.ndarray, n_copies: int, random_state: np.random.RandomState) -> np.ndarray:
    """Return `n_copies` of `members`, each as often as any other, give or take one."""
    rounds, rest = divmod(int(n_copies), len(members))
    return np.concatenate([np.tile(members, rounds), random_state.permutation(members)[:rest]])
