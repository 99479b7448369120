"""Whether one model is better than another on the same cells."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import escape
from scipy import stats
from scipy.signal import fftconvolve
from sklearn.utils import Bunch

from wbcclf._files import plain
from wbcclf.inspection._frames import import_pandas
from wbcclf.inspection.evaluation._evaluation import CONFIDENCE, evaluate
from wbcclf.inspection.evaluation._result import OVERALL, Evaluation, table, with_interval

SCORES = ("accuracy", "balanced_accuracy")  # which are means over images: tests flip their signs
LEVEL = 0.05
N_FLIPS = 10_000


class Comparison(Bunch):
    """Models on the same cells, as :func:`compare` returns them.

    Attributes
    ----------
    evaluations : dict of str to Evaluation
        By the models' names.
    pairs : list of Bunch
        One for each two models and score, with the attributes

        - one, other : str, names of models
        - score : {"accuracy", "balanced_accuracy"}
        - difference : float, the score of `one` minus that of `other`
        - difference_interval : tuple of 2 floats, 95%, by group
        - p, p_adjusted : float, of no difference; adjusted for all pairs and scores (Holm 1979)
        - verdict : {"better", "worse", "not told apart"}, of `one` against `other`
        - n_only_one, n_only_other : int, images that only one of them calls rightly
    n_images : int
    n_groups : int or None
    """

    def __repr__(self) -> str:
        return "\n".join(self.sentences())

    def sentences(self) -> list[str]:
        """Return what is said of each pair."""
        return [
            f"{pair.one} is {pair.verdict}{' from' if pair.verdict not in VERDICTS else ' than'} "
            f"{pair.other} in {OVERALL[pair.score]}: {100 * pair.difference:+.1f} points (95% "
            f"interval {100 * pair.difference_interval[0]:+.1f} to "
            f"{100 * pair.difference_interval[1]:+.1f}), corrected p = {pair.p_adjusted:.2g}"
            for pair in self.pairs
        ]

    def _repr_html_(self) -> str:
        names = ["accuracy", "balanced_accuracy", "macro_f1"]
        rows = [
            [name, *(with_interval(each, score) for score in names)]
            for name, each in self.evaluations.items()
        ]
        said = "".join(f"<li>{escape(sentence)}</li>" for sentence in self.sentences())
        return f"{table(['model', *(OVERALL[name] for name in names)], rows)}<ul>{said}</ul>"

    def to_frame(self) -> Any:
        """Return the pairs as a table.

        Returns
        -------
        pandas.DataFrame
            One row for each two models and score.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pd = import_pandas()
        rows = [
            {**pair, "low": pair.difference_interval[0], "high": pair.difference_interval[1]}
            for pair in self.pairs
        ]
        return pd.DataFrame(rows).drop(columns="difference_interval")

    def to_json(self) -> str:
        """Return the pairs and the models' scores as JSON text. NaN is null."""
        scores = {name: each.figures() for name, each in self.evaluations.items()}
        return json.dumps(plain({**self, "evaluations": scores}), indent=1, allow_nan=False)

    def to_html(self, path: str | os.PathLike) -> None:
        """Write a page for people to read: the verdicts, every model's scores, disagreements.

        Parameters
        ----------
        path : str or path
            The file; one that is there stays as it is if writing fails.
        """
        from wbcclf.inspection.pages._comparison import write_comparison_page

        write_comparison_page(self, path)


VERDICTS = ("better", "worse")


def compare(models: Any, X: Any, y: Any, groups: Any = None) -> Comparison:
    """Return which of several fitted models is better on the same cells, and how sure that is.

    A higher score alone says little: in 86% of medical image classification papers the probability
    of a false claim of improvement was above 5% (Christodoulou et al. 2025,
    https://arxiv.org/abs/2505.04720).

    Parameters
    ----------
    models : dict of str to classifier
        Two fitted models or more, by the names that the result calls them by.
    X : array-like
        Images as every model takes them, or paths of image files.
    y : array-like of shape (n_samples,)
        True labels.
    groups : array-like of shape (n_samples,) or None, default=None
        Which cell (slide, patient) each image shows. None counts every image.

    Returns
    -------
    Comparison

    Raises
    ------
    TypeError, ValueError
        As by :func:`evaluate`, or if `models` is no dict of two models or more.

    See Also
    --------
    evaluate : One model.

    Notes
    -----
    **The test** asks whether the two models could change places in any group. It adds, for each
    group, how many more images one model calls rightly than the other, and compares the sum with
    those of all choices of signs: all images of a group change sides together. With one image a
    group, for the accuracy, this is the exact test of McNemar (1947,
    https://doi.org/10.1007/BF02295996). For the accuracy the distribution is computed exactly, for
    the balanced accuracy 10,000 choices are drawn, so p is 0.0001 at least.

    **The interval** of the difference is Student's, by group, with two groups more, in which one
    model each is right alone, as Bonett and Price (2012, https://doi.org/10.3102/1076998610381400)
    add to counts.

    A model that was chosen on these images has an advantage that no test sees.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> from wbcclf import SimpleCNNClassifier, make_blood_cells
    >>> from wbcclf.inspection import compare
    >>> cells = make_blood_cells(120, classes=2, image_size=32, random_state=0)
    >>> train, test = slice(0, 80), slice(80, 120)
    >>> models = {
    ...     "network": SimpleCNNClassifier(max_epochs=8, device="cpu", random_state=0),
    ...     "largest class": DummyClassifier(),
    ... }
    >>> for model in models.values():
    ...     _ = model.fit(cells.images[train].reshape(80, -1), cells.target[train])
    >>> result = compare(models, cells.images[test].reshape(40, -1), cells.target[test])
    >>> [pair.verdict for pair in result.pairs]
    ['better', 'better']
    """
    if not isinstance(models, Mapping) or len(models) < 2:
        raise TypeError(
            "models must be a dict of two fitted models or more, by name, such as "
            f"{{'A': model_a, 'B': model_b}}, got {type(models).__name__}."
        )
    if len({str(name) for name in models}) < len(models):
        raise ValueError(f"models has names that are the same as text: {list(models)}.")
    evaluations = {str(name): evaluate(each, X, y, groups) for name, each in models.items()}
    return compare_evaluations(evaluations)


