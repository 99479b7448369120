"""SMOTE that takes image batches, rounds instead of wrapping around, and records its sources."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from numbers import Integral

import joblib
import numpy as np
from imblearn import over_sampling
from sklearn.base import clone
from sklearn.utils import check_random_state

from wbcclf import _spill
from wbcclf._images import integer_limits
from wbcclf._warnings import warn
from wbcclf.exceptions import SmallClassWarning
from wbcclf.sampling._base import ImageSamplerMixin

# Interpolation needs float64 copies of the values it works on: so many at a time and thread, which
# stay in a core's cache (1 MB).
_BLOCK_VALUES = 2**17


class SMOTE(ImageSamplerMixin, over_sampling.SMOTE):
    """Over-sample image classes by interpolating between neighbouring images.

    Chawla et al. 2002, https://doi.org/10.1613/jair.953, as in imbalanced-learn, and for
    floating-point input with its result bit for bit. Three things differ:

    - integer images are interpolated in floating point and rounded, where imbalanced-learn's
      subtraction of unsigned bytes wraps around;
    - image batches are accepted as well as rows;
    - a class with fewer than ``k_neighbors + 1`` images uses the neighbours it has.

    The neighbours of ``uint8`` images are found without floating-point copies of them, exactly
    (of equally near ones, the first in the batch), and on a CUDA device where there is one, with
    the same result. The time of that search grows with the square of the class size; everything
    else is linear.

    New images make the classifier's epochs longer; its `max_steps` gives equal budgets.

    Parameters
    ----------
    sampling_strategy : float, str, dict or callable, default="auto"
        As in imbalanced-learn: ``"auto"`` brings every class up to the largest; a dict gives the
        target count per class.
    random_state : int, RandomState instance or None, default=None
    k_neighbors : int or object, default=5
        Number of nearest neighbours (Euclidean, of all pixel values) to interpolate with, or an
        object with ``kneighbors``.
    spill_dir : str, path or None, default=None
        An existing folder: the output is a memory-mapped file in it instead of in memory. The file
        is removed when the output is.

    Attributes
    ----------
    sampling_strategy_ : dict
        New images per class.
    sample_indices_ : ndarray of shape (n_out,), int
        Input row of every output row; of a synthetic, its base row.
    sample_pairs_ : ndarray of shape (n_new, 2), int
        Base and neighbour row of every synthetic.
    nn_k_ : object
        The neighbour search, unfitted: it would hold the images.
    n_features_in_ : int
        Length of a row.

    Warns
    -----
    wbcclf.exceptions.SmallClassWarning
        When a class has fewer than ``k_neighbors + 1`` images.

    Raises
    ------
    ValueError
        When a class to over-sample has a single image, `X` holds NaN, `y` one class only, or
        `spill_dir` is no folder.
    OSError
        When `spill_dir` has no room for the output.

    Examples
    --------
    >>> import numpy as np
    >>> from wbcclf import SMOTE, make_blood_cells
    >>> counts = {"neutrophil": 30, "lymphocyte": 12}
    >>> cells = make_blood_cells(classes=list(counts), imbalance=counts, random_state=0)
    >>> images, target = SMOTE(random_state=0).fit_resample(cells.images, cells.target)
    >>> images.shape, images.dtype
    ((60, 64, 64, 3), dtype('uint8'))
    >>> np.unique(target, return_counts=True)[1]
    array([30, 30])
    """

    _parameter_constraints: dict = {
        **over_sampling.SMOTE._parameter_constraints,
        "spill_dir": [str, os.PathLike, None],
    }

    def __init__(
        self, *, sampling_strategy="auto", random_state=None, k_neighbors=5, spill_dir=None
    ):
        super().__init__(
            sampling_strategy=sampling_strategy, random_state=random_state, k_neighbors=k_neighbors
        )
        self.spill_dir = spill_dir

    def _fit_resample(self, X, y):
        self._validate_estimator()
        pairs, steps, labels = [np.empty((0, 2), dtype=np.intp)], [], [y]
        for label, n_samples in self.sampling_strategy_.items():
            if n_samples == 0:
                continue
            members = np.flatnonzero(y == label)
            base, neighbour, step = self._draw(X, members, label, n_samples)
            pairs.append(np.column_stack([members[base], members[neighbour]]))
            steps.append(step)
            labels.append(np.full(n_samples, label, dtype=y.dtype))
        self.sample_pairs_ = np.vstack(pairs)
        self.sample_indices_ = np.concatenate([np.arange(len(X)), self.sample_pairs_[:, 0]])
        X_out = _spill.empty((len(self.sample_indices_), X.shape[1]), X.dtype, self.spill_dir)
        X_out[: len(X)] = X
        if steps:
            base, neighbour = self.sample_pairs_.T
            _interpolate(X, base, neighbour, np.concatenate(steps), out=X_out[len(X) :])
        return X_out, np.hstack(labels)

    def _draw(self, X, members, label, n_samples):
        """Return base and neighbour (positions in the class) and step of every synthetic.

        The same draws, in the same order, as imbalanced-learn's ``_make_samples``.
        """
        neighbours = self._neighbours(X, members, label)
        random_state = check_random_state(self.random_state)
        cells = random_state.randint(low=0, high=neighbours.size, size=n_samples)
        steps = random_state.uniform(size=n_samples)
        base, column = np.divmod(cells, neighbours.shape[1])
        return base, neighbours[base, column], steps

    def _neighbours(self, X, members, label):
        """Return, for every image of a class, the positions of its nearest neighbours there."""
        if isinstance(label, np.generic):  # named as the user wrote it, not as np.str_('ig')
            label = label.item()
        n_members = len(members)
        if n_members == 1:
            raise ValueError(
                f"Class {label!r} has a single image, and SMOTE interpolates between two. Augment "
                "first: put an Augmenter before SMOTE in the Pipeline, or leave the class out "
                "through sampling_strategy."
            )
        wanted = getattr(self.nn_k_, "n_neighbors", 0)  # and the image itself among them
        if wanted > n_members:
            warn(
                f"Class {label!r} has {n_members} images: SMOTE interpolates between "
                f"{n_members - 1} neighbours instead of {wanted - 1}, so synthetics will be "
                "near copies. An Augmenter before SMOTE gives it more to work with.",
                SmallClassWarning,
            )
        n_neighbors = min(wanted, n_members)
        if X.dtype == np.uint8 and isinstance(self.k_neighbors, Integral):
            # Imported here, because it imports torch.
            from wbcclf.sampling._neighbours import nearest_neighbours

            return nearest_neighbours(X, n_neighbors - 1, members)
        # float32 holds every integer up to 2**24, and scikit-learn sums float32 in float64.
        X_class = X[members].astype(np.float32 if X.dtype.kind in "ui" else X.dtype, copy=False)
        search = clone(self.nn_k_)
        if wanted > n_members:
            search.set_params(n_neighbors=n_neighbors)
        # The nearest of all is the image itself.
        return search.fit(X_class).kneighbors(X_class, return_distance=False)[:, 1:]


def _interpolate(X, base, neighbour, steps, out):
    """Write ``X[base] + steps * (X[neighbour] - X[base])`` to `out`, block by block, in threads.

    Floating input is computed in imbalanced-learn's own order of operations and precision (the
    difference in the input's, the rest in float64). Differences of integers are exact in float64
    up to 2**53 (those of bytes in int16 already), and the result is rounded to nearest: what
    rounding imbalanced-learn's float64 result gives. Since ``0 <= steps < 1`` it lies between its
    two parents; only beyond 2**53 can rounding leave the range of the dtype.
    """
    size = max(1, _BLOCK_VALUES // X.shape[1])
    exact = {"u": np.int16 if X.dtype == np.uint8 else np.float64, "i": np.float64}

    def work(start):
        block = slice(start, start + size)
        origin = X[base[block]]
        step = np.subtract(X[neighbour[block]], origin, dtype=exact.get(X.dtype.kind))
        values = steps[block, None] * step
        values += origin
        if X.dtype.kind in "ui":
            np.rint(values, out=values)
        if X.dtype.kind in "ui" and X.dtype.itemsize == 8:
            np.clip(values, *integer_limits(X.dtype), out=values)
        out[block] = values

    # NumPy releases the interpreter lock.
    with ThreadPoolExecutor(joblib.cpu_count()) as pool:
        list(pool.map(work, range(0, len(out), size)))
