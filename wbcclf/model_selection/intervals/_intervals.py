"""Intervals by group: how sure a score is where several images show one cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from numbers import Integral, Real
from typing import Any

import numpy as np
from scipy import stats
from sklearn.utils import Bunch, check_random_state

from wbcclf._images import Interval
from wbcclf._labels import check_labels, check_same_classes
from wbcclf.model_selection.intervals._resamples import Resamples, correlation, strata_of, wilson
from wbcclf.model_selection.intervals._scores import SCORES


def group_bootstrap(
    metric: str | Callable[[Any, Any], float],
    y_true: Any,
    y_pred: Any,
    groups: Any,
    *,
    n_resamples: int = 1000,
    confidence_level: float = 0.95,
    random_state: int | np.random.RandomState | None = 0,
) -> Bunch:
    """Return a score with an interval that counts groups, not images, as independent.

    Where several images show one cell, errors come together, and an interval that counts every
    image is too narrow. Here, whole groups are drawn with replacement [1]_, [2]_.

    Parameters
    ----------
    metric : str or callable
        What to compute: ``"accuracy"``, ``"mcc"`` (Matthews's correlation coefficient),
        ``"kappa"`` (Cohen's); ``"balanced_accuracy"``, ``"macro_precision"``,
        ``"macro_specificity"``, ``"macro_f1"``, which are means over the classes in `y_true`; or
        ``"precision"``, ``"recall"``, ``"specificity"``, ``"f1"`` of each class. A callable is
        given `y_true` and `y_pred` of every resample and returns a number; it is called
        ``n_resamples + 1`` times.
    y_true : array-like of shape (n_samples,)
        True labels: text, or whole numbers.
    y_pred : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Predicted labels. For a callable, anything with one row for each image, such as
        probabilities.
    groups : array-like of shape (n_samples,)
        What each image shows: a cell, a slide, a patient. Two groups or more. A group may have
        images of several classes.
    n_resamples : int, default=1000
        How often as many groups as there are are drawn.
    confidence_level : float, default=0.95
        Between 0 and 1.
    random_state : int, RandomState instance or None, default=0
        What is drawn.

    Returns
    -------
    Bunch
        With the attributes

        value : float, or ndarray of shape (n_classes,)
            The score of all images. Classes are sorted, as by :func:`evaluate_predictions`.
        low, high : float, or ndarray of shape (n_classes,)
            The interval. NaN for a class that is not in `y_true`, and if `y_true` has one class
            only, for what needs a second one: precision, specificity, MCC and kappa.
        n_groups : int

    Raises
    ------
    TypeError
        If `metric` is neither text nor callable, or a parameter is of another type.
    ValueError
        If `metric` has an unknown name, the lengths differ, there are fewer than two groups, a
        group is missing (None, NaN), or labels are not what :func:`evaluate_predictions` takes.

    See Also
    --------
    wbcclf.inspection.evaluate_predictions : All scores with their intervals.
    scipy.stats.bootstrap : For independent observations.

    Notes
    -----
    **How groups are drawn.** From strata, so that no resample loses a rare class: each group
    belongs to the rarest class that it shows. To the groups of each class comes one pseudo-group,
    of which one half is right and one half is wrong, as Agresti and Coull add to counts [3]_. So
    the interval has a width where all images are right. The pseudo-group holds as many images as
    count for one independent image, by the correlation of errors within groups.

    **The interval** of a named metric is Wilson's [4]_, for as many independent images as would
    vary as the resamples do, with Student's quantile in place of the normal one, as Korn and
    Graubard [5]_ did for surveys. Its degrees of freedom are the number of groups, or fewer if
    some are much larger than others.

    **Coverage**, simulated with four classes, the rarest of 2 groups of 30, 4 of 70 and 20 of 600,
    and 1 to 40 images a group: on average 95% to 97% for 30 and 70 groups, in most settings 93% to
    97%; 90% to 92% in some where rare classes have a lower recall than common ones, and 98% to
    100% where images of few groups err independently. The documentation has the table, which
    ``benchmarks/intervals.py`` prints.

    A **callable** may return any number, so its interval is the percentile interval without
    pseudo-groups, made wider for few groups [6]_. Its coverage is lower, above all near the best
    score, and it has no width if the score is the same in every resample. Prefer a name.

    References
    ----------
    .. [1] Efron (1979), "Bootstrap methods: another look at the jackknife", Annals of Statistics
       7, https://doi.org/10.1214/aos/1176344552.
    .. [2] Field and Welsh (2007), "Bootstrapping clustered data", Journal of the Royal Statistical
       Society B 69, https://doi.org/10.1111/j.1467-9868.2007.00593.x.
    .. [3] Agresti and Coull (1998), "Approximate is better than 'exact' for interval estimation of
       binomial proportions", The American Statistician 52,
       https://doi.org/10.1080/00031305.1998.10480550.
    .. [4] Wilson (1927), "Probable inference, the law of succession, and statistical inference",
       Journal of the American Statistical Association 22,
       https://doi.org/10.1080/01621459.1927.10502953.
    .. [5] Korn and Graubard (1998), "Confidence intervals for proportions with small expected
       number of positive counts estimated from survey data", Survey Methodology 24.
    .. [6] Hesterberg (2015), "What teachers should know about the bootstrap", The American
       Statistician 69, https://doi.org/10.1080/00031305.2015.1089789.

    Examples
    --------
    Forty cells, ten images of each; all images of a cell are right, or all are wrong.

    >>> import numpy as np
    >>> from wbcclf.model_selection import group_bootstrap
    >>> cell = np.repeat(np.arange(40), 10)
    >>> y_true = np.where(cell < 30, "neutrophil", "monocyte")
    >>> y_pred = np.where(cell % 10 == 0, "monocyte", y_true)
    >>> result = group_bootstrap("accuracy", y_true, y_pred, cell)
    >>> f"{result.value:.3f} ({result.low:.2f} to {result.high:.2f}), {result.n_groups} cells"
    '0.925 (0.80 to 0.97), 40 cells'
    >>> result = group_bootstrap("recall", y_true, y_pred, cell)
    >>> result.value, result.low.round(2)
    (array([1. , 0.9]), array([0.7 , 0.74]))
    """
    _check_parameters(metric, n_resamples, confidence_level)
    y_true = check_labels(y_true, "y_true")
    if isinstance(metric, str):
        y_pred = check_labels(y_pred, "y_pred")
        check_same_classes(y_true, y_pred, ("y_true", "y_pred"))
    else:
        y_pred = np.asarray(y_pred)
    if not len(y_true):
        raise ValueError("y_true is empty: there is nothing to score.")
    if y_pred.ndim == 0 or len(y_pred) != len(y_true):
        n_rows = len(y_pred) if y_pred.ndim else "no"
        raise ValueError(
            f"y_true holds {len(y_true)} labels, y_pred {n_rows} rows: both need one for each "
            "image, in the same order."
        )
    groups = check_groups(groups, len(y_true))
    n_groups = int(groups.max()) + 1
    if callable(metric):
        figures = _percentiles(
            metric, y_true, y_pred, groups, n_resamples, confidence_level, random_state
        )
    else:
        _, matrices = confusion_by_group(y_true, y_pred, groups)
        resamples = Resamples(matrices, n_resamples, random_state)
        figures = (resamples.score(metric), *resamples.interval(metric, confidence_level))
    value, low, high = (figure if np.ndim(figure) else float(figure) for figure in figures)
    return Bunch(value=value, low=low, high=high, n_groups=n_groups)


def _check_parameters(metric: Any, n_resamples: Any, confidence_level: Any) -> None:
    if not isinstance(metric, str) and not callable(metric):
        raise TypeError(
            f"metric must be {_names()}, or a function of y_true and y_pred, got "
            f"{type(metric).__name__}."
        )
    if isinstance(metric, str) and metric not in SCORES:
        raise ValueError(
            f"metric={metric!r} is not known. Give {_names()}, or a function of y_true and y_pred."
        )
    if not isinstance(n_resamples, Integral) or isinstance(n_resamples, bool) or n_resamples < 2:
        raise ValueError(f"n_resamples must be a whole number from 2, got {n_resamples!r}.")
    if not Interval(Real, 0, 1, closed="neither").is_satisfied_by(confidence_level):
        raise ValueError(
            f"confidence_level must lie between 0 and 1, such as 0.95, got {confidence_level!r}."
        )


def _names() -> str:
    *first, last = (repr(name) for name in SCORES)
    return f"{', '.join(first)} or {last}"


def check_groups(
    groups: Any, n_samples: int, labels: str = "y_true", use: str = "an interval by group"
) -> np.ndarray:
    """Return the group of each image as a number from 0, without gaps.

    Parameters
    ----------
    groups : array-like of shape (n_samples,)
    n_samples : int
    labels, use : str
        For errors: what holds the labels, and what the groups are for.

    Raises
    ------
    TypeError
        If `groups` is not array-like.
    ValueError
        If there is not one for each image, one is missing, or all are the same.
    """
    if isinstance(groups, (str, bytes, Mapping, Set)) or not np.iterable(groups):
        raise TypeError(f"groups must be an array-like of groups, got {type(groups).__name__}.")
    names = np.asarray(groups).tolist() if hasattr(groups, "__array__") else list(groups)
    if len(names) != n_samples:
        raise ValueError(
            f"groups holds {len(names)} groups, {labels} {n_samples} labels: both need one for "
            "each image, in the same order."
        )
    numbers: dict[Any, int] = {}
    codes = np.empty(n_samples, dtype=np.intp)
    for row, name in enumerate(names):
        if isinstance(name, (list, Mapping, Set)):
            raise ValueError(
                f"groups[{row}] is {name!r}, but groups are one name or number for each image, "
                "shape (n_samples,)."
            )
        if name is None or str(name) in ("nan", "NaT", "<NA>"):
            raise ValueError(
                f"groups[{row}] is {name!r}: every image needs a group. If it is not known which "
                f"images show the same cell, there cannot be {use}."
            )
        codes[row] = numbers.setdefault(name, len(numbers))
    if len(numbers) == 1:
        raise ValueError(
            f"groups names one group only, {names[0]!r}, for all {n_samples} images: {use} needs "
            "two groups or more."
        )
    return codes


def _percentiles(
    metric: Callable[[Any, Any], float],
    y_true: np.ndarray,
    y_pred: np.ndarray,
    groups: np.ndarray,
    n_resamples: int,
    confidence_level: float,
    random_state: int | np.random.RandomState | None,
) -> tuple[Any, Any, Any]:
    """Return the score of all images, and the expanded percentile interval of Hesterberg (2015)."""
    random = check_random_state(random_state)
    _, images = confusion_by_group(y_true, y_true, groups)
    strata = strata_of(images.sum(axis=2) > 0)
    rows = np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1])
    scores = np.empty(n_resamples)
    for number in range(n_resamples):
        drawn = [
            random.choice(members, len(members))
            for members in (np.flatnonzero(strata == stratum) for stratum in np.unique(strata))
        ]
        taken = np.concatenate([rows[group] for group in np.concatenate(drawn)])
        scores[number] = metric(y_true[taken], y_pred[taken])
    n_groups = len(rows)
    quantile = stats.t.isf((1 - confidence_level) / 2, n_groups - 1)
    tail = stats.norm.sf(quantile * np.sqrt(n_groups / (n_groups - 1)))
    low, high = np.quantile(scores, [tail, 1 - tail])
    return metric(y_true, y_pred), low, high


def interval_of_right(
    is_right: np.ndarray, groups: np.ndarray, confidence_level: float = 0.95
) -> tuple[float, float, float]:
    """Return the share of images that are right, and its interval by group.

    It is that of :func:`group_bootstrap` for one class, with the variance to first order in place
    of that of resamples.

    Parameters
    ----------
    is_right : ndarray of shape (n_samples,), bool
    groups : ndarray of shape (n_samples,), int
        Gaps do not matter.
    confidence_level : float
    """
    _, groups = np.unique(groups, return_inverse=True)
    images, right = np.bincount(groups), np.bincount(groups, is_right)
    share, n_groups = is_right.mean(), len(images)
    together = correlation(images[:, None], right[:, None])
    height = images @ (1 + (images - 1) * together) / images.sum()  # images of the pseudo-group
    total = images.sum() + height
    smoothed = (right.sum() + height / 2) / total
    squares = ((right - smoothed * images) ** 2).sum()
    squares += height**2 * (smoothed**2 + (1 - smoothed) ** 2) / 2
    variance = squares / total**2 * (n_groups + 1) / n_groups
    degrees_of_freedom = (images**2).sum() ** 2 / (images**4).sum()
    limits = wilson(
        share, smoothed * (1 - smoothed) / variance, degrees_of_freedom, confidence_level
    )
    return float(share), *limits.tolist()


def confusion_by_group(
    y_true: np.ndarray, y_pred: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes in either array, sorted, and the confusion matrix of each group.

    Parameters
    ----------
    y_true, y_pred : ndarray of shape (n_samples,)
        Labels.
    groups : ndarray of shape (n_samples,), int
        From 0, without gaps.

    Returns
    -------
    ndarray of shape (n_classes,)
    ndarray of shape (n_groups, n_classes, n_classes), int
        True classes in rows, predicted ones in columns.
    """
    classes = np.union1d(y_true, y_pred)
    shape = (groups.max() + 1, len(classes), len(classes))
    places = np.ravel_multi_index(
        (groups, np.searchsorted(classes, y_true), np.searchsorted(classes, y_pred)), shape
    )
    return classes, np.bincount(places, minlength=np.prod(shape)).reshape(shape)
