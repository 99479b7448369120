"""How good a model is that is trained anew in every fold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import (
    StratifiedGroupKFold,
    StratifiedKFold,
    check_cv,
)
from sklearn.utils import Bunch, _safe_indexing

from wbcclf._images import _num_samples
from wbcclf._labels import check_labels
from wbcclf._progress import progress_bar
from wbcclf.inspection._files import predict_all
from wbcclf.inspection.evaluation._evaluation import evaluate_predictions
from wbcclf.inspection.evaluation._result import OVERALL, Evaluation, table
from wbcclf.model_selection.intervals._intervals import check_groups


class CrossEvaluation(Evaluation):
    """Scores of a cross-validation, as :func:`cross_evaluate` returns them.

    All that an :class:`Evaluation` has, of the predictions of all folds together: each image was
    predicted by the model that was not trained on its cell.

    Attributes
    ----------
    folds : list of Bunch
        The scores of each fold: those of an :class:`Evaluation` that are single numbers, and
        `n_train`, `n_test` (images).
    mean, sd : Bunch
        Mean and standard deviation over the folds of every such score, as papers print them. The
        standard deviation says how much the folds differ. It is no measure of how sure the mean is:
        the folds' models share most of their training images. The intervals are.
    """

    def _repr_html_(self) -> str:
        rows = [(OVERALL[name], self.folds_text(name)) for name in OVERALL if name in self.mean]
        title = f"mean ± standard deviation over {len(self.folds)} folds"
        return super()._repr_html_() + table(["score", title], rows)

    def folds_text(self, name: str) -> str:
        """Return a score as papers print it, such as 0.944 ± 0.010."""
        return f"{self.mean[name]:.3f} ± {self.sd[name]:.3f}"


def cross_evaluate(
    model: Any, X: Any, y: Any, groups: Any = None, cv: Any = 5, *, verbose: int = 0
) -> CrossEvaluation:
    """Return how well a model predicts cells that it was not trained on, fold by fold.

    Parameters
    ----------
    model : classifier, pipeline or search
        Not changed; a clone of it is trained in every fold.
    X : array-like
        Images, or paths if `model` begins with an :class:`ImageLoader`.
    y : array-like of shape (n_samples,)
        Labels: text, or whole numbers.
    groups : array-like of shape (n_samples,) or None, default=None
        Which cell (slide, patient) each image shows. No group is in both parts of a fold.
    cv : int, splitter or iterable, default=5
        Number of folds, stratified, shuffled with seed 0, and with `groups` by group. Or a splitter
        of scikit-learn, or pairs of training and test rows. Each image is in one test part.
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    CrossEvaluation

    Raises
    ------
    TypeError, ValueError
        As by :func:`evaluate_predictions`; or if `cv` puts a group into both parts of a fold, or
        tests an image twice or never.

    See Also
    --------
    evaluate : For a model that is trained.
    learning_curve : Whether more cells would help.

    Examples
    --------
    >>> from wbcclf import SimpleCNNClassifier, make_blood_cells
    >>> from wbcclf.inspection import cross_evaluate
    >>> cells = make_blood_cells(60, classes=2, image_size=32, n_copies=1, random_state=0)
    >>> clf = SimpleCNNClassifier(max_epochs=3, device="cpu", random_state=0)
    >>> result = cross_evaluate(clf, cells.images, cells.target, cells.groups, cv=2)
    >>> len(result.folds), result.n_groups, round(result.mean.accuracy, 6) <= 1
    (2, 60, True)
    """
    y, codes = check_labelled(X, y, groups)
    splits = make_splits(X, y, groups, codes, cv)
    parts = list(out_of_fold(model, X, y, groups, splits, verbose))
    result = pooled(parts, y, groups)
    result.folds = [
        _fold_scores(part, y, groups, len(train))
        for part, (train, _) in zip(parts, splits, strict=True)
    ]
    names = [name for name in result.folds[0] if not name.startswith("n_")]
    scores = {name: np.array([fold[name] for fold in result.folds]) for name in names}
    result.mean = Bunch(**{name: float(each.mean()) for name, each in scores.items()})
    result.sd = Bunch(**{name: float(each.std(ddof=1)) for name, each in scores.items()})
    result.estimator, result.images = clone(model), X  # whatever `model` was fitted on before
    return result


def check_labelled(X: Any, y: Any, groups: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Return labels and the numbers of groups (None without), one for each image."""
    y = check_labels(y, "y")
    if _num_samples(X) != len(y):
        raise ValueError(
            f"X holds {_num_samples(X)} images, y {len(y)} labels: y needs one for each image."
        )
    return y, None if groups is None else check_groups(groups, len(y), "y")


