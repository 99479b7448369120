"""The record that travels with a resampled batch: which rows are new, and what they came from.

A stock pipeline hands the classifier nothing but ``X`` and ``y``. To keep copies and synthetics of
a validation image out of training, the classifier must know where every row came from, so the
samplers return both as :class:`ResampledArray`: ordinary ndarrays that carry a :class:`Record`.

The record is tied to content, not to places, because nobody can see ``X[:] = X[p]``. It knows a row
by a mark of its values, so rows that were moved, in place or not, are found again. Rows that were
changed (by a scaler, say) are known by the labels beside them, as long as these stand in their
order. Otherwise the record is lost, and the classifier refuses to split the batch.

Three things cannot be seen from here. Rows that were exchanged *and* changed, all of them, beside
labels that look the same, as they do within a class. ``np.array(X)`` beside ``np.array(y)``, which
carry nothing: of those, the classifier finds exact repetitions only. And a sampler of
imbalanced-learn's own, which returns plain arrays for both; :class:`~wbcclf.ImageSampler` around it
keeps the record.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

# A mark is made of so many values of a row, in blocks at fixed places. To hash whole images would
# take as long as to augment them. Two images that agree in all these values count as one for the
# record: more is left out of training, and nothing leaks.
_BLOCKS, _BLOCK_VALUES = 16, 8
_MULTIPLIERS = np.random.PCG64(0).random_raw(2 * _BLOCKS * _BLOCK_VALUES).reshape(-1, 2)


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
        return np.any(np.isin(self.rows, self.rows[rows]), axis=1)


def row_digests(X: Any) -> np.ndarray:
    """Return a digest of the bytes of every row, shape (n_samples,), 16 bytes each.

    BLAKE2b of 128 bits: that any two of a million different rows have the same one has a
    probability of 10**-27, and nobody knows how to make two that do.
    """
    return np.array([blake2b(row.ravel(), digest_size=16).digest() for row in X], dtype="S16")


def _marks(X: Any) -> np.ndarray:
    """Return 16 bytes for every row that tell some of its values from others.

    Of values, not of bytes: bytes that a list or a data frame turned into wider numbers are the
    same. Numbers of 32 bits times random ones of 64, summed modulo 2**64, are equal for two
    different rows with a probability of at most 2**-33 (the difference of the sums is a random
    number times one that is divisible by 2**31 at most); two such sums, 2**-66. It is done by NumPy
    for all rows at once.
    """
    X = np.asarray(X)
    n_values = int(np.prod(X.shape[1:]))
    places = np.arange(n_values)
    if n_values > len(_MULTIPLIERS):
        starts = np.random.RandomState(0).randint(n_values - _BLOCK_VALUES + 1, size=_BLOCKS)
        places = (starts[:, None] + np.arange(_BLOCK_VALUES)).ravel()
    # Indexed, so that a batch whose rows do not lie in one piece is not copied.
    some = X[:, *np.unravel_index(places, X.shape[1:])]
    try:
        with np.errstate(over="ignore"):
            numbers = some.astype(np.float32).view(np.uint32).astype(np.uint64)
    except (TypeError, ValueError):  # words or dates, which some samplers take
        return row_digests(np.frombuffer(repr(row.tolist()).encode(), np.uint8) for row in some)
    return (numbers @ _MULTIPLIERS[: len(places)]).view("S16").ravel()


def _label_mark(y: Any) -> bytes:
    """Return a digest of labels in their order."""
    return blake2b(repr(np.asarray(y).tolist()).encode(), digest_size=16).digest()


@dataclass(frozen=True, eq=False)
class Record:
    """What a batch and its labels carry: the sources of the rows, tied to what they held.

    Attributes
    ----------
    sources : Sources
        Of the rows as the sampler returned them.
    marks : ndarray of shape (n_samples,), bytes
        What these rows are known by.
    labels : bytes
        What the labels are known by, in their order.
    """

    sources: Sources
    marks: np.ndarray
    labels: bytes

    def __eq__(self, other: Any) -> bool:
        # pandas keeps attributes where those of all parts are equal. So they stay in what is put
        # together from resampled frames, whose rows then tell whether the record holds.
        return isinstance(other, Record | None)

    def __deepcopy__(self, memo: dict) -> Record:
        return self  # pandas copies attributes with every step

    def of_rows(self, marks: np.ndarray) -> Sources | None:
        """Return the sources of rows by their marks, or None if one is not in the record.

        Rows that have one mark cannot be told apart once they were moved. Each has the sources of
        all of them, and is an original if all of them are.
        """
        known, kind = np.unique(self.marks, return_inverse=True)
        wanted = np.searchsorted(known, marks).clip(max=len(known) - 1)
        if not len(marks) or (known[wanted] != marks).any():
            return None
        n_sources = self.sources.rows.max() + 1
        pairs = np.unique(kind[:, None] * n_sources + self.sources.rows)
        kind_of_pair, source = np.divmod(pairs, n_sources)
        first = np.searchsorted(kind_of_pair, wanted)
        last = np.searchsorted(kind_of_pair, wanted, side="right") - 1
        width = (last - first).max() + 1
        rows = source[np.minimum(first[:, None] + np.arange(width), last[:, None])]
        if np.array_equal(marks, self.marks):
            return Sources(rows, self.sources.original)
        has_copy = np.zeros(len(known), dtype=bool)
        has_copy[kind[~self.sources.original]] = True
        return Sources(rows, ~has_copy[wanted])

    def of_places(self, marks: np.ndarray, y: Any) -> Sources | None:
        """Return the sources of rows that were changed, if none of them has visibly been moved."""
        if _label_mark(y) != self.labels:
            return None
        has_moved = np.isin(marks[marks != self.marks], self.marks).any()
        return None if has_moved else self.sources


class ResampledArray(np.ndarray):
    """An ndarray with the :class:`Record` of the batch it came from, or None if there is none.

    Slices and results of arithmetic carry it, too: their rows tell whether it holds for them.
    """

    record: Record | None
    # Above ndarray's own 0: np.concatenate of batches gives this type too, without a record.
    __array_priority__ = 1.0

    def __array_finalize__(self, template: Any) -> None:
        self.record = getattr(template, "record", None)

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        # What has no rows (a sum, a comparison's all()) is a number like any other.
        return array[()] if array.ndim == 0 else super().__array_wrap__(array, context)

    def __reduce__(self) -> tuple:
        # Through the plain array, so that joblib (Pipeline(memory=...), n_jobs) keeps the record.
        return _carrying, (np.asarray(self), self.record)


class ResampledList(list):
    """A list with the :class:`Record` of the batch it came from, as :class:`ResampledArray`."""

    record: Record | None = None

    def __getitem__(self, key):
        item = super().__getitem__(key)
        return _carrying(item, self.record) if isinstance(key, slice) else item

    def __add__(self, other):
        return _carrying(super().__add__(other), self.record)

    def copy(self):
        """Return a list of the same items and record."""
        return self[:]


def with_sources(X: Any, y: Any, sources: Sources | None) -> tuple[Any, Any]:
    """Return a resampled batch and its labels with the record of `sources`; None is a lost one."""
    record = None if sources is None else Record(sources, _marks(X), _label_mark(y))
    return _carrying(X, record), _carrying(y, record)


def _carrying(X: Any, record: Record | None) -> Any:
    """Return `X` with `record`: arrays and lists of a subclass, data frames with an attribute."""
    if hasattr(X, "iloc"):
        X.attrs["wbcclf_record"] = record
        return X
    marked = ResampledList(X) if isinstance(X, list) else np.asarray(X).view(ResampledArray)
    marked.record = record
    return marked


def sources_of(X: Any, images: np.ndarray, y: Any = None) -> Sources | None:
    """Return where the rows of `X` came from, by the record that it or the labels `y` carry.

    Parameters
    ----------
    X, y : array-like
        As they were handed over.
    images : ndarray of shape (n_samples, ...)
        The numbers in `X`, as rows or images.

    Returns
    -------
    Sources or None
        None where both were resampled and no record holds; all-original if neither ever was.
    """
    carriers = [array for array in (X, y) if _was_resampled(array)]
    if not carriers:
        return Sources.of_originals(len(images))
    marks = _marks(images)
    for record in map(_record, carriers):
        if record is not None and (sources := record.of_rows(marks)) is not None:
            return sources
    record = _record(y) if _was_resampled(y) else None
    return None if record is None else record.of_places(marks, y)


def have_common_sources(X: Any, images: np.ndarray, X_val: Any, val: np.ndarray) -> np.ndarray:
    """Return which rows of `X_val` share a source with a row of `X`, as far as records tell.

    Parameters
    ----------
    X, X_val : array-like
        As they were handed over. Only parts of one resampled batch can be compared.
    images, val : ndarray of shape (n_samples, ...)
        The numbers in them.
    """
    record = _record(X) if _was_resampled(X) else None
    nothing = np.zeros(len(val), dtype=bool)
    if record is None or not _was_resampled(X_val) or _record(X_val) is not record:
        return nothing
    trained, validated = record.of_rows(_marks(images)), record.of_rows(_marks(val))
    if trained is None or validated is None:
        return nothing
    return np.any(np.isin(validated.rows, trained.rows), axis=1)


def _was_resampled(array: Any) -> bool:
    if hasattr(array, "iloc"):
        return "wbcclf_record" in array.attrs
    return isinstance(array, ResampledArray | ResampledList)


def _record(array: Any) -> Record | None:
    return array.attrs["wbcclf_record"] if hasattr(array, "iloc") else array.record
