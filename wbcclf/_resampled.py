"""The record that travels with a resampled batch: which rows are new, and what they came from.

A stock pipeline hands the classifier nothing but ``X`` and ``y``. To keep copies and synthetics of
a validation image out of training, the classifier must know where every row came from, so the
samplers return both as :class:`ResampledArray`: ordinary ndarrays that carry a :class:`Sources`.
The labels keep it where a transformer in between (a scaler) makes plain arrays of the images. A
slice or an arithmetic result drops the record *loudly*: the type stays, ``sources`` becomes None,
and the classifier refuses to split it. What cannot be seen from here is a sampler of
imbalanced-learn's own: it returns plain arrays for both; :class:`~wbcclf.ImageSampler` around it
keeps the record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Sources:
    """Where the rows of a batch came from.

    Attributes
    ----------
    rows : ndarray of shape (n_samples, n_sources), intp
        Row numbers, in the batch before the first sampler, of the original images that a row was
        made from. An original has its own number in every column.
    original : ndarray of shape (n_samples,), bool
        True where a row is an original image, unchanged.
    """

    rows: np.ndarray
    original: np.ndarray

    @classmethod
    def of_originals(cls, n_samples: int) -> Sources:
        """Return the record of a batch that no sampler has touched."""
        return cls(np.arange(n_samples)[:, None], np.ones(n_samples, dtype=bool))

    def after(self, sample_indices: np.ndarray, n_kept: int, pairs: np.ndarray | None) -> Sources:
        """Return the record of a sampler's output, given this one of its input.

        Parameters
        ----------
        sample_indices : ndarray of shape (n_out,)
            Input row of every output row.
        n_kept : int
            The first so many output rows are unchanged input rows, the rest are new.
        pairs : ndarray of shape (n_new, 2) or None
            Both parents of every new row, for samplers that interpolate.
        """
        kept, new = sample_indices[:n_kept], sample_indices[n_kept:]
        made_from = self.rows[new] if pairs is None else np.hstack([self.rows[p] for p in pairs.T])
        # Rows with fewer sources than the widest repeat theirs: membership tests do not care.
        width = made_from.shape[1] if len(made_from) else self.rows.shape[1]
        repeated = np.tile(self.rows[kept], (1, width // self.rows.shape[1]))
        return Sources(
            np.vstack([repeated, made_from.reshape(-1, width)]),
            np.concatenate([self.original[kept], np.zeros(len(new), dtype=bool)]),
        )

    def made_from_any(self, rows: np.ndarray) -> np.ndarray:
        """Return a mask of the rows that share a source with `rows` (positions in this batch)."""
        return np.isin(self.rows, self.rows[rows]).any(axis=1)


@dataclass(frozen=True, eq=False)
class _FrameRecord:
    """What a data frame carries: the record, or None, and the index that it holds for."""

    sources: Sources | None
    index: Any

    def __eq__(self, other: Any) -> bool:
        # pandas keeps attributes where those of all parts are equal. So they stay in what is put
        # together from resampled frames, whose new index then tells that the record is lost.
        return isinstance(other, _FrameRecord)

    __hash__ = None


class ResampledArray(np.ndarray):
    """An ndarray with the :class:`Sources` of its rows, or None where that record was lost."""

    sources: Sources | None
    # Above ndarray's own 0: np.concatenate of batches gives this type too, its record lost.
    __array_priority__ = 1.0

    def __array_finalize__(self, template: Any) -> None:
        self.sources = None

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        # What has no rows (a sum, a comparison's all()) is a number like any other.
        return array[()] if array.ndim == 0 else super().__array_wrap__(array, context)

    def __reduce__(self) -> tuple:
        # Through the plain array, so that joblib (Pipeline(memory=...), n_jobs) keeps the record.
        return with_sources, (np.asarray(self), self.sources)


class ResampledList(list):
    """A list with the :class:`Sources` of its items; slices of it have lost theirs."""

    sources: Sources | None = None

    def __getitem__(self, key):
        item = super().__getitem__(key)
        return ResampledList(item) if isinstance(key, slice) else item


def with_sources(X: Any, sources: Sources | None) -> Any:
    """Return `X` with `sources`: arrays and lists of a subclass, data frames with an attribute."""
    if hasattr(X, "iloc"):
        # Attributes outlive selections and sorting; the index tells whether they still hold.
        X.attrs["wbcclf_sources"] = _FrameRecord(sources, X.index)
        return X
    marked = ResampledList(X) if isinstance(X, list) else np.asarray(X).view(ResampledArray)
    marked.sources = sources
    return marked


def sources_of(X: Any, n_samples: int, y: Any = None) -> Sources | None:
    """Return the record that `X`, or the labels `y` beside it, carries.

    None where both were resampled and have lost it; all-original if neither ever was.
    """
    carriers = [array for array in (X, y) if _was_resampled(array)]
    if not carriers:
        return Sources.of_originals(n_samples)
    records = [record for record in map(_record, carriers) if record is not None]
    return next((record for record in records if len(record.original) == n_samples), None)


def _was_resampled(array: Any) -> bool:
    if hasattr(array, "iloc"):
        return "wbcclf_sources" in array.attrs
    return isinstance(array, ResampledArray | ResampledList)


def _record(array: Any) -> Sources | None:
    if hasattr(array, "iloc"):
        record = array.attrs["wbcclf_sources"]
        return record.sources if record.index.equals(array.index) else None
    return array.sources