def compare_evaluations(evaluations: dict[str, Evaluation]) -> Comparison:
    """Return the comparison of evaluations on the same images."""
    pairs = [
        _compare(one, evaluations[one], other, evaluations[other], score)
        for one, other in itertools.combinations(evaluations, 2)
        for score in SCORES
    ]
    for pair, adjusted in zip(pairs, holm([pair.p for pair in pairs]), strict=True):
        pair.p_adjusted = adjusted
        if adjusted < LEVEL:
            pair.verdict = "better" if pair.difference > 0 else "worse"
    first = next(iter(evaluations.values()))
    return Comparison(
        evaluations=evaluations, pairs=pairs, n_images=first.n_images, n_groups=first.n_groups
    )


def holm(p: list[float]) -> list[float]:
    """Return p values adjusted for their number (Holm 1979)."""
    order = np.argsort(p)
    factors = len(p) - np.arange(len(p))
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(np.minimum(np.array(p)[order] * factors, 1))
    return adjusted.tolist()


def _compare(one: str, first: Evaluation, other: str, second: Evaluation, score: str) -> Bunch:
    given = first.of_images
    y_true = given.y_true
    groups = np.arange(len(y_true)) if given.groups is None else given.groups
    rights = [each.of_images.y_pred == y_true for each in (first, second)]
    more = rights[0].astype(int) - rights[1]
    weights = np.full(len(y_true), 1 / len(y_true))
    if score == "balanced_accuracy":
        _, codes, counts = np.unique(y_true, return_inverse=True, return_counts=True)
        weights = 1 / (len(counts) * counts[codes])
        p = flip_test(np.bincount(groups, weights * more))
    else:
        p = exact_test(np.bincount(groups, more).astype(int))
    difference, limits = difference_interval(
        np.bincount(groups, weights * more), np.bincount(groups, weights)
    )
    return Bunch(
        one=one,
        other=other,
        score=score,
        difference=difference,
        difference_interval=limits,
        p=p,
        p_adjusted=p,
        verdict="not told apart",
        n_only_one=int((more > 0).sum()),
        n_only_other=int((more < 0).sum()),
    )


def exact_test(surplus: np.ndarray) -> float:
    """Return the share of choices of signs whose sum is as far from 0 as that of `surplus`, int."""
    sizes, counts = np.unique(np.abs(surplus[surplus != 0]), return_counts=True)
    total = int((sizes * counts).sum())
    shares = np.ones(1)  # of the sums -t, -t + 1, ..., t so far
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        steps = np.zeros(2 * size * count + 1)
        steps[:: 2 * size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        shares = fftconvolve(shares, steps)
    sums = np.arange(-total, total + 1)
    return float(np.clip(shares[np.abs(sums) >= abs(int(surplus.sum()))].sum(), 0, 1))


def flip_test(surplus: np.ndarray) -> float:
    """Return the share of drawn choices of signs whose sum is as far from 0, the given one too."""
    surplus = surplus[surplus != 0]
    random = np.random.default_rng(0)
    # Below it, sums that are equal differ by rounding.
    bound = abs(surplus.sum()) * (1 - 1e-9) - 1e-12
    n_far, block = 0, max(1, 2_000_000 // max(len(surplus), 1))
    for start in range(0, N_FLIPS, block):
        signs = random.integers(0, 2, (min(block, N_FLIPS - start), len(surplus))) * 2 - 1
        n_far += int((np.abs(signs @ surplus) >= bound).sum())
    return (n_far + 1) / (N_FLIPS + 1)


def difference_interval(
    surplus: np.ndarray, weights: np.ndarray
) -> tuple[float, tuple[float, float]]:
    """Return the difference of two means over images, and its interval by group.

    Parameters
    ----------
    surplus : ndarray of shape (n_groups,), float
        Sums of weighted differences of each group.
    weights : ndarray of shape (n_groups,), float
        Sums of weights, all together 1.
    """
    difference = surplus.sum()
    more = (weights**2).sum()  # the weight of a typical group, for each of the two that come
    n_groups = len(weights) + 2
    middle = difference / (1 + 2 * more)
    squares = ((surplus - weights * middle) ** 2).sum()
    squares += ((np.array([more, -more]) - more * middle) ** 2).sum()
    half = np.sqrt(squares * n_groups / (n_groups - 1)) / (1 + 2 * more)
    half *= stats.t.isf((1 - CONFIDENCE) / 2, 1 / more)
    low, high = max(-1.0, middle - half), min(1.0, middle + half)
    return float(difference), (float(min(low, difference)), float(max(high, difference)))
