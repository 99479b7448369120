"""Any imbalanced-learn sampler on image batches."""

from __future__ import annotations

import numpy as np
from imblearn.over_sampling import RandomOverSampler
from imblearn.under_sampling import RandomUnderSampler
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, clone
from sklearn.utils import _safe_indexing, get_tags
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing

from wbcclf._images import (
    HasMethods,
    _fit_context,
    as_images,
    images_to_rows,
    integer_limits,
    numpy_columns,
    rounded_columns,
    rows_to_images,
)
from wbcclf._resampled import Sources, sources_of, with_sources


class ImageSampler(BaseEstimator):
    """Run any imbalanced-learn sampler on image batches, rounding instead of wrapping around.

    The sampler gets integer images as floating-point rows, so that its differences cannot wrap
    around: float32, or float64 for integers of 32 and 64 bits (exact up to 2**53). Its output is
    rounded to the dtype of the input. If the sampler only leaves rows out, the output holds the
    input rows themselves. Random over- and under-sampling compute nothing, so they get integers
    as they are, without a larger copy.

    Parameters
    ----------
    sampler : imbalanced-learn sampler
        It is cloned, not changed. Search its parameters as ``sampler__<name>``.

    Attributes
    ----------
    sampler_ : imbalanced-learn sampler
        The fitted clone; the estimators in it are unfitted, since they would hold images.
    sample_indices_ : ndarray of int
        Input row of every output row; only if the sampler records it.
    sample_pairs_ : ndarray of shape (n_new, 2), int
        Both parents of every new row; only if the sampler records them.

    Notes
    -----
    A classifier with ``early_stopping=True`` can keep copies of validation images out of training
    only if the sampler records the source of its rows (``sample_indices_``), as random over- and
    under-sampling do. ADASYN and other interpolating samplers do not: pass `X_val` and `y_val` to
    the classifier, or use :class:`SMOTE`.

    Examples
    --------
    >>> from imblearn.over_sampling import RandomOverSampler
    >>> from wbcclf import ImageSampler, make_blood_cells
    >>> counts = {"neutrophil": 30, "lymphocyte": 12}
    >>> cells = make_blood_cells(classes=list(counts), imbalance=counts, random_state=0)
    >>> sampler = ImageSampler(RandomOverSampler(random_state=0))
    >>> sampler.fit_resample(cells.images, cells.target)[0].shape
    (60, 64, 64, 3)
    """

    _parameter_constraints: dict = {"sampler": [HasMethods("fit_resample")]}
    _estimator_type = "sampler"

    def __init__(self, sampler):
        self.sampler = sampler

    def get_metadata_routing(self):
        """Return what the sampler takes besides images and labels, in scikit-learn's routing."""
        methods = MethodMapping()
        for method in ("fit", "fit_resample"):
            methods.add(caller=method, callee=method)
        return MetadataRouter(owner=self).add(sampler=self.sampler, method_mapping=methods)

    def fit(self, X, y, **params):
        """Check the input; resampling is done by :meth:`fit_resample` alone."""
        routed = process_routing(self, "fit", **params)
        images = as_images(X)
        rows = numpy_columns(X) if images is None else images_to_rows(images)
        self.sampler_ = clone(self.sampler).fit(rows, y, **routed.sampler.fit)
        return self

    @_fit_context(prefer_skip_nested_validation=False)
    def fit_resample(self, X, y, **params):
        """Resample.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width, channels) or (n_samples, n_features)
        y : array-like of shape (n_samples,)
        **params
            Metadata that the sampler requests (``set_fit_resample_request``).

        Returns
        -------
        X_resampled : ndarray of the dtype and number of axes of X
        y_resampled : ndarray
        """
        routed = process_routing(self, "fit_resample", **params)
        images = as_images(X)
        rows = numpy_columns(X) if images is None else images_to_rows(images)
        dtype = None if _only_picks(self.sampler) else _integer_dtype(rows)
        self.sampler_ = clone(self.sampler)
        rows_in = rows
        if dtype is not None:
            rows_in = rows.astype(np.float32 if dtype.itemsize <= 2 else np.float64)
        X_out, y_out = self.sampler_.fit_resample(rows_in, y, **routed.sampler.fit_resample)
        _forget_images(self.sampler_)
        if dtype is not None and _leaves_out(self.sampler_):
            X_out = _safe_indexing(rows, self.sampler_.sample_indices_)
        elif dtype is not None:
            X_out = _rounded(X_out, dtype)
        if images is not None:
            X_out = rows_to_images(X_out, images.shape[1:])
        elif rows is not X:
            X_out[:] = rounded_columns(X_out.to_numpy(), X)
            X_out = X_out.astype(X.dtypes)
        for name in ("sampling_strategy_", "sample_indices_", "sample_pairs_"):
            self.__dict__.pop(name, None)  # of an earlier call with another sampler
            if hasattr(self.sampler_, name):
                setattr(self, name, getattr(self.sampler_, name))
        if not issparse(X_out):
            X_out, y_out = with_sources(X_out, y_out, self._sources(sources_of(X, rows, y)))
        return X_out, y_out

    def _sources(self, sources: Sources | None) -> Sources | None:
        """Return the record of the output: a row's first appearance is kept, the others are new."""
        indices = getattr(self, "sample_indices_", None)
        if sources is None or indices is None:
            return None
        first = np.unique(indices, return_index=True)[1]
        n_kept = len(first)
        if first.max(initial=-1) >= n_kept:  # new rows among the kept ones: not appended
            return None
        return sources.after(indices, n_kept, getattr(self, "sample_pairs_", None))

    def set_params(self, **params):
        """Set parameters; ``sampling_strategy``, which ensembles set, is that of `sampler`.

        Parameters
        ----------
        **params : dict

        Returns
        -------
        self
        """
        if "sampling_strategy" in params:
            params["sampler__sampling_strategy"] = params.pop("sampling_strategy")
        return super().set_params(**params)

    @property
    def _sampling_type(self):
        # Read by imbalanced-learn's ensembles. Of what has no strategy (a pipeline of samplers, a
        # function), they set none.
        return getattr(self.sampler, "_sampling_type", "bypass")

    def get_feature_names_out(self, input_features=None):
        """Return the feature names of the rows."""
        return self.sampler_.get_feature_names_out(input_features)

    @property
    def n_features_in_(self):
        """Length of a row."""
        return self.sampler_.n_features_in_

    def __sklearn_tags__(self):
        return get_tags(self.sampler)


