"""Which features separate which classes: tests with their effect sizes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy.special import gammaln
from scipy.stats import f_oneway, false_discovery_control, rankdata
from sklearn.utils import Bunch

FEWEST = 2  # cells of a class with a value: with one there is no variance
N_BEST = 3  # features that are listed for a pair of classes


def compare_classes(
    features: np.ndarray, names: Sequence[str], target: np.ndarray, groups: np.ndarray
) -> Bunch:
    """Return how features differ between classes, and which separates two classes best.

    A cell counts once: pictures of a group and class are replaced by their mean.

    Parameters
    ----------
    features : ndarray of shape (n_images, n_features)
        NaN where a picture has no value.
    names : sequence of str
        Of the features.
    target : ndarray of shape (n_images,)
    groups : ndarray of shape (n_images,)

    Returns
    -------
    Bunch
        `features`, a list of Bunch, the largest effect first: `name`, `statistic` and `p` of
        Welch's analysis of variance (where no class has a spread, `statistic` is None and `p` is
        that of labels dealt out at random), `p_adjusted` for the number of features (Benjamini and
        Yekutieli), `omega2` (the share of the variance that lies between the classes), and
        `medians` by class. `pairs`, a list of Bunch, for every two classes: `classes`, and `best`,
        a list of Bunch (`name`, `auc`, `higher`), the surest first. `n_cells` by class.
    """
    values, target = _by_cell(features, target, groups)
    labels = np.unique(target)
    rows = [_analysis(values[:, k], target, labels) for k in range(len(names))]
    tested = np.array([row is not None for row in rows])
    adjusted = np.full(len(names), np.nan)
    if tested.any():
        # Valid whatever the features have in common (Benjamini and Yekutieli 2001, Ann. Stat. 29).
        p = np.array([row[1] for row in rows if row is not None])
        adjusted[tested] = false_discovery_control(p, method="by")
    found = []
    for k, row in enumerate(rows):
        if row is None:
            continue
        statistic, p_value, omega2 = row
        found.append(
            Bunch(
                name=str(names[k]),
                statistic=statistic,
                p=p_value,
                p_adjusted=float(adjusted[k]),
                omega2=omega2,
                medians={
                    str(label): float(np.nanmedian(values[target == label, k]))
                    for label in labels
                    if np.isfinite(values[target == label, k]).any()
                },
            )
        )
    found.sort(key=lambda feature: -feature.omega2)
    return Bunch(
        features=found,
        pairs=[_best_of_pair(values, names, target, pair) for pair in combinations(labels, 2)],
        n_cells={str(label): int((target == label).sum()) for label in labels},
    )


def p_text(p: float) -> str:
    """Return a p-value as text: one that a float cannot hold is not 0."""
    return "< 1e-300" if p < 1e-300 else f"{p:.2g}"


def _by_cell(
    features: np.ndarray, target: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean features of the pictures of each cell, and the cells' classes.

    A cell that has pictures in two classes counts in both: which is right is not known.
    """
    labels, number = np.unique(target, return_inverse=True)
    cells = np.unique(groups, return_inverse=True)[1]
    _, first, cell = np.unique(cells * len(labels) + number, return_index=True, return_inverse=True)
    known = np.isfinite(features)
    sums, counts = (np.zeros((len(first), features.shape[1])) for _ in range(2))
    np.add.at(sums, cell, np.where(known, features, 0))
    np.add.at(counts, cell, known)
    with np.errstate(invalid="ignore"):
        return sums / counts, target[first]


def _analysis(
    values: np.ndarray, target: np.ndarray, labels: np.ndarray
) -> tuple[float | None, float, float] | None:
    """Return F, p and omega squared; None without two classes of two cells, or if all is alike.

    F is None where no class has a spread.
    """
    samples = [values[(target == label) & np.isfinite(values)] for label in labels]
    samples = [sample for sample in samples if len(sample) >= FEWEST]
    if len(samples) < 2 or not np.ptp(np.concatenate(samples)):
        return None
    spreads = [np.ptp(sample) > 0 for sample in samples]
    if not any(spreads):
        return None, _p_of_constants(samples), 1.0
    # Classes have unequal variances and sizes (Welch 1951, Biometrika 38:330). That test divides by
    # the variance of every class; where one has none, the classes are taken to have one in common.
    statistic, p = f_oneway(*samples, equal_var=not all(spreads))
    return float(statistic), float(p), _omega2(samples)


def _p_of_constants(samples: list[np.ndarray]) -> float:
    """Return the probability of classes without spread, had labels been dealt out at random.

    Of all ways to deal labels, those that leave each value to its classes; at most as many times
    more as there are orders of the values.
    """
    sizes = np.unique(np.concatenate(samples), return_counts=True)[1]
    ways = gammaln(sizes.sum() + 1) - gammaln(sizes + 1).sum()
    return float(min(1.0, np.exp(gammaln(len(sizes) + 1) - ways)))


def _omega2(samples: list[np.ndarray]) -> float:
    """Return omega squared (Hays 1963), 0 or more: unlike eta squared it is not biased upwards."""
    everything = np.concatenate(samples)
    means = np.array([sample.mean() for sample in samples])
    counts = np.array([len(sample) for sample in samples])
    between = (counts * (means - everything.mean()) ** 2).sum()
    total = ((everything - everything.mean()) ** 2).sum()
    within = (total - between) / (len(everything) - len(samples))
    return float(max(0.0, (between - (len(samples) - 1) * within) / (total + within)))


def _best_of_pair(
    values: np.ndarray, names: Sequence[str], target: np.ndarray, pair: tuple[str, str]
) -> Bunch:
    """Return the features that tell two classes apart most often.

    The area under the ROC curve is the chance that of one cell of each class, the one of the class
    `higher` has the higher value.
    """
    found = []
    for name, column in zip(names, values.T, strict=True):
        one, other = (column[(target == label) & np.isfinite(column)] for label in pair)
        if min(len(one), len(other)) < FEWEST:
            continue
        ranks = rankdata(np.concatenate([one, other]))[: len(one)]
        auc = (ranks.sum() / len(one) - (len(one) + 1) / 2) / len(other)
        higher = pair[0] if auc >= 0.5 else pair[1]
        found.append(Bunch(name=str(name), auc=float(max(auc, 1 - auc)), higher=str(higher)))
    found.sort(key=lambda feature: -feature.auc)
    return Bunch(classes=[str(label) for label in pair], best=found[:N_BEST])
