"""What a set of pictures shows: its classes, its outliers, and what separates the classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from wbcclf._labels import check_labels
from wbcclf.decoding._failures import check_on_error, report_failures
from wbcclf.decoding._paths_or_images import check_paths_or_images
from wbcclf.inspection.exploring._separation import compare_classes
from wbcclf.inspection.exploring._survey import LOOKS, Survey, robust_scores
from wbcclf.model_selection.audit._copies import effective_cells
from wbcclf.preprocessing._features import NAMES as FEATURES

OUTLIER = 5.0  # robust standard deviations: 1 normal picture in 1.7 million is as far away
CLIPPED = 5.0  # of the deviation of one feature, so that none decides alone
N_EXAMPLES = 7  # typical ones and odd ones of each class, a row of the page each
# Not of what the cell looks like, but of the picture.
NOT_COMPARED = {"reference (1 red cell, 0 picture)", "cut by the border (1 yes, 0 no)"}


def explore_images(
    images: Sequence[str | PathLike] | Sequence[np.ndarray] | np.ndarray,
    y: Any = None,
    *,
    groups: Any = None,
    on_error: str = "raise",
    n_jobs: int | None = None,
    verbose: int = 0,
) -> Bunch:
    """Describe a set of pictures, before anybody trains on it.

    Pictures are read once, one after the other. Of each, 40 numbers are kept, so that memory hardly
    grows with their number.

    Parameters
    ----------
    images : array-like of shape (n_images,), or images
        Paths (str or path objects); or an image batch (n_images, height, width, 1 or 3), or a list
        of such images, which may differ in size, of uint8. Give whole pictures, as they are.
    y : array-like of shape (n_images,) or None, default=None
        Their classes. None takes all for one class.
    groups : array-like of shape (n_images,) or None, default=None
        Which pictures show the same cell, such as :func:`find_image_groups` finds. None takes every
        picture for a cell of its own.
    on_error : {"raise", "warn", "skip"}, default="raise"
        What to do about files that cannot be read. "raise" tries all files first, then names the
        broken ones; "warn" and "skip" leave them out, and list them in `skipped`.
    n_jobs : int or None, default=None
        Threads; None or -1 means one per available core. The result does not depend on it.
    verbose : int, default=0
        1 shows a progress bar on stderr.

    Returns
    -------
    Bunch
        With the attributes

        classes : list of Bunch
            For each class `label`, `n_images`, `n_cells`, `effective_cells` (the number of cells
            with equally many pictures that would be as diverse: the inverse Simpson index),
            `n_without_cell` (pictures in which no white cell is found), `typical` (rows of the
            pictures whose features are nearest the median, the nearest first, one of each cell),
            and `odd` (list of Bunch, `row` and `why`, the farthest first).
        sizes : list of (height, width, number of pictures)
            The most frequent first.
        outliers : list of Bunch
            Pictures that look other than the rest: `row`, `look` (one of "brightness", "focus",
            "stain depth", "stain hue"), `value`, and `score`, the distance from the median in
            robust standard deviations; 5 or more. Stain is compared within the class. The
            farthest first, look by look.
        separation : Bunch
            Which features differ between classes (`features`), and which tell two classes apart
            (`pairs`); see Notes.
        features : ndarray of shape (n_images, 34), float32
            As of :class:`CellFeatures`, of the white cell nearest the centre; NaN where there is
            none.
        feature_names : list of str
        looks : ndarray of shape (n_images, 4), float32
            Brightness of the empty background (0 to 255), focus (logarithm of the spread of the
            finest details over that of the picture), density of green light in the nucleus, and
            its density of red light over that.
        counts : ndarray of shape (n_classes, 3, 256), int64
            Pixels of each level of red, green and blue.
        means, contrasts : ndarray of shape (n_classes, 64, 64, 3), float32
            The mean picture of a class, stretched to one size, 0 to 255; and what it differs by
            from the mean of the other classes' mean pictures (0 if there are none).
        target, groups : ndarray of shape (n_images,)
        skipped : list of (path, reason)
            The files that could not be read. Their rows have NaN and count nowhere.

    Raises
    ------
    ImageReadError
        If a file cannot be read and `on_error` is "raise", or if none can be read.
    ValueError
        If a parameter is out of range, `images` is empty or has another shape, or `y` or `groups`
        has another length or a missing entry.
    TypeError
        If `images` holds neither paths nor images of uint8.

    Warns
    -----
    SkippedFileWarning
        With ``on_error="warn"``, of files that cannot be read.

    See Also
    --------
    CellFeatures : The features.
    find_image_groups : Which pictures show the same cell.

    Notes
    -----
    `separation.features` has for each feature Welch's analysis of variance [1]_ over the classes;
    `p_adjusted`, the p-value corrected for the number of features by Benjamini and Yekutieli [2]_,
    which holds whatever features have in common; and the effect size `omega2`, the share of the
    variance that lies between the classes. With many cells even a tiny difference is significant:
    look at the effect size. `separation.pairs` has for every two classes the features with the
    largest area under the ROC curve (1 tells all cells apart, 0.5 none). The best of many features
    looks better than it is if cells are few. A cell counts once in both, by the mean of its
    pictures.

    References
    ----------
    .. [1] B. L. Welch, "On the comparison of several mean values: an alternative approach",
       Biometrika 38, 1951. https://doi.org/10.1093/biomet/38.3-4.330
    .. [2] Y. Benjamini, D. Yekutieli, "The control of the false discovery rate in multiple testing
       under dependency", Annals of Statistics 29, 2001. https://doi.org/10.1214/aos/1013699998

    Examples
    --------
    >>> from wbcclf import make_blood_cells
    >>> from wbcclf.inspection import explore_images
    >>> cells = make_blood_cells(40, classes=["lymphocyte", "neutrophil"], random_state=0)
    >>> found = explore_images(cells.images, cells.target)
    >>> [(each.label, each.n_cells) for each in found.classes]
    [('lymphocyte', 20), ('neutrophil', 20)]
    >>> found.separation.features[0].p_adjusted < 0.001
    True
    """
    check_on_error(on_error)
    paths, arrays = check_paths_or_images(images, "images")
    n_images = len(paths or arrays or [])
    if not n_images:
        raise ValueError("images is empty: there is nothing to explore.")
    labels = np.full(n_images, "all") if y is None else check_labels(y, "y")
    cells = np.arange(n_images) if groups is None else check_labels(groups, "groups")
    for name, column in (("y", labels), ("groups", cells)):
        if len(column) != n_images:
            raise ValueError(f"{name} has {len(column)} entries, images {n_images}.")
    classes, target = np.unique(labels, return_inverse=True)
    survey = Survey(paths, arrays, target, len(classes), n_jobs, verbose)
    skipped = [(path, why) for path, why in zip(paths or [], survey.reasons, strict=False) if why]
    report_failures(skipped, n_images, on_error, 'Give on_error="warn" to leave them out.')
    is_read = survey.sizes[:, 0] > 0
    compared = np.array([name not in NOT_COMPARED for name in FEATURES])
    deviations = robust_deviations(survey.features[:, compared], target)
    names = np.array(FEATURES)[compared]
    means = survey.sums / np.maximum(survey.n_read, 1)[:, None, None, None]
    heights_and_widths = Counter(map(tuple, survey.sizes[is_read].tolist()))
    return Bunch(
        classes=[
            describe_class(
                classes[k], np.flatnonzero(is_read & (target == k)), cells, deviations, names
            )
            for k in range(len(classes))
        ],
        sizes=[(*size, count) for size, count in heights_and_widths.most_common()],
        outliers=find_outliers(survey.looks, target),
        separation=compare_classes(
            survey.features[is_read][:, compared], names, labels[is_read], cells[is_read]
        ),
        features=survey.features,
        feature_names=list(FEATURES),
        looks=survey.looks,
        counts=survey.counts,
        means=means.astype(np.float32),
        contrasts=contrasts_of(means, survey.n_read > 0).astype(np.float32),
        target=labels,
        groups=cells,
        skipped=skipped,
    )


def describe_class(
    label: Any, rows: np.ndarray, cells: np.ndarray, deviations: np.ndarray, names: np.ndarray
) -> Bunch:
    """Return counts and examples of a class, of which these rows are read."""
    per_cell = np.unique(cells[rows], return_counts=True)[1]
    known = rows[np.isfinite(deviations[rows]).any(axis=1)]
    # Of a feature without a value, nothing is known: it counts as an average one.
    apart = np.nan_to_num(np.minimum(np.abs(deviations[known]), CLIPPED), nan=1).mean(axis=1)
    ordered = known[apart.argsort(kind="stable")]
    typical = one_of_each(ordered, cells)
    typical = typical[: min(N_EXAMPLES, -(-len(typical) // 2))]  # of few, half of the cells
    missing = np.setdiff1d(rows, known)
    farthest = ordered[~np.isin(ordered, typical)][::-1]
    odd = one_of_each(np.concatenate([missing[: N_EXAMPLES // 2], farthest]), cells)[:N_EXAMPLES]
    return Bunch(
        label=str(label),
        n_images=len(rows),
        n_cells=len(per_cell),
        effective_cells=effective_cells(per_cell),
        n_without_cell=len(missing),
        typical=typical.tolist(),
        odd=[Bunch(row=int(row), why=_oddity(deviations[row], names)) for row in odd],
    )


def _oddity(deviations: np.ndarray, names: np.ndarray) -> str:
    """Return which feature of a picture is farthest from the median of its class."""
    if not np.isfinite(deviations).any():
        return "no white cell found"
    most = np.nanargmax(np.abs(deviations))
    return f"{'high' if deviations[most] > 0 else 'low'}: {names[most]}"


def one_of_each(rows: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Return the first row of each cell, in order."""
    _, first = np.unique(cells[rows], return_index=True)
    return rows[np.sort(first)]


