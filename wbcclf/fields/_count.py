"""count_cells: the white cells of fields, found, classified and counted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from wbcclf._files import replacing
from wbcclf._images import Interval
from wbcclf._store import Store
from wbcclf._threads import advancing
from wbcclf._uncertainty import unfamiliar
from wbcclf._warnings import warn
from wbcclf.datasets._decode import MAX_PIXELS
from wbcclf.datasets._reading import check_reading
from wbcclf.decoding._failures import report_failures
from wbcclf.exceptions import UnfamiliarImagesWarning
from wbcclf.fields._fields import (
    FieldReader,
    Found,
    list_fields,
    overlay_paths,
    read_field,
)
from wbcclf.fields._overlay import BORDER, COLOURS, UNCERTAIN, draw_field
from wbcclf.fields._table import find_white, make_table, read_confusion
from wbcclf.inspection._files import model_parts

BLOCK = 16  # fields that are classified together, and kept together
# Share of uncertain cells. If all are of one class, its per cent is wrong by up to 25 points, as by
# chance in a count of a dozen cells. A model leaves about a tenth on pictures like those that it
# was trained on (docs/counting.md).
MOST_UNCERTAIN = 0.25
SIDES = ("min_row", "min_col", "max_row", "max_col")  # of the box of a cell


def count_cells(
    model: Any,
    fields: Any,
    *,
    evaluation: Mapping | None = None,
    not_white: Iterable = (),
    min_probability: float = 0.5,
    overlay_dir: str | os.PathLike | None = None,
    max_pixels: int = MAX_PIXELS,
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
        What :func:`wbcclf.inspection.evaluate` returned for `model` on cells that it
        was not trained on. The table then also holds per cent corrected for the errors seen there.
    not_white : list of classes, default=()
        Classes of the model that are not white cells, such as ``["erythroblast"]``. They are no
        part of the 100 per cent. Their rows give them per 100 white cells, as laboratories do.
    min_probability : float, default=0.5
        In [0, 1]. A cell whose predicted class is less probable than this is uncertain.
    overlay_dir : path or None, default=None
        Folder for JPEG copies of the fields, with a box, label and probability at every cell. Made
        if it does not exist. It must not be where the fields are.
    max_pixels : int, default=89478485
        A file with more pixels is not decoded and counts as unreadable: a small file can become a
        picture of any size. A scan of 20,000 x 20,000 pixels needs 400 million, and some 2 GB.
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
            `corrected_high`. Classes of `not_white` come after the others, without `low_all` and
            `high_all`. The last row counts the uncertain cells, without per cent.
        cells : dict of ndarrays of shape (n_cells,)
            Columns `field`, `min_row`, `min_col`, `max_row`, `max_col` (in pixels, half-open),
            `status` ("called", "uncertain", or "border" for a cell that is not counted, since the
            lower or right border cuts it), `label`, `probability` (of that class), and
            `familiarity` (of a :class:`CNNClassifier`; NaN if it cannot tell).
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
        if `fields` holds anything but paths or pictures of uint8, or if `not_white` is no list.
    ValueError
        If a parameter is out of range, there is no field, the model was trained on grey images or
        has a class "uncertain", `evaluation` or `not_white` is of other classes than the model's,
        or `overlay_dir` is a file or where the fields are.
    FileNotFoundError
        If `fields` is a single path of neither a folder nor a file.
    ImageReadError
        If a file cannot be read and `on_error` is "raise", or if none can.
    sklearn.exceptions.NotFittedError
        If `model` is not fitted.

    Warns
    -----
    UserWarning
        If the model has no cropper, no field has a white cell, or more than a quarter of the cells
        are uncertain.
    UnfamiliarImagesWarning
        If the mean familiarity of 20 cells or more is below 0.1: they do not look like those that
        the model was trained on.

    See Also
    --------
    find_cells : Finds the cells of one field, with their outlines.

    Notes
    -----
    **Per cent** is of the called white cells. If one class is more often uncertain than others, its
    share comes out too small: read the row of the uncertain cells first. Nucleated red cells
    (erythroblasts) are among the white cells unless `not_white` names their class.

    **Intervals.** Chance decides which cells are counted. For differentials, Rümke's table gives
    the exact 95% limits; the reference method is in [1]_. `low` and `high` are Wilson's
    interval [2]_. It differs from the exact limits by at most 0.7 points for 100 cells and 0.1 for
    1,000. Such an interval misses the truth in one count of twenty, so with several classes, at
    least one is often missed. `low_all` and `high_all` are Goodman's [3]_: in about 95 of 100
    counts, they hold for all classes at once. They are Wilson's with Bonferroni's correction, so
    they suit rare classes, too. (Those of Sison and Glaz [4]_ are equally wide for all classes and
    meant for seven or more.) For a class that is not white, it is Wilson's interval of the share s
    in its own and the white cells, as the ratio s / (1 - s). All of them take the cells as drawn at
    random from the blood. The error from an uneven smear comes on top.

    **Borders.** A cell that the upper or left border cuts is counted. One that the lower or right
    border cuts is not. This is the rule for counting chambers. So a cell on a border that two
    fields share is counted once. If only whole cells were counted, classes of large cells would
    come out too small. (Gundersen's counting frame [5]_ is also exact for cells that touch a corner
    of the field, but needs a view of what lies around it.) Fields must not overlap.

    **Correction.** `corrected` holds the true per cent that are most likely, given how often the
    model takes each class for each other one. Where none is 0, it is the estimate of Rogan and
    Gladen [6]_, for many classes. It is of all cells that are counted, the uncertain ones by their
    most probable class, because `evaluation` counts them so, too. The true white cells are 100
    per cent, and the true cells of `not_white` are per 100 of them. Its interval comes from 2,000
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
        not_white=not_white,
        min_probability=min_probability,
        overlay_dir=overlay_dir,
        max_pixels=max_pixels,
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
    not_white: Iterable,
    min_probability: float,
    overlay_dir: str | os.PathLike | None,
    max_pixels: int,
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
    if not Interval(Real, 0, 1, closed="both").is_satisfied_by(min_probability):
        raise ValueError(f"min_probability must be from 0 to 1, got {min_probability!r}.")
    check_reading(on_error, None, None, n_jobs, max_pixels, memory=None, spill_dir=None)
    steps = model_parts(getattr(model, "best_estimator_", model))
    classes = [str(label) for label in steps[-1].classes_]
    is_white = find_white(classes, not_white)
    confusion = None if evaluation is None else read_confusion(evaluation, classes)
    sources, names, left_out = list_fields(fields)
    overlays = overlay_paths(overlay_dir, fields, names)
    store = None if parts is None else Store(parts, float("inf"))
    reader = FieldReader(*steps, max_pixels, store, identity)

    def overlay(number: int, cells: Found) -> None:
        if overlays is not None:
            picture = read_field(sources[number], max_pixels)
            _draw(overlays[number], picture, cells, classes, min_probability)

    found = _find(reader, sources, overlay, n_jobs, verbose)
    read = found.reasons == ""
    failures = [(names[number], str(found.reasons[number])) for number in np.flatnonzero(~read)]
    report_failures(failures, len(sources), on_error, 'Give on_error="warn" to leave them out.')
    if not len(found.labels):
        warn(f"No white cell was found in any of {read.sum()} field(s).")
    message = unfamiliar(found.familiarity, what="cells")
    if message:
        warn(message, UnfamiliarImagesWarning)
    status = found.status(min_probability)
    n_counted, n_uncertain = (status != "border").sum(), (status == "uncertain").sum()
    if n_uncertain > MOST_UNCERTAIN * n_counted:
        warn(
            f"{n_uncertain} of {n_counted} cells are uncertain, more than a quarter: the table is "
            "not a result. Look at them in overlays. Stain, microscope or camera may not be "
            "those that the model was trained on."
        )
    return Bunch(
        table=make_table(found.labels, status, classes, is_white, confusion, random_state),
        cells={
            "field": np.array(names, dtype=object)[found.field],  # each name is in memory once
            **dict(zip(SIDES, found.boxes.T, strict=True)),
            "status": status,
            "label": np.array(classes)[found.labels],
            "probability": found.probability,
            "familiarity": found.familiarity,
        },
        probabilities=found.probabilities,
        fields=[names[number] for number in np.flatnonzero(read)],
        skipped=left_out + failures,
    )


def _find(
    reader: FieldReader,
    sources: list[Any],
    overlay: Callable[[int, Found], object],
    n_jobs: int | None,
    verbose: int,
) -> Found:
    """Return what is in all fields; call `overlay` for each with its number and its cells."""
    blocks = []
    with advancing(len(sources), verbose, "Fields") as advance:
        for start in range(0, len(sources), BLOCK):
            found = reader.read(sources[start : start + BLOCK], n_jobs)
            found = found._replace(field=found.field + start)
            blocks.append(found)
            for number, reason in enumerate(found.reasons.tolist(), start):
                if not reason:
                    overlay(number, found.cells_of(number))
            advance(len(found.reasons))
    return Found(*map(np.concatenate, zip(*blocks, strict=True)))


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
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        drawn = draw_field(picture, cells.boxes, texts, colours)
        drawn.save(temporary, "JPEG", quality=90)
