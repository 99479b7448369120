"""ImageLoader: paths or images in, image batch out."""

from __future__ import annotations

import os
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from wbcclf._images import Interval, _fit_context, check_image_size
from wbcclf._parameters import Each, Machine
from wbcclf._store import MEMORY_CONSTRAINT
from wbcclf.datasets._cropping import CROP_CONSTRAINT
from wbcclf.datasets._decode import MAX_PIXELS
from wbcclf.datasets._reading import check_reading, read_images, stretch_images
from wbcclf.decoding._paths_or_images import check_paths_or_images

__all__ = ["ImageLoader"]

_SIDE = Interval(Integral, 1, None, closed="left")


class ImageLoader(TransformerMixin, BaseEstimator):
    """Transform paths of image files, or images of any size, into an image batch.

    As the first step of a pipeline it lets cross-validation run on paths, so that only the images
    of one fold are in memory. It learns nothing: `transform` works without `fit`, and a model that
    was trained on paths predicts images in memory, too.

    Parameters
    ----------
    image_size : int, tuple of (height, width), or None, default=None
        Size in pixels that every image is stretched to, by averaging where it shrinks and
        bilinear interpolation where it grows. None keeps the images as they are; then all must
        have one size.
    crop : CellCropper or None, default=None
        Cuts every picture around its white cell, at the picture's own size, before it is made
        small. So pictures may differ in size, shape and magnification. The square gets the
        loader's `image_size`, which must then be one number; if it is None, the cropper's own.
        `n_jobs` and `spill_dir` of the cropper have no effect.
    n_jobs : int or None, default=None
        Threads; None or -1 means one per available core. The result does not depend on it.
    max_pixels : int, default=89478485
        Larger images count as broken; they are detected before they are decoded.
    memory : None, str, path, joblib.Memory or Cache, default=None
        Folder that keeps each decoded image for later runs, which use it as long as the file's
        path, size and times of change are the same. Of a joblib.Memory only the location is used. A
        `Cache` also sets how much room the folder may take; otherwise that is 20 GB.
    spill_dir : str, path or None, default=None
        An existing folder: the output is a memory-mapped file in it instead of in memory. See
        `load_image_folder`.
    verbose : int, default=0
        1 shows a progress bar on stderr.

    Warns
    -----
    UserWarning
        Of images in which `crop` finds no white cell; the message names their files.

    See Also
    --------
    load_image_folder : Loads a folder at once, with classes and groups.
    list_image_folder : Gives the paths, classes and groups of a folder.

    Notes
    -----
    Images in memory give the same pixels as the same images in files; grey ones become RGB. The
    exception is a JPEG file of at least four times `image_size` on both sides. Its decoder makes
    it smaller first, so the pixels differ, by less than a grey level on average. With `crop` it
    does not.

    A row cannot be left out in the middle of a pipeline, so broken files are always an error here.
    ``load_image_folder(..., on_error="skip").skipped`` lists them beforehand.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from wbcclf.datasets import ImageLoader
    >>> with tempfile.TemporaryDirectory() as root:
    ...     path = Path(root, "cell.png")
    ...     Image.new("RGB", (8, 6), "purple").save(path)
    ...     images = ImageLoader(image_size=4).fit_transform([path, path])
    >>> images.shape, images[0, 0, 0].tolist()
    ((2, 4, 4, 3), [128, 0, 128])
    """

    _parameter_constraints = {
        "image_size": [_SIDE, Each(_SIDE), None],
        "crop": CROP_CONSTRAINT,
        "n_jobs": Machine([Integral, None]),
        "max_pixels": [Interval(Integral, 1, None, closed="left")],
        "memory": Machine(MEMORY_CONSTRAINT),
        "spill_dir": Machine([str, os.PathLike, None]),
        "verbose": Machine(["verbose"]),
    }

    def __init__(
        self,
        image_size: int | tuple[int, int] | None = None,
        *,
        crop: Any = None,
        n_jobs: int | None = None,
        max_pixels: int = MAX_PIXELS,
        memory: Any = None,
        spill_dir: str | os.PathLike | None = None,
        verbose: int = 0,
    ) -> None:
        self.image_size = image_size
        self.crop = crop
        self.n_jobs = n_jobs
        self.max_pixels = max_pixels
        self.memory = memory
        self.spill_dir = spill_dir
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> ImageLoader:
        """Check parameters and the form of `X`; no file is opened.

        Parameters
        ----------
        X : array-like of shape (n_samples,) or (n_samples, 1), or images
            Paths (str or path objects); or an image batch (n_samples, height, width, 1 or 3), or a
            list of such images, which may differ in size, of uint8.
        y : None
            Ignored.

        Returns
        -------
        ImageLoader
            The estimator itself.

        Raises
        ------
        ValueError
            If a parameter is out of range or `X` has another shape.
        TypeError
            If `X` holds neither paths nor images of uint8.
        """
        self._check_parameters()
        check_paths_or_images(X)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Read the image files, or stretch the images.

        Parameters
        ----------
        X : array-like of shape (n_samples,) or (n_samples, 1), or images
            Paths (str or path objects); or an image batch (n_samples, height, width, 1 or 3), or a
            list of such images, which may differ in size, of uint8.

        Returns
        -------
        ndarray of shape (n_samples, height, width, 3), uint8
            RGB, 0-255, in the order of `X`.

        Raises
        ------
        ImageReadError
            If files cannot be read; all are tried first, then the broken ones are named.
        ValueError
            If a parameter is out of range, `X` has another shape, or the image sizes differ (or
            `X` is empty) and both `image_size` and `crop` are None.
        OSError
            If `spill_dir` has no room for the images.
        TypeError
            If `X` holds neither paths nor images of uint8.
        """
        self._validate_params()
        image_size = self._check_parameters()
        paths, images = check_paths_or_images(X)
        if images:
            return stretch_images(
                images,
                image_size,
                self.crop,
                n_jobs=self.n_jobs,
                verbose=self.verbose,
                spill_dir=self.spill_dir,
            )
        if not paths and image_size is None and self.crop is None:
            raise ValueError(
                "X holds no path, and without image_size the size of the images is not known. "
                "Give image_size=(height, width)."
            )
        return read_images(
            paths or [],
            image_size,
            crop=self.crop,
            n_jobs=self.n_jobs,
            max_pixels=self.max_pixels,
            memory=self.memory,
            spill_dir=self.spill_dir,
            verbose=self.verbose,
            advice="Leave them out of X: a step of a pipeline cannot drop rows.",
        ).images

    def _check_parameters(self) -> tuple[int, int] | None:
        image_size = check_image_size(self.image_size)
        check_reading(
            "raise",
            image_size,
            self.crop,
            self.n_jobs,
            self.max_pixels,
            self.memory,
            self.spill_dir,
        )
        return image_size

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.requires_fit = False
        return tags