def robust_deviations(features: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return how far each feature is from the median of its class, in robust deviations."""
    return np.stack([robust_scores(column, target) for column in features.T], axis=1)


def find_outliers(looks: np.ndarray, target: np.ndarray) -> list[Bunch]:
    """Return pictures that look other than the rest, look by look."""
    found = []
    for k, (look, least) in enumerate(LOOKS.items()):
        # Nuclei of one class are denser than those of another; light and focus are of the slide.
        kinds = target if look.startswith("stain") else np.zeros(len(target), int)
        scores = robust_scores(looks[:, k], kinds, least)
        rows = np.flatnonzero(np.abs(np.nan_to_num(scores)) >= OUTLIER)
        for row in rows[(-np.abs(scores[rows])).argsort(kind="stable")]:
            value, score = float(looks[row, k]), float(scores[row])
            found.append(Bunch(row=int(row), look=look, value=value, score=score))
    return found


def contrasts_of(means: np.ndarray, is_seen: np.ndarray) -> np.ndarray:
    """Return what each mean picture differs by from the mean of the others."""
    contrasts = np.zeros_like(means)
    for k in np.flatnonzero(is_seen):
        others = is_seen & (np.arange(len(means)) != k)
        if others.any():
            contrasts[k] = means[k] - means[others].mean(axis=0)
    return contrasts
