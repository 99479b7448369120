"""What all samplers of the package have in common."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral

import numpy as np
from imblearn.utils import check_sampling_strategy, check_target_type
from imblearn.utils._validation import ArraysTransformer
from scipy.sparse import issparse
from sklearn.preprocessing import label_binarize
from sklearn.utils.multiclass import check_classification_targets

from wbcclf._images import (
    _fit_context,
    as_images,
    images_to_rows,
    infer_image_shape,
    numpy_columns,
    rounded_columns,
    rows_to_images,
    validate_data,
)
from wbcclf._resampled import sources_of, with_sources


class ImageSamplerMixin:
    """Take image batches as well as rows, append new images, and record what they came from.

    A class with this mixin before an imbalanced-learn sampler has ``_fit_resample(rows, y)``, which
    returns the output rows (the input first) and labels, and sets ``sample_indices_`` and, if it
    interpolates, ``sample_pairs_``.
    """

    image_shape: tuple[int, ...] | None = None
    sampling_strategy: object
    sample_indices_: np.ndarray
    _sampling_type: str
    _fit_resample: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y):
        """Check the input and work out how many images each class would get.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width, channels) or (n_samples, n_features)
        y : array-like of shape (n_samples,)

        Returns
        -------
        self
        """
        self._check(X, y)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def fit_resample(self, X, y):
        """Append new images.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width, channels) or (n_samples, n_features)
            Image batch or rows.
        y : array-like of shape (n_samples,)
            Labels.

        Returns
        -------
        X_resampled : of the type, dtype and number of axes of X
            The input, unchanged and in order, then the new images.
        y_resampled : of the type and dtype of y
        """
        images, rows, labels, binarize = self._check(X, y)
        X_out, y_out = self._fit_resample(rows, labels)
        if images is not None:
            X_out = rows_to_images(X_out, self.image_shape_)
        elif issparse(X):
            X_out = X.__class__(X_out)
        elif hasattr(X, "columns"):
            X_out = rounded_columns(X_out, X)
        if binarize:
            y_out = label_binarize(y_out, classes=np.unique(labels))
        X_out, y_out = ArraysTransformer(X, y).transform(X_out, y_out)
        if not issparse(X_out):  # a sparse matrix cannot carry the record
            sources = sources_of(X, rows, y)
            if sources is not None:
                pairs = getattr(self, "sample_pairs_", None)
                sources = sources.after(self.sample_indices_, len(rows), pairs)
            X_out, y_out = with_sources(X_out, y_out, sources)
        return X_out, y_out

    def _check(self, X, y):
        check_classification_targets(y)
        images = as_images(X)
        labels, binarize = check_target_type(y, indicate_one_vs_all=True)
        rows, labels = validate_data(
            self,
            numpy_columns(X) if images is None else images_to_rows(images),
            labels,
            reset=True,
            accept_sparse="csr",
        )
        if issparse(rows):  # rows of pixels are never really sparse
            rows = rows.toarray()
        dtypes = X.dtypes if hasattr(X, "iloc") else [rows.dtype]
        if any(dtype.kind == "b" for dtype in dtypes):
            raise ValueError("X must hold numbers (uint8, 0-255), got dtype bool.")
        if images is not None:
            self.image_shape_ = images.shape[1:]
        else:
            if self.image_shape is None:
                self.image_shape_ = infer_image_shape(rows.shape[1])
            else:
                self.image_shape_ = tuple(self.image_shape)
        self.sampling_strategy_ = self._strategy(labels)
        return images, rows, labels, binarize

    def _strategy(self, y):
        """Return the number of new images of each class."""
        strategy = check_sampling_strategy(self.sampling_strategy, y, self._sampling_type)
        if not all(isinstance(n_images, Integral) for n_images in strategy.values()):
            raise ValueError(
                "sampling_strategy must give the number of images of a class as an int, got "
                f"{self.sampling_strategy!r}."
            )
        return strategy

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()  # type: ignore[misc]  # the sampler's after this mixin
        tags.sampler_tags.sample_indices = True
        return tags