def _only_picks(sampler) -> bool:
    """Return whether a sampler returns rows as they are, without computing with them."""
    if isinstance(sampler, RandomOverSampler):
        return sampler.shrinkage is None
    return isinstance(sampler, RandomUnderSampler)


def _leaves_out(fitted) -> bool:
    """Return whether a sampler has only removed rows."""
    kind = getattr(fitted, "_sampling_type", None)
    return kind in ("under-sampling", "clean-sampling") and hasattr(fitted, "sample_indices_")


def _forget_images(sampler) -> None:
    """Replace the fitted estimators in a sampler, and in samplers within it, by unfitted clones.

    Neighbour searches, support vectors and cluster centres are images, which a pickled pipeline
    would drag along.
    """
    for name, value in list(vars(sampler).items()):
        setattr(sampler, name, _unfitted(value))


def _unfitted(value):
    if type(value) in (list, tuple):  # as the steps of a pipeline are
        return type(value)(map(_unfitted, value))
    if not isinstance(value, BaseEstimator):
        return value
    if not hasattr(value, "fit_resample"):
        return clone(value)
    _forget_images(value)
    return value


def _integer_dtype(rows) -> np.dtype | None:
    """Return the dtype of an array, sparse matrix or whole data frame of integers, else None.

    Booleans are integers here: they are rounded as well.
    """
    dtypes = set(rows.dtypes) if hasattr(rows, "dtypes") else {getattr(rows, "dtype", None)}
    dtype = dtypes.pop() if len(dtypes) == 1 else None
    return dtype if isinstance(dtype, np.dtype) and dtype.kind in "uib" else None


def _rounded(X, dtype: np.dtype):
    limits = (0, 1) if dtype.kind == "b" else integer_limits(dtype)
    if issparse(X):
        X.data = np.rint(X.data).clip(*limits)
        return X.astype(dtype)
    if isinstance(X, np.ndarray):  # the sampler's own, or the copy made for it: rounded in place
        np.clip(np.rint(X, out=X), *limits, out=X)
        return X.astype(dtype)
    return np.rint(X).clip(*limits).astype(dtype)
