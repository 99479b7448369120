"""Groups drawn again and again, as confusion matrices, and the intervals that they give."""

from __future__ import annotations

import numpy as np
from scipy import stats
from sklearn.utils import check_random_state

from wbcclf.model_selection.intervals._scores import LOWEST, SCORES


def strata_of(shows: np.ndarray) -> np.ndarray:
    """Return the stratum of each group: the rarest class that it shows.

    A class that groups show beside a rarer one alone has no stratum.

    Parameters
    ----------
    shows : ndarray of shape (n_groups, n_classes), bool
    """
    n_groups = shows.sum(axis=0)
    return np.where(shows, n_groups, len(shows) + 1).argmin(axis=1)


class Resamples:
    """Confusion matrices of groups that were drawn with replacement.

    Parameters
    ----------
    matrices : ndarray of shape (n_groups, n_classes, n_classes), int
        Images of each group: true classes in rows, predicted ones in columns. No group is empty.
    n_resamples : int
    random_state : int, RandomState or None
    equal : bool, default=False
        Whether each group counts the same, not each image.

    Attributes
    ----------
    total : ndarray of shape (n_classes, n_classes)
        The sum of all groups; int if each image counts the same.
    drawn : ndarray of shape (n_resamples, n_classes, n_classes)
        The sum of the groups of each resample. A single class has a second one beside it, for what
        is wrong.

    Notes
    -----
    :func:`group_bootstrap` says what is drawn and why.
    """

    def __init__(
        self,
        matrices: np.ndarray,
        n_resamples: int,
        random_state: int | np.random.RandomState | None,
        *,
        equal: bool = False,
    ) -> None:
        n_images = matrices.sum(axis=(1, 2))
        weights = 1 / n_images if equal else np.ones(len(matrices), dtype=int)
        self._n_classes = matrices.shape[-1]
        if self._n_classes == 1:
            matrices = np.pad(matrices, ((0, 0), (0, 1), (0, 1)))
        sizes = (weights * n_images).astype(float)
        self._degrees_of_freedom = (sizes**2).sum() ** 2 / (sizes**4).sum()
        weighted = matrices * weights[:, None, None] if equal else matrices
        heights = pseudo_heights(matrices, weights)
        self._is_true = heights > 0
        self._weighted_sum = weighted.sum(axis=0)
        self.total = self._weighted_sum[: self._n_classes, : self._n_classes]
        self._smoothed = self._weighted_sum + _masses(len(heights)) * heights[:, None]
        random = check_random_state(random_state)
        self.drawn = _draw(weighted, heights, n_resamples, random)

    def score(self, name: str) -> np.ndarray:
        """Return a score of all groups: a number, or one for each class."""
        return self._cut(SCORES[name](self._weighted_sum, self._is_true))

    def interval(self, name: str, confidence_level: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the lower and the upper limit of a score.

        NaN where nothing can be said: for a class that is never true, and of a single class for all
        that needs a second one.
        """
        lowest = LOWEST.get(name, 0.0)
        value, smoothed, resampled = (
            (SCORES[name](confusion, self._is_true) - lowest) / (1 - lowest)
            for confusion in (self._weighted_sum, self._smoothed, self.drawn)
        )
        with np.errstate(divide="ignore", invalid="ignore"):  # where nothing can be said
            variance = resampled.var(axis=0)
            n = np.where(variance > 0, smoothed * (1 - smoothed) / variance, np.nan)
            limits = wilson(value, n, self._degrees_of_freedom, confidence_level)
        if limits.ndim > 1:
            limits[:, ~self._is_true] = np.nan
        low, high = limits * (1 - lowest) + lowest
        return self._cut(low), self._cut(high)

    def _cut(self, figures: np.ndarray) -> np.ndarray:
        """Leave out the class that was added."""
        return figures[..., : self._n_classes] if figures.ndim else figures


def wilson(
    share: np.ndarray, n: np.ndarray, degrees_of_freedom: float, confidence_level: float
) -> np.ndarray:
    """Return Wilson's limits (2, ...) of shares of `n` independent observations each.

    Student's quantile stands in place of the normal one.
    """
    z2 = stats.t.isf((1 - confidence_level) / 2, degrees_of_freedom) ** 2 / n
    half = np.sqrt(z2 * share * (1 - share) + (z2 / 2) ** 2)
    low, high = ((share + z2 / 2 + sign * half) / (1 + z2) for sign in (-1, 1))
    # Rounding: where all is right or wrong, one limit is the share itself.
    return np.stack([np.clip(low, 0, share), np.clip(high, share, 1)])


def correlation(images: np.ndarray, right: np.ndarray) -> float:
    """Return how much images of one group and class are right or wrong together, from 0 to 1.

    Parameters
    ----------
    images, right : ndarray of shape (n_groups, n_classes), int
        Images of each group and class, and how many of them are called rightly.

    Notes
    -----
    The moment estimator of the intraclass correlation, one for all classes. It begins with one
    group that is all wrong or all right, so that it is 1 where no error is seen.
    """
    shares = right.sum(axis=0) / np.maximum(images.sum(axis=0), 1)
    n_groups = (images > 0).sum(axis=0)
    bessel = n_groups / np.maximum(n_groups - 1, 1)
    variances = shares * (1 - shares)
    together = ((right - shares * images) ** 2).sum(axis=0) * bessel - variances * images.sum(
        axis=0
    )
    pairs = (images * (images - 1)).sum(axis=0)
    several = n_groups > 1
    first = pairs.sum() / n_groups.sum() / 4
    if first == 0:
        return 1.0  # no group has two images
    possible = (variances * pairs)[several].sum() + first
    return float(np.clip((together[several].sum() + first) / possible, 0, 1))


def pseudo_heights(matrices: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the images of each class's pseudo-group: as many as count for one independent image.

    0 for a class that is never true.
    """
    images, right = matrices.sum(axis=2), np.diagonal(matrices, axis1=1, axis2=2)
    together = 1 + (images - 1) * correlation(images, right)
    sums = (weights[:, None] * images).sum(axis=0)
    squares = (weights[:, None] ** 2 * images * together).sum(axis=0)
    return np.divide(squares, sums, out=np.zeros(len(sums)), where=sums > 0)


def _masses(n_classes: int) -> np.ndarray:
    """Return how many of a class's pseudo-groups (rows) are called each class: half are right."""
    masses = np.full((n_classes, n_classes), 0.5 / (n_classes - 1))
    np.fill_diagonal(masses, 0.5)
    return masses


def _draw(
    matrices: np.ndarray, heights: np.ndarray, n_resamples: int, random: np.random.RandomState
) -> np.ndarray:
    """Return the sums of drawn groups (n_resamples, n_classes, n_classes)."""
    n_classes = len(heights)
    shows = matrices.sum(axis=2) > 0
    strata = strata_of(shows)
    # The pseudo-groups of a class without a stratum are drawn where most of its groups are.
    counts = np.stack([shows[strata == stratum].sum(axis=0) for stratum in range(n_classes)])
    home = np.where(counts.diagonal() > 0, np.arange(n_classes), counts.argmax(axis=0))
    home[heights == 0] = -1
    resampled = np.zeros((n_resamples, n_classes, n_classes))
    for stratum in np.unique(strata):
        members = matrices[strata == stratum].reshape(-1, n_classes**2)
        # Groups of the same images are drawn as one, more often.
        rows: dict[bytes, int] = {}
        kinds = [rows.setdefault(row.tobytes(), len(rows)) for row in members]
        _, first, multiples = np.unique(kinds, return_index=True, return_counts=True)
        guests = np.flatnonzero(home == stratum)
        masses = np.concatenate([multiples, _masses(n_classes)[guests].ravel()])
        # One draw less than there are groups: as Bessel's correction.
        n_draws = len(members) + len(guests) - 1
        drawn = random.multinomial(n_draws, masses / masses.sum(), size=n_resamples)
        drawn = drawn * (masses.sum() / n_draws)
        real, pseudo = np.split(drawn, [len(first)], axis=1)
        resampled += (real @ members[first]).reshape(resampled.shape)
        pseudo = pseudo.reshape(n_resamples, len(guests), n_classes)
        resampled[:, guests] += pseudo * heights[guests, None]
    return resampled
