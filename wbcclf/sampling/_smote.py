"""SMOTE that takes image batches, rounds instead of wrapping around, and tells its sources."""

from __future__ import annotations

import warnings

import numpy as np
from imblearn import over_sampling
from sklearn.base import clone
from sklearn.utils import check_random_state

from wbcclf.exceptions import SmallClassWarning
from wbcclf.sampling._base import ImageSamplerMixin

# Interpolation needs float64 copies of the rows it works on; so many bytes of them at a time.
_BLOCK_BYTES = 32 * 2**20


class SMOTE(ImageSamplerMixin, over_sampling.SMOTE):
    """Over-sample image classes by interpolating between neighbouring images.

    Chawla et al. 2002, https://doi.org/10.1613/jair.953, as in imbalanced-learn, and for
    floating-point input with its result bit for bit. Three things differ:

    - integer images are interpolated in floating point and rounded, where imbalanced-learn's
      subtraction of unsigned bytes wraps around;
    - image batches are taken as well as rows;
    - a class with fewer than ``k_neighbors + 1`` images uses the neighbours it has.

    Parameters
    ----------
    sampling_strategy : float, str, dict or callable, default="auto"
        As in imbalanced-learn: ``"auto"`` brings every class up to the largest; a dict gives the
        target count per class.
    random_state : int, RandomState instance or None, default=None
    k_neighbors : int or object, default=5
        Number of nearest neighbours (Euclidean, of all pixel values) to interpolate with, or an
        object with ``kneighbors``.

    Attributes
    ----------
    sampling_strategy_ : dict
        New images per class.
    sample_indices_ : ndarray of shape (n_out,), int
        Input row of every output row; of a synthetic, its base row.
    sample_pairs_ : ndarray of shape (n_new, 2), int
        Base and neighbour row of every synthetic.
    nn_k_ : object
        The neighbour search.
    n_features_in_ : int
        Length of a row.

    Warns
    -----
    wbcclf.exceptions.SmallClassWarning
        When a class has fewer than ``k_neighbors + 1`` images.

    Raises
    ------
    ValueError
        When a class to over-sample has a single image, `X` holds NaN, or `y` one class only.

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

    def _fit_resample(self, X, y):
        self._validate_estimator()
        n_new = sum(self.sampling_strategy_.values())
        X_out = np.empty((len(X) + n_new, X.shape[1]), dtype=X.dtype)
        X_out[: len(X)] = X
        labels, pairs, start = [y], [np.empty((0, 2), dtype=np.intp)], len(X)
        for label, n_samples in self.sampling_strategy_.items():
            if n_samples == 0:
                continue
            members = np.flatnonzero(y == label)
            base, neighbour, steps = self._draw(X[members], label, n_samples)
            pairs.append(np.column_stack([members[base], members[neighbour]]))
            _interpolate(X, *pairs[-1].T, steps, out=X_out[start : start + n_samples])
            labels.append(np.full(n_samples, label, dtype=y.dtype))
            start += n_samples
        self.sample_pairs_ = np.vstack(pairs)
        self.sample_indices_ = np.concatenate([np.arange(len(X)), self.sample_pairs_[:, 0]])
        return X_out, np.hstack(labels)

    def _draw(self, X_class, label, n_samples):
        """Return base and neighbour (positions in the class) and step of every synthetic.

        The same draws, in the same order, as imbalanced-learn's ``_make_samples``.
        """
        neighbours = self._neighbours(X_class, label)
        random_state = check_random_state(self.random_state)
        cells = random_state.randint(low=0, high=neighbours.size, size=n_samples)
        steps = random_state.uniform(size=n_samples)
        base, column = np.divmod(cells, neighbours.shape[1])
        return base, neighbours[base, column], steps

    def _neighbours(self, X_class, label):
        """Return the positions of the nearest neighbours of every image of a class."""
        if isinstance(label, np.generic):  # named as the user wrote it, not as np.str_('ig')
            label = label.item()
        if len(X_class) == 1:
            raise ValueError(
                f"Class {label!r} has a single image, and SMOTE interpolates between two. Augment "
                "first: put an Augmenter before SMOTE in the Pipeline, or leave the class out "
                "through sampling_strategy."
            )
        if X_class.dtype.kind in "ui":
            # float32 holds every value up to 2**24, and scikit-learn sums float32 in float64.
            X_class = X_class.astype(np.float32)
        search = self.nn_k_
        wanted = getattr(search, "n_neighbors", 0)
        if wanted > len(X_class):
            warnings.warn(
                f"Class {label!r} has {len(X_class)} images: SMOTE interpolates between "
                f"{len(X_class) - 1} neighbours instead of {wanted - 1}, so synthetics will be "
                "near copies. An Augmenter before SMOTE gives it more to work with.",
                SmallClassWarning,
                stacklevel=2,
            )
            search = clone(search).set_params(n_neighbors=len(X_class))
        # The nearest of all is the image itself.
        return search.fit(X_class).kneighbors(X_class, return_distance=False)[:, 1:]


def _interpolate(X, base, neighbour, steps, out):
    """Write ``X[base] + steps * (X[neighbour] - X[base])`` to `out`, block by block.

    Floating input is computed in imbalanced-learn's own order of operations and precision (the
    difference in the input's, the rest in float64). Integers are subtracted in float64, where
    differences of bytes are exact, and rounded to nearest; since ``0 <= steps < 1`` the result lies
    between its two parents and cannot leave their range.
    """
    size = max(1, _BLOCK_BYTES // (8 * X.shape[1]))
    for start in range(0, len(out), size):
        block = slice(start, start + size)
        origin, target = X[base[block]], X[neighbour[block]]
        if X.dtype.kind in "ui":
            origin, target = origin.astype(np.float64), target.astype(np.float64)
        values = origin + steps[block, None] * (target - origin)
        out[block] = np.rint(values) if X.dtype.kind in "ui" else values
