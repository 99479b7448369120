"""count_cells: the white cells of fields, found, classified and counted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from wbcclf._files import some
from wbcclf._store import Store
from wbcclf._threads import advancing, n_threads
from wbcclf._warnings import warn
from wbcclf.datasets._reading import ON_ERROR, report_failures
from wbcclf.fields._fields import (
    FieldReader,
    Found,
    list_fields,
    overlay_paths,
    read_field,
)
from wbcclf.fields._overlay import BORDER, COLOURS, UNCERTAIN, draw_field
from wbcclf.fields._statistics import correct, wilson
from wbcclf.inspection._files import model_parts

BLOCK = 16  # fields that are classified together, and kept together


def count_cells(
    model: Any,
    fields: Any,
    *,
    evaluation: Mapping | None = None,
    min_probability: float = 0.5,
    overlay_dir: str | os.PathLike | None = None,
    on_error: str = "raise",
    n_jobs: int | None = None,
    random_state: int | np.random.RandomState | None = 0,
    verbose: int = 0,
) -> Bunch:
    """Find, classify and count the white blood cells of the fields of a smear.

    Parameters
    ----------
    model : classifier, pipeline or search
        Fitted; as for :func:`wbcclf.inspection.predict_files`. Cells are cut out by its
        :class:`CellCropper`, whether that is the loader's `crop` or a step of the pipeline. A model
        without one was trained on whole pictures. It is given squares of 2.5 diameters of the
        cell, with a warning.
    fields : path, iterable of paths, or arrays
        A folder (all images in it, at any depth), one file or several; or one RGB picture (height,
        width, 3) of uint8, or several of any size.
    evaluation : Bunch or dict, default=None
        What :func:`wbcclf.inspection.evaluate_predictions` returned for `model` on cells that it
        was not trained on. The table then also holds per cent corrected for the errors seen there.
    min_probability : float, default=0.5
        In [0, 1]. A cell whose predicted class is less probable than this is uncertain.
    overlay_dir : path or None, default=None
        Folder for JPEG copies of the fields, with a box, label and probability at every cell. Made
        if it does not exist. It must not be where the fields are.
    on_error : {"raise", "warn", "skip"}, default="raise"
        What to do about files that cannot be read, after all were tried: raise an error that names
        them, leave them out and warn, or leave them out.
    n_jobs : int or None, default=None
        Threads; None or -1 means one per available core. The result does not depend on it.
    random_state : int, RandomState or None, default=0
        For the intervals of `corrected`, which are simulated.
    verbose : int, default=0
        1 shows a progress bar on stderr.

    Returns
    -------
    Bunch
        With the attributes

        table : dict of ndarrays of shape (n_classes + 1,)
            Columns of the table, for ``pandas.DataFrame(count.table)``: `class`, `cells`,
            `percent`, its 95% interval `low` and `high`, and `low_all` and `high_all`, which hold
            for all classes at once. With `evaluation`, also `corrected`, `corrected_low` and
            `corrected_high`. The last row counts the uncertain cells, without per cent.
        cells : dict of ndarrays of shape (n_cells,)
            Columns `field`, `min_row`, `min_col`, `max_row`, `max_col` (in pixels, half-open),
            `status` ("called", "uncertain", or "border" for a cell that is not counted, since the
            lower or right border cuts it), `label` and `probability` (of that class).
        probabilities : ndarray of shape (n_cells, n_classes), float
            Of all classes, in the order of the model's ``classes_``.
        fields : list of str
            The fields that were read, with and without cells: their files, or "0", "1", ... for
            arrays.
        skipped : list of (path, reason)
            The files that could not be read, and what else is in the folder.

    Raises
    ------
    TypeError
        If `model` is not a classifier with `predict_proba`, if the size of its images is unknown,
        or if `fields` holds anything but paths or pictures of uint8.
    ValueError
        If a parameter is out of range, there is no field, the model was trained on grey images,
        `evaluation` is of other classes than the model's, or `overlay_dir` is where the fields are.
    FileNotFoundError
        If `fields` is a single path of neither a folder nor a file.
    ImageReadError
        If a file cannot be read and `on_error` is "raise", or if none can.
    sklearn.exceptions.NotFittedError
        If `model` is not fitted.

    Warns
    -----
    UserWarning
        If the model has no cropper, or no field has a white cell.

    See Also
    --------
    find_cells : Finds the cells of one field, with their outlines.

    Notes
    -----
    **Per cent** is of the called cells. If one class is more often uncertain than others, its share
    comes out too small: read the row of the uncertain cells first. A class of nucleated red cells
    (erythroblasts) is part of the 100 per cent; a laboratory reports them apart, per 100 white
    cells.

    **Intervals.** Chance decides which cells are counted. For differentials, Rümke's table gives
    the exact 95% limits; the reference method is in [1]_. `low` and `high` are Wilson's
    interval [2]_. It differs from the exact limits by at most 0.7 points for 100 cells and 0.1 for
    1,000. Such an interval misses the truth in one count of twenty, so with several classes, at
    least one is often missed. `low_all` and `high_all` are Goodman's [3]_: in about 95 of 100
    counts, they hold for all classes at once. They are Wilson's with Bonferroni's correction, so
    they suit rare classes, too. (Those of Sison and Glaz [4]_ are equally wide for all classes and
    meant for seven or more.) All of them take the cells as drawn at random from the blood. The
    error from an uneven smear comes on top.

    **Borders.** A cell that the upper or left border cuts is counted. One that the lower or right
    border cuts is not. This is the rule for counting chambers. So a cell on a border that two
    fields share is counted once. If only whole cells were counted, classes of large cells would
    come out too small. (Gundersen's counting frame [5]_ is also exact for cells that touch a corner
    of the field, but needs a view of what lies around it.) Fields must not overlap.

    **Correction.** `corrected` holds the true per cent that are most likely, given how often the
    model takes each class for each other one. Where none is 0, it is the estimate of Rogan and
    Gladen [6]_, for many classes. It is of all cells that are counted, the uncertain ones by their
    most probable class, because `evaluation` counts them so, too. Its interval comes from 2,000
    draws of the counts and of the confusion matrix, so it also allows for the limited number of
    evaluated cells. It is true only if the model errs on these fields as it did on those cells.

    References
    ----------
    .. [1] CLSI, "Reference leukocyte (WBC) differential count (proportional) and evaluation of
       instrumental methods", H20-A2, 2007.
    .. [2] E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
       JASA 22, 1927. https://doi.org/10.1080/01621459.1927.10502953
    .. [3] L. A. Goodman, "On simultaneous confidence intervals for multinomial proportions",
       Technometrics 7, 1965. https://doi.org/10.1080/00401706.1965.10490252
    .. [4] C. P. Sison, J. Glaz, "Simultaneous confidence intervals and sample size determination
       for multinomial proportions", JASA 90, 1995.
       https://doi.org/10.1080/01621459.1995.10476521
    .. [5] H. J. G. Gundersen, "Notes on the estimation of the numerical density of arbitrary
       profiles: the edge effect", Journal of Microscopy 111, 1977.
       https://doi.org/10.1111/j.1365-2818.1977.tb00062.x
    .. [6] W. J. Rogan, B. Gladen, "Estimating prevalence from the results of a screening test",
       American Journal of Epidemiology 107, 1978.
       https://doi.org/10.1093/oxfordjournals.aje.a112510

    Examples
    --------
    >>> from wbcclf import CellCropper, SimpleCNNClassifier, count_cells, make_blood_cells
    >>> from sklearn.pipeline import make_pipeline
    >>> cells = make_blood_cells(20, classes=2, image_size=160, random_state=13)
    >>> model = make_pipeline(
    ...     CellCropper(image_size=32), SimpleCNNClassifier(max_epochs=2, device="cpu")
    ... ).fit(cells.images, cells.target)
    >>> count = count_cells(model, cells.images[:4])
    >>> count.table["class"].tolist(), int(count.table["cells"].sum())
    (['lymphocyte', 'neutrophil', 'uncertain'], 4)
    """
    return count_fields(
        model,
        fields,
        evaluation=evaluation,
        min_probability=min_probability,
        overlay_dir=overlay_dir,
        on_error=on_error,
        n_jobs=n_jobs,
        random_state=random_state,
        verbose=verbose,
    )


def count_fields(
    model: Any,
    fields: Any,
    *,
    evaluation: Mapping | None,
    min_probability: float,
    overlay_dir: str | os.PathLike | None,
    on_error: str,
    n_jobs: int | None,
    random_state: int | np.random.RandomState | None,
    verbose: int,
    parts: Path | None = None,
    identity: str = "",
) -> Bunch:
    """Do what :func:`count_cells` does, and keep what is found in files.

    Parameters
    ----------
    parts : path or None
        A folder that keeps it until the caller removes it. Files that are in it are not read again,
        unless they were changed.
    identity : str
        A digest of the model.
    """
    if not isinstance(min_probability, Real) or not 0 <= min_probability <= 1:
        raise ValueError(f"min_probability must be from 0 to 1, got {min_probability!r}.")
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error must be one of {', '.join(ON_ERROR)}, got {on_error!r}.")
    n_threads(n_jobs)
    steps = model_parts(getattr(model, "best_estimator_", model))
    classes = [str(label) for label in steps[-1].classes_]
    confusion = None if evaluation is None else _confusion(evaluation, classes)
    sources, names, left_out = list_fields(fields)
    overlays = overlay_paths(overlay_dir, fields, names)
    store = None if parts is None else Store(parts, float("inf"))
    reader = FieldReader(*steps, store, identity)
    blocks = []
    with advancing(len(sources), verbose, "Fields") as advance:
        for start in range(0, len(sources), BLOCK):
            block = range(start, min(start + BLOCK, len(sources)))
            found = reader.read(sources[start : block.stop], n_jobs)
            found = found._replace(field=found.field + start)
            blocks.append(found)
            for number in block if overlays is not None else ():
                if not found.reasons[number - start]:
                    picture = read_field(sources[number], reader.max_pixels)
                    cells = found.cells_of(number)
                    _draw(overlays[number], picture, cells, classes, min_probability)
            advance(len(block))
    found = Found(*map(np.concatenate, zip(*blocks, strict=True)))
    read = found.reasons == ""
    failures = [(names[number], str(found.reasons[number])) for number in np.flatnonzero(~read)]
    report_failures(failures, len(sources), on_error, 'Give on_error="warn" to leave them out.')
    if not len(found.labels):
        warn(f"No white cell was found in {read.sum()} fields.")
    status = found.status(min_probability)
    sides = ("min_row", "min_col", "max_row", "max_col")
    return Bunch(
        table=_table(found.labels, status, classes, confusion, random_state),
        cells={
            "field": np.array(names, dtype=object)[found.field],  # each name is in memory once
            **dict(zip(sides, found.boxes.T, strict=True)),
            "status": status,
            "label": np.array(classes)[found.labels],
            "probability": found.probability,
        },
        probabilities=found.probabilities,
        fields=[names[number] for number in np.flatnonzero(read)],
        skipped=left_out + failures,
    )


def _table(
    labels: np.ndarray,
    status: np.ndarray,
    classes: list[str],
    confusion: np.ndarray | None,
    random_state: int | np.random.RandomState | None,
) -> dict[str, np.ndarray]:
    """Return the columns of the table of classes, with a row for the uncertain cells."""
    called = np.bincount(labels[status == "called"], minlength=len(classes))
    n_called = int(called.sum())
    columns = {
        "percent": called / n_called if n_called else np.full(len(called), np.nan),
        **_limits("{}", wilson(called, n_called)),
        **_limits("{}_all", wilson(called, n_called, len(classes))),
    }
    if confusion is not None:
        counted = np.bincount(labels[status != "border"], minlength=len(classes))
        columns["corrected"], limits = correct(counted, confusion, random_state)
        columns |= _limits("corrected_{}", limits)
    return {
        "class": np.array([*classes, "uncertain"]),
        "cells": np.append(called, np.count_nonzero(status == "uncertain")),
        **{name: np.append(100 * column, np.nan) for name, column in columns.items()},
    }


def _limits(name: str, limits: np.ndarray) -> dict[str, np.ndarray]:
    return {
        name.format(side): column for side, column in zip(("low", "high"), limits.T, strict=True)
    }


def _confusion(evaluation: Any, classes: list[str]) -> np.ndarray:
    """Return the confusion matrix in the order of a model's classes.

    Raises
    ------
    TypeError
        If `evaluation` has none.
    ValueError
        If it is of other classes, or a class has no cell.
    """
    if not isinstance(evaluation, Mapping) or not {"classes", "confusion"} <= set(evaluation):
        raise TypeError(
            "evaluation must be what evaluate_predictions returned, with classes and confusion, "
            f"got {type(evaluation).__name__}."
        )
    names = [str(label) for label in evaluation["classes"]]
    matrix = np.asarray(evaluation["confusion"])
    if (
        matrix.shape != (len(names), len(names))
        or matrix.dtype.kind not in "iu"
        or matrix.min() < 0
    ):
        raise ValueError(
            "evaluation['confusion'] must hold counts of cells, one row and one column for each of "
            f"its {len(names)} classes, got shape {matrix.shape} and dtype {matrix.dtype}."
        )
    unknown = sorted(set(names) - set(classes))
    if unknown:
        raise ValueError(
            f"evaluation is of classes that the model does not know: {some(unknown, 5)}. The model "
            f"knows {some(classes, 20)}."
        )
    rows = {name: row for name, row in zip(names, matrix, strict=True) if row.any()}
    missing = [name for name in classes if name not in rows]
    if missing:
        raise ValueError(
            f"evaluation has no cell that truly is of class {some(missing, 5)}, so it does not "
            "show what the model takes such cells for. Evaluate on cells of every class."
        )
    column = {name: k for k, name in enumerate(names)}
    return np.array([rows[name][[column[other] for other in classes]] for name in classes])


def _draw(
    path: Path, picture: np.ndarray, cells: Found, classes: list[str], min_probability: float
) -> None:
    """Write the overlay of one field."""
    texts, colours = [], []
    status = cells.status(min_probability).tolist()
    for label, probability, what in zip(cells.labels, cells.probability, status, strict=True):
        text = f"{classes[label]} {probability:.2f}"
        texts.append(text if what == "called" else f"{what}: {text}")
        own = COLOURS[label % len(COLOURS)]
        colours.append({"called": own, "uncertain": UNCERTAIN, "border": BORDER}[what])
    draw_field(path, picture, cells.boxes, texts, colours)