def make_splits(
    X: Any, y: np.ndarray, groups: Any, codes: np.ndarray | None, cv: Any
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the rows of each fold's training and test part, which are checked.

    The splitter gets the `groups` themselves, since it goes by their order; `codes` number them.
    """
    if isinstance(cv, (int, np.integer)) and not isinstance(cv, bool):
        splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
        cv = splitter(cv, shuffle=True, random_state=0)
    elif isinstance(cv, str) or not (hasattr(cv, "split") or isinstance(cv, Iterable)):
        raise TypeError(f"cv must be a number of folds, a splitter, or pairs of rows, got {cv!r}.")
    splits = list(check_cv(cv).split(X, y, groups))
    if not splits:
        raise ValueError("cv is empty: give a number of folds, or StratifiedGroupKFold(5).")
    tested = np.bincount(np.concatenate([test for _, test in splits]), minlength=len(y))
    if (tested != 1).any():
        row = int(np.flatnonzero(tested != 1)[0])
        raise ValueError(
            f"cv tests image {row} {tested[row]} times, but each image must be tested once. Give a "
            "number of folds, or StratifiedGroupKFold(5)."
        )
    for train, test in splits:
        if np.intersect1d(train, test).size:
            raise ValueError(
                "cv puts images into both parts of a fold: the model would be tested on images "
                "that it was trained on. Give a number of folds, or StratifiedGroupKFold(5)."
            )
        shared = set() if codes is None else {*codes[train].tolist()} & {*codes[test].tolist()}
        if shared:
            raise ValueError(
                f"cv puts {len(shared)} groups into both parts of a fold: the model would be "
                "tested on cells that it was trained on. Give StratifiedGroupKFold(5)."
            )
    return splits


def out_of_fold(
    model: Any, X: Any, y: np.ndarray, groups: Any, splits: list, verbose: int = 0
) -> Iterator[Bunch]:
    """Train in every fold; yield `rows` of its test part and what is predicted of them.

    A search gets the groups of its training part, for its own splitter.
    """
    with progress_bar() if verbose else nullcontext() as bar:
        folds = bar.track(splits, description="Cross-validating") if bar else splits
        for train, test in folds:
            params = {}
            if groups is not None and hasattr(model, "refit") and hasattr(model, "cv"):  # a search
                params["groups"] = _safe_indexing(groups, train)
            fitted = clone(model).fit(_safe_indexing(X, train), y[train], **params)
            found = predict_all(fitted, _safe_indexing(X, test))
            yield Bunch(rows=test, classes=np.asarray(fitted.classes_), **found)


def pooled(parts: list[Bunch], y: np.ndarray, groups: Any) -> CrossEvaluation:
    """Return the scores of all folds together."""
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows)
    labels = np.concatenate([part.labels for part in parts])[order]
    known = np.unique(np.concatenate([part.classes for part in parts]))
    shares = None
    if all(part.probabilities is not None for part in parts):
        shares = np.zeros((len(y), len(known)))
        for part in parts:
            columns = np.searchsorted(known, part.classes)
            shares[part.rows[:, None], columns] = part.probabilities
    result = evaluate_predictions(
        y, labels, groups, probabilities=shares, classes=None if shares is None else known
    )
    result = CrossEvaluation(**result)
    result.familiarity = result.of_images.familiarity = result.n_trained_on = None
    if all(part.familiarity is not None for part in parts):
        result.of_images.familiarity = np.concatenate([part.familiarity for part in parts])[order]
        result.familiarity = float(result.of_images.familiarity.mean())
    return result


def _fold_scores(part: Bunch, y: np.ndarray, groups: Any, n_train: int) -> Bunch:
    given = None if groups is None else _safe_indexing(groups, part.rows)
    if given is not None and len(set(given)) == 1:  # one slide or patient left out
        given = None
    found = evaluate_predictions(
        y[part.rows],
        part.labels,
        given,
        probabilities=part.probabilities,
        classes=None if part.probabilities is None else part.classes,
    )
    scores = {name: found[name] for name in OVERALL if name in found}
    if "calibration" in found:
        scores["calibration_error"] = found.calibration.error
    return Bunch(n_train=n_train, n_test=len(part.rows), **scores)
